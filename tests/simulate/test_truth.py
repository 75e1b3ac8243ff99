"""The truth of the simulator, and whether experiments find it: 2,000 experiments of 1,000 visitors each."""

from collections import defaultdict
from datetime import UTC, datetime
from time import process_time

import numpy as np
import pytest

from thinslice.experiments import assign
from thinslice.experiments.analyze import analyze
from thinslice.experiments.evidence import Units
from thinslice.models import Popular, SessionKNN, from_columns
from thinslice.records import Experiment, Metric, Variant
from thinslice.simulate import (
    Outcomes,
    Truth,
    by_session,
    crowd,
    history,
    home_goods,
    open_shop,
    same_for_all,
    truth,
    visits,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ITEMS = home_goods("shop")
SHOP = open_shop(ITEMS)
SHOPPERS = 200_000
RUNS = 2_000
VISITORS = 1_000
K = 6

METRICS = [
    Metric(name="revenue_per_visitor", numerator="revenue_minor", role="goal"),
    Metric(name="conversion_rate", numerator="orders"),
    Metric(name="click_through_rate", numerator="clicks", denominator="exposures"),
]


def frozen_policies():
    """Control shows everybody what is popular; treatment is the session model, viewed items left out."""
    views = [event for event in history(ITEMS, 6000, 0, NOW) if event.name == "view_item"]
    columns = zip(*((view.session_id, view.item_id, view.occurred_at.timestamp()) for view in views), strict=True)
    clicks = from_columns(*columns)
    popular = Popular.fit(clicks, ITEMS, rng=0).recommend([], K).item_ids
    knn = SessionKNN.fit(clicks, ITEMS, rng=0, sample=500, neighbors=100)
    to_shop = np.array([SHOP.codes[item_id] for item_id in knn.item_ids])
    to_model = np.full(len(ITEMS), -1, dtype=np.int32)
    to_model[to_shop] = np.arange(len(to_shop))

    def recommend(session):
        found, _ = knn.recommend_codes(to_model[list(session)], K + len(session))
        return [code for code in to_shop[found].tolist() if code not in session][:K]

    return same_for_all([SHOP.codes[item_id] for item_id in popular]), by_session(recommend, K)


def test_the_same_policy_twice_is_the_same_truth_twice():
    slate = same_for_all(range(0, 60, 10))
    both = truth(SHOP, crowd(np.arange(3000), 0), slate, slate)
    assert all(np.array_equal(one, other) for one, other in zip(*both, strict=True))
    assert both.effect("revenue_minor") == both.ratio_effect("clicks", "exposures") == 0


def test_chunks_of_a_crowd_are_the_crowd():
    slate = same_for_all([3, 1, 4, 1, 5, 9])
    shoppers = crowd(np.arange(9000), 0)
    whole = visits(SHOP, shoppers, slate)
    parts = [visits(SHOP, shoppers.rows(start, start + 3000), slate) for start in (0, 3000, 6000)]
    for name in Outcomes._fields:
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in parts]))


def test_nobody_clicks_where_there_is_no_slate_and_an_empty_crowd_does_nothing():
    none = visits(SHOP, crowd(np.arange(500), 0), same_for_all([-1, -1]))
    assert none.exposures.sum() == none.clicks.sum() == 0
    assert none.views.min() >= 1
    assert all(len(column) == 0 for column in visits(SHOP, crowd(np.arange(0), 0), same_for_all([1])))


def test_the_same_luck_makes_the_difference_of_two_policies_far_less_noisy():
    one, other = same_for_all(range(0, 60, 10)), same_for_all(range(5, 65, 10))
    both = truth(SHOP, crowd(np.arange(4000), 0), one, other)
    paired = np.var(both.treatment.revenue_minor - both.control.revenue_minor)
    assert paired < 0.5 * (np.var(both.treatment.revenue_minor) + np.var(both.control.revenue_minor))


def experiment_of(run):
    variants = [
        Variant(name="popular", policy="popular", weight=0.5),
        Variant(name="personal", policy="session-knn", weight=0.5),
    ]
    return Experiment(name=f"run-{run}", tenant="shop", variants=variants, metrics=METRICS)


def columns_of(sides: Truth, chosen, treated):
    """What the chosen visitors did under the variant that each of them was assigned."""
    return {
        name: np.where(treated, getattr(sides.treatment, name)[chosen], getattr(sides.control, name)[chosen])
        for name in Outcomes._fields
    }


@pytest.mark.slow
def test_two_thousand_experiments_cover_the_truth_and_reject_equals_as_often_as_they_say():
    # The policies are frozen, so what a shopper does hangs on the own variant alone: one visit under each is enough.
    started = process_time()
    sides = truth(SHOP, crowd(np.arange(SHOPPERS), 0), *frozen_policies())
    known, base = {}, {}
    for metric in METRICS:
        if metric.denominator is None:
            known[metric.name] = sides.effect(metric.numerator)
            base[metric.name] = float(np.mean(getattr(sides.control, metric.numerator)))
        else:
            known[metric.name] = sides.ratio_effect(metric.numerator, metric.denominator)
            base[metric.name] = float(
                np.sum(getattr(sides.control, metric.numerator)) / np.sum(getattr(sides.control, metric.denominator))
            )
    equal = Truth(sides.control, sides.control)
    visitors = [f"shopper-{number}" for number in range(SHOPPERS)]
    luck = np.random.default_rng(0)
    hits = defaultdict(int)
    for run in range(RUNS):
        experiment = experiment_of(run)
        chosen = luck.choice(SHOPPERS, VISITORS, replace=False)
        variant = np.array([assign(experiment, visitors[number]).variant for number in chosen.tolist()])
        treated = variant == "personal"
        report = analyze(Units(variant, columns_of(sides, chosen, treated)), experiment, NOW)
        same = analyze(Units(variant, columns_of(equal, chosen, treated)), experiment, NOW)
        for found, aa in zip(report.metrics, same.metrics, strict=True):
            low, high = found.effect_size_ci
            hits[found.name, "covers"] += low <= known[found.name] <= high
            low, high = found.rel_effect_size_ci
            hits[found.name, "covers, relative"] += low <= known[found.name] / base[found.name] <= high
            hits[aa.name, "A/A rejects"] += aa.pvalue < 0.05
        hits["sample ratio", "alarms"] += not report.checks[0].passed
    shares = {key: count / RUNS for key, count in sorted(hits.items())}
    for (name, what), share in shares.items():
        print(f"{name:22} {what:18} {share:.4f}")
    print(
        {name: (round(known[name], 5), f"{known[name] / base[name]:+.2%}") for name in known}, process_time() - started
    )
    for metric in METRICS:
        assert 0.937 <= shares[metric.name, "covers"] <= 0.963, shares
        assert 0.937 <= shares[metric.name, "covers, relative"] <= 0.963, shares
        assert 0.037 <= shares[metric.name, "A/A rejects"] <= 0.063, shares
    assert shares["sample ratio", "alarms"] <= 0.004, shares
    assert min(known.values()) > 0
