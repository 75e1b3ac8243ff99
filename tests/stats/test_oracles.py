"""Numbers of statsmodels and of GrowthBook's gbstats beside ours: `tests/oracles` holds their scripts and tables.

tea-tasting is installed with the tests and asked live (test_effects.py, test_power.py, test_analyze_designs.py).
"""

import json
from pathlib import Path

import numpy as np
import pytest

from thinslice.experiments import bucket
from thinslice.stats import (
    Quotient,
    Sample,
    always_valid_ci,
    always_valid_pvalue,
    benjamini_hochberg,
    cluster_effect,
    cluster_totals,
    dersimonian_laird,
    effect,
    heterogeneity,
    holm,
    merge,
    moments,
    moments_from_sums,
    paule_mandel,
    power,
    quantile_sample,
    sample,
    sample_ratio,
)

ORACLES = Path(__file__).parents[1] / "oracles"
GROWTHBOOK, STATSMODELS = (json.loads((ORACLES / f"{name}.json").read_text()) for name in ("growthbook", "statsmodels"))
KINDS = {"mean": (Quotient("y"), None), "ratio": (Quotient("y", "x"), None), "cuped": (Quotient("y"), Quotient("x"))}


def close(value):
    return pytest.approx(value, rel=1e-6)


def samples(kind):
    arms = [moments_from_sums(arm["names"], arm["n"], arm["sums"], arm["products"]) for arm in GROWTHBOOK["arms"]]
    metric, covariate = KINDS[kind]
    return [sample(arm, metric, covariate=covariate, pooled=merge(arms)) for arm in arms]


def rows(n, height, turn, before):
    at = np.arange(n)
    y = np.abs(np.sin(at * turn)) * height
    return {"y": y, "x": np.abs(np.cos(at * before)) + 0.1 * y}


@pytest.mark.parametrize("kind", KINDS)
def test_effects_intervals_and_p_values_are_those_of_gbstats(kind):
    theirs = GROWTHBOOK["effects"][kind]
    for name, alpha in (("two_sided", 0.05), ("alpha_001", 0.01)):
        got = effect(*samples(kind), alpha=alpha)
        assert got.effect_size == close(theirs[name]["effect"])
        assert got.effect_size_ci == close(tuple(theirs[name]["ci"]))
        assert got.pvalue == close(theirs[name]["pvalue"])
    one_sided = effect(*samples(kind), alpha=0.1)
    assert one_sided.effect_size_ci[0] == close(theirs["greater"]["ci"][0])
    assert one_sided.pvalue / 2 == close(theirs["greater"]["pvalue"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tuned_for", [5_000, 900])
def test_sequences_are_those_of_gbstats(kind, tuned_for):
    theirs = GROWTHBOOK["effects"][kind][f"sequential_{tuned_for}"]
    arms = samples(kind)
    got, n = effect(*arms), sum(arm.n for arm in arms)
    assert always_valid_ci(got.effect_size, got.se, n, tuned_for=tuned_for) == close(tuple(theirs["ci"]))
    assert always_valid_pvalue(got.effect_size, got.se, n, tuned_for=tuned_for) == close(theirs["pvalue"])


def test_percents_of_gbstats_have_a_symmetric_interval_and_a_p_value_of_their_own():
    """The delta method on the ratio itself; ours is on its logarithm and needs no second p-value."""
    theirs = GROWTHBOOK["effects"]["mean"]["relative"]
    control, treatment = samples("mean")
    got = effect(control, treatment)
    assert got.rel_effect_size == close(theirs["effect"])
    low, high = theirs["ci"]
    assert high - theirs["effect"] == close(theirs["effect"] - low)
    assert got.rel_effect_size_ci == pytest.approx((low, high), abs=0.003)
    assert got.rel_effect_size_ci[1] - got.rel_effect_size > got.rel_effect_size - got.rel_effect_size_ci[0]
    assert theirs["pvalue"] > 1.2 * got.pvalue


def test_shares_of_gbstats_divide_by_n_and_ours_by_n_less_one():
    theirs = GROWTHBOOK["effects"]["proportion"]["two_sided"]
    arms = [moments_from_sums(arm["names"], arm["n"], arm["sums"], arm["products"]) for arm in GROWTHBOOK["arms"]]
    plain = [sample(arm, Quotient("big")) for arm in arms]
    got = effect(*(Sample(of.n, of.mean, of.var * (of.n - 1) / of.n) for of in plain))
    assert got.effect_size_ci == close(tuple(theirs["ci"]))
    assert got.pvalue == close(theirs["pvalue"])
    assert effect(*plain).pvalue == pytest.approx(theirs["pvalue"], rel=5e-3)


def test_quantiles_of_gbstats_vary_by_n_less_one_parts_of_ours():
    for arm, theirs in zip(GROWTHBOOK["rows"], GROWTHBOOK["quantiles"], strict=True):
        got = quantile_sample(rows(*arm)["y"], theirs["share"])
        assert got.mean == close(theirs["at"])
        assert got.var * (got.n - 1) / got.n == close(theirs["variance"])


def test_the_split_is_tested_as_by_gbstats_but_for_variants_without_a_share():
    for theirs in GROWTHBOOK["sample_ratio"]:
        got = sample_ratio(theirs["units"], theirs["shares"])
        if min(theirs["shares"]) > 0:
            assert got.pvalue == close(theirs["pvalue"])
        else:
            assert got.pvalue == pytest.approx(0.205903, abs=1e-6)
            assert theirs["pvalue"] == pytest.approx(0.449329, abs=1e-6)


def test_buckets_are_those_of_growthbooks_sdk():
    assert len(GROWTHBOOK["hash"]) == 30
    for seed, value, at in GROWTHBOOK["hash"]:
        assert bucket(seed, value) == at


def test_welch_and_the_ratio_are_those_of_statsmodels():
    arms = [moments(rows(*arm)) for arm in STATSMODELS["rows"]]
    for theirs in STATSMODELS["welch"]:
        got = effect(*(sample(arm, Quotient("y")) for arm in arms), alpha=theirs["alpha"])
        assert got.effect_size_ci == close(tuple(theirs["ci"]))
        assert (got.pvalue, got.df) == close((theirs["pvalue"], theirs["df"]))
    for arm, theirs in zip(arms, STATSMODELS["ratio"], strict=True):
        got = sample(arm, Quotient("y", "x"))
        assert got.mean == close(theirs["mean"])
        assert (got.var / got.n) ** 0.5 == close(theirs["se"])


def test_clusters_are_those_of_statsmodels_with_the_variances_of_samples():
    """statsmodels without correction divides by the clusters, we by the clusters less one on each side."""
    theirs = STATSMODELS["clusters"]
    at = np.arange(theirs["clusters"] * theirs["size"])
    cluster = at // theirs["size"]
    treated = cluster % 2 == 1
    y = np.sin(cluster * 1.7) + np.cos(at * 0.9) + 0.3 * treated
    got = cluster_effect(
        *(moments(cluster_totals({"y": y[side]}, cluster[side])) for side in (~treated, treated)), Quotient("y")
    )
    half = theirs["clusters"] / 2
    assert got.effect_size == close(theirs["effect"])
    assert got.se == close(theirs["se"] * (half / (half - 1)) ** 0.5)


def test_corrections_heterogeneity_and_power_are_those_of_statsmodels():
    assert holm(STATSMODELS["pvalues"]) == close(STATSMODELS["corrected"]["holm"])
    assert benjamini_hochberg(STATSMODELS["pvalues"]) == close(STATSMODELS["corrected"]["fdr_bh"])
    effects = STATSMODELS["effects"]
    got = heterogeneity(*effects)
    assert (got.statistic, got.i_squared) == close((STATSMODELS["q"], STATSMODELS["i_squared"]))
    assert dersimonian_laird(*effects) ** 2 == close(STATSMODELS["tau_squared"]["chi2"])
    assert paule_mandel(*effects) ** 2 == pytest.approx(STATSMODELS["tau_squared"]["iterated"], rel=1e-4)
    for size, n, share, chance in STATSMODELS["power"]:
        assert power(Sample(9, 0.0, 1.0), size, n, round(n * share)) == close(chance)
