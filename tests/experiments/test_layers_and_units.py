"""Who is drawn how: layers, periods, clusters, kept variants."""

import time
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.experiments import assign, bucket, unit_id_of, with_allocation, with_start
from thinslice.experiments.assign import layer_seed, period_of, seed_of, unit_key
from thinslice.experiments.unit_map import UnitMap
from thinslice.records import Experiment, Variant

NOW = datetime(2026, 3, 2, tzinfo=UTC)
DAY = 86_400.0
AT = NOW.timestamp()


def experiment(name="ranker", **fields):
    variants = [Variant(name=each, policy="popular", weight=0.5) for each in ("old", "new")]
    return Experiment(name=name, tenant="shop", variants=variants, **fields)


def test_a_unit_is_in_one_experiment_of_a_layer_at_most_and_every_unit_in_one_when_the_ranges_fill_it():
    ranges = [(0.0, 0.3), (0.3, 0.6), (0.6, 1.0)]
    shared = [experiment(f"e{n}", layer="home", layer_range=each) for n, each in enumerate(ranges)]
    placed = np.array([[assign(each, f"u{n}").variant is not None for each in shared] for n in range(20_000)])
    assert (placed.sum(axis=1) == 1).all()
    assert np.allclose(placed.mean(axis=0), [0.3, 0.3, 0.4], atol=0.012)


def test_within_a_layer_the_variants_are_balanced_and_two_layers_are_independent():
    one, other = experiment("a", layer="home", layer_range=(0.0, 0.5)), experiment("b", layer="item")
    units = [f"u{n}" for n in range(20_000)]
    first = [assign(one, unit).variant for unit in units]
    second = [assign(other, unit).variant for unit in units]
    inside = [n for n, variant in enumerate(first) if variant]
    assert abs(np.mean([first[n] == "new" for n in inside]) - 0.5) < 0.02
    both = np.array([[first[n] == "new", second[n] == "new"] for n in inside], dtype=float)
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.04


@given(st.text(), st.text(), st.text())
def test_no_layer_hashes_like_an_experiment(tenant, layer, name):
    assert layer_seed(tenant, layer) != seed_of(tenant, name.strip(":"))


@given(st.text(min_size=1), st.integers(-3, 400))
def test_a_unit_keeps_its_variant_within_a_period_and_is_drawn_anew_in_the_next(unit, day):
    of = experiment(started_at=NOW, rerandomize_days=7.0)
    at = AT + day * DAY
    assert period_of(of, at) == day // 7
    assert assign(of, unit, at).variant == assign(of, unit, AT + (day // 7 * 7 + 6.9) * DAY).variant


def test_periods_are_drawn_independently_of_each_other():
    of = experiment(started_at=NOW, rerandomize_days=1.0)
    drawn = np.array([[assign(of, f"u{n}", AT + day * DAY).variant == "new" for day in range(4)] for n in range(5_000)])
    correlations = np.corrcoef(drawn.astype(float).T)
    assert np.abs(correlations - np.eye(4)).max() < 0.06


def test_the_unit_is_named_by_what_the_request_carries():
    city = experiment(unit="cluster", cluster="city")
    assert unit_id_of(city, context={"city": "Graz"}) == "Graz"
    assert unit_id_of(city, context={"city": 8010}) == "8010"
    assert [unit_id_of(city, context=each) for each in ({}, {"city": ""}, {"city": ["Graz"]}, None)] == [None] * 4
    assert len(unit_id_of(city, context={"city": "x" * 1_000})) == 256
    graph = experiment(unit="cluster", cluster="item-graph")
    known = {"mug": "community-3"}.get
    assert unit_id_of(graph, item_id="mug", communities=known) == "community-3"
    assert unit_id_of(graph, item_id="plate", communities=known) == "plate"
    assert unit_id_of(graph, item_id="plate") == "plate"
    assert unit_id_of(graph, user_id="u") is None
    people = experiment(unit="cluster", cluster="people-graph")
    assert unit_id_of(people, user_id="u", item_id="mug", communities=known) == "u"


def test_units_that_a_change_of_weights_would_move_stay_and_say_under_which_probabilities_they_were_drawn():
    before = with_start(experiment(), NOW)
    after = with_allocation(before, NOW, weights={"old": 0.1, "new": 0.9})
    units = [f"u{n}" for n in range(2_000)]
    first = {unit: assign(before, unit).variant for unit in units}
    moved = [unit for unit in units if assign(after, unit).variant != first[unit]]
    assert abs(len(moved) / len(units) - 0.4) < 0.05
    kept = UnitMap({unit_key(after, unit, AT): f"1:{first[unit]}" for unit in moved}).get
    for unit in units:
        got = assign(after, unit, AT, kept)
        assert got.variant == first[unit]
        assert got.allocation_version == (1 if unit in moved else 2)
        assert got.propensities == ({"old": 0.5, "new": 0.5} if unit in moved else {"old": 0.1, "new": 0.9})
    assert assign(after, "somebody-new", AT, kept).allocation_version == 2


def test_a_kept_variant_holds_only_within_its_period():
    of = with_start(experiment(rerandomize_days=1.0), NOW)
    kept = UnitMap({unit_key(of, f"u{n}", AT): "1:old" for n in range(100)}).get
    assert {assign(of, f"u{n}", AT, kept).variant for n in range(100)} == {"old"}
    assert {assign(of, f"u{n}", AT + DAY, kept).variant for n in range(100)} == {"old", "new"}


LABEL = st.text(st.characters(exclude_characters="\0"), max_size=3)


@given(st.dictionaries(st.text(), LABEL, max_size=30), st.text())
def test_a_unit_map_gives_back_what_was_put_in_and_nothing_else(labels, other):
    stored = UnitMap.from_arrays(UnitMap(labels).arrays())
    assert {unit: stored.get(unit) for unit in labels} == labels
    assert len(stored) == len(labels)
    assert other in labels or stored.get(other) is None


@pytest.mark.parametrize(
    "change",
    [
        {"codes": np.array([7], np.int32)},
        {"keys": np.array([1, 2], np.uint64)},
        {"keys": np.array([1.0])},
        {"names": None},
    ],
    ids=["code", "length", "type", "missing"],
)
def test_arrays_that_do_not_belong_together_are_refused(change):
    from thinslice.errors import Corrupt

    arrays = UnitMap({"a": "x"}).arrays() | change
    with pytest.raises(Corrupt):
        UnitMap.from_arrays({name: array for name, array in arrays.items() if array is not None})


def test_an_assignment_takes_far_less_than_a_fifth_of_a_millisecond():
    of = with_start(experiment(layer="home", rerandomize_days=7.0), NOW)
    kept = UnitMap({f"other-{n}": "1:old" for n in range(100_000)}).get
    took = []
    for n in range(3_000):
        unit = f"visitor-{n:032x}"
        began = time.perf_counter()
        assign(of, unit, AT, kept)
        took.append(time.perf_counter() - began)
    assert np.quantile(took, 0.9) < 200e-6


def test_a_larger_coverage_and_new_testers_move_nobody():
    of = experiment(coverage=0.3)
    larger = msgspec.structs.replace(of, coverage=0.9)
    for n in range(2_000):
        assert assign(of, f"u{n}").variant in (None, assign(larger, f"u{n}").variant)
    assert assign(of, "u1").bucket == bucket("shop:ranker", "u1")
