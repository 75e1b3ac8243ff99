import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats import (
    Quotient,
    cluster_effect,
    cluster_totals,
    clustering,
    design_effect,
    effect,
    moments,
    sample,
)


def classes(rng, clusters, size, icc, runs=1):
    """Units of clusters that share a part of their outcome; shape (runs, clusters, size)."""
    shared = rng.normal(size=(runs, clusters, 1)) * icc**0.5
    return 10 + shared + rng.normal(size=(runs, clusters, size)) * (1 - icc) ** 0.5


def totals(values, sizes):
    return moments({"y": values, "cluster_units": sizes})


def test_totals_are_sums_by_cluster_in_sorted_order():
    got = cluster_totals({"y": [1, 2, 3, 4]}, ["b", "a", "b", "a"])
    assert got["y"].tolist() == [6, 4]
    assert got["cluster_units"].tolist() == [2, 2]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-100, 100)), min_size=1, max_size=50))
def test_no_unit_gets_lost_in_totals(rows):
    got = cluster_totals({"y": [value for _, value in rows]}, [name for name, _ in rows])
    assert got["cluster_units"].sum() == len(rows)
    assert got["y"].sum() == pytest.approx(sum(value for _, value in rows), abs=1e-9)


def test_clusters_of_one_are_units():
    rng = np.random.default_rng(0)
    sides = [rng.normal(size=200), rng.normal(size=200)]
    alone = effect(*(sample(moments({"y": side}), Quotient("y")) for side in sides))
    got = cluster_effect(*(totals(side, np.ones(200)) for side in sides), Quotient("y"))
    assert got.effect_size == pytest.approx(alone.effect_size)
    assert got.se == pytest.approx(alone.se)
    assert got.df == 398


def test_the_intraclass_correlation_is_that_of_the_analysis_of_variance():
    """Clusters (1, 3) and (5, 7): between 32 / 2 = 16, within 2, so icc = (16 - 2) / (16 + 2)."""
    got = clustering([1, 3, 5, 7], ["a", "a", "b", "b"])
    assert got.icc == pytest.approx(14 / 18)
    assert got.design_effect == pytest.approx(1 + 14 / 18)
    assert clustering([1, 1, 1, 1], [0, 0, 1, 1]).icc == 0


def test_a_known_correlation_is_found():
    values = classes(np.random.default_rng(0), 2_000, 20, 0.1)[0]
    got = clustering(values.ravel(), np.repeat(np.arange(2_000), 20))
    assert got.icc == pytest.approx(0.1, abs=0.01)
    assert got.design_effect == pytest.approx(1 + 19 * 0.1, abs=0.2)


@given(st.floats(0, 1), st.lists(st.integers(1, 500), min_size=1, max_size=20))
def test_unequal_clusters_cost_more(icc, sizes):
    assert design_effect(icc, sizes) >= design_effect(icc, [sum(sizes) / len(sizes)] * len(sizes)) - 1e-9
    assert design_effect(0.0, sizes) == 1


def rejections(runs, clusters=40, icc=0.05):
    """Share of A/A tests that find something: rows as units, and clusters as units; clusters differ in size."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 181, (runs, clusters))
    found = np.zeros(2)
    for run in range(runs):
        shared = rng.normal(size=clusters) * icc**0.5
        sums = sizes[run] * (10 + shared) + rng.normal(size=clusters) * (sizes[run] * (1 - icc)) ** 0.5
        half = [slice(0, clusters // 2), slice(clusters // 2, None)]
        sides = [totals(sums[part], sizes[run][part]) for part in half]
        found[1] += cluster_effect(*sides, Quotient("y")).pvalue < 0.05
        units = [(sizes[run][part].sum(), sums[part].sum()) for part in half]
        gap = units[1][1] / units[1][0] - units[0][1] / units[0][0]
        found[0] += abs(gap) > 1.96 * (1 / units[0][0] + 1 / units[1][0]) ** 0.5
    return found / runs


def test_rows_as_units_lie_and_clusters_do_not():
    rows, clusters = rejections(300)
    assert rows > 0.3
    assert 0.02 <= clusters <= 0.09


@pytest.mark.slow
def test_over_2000_runs_clusters_are_wrong_in_5_percent():
    assert 0.037 <= rejections(2_000)[1] <= 0.063


@pytest.mark.slow
@pytest.mark.parametrize("lift", [1.05, 1.2])
def test_intervals_of_clusters_cover_in_95_percent(lift):
    rng = np.random.default_rng(0)
    covered, runs = np.zeros(2), 2_000
    for _ in range(runs):
        sides = []
        for factor in (1.0, lift):
            sizes = rng.integers(20, 181, 20)
            sums = sizes * (10 + rng.normal(size=20) * 0.5) + rng.normal(size=20) * sizes**0.5
            sides.append(totals(factor * sums, sizes))
        got = cluster_effect(*sides, Quotient("y"))
        covered += [
            got.effect_size_ci[0] <= 10 * (lift - 1) <= got.effect_size_ci[1],
            got.rel_effect_size_ci[0] <= lift - 1 <= got.rel_effect_size_ci[1],
        ]
    assert all(0.937 <= share <= 0.963 for share in covered / runs), covered / runs


def test_one_cluster_is_not_enough():
    one, two = totals([3.0], [3]), totals([3.0, 4.0], [3, 4])
    with pytest.raises(TooFewUnits, match="needs at least 2 clusters, got 1"):
        cluster_effect(one, two, Quotient("y"))
    with pytest.raises(TooFewUnits, match="needs at least 2 clusters, got 1"):
        clustering([1, 2], ["a", "a"])
    with pytest.raises(StatisticsError, match="2 clusters of 1"):
        clustering([1, 2], ["a", "b"])
    with pytest.raises(StatisticsError, match="3 rows, but 2 clusters"):
        cluster_totals({"y": [1, 2, 3]}, ["a", "b"])
    with pytest.raises(StatisticsError, match="3 values, but 2 clusters"):
        clustering([1, 2, 3], ["a", "b"])
