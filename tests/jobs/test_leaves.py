"""Results steer each leaf apart: from the file to logged probabilities, new weights, and an effect that stays right."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

from thinslice.cli.init import make_tenant
from thinslice.errors import BadSettings
from thinslice.experiments import assign, check_experiment, parse_experiment, with_allocation, with_start
from thinslice.experiments.analyze import analyze
from thinslice.experiments.assign import leaf_of, leaves_in_force
from thinslice.experiments.definition import dump_experiment
from thinslice.experiments.evidence import Units
from thinslice.experiments.steering import thompson_weights
from thinslice.experiments.unit_map import UnitMap
from thinslice.jobs import conduct
from thinslice.jobs.measure import measure, read_experiment
from thinslice.jobs.tend import leaf_weights, tend
from thinslice.records import Event, Exposure, MetricResult
from thinslice.serving.experiments import LEAF, exposure_of
from thinslice.serving.unit_maps import KEPT, read_unit_map, unit_map_file
from thinslice.settings import Workspace
from thinslice.store.lake import Lake

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TEXT = (
    'name = "ranker"\ndays = 14\ntraining = "shared"\nallocation = "thompson"\nleaves = ["device"]\n'
    'metrics = [{name = "views_per_visitor"}]\n'
    'variants = [{name = "old", policy = "popular"}, {name = "new", policy = "session-knn"}]\n'
)


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path)
    make_tenant(made, "shop")
    return made


def live(workspace, experiment, numbers, at, kept=None):
    """Visitors on phones (even) and desktops (odd): the new policy helps on phones and harms on desktops."""
    rng = np.random.default_rng(numbers[0])
    exposures, events = [], []
    for n in numbers:
        leaf = f"device={'desktop' if n % 2 else 'phone'}"
        one = exposure_of(experiment, f"v{n}", at.timestamp(), kept, leaf)
        exposures.append(
            Exposure(recommendation_id=f"r{n}-{at.timestamp():.0f}", tenant="shop", occurred_at=at, placement="home",
                     policy="p", model_version="m", visitor_id=f"v{n}", experiments=[one],
                     segments={LEAF: one.context_leaf})
        )  # fmt: skip
        better = (one.variant == "new") == (n % 2 == 0)
        events += [
            Event(event_id=f"e{n}-{k}-{at.timestamp():.0f}", tenant="shop", name="view_item", visitor_id=f"v{n}",
                  item_id="a", occurred_at=at + timedelta(seconds=k + 1), received_at=at)
            for k in range(rng.poisson(3.0 if better else 1.5))
        ]  # fmt: skip
    lake = Lake(workspace.lake)
    lake.append("exposures", exposures)
    lake.append("events", events)
    return exposures


def test_each_leaf_has_weights_of_its_own_and_what_is_logged_are_those(workspace):
    before = conduct.start_experiment(workspace, "shop", TEXT, "a.toml", NOW)
    first = live(workspace, before, range(1_200), NOW + timedelta(minutes=5))
    assert {row.experiments[0].context_leaf for row in first} == {"device=phone", "device=desktop"}
    later = NOW + timedelta(hours=2)
    done = tend(workspace, later)
    assert "2 leaves apart" in done["shop/ranker"]
    after = read_experiment(workspace, "shop", "ranker")
    leaves = leaves_in_force(after)
    assert leaves["device=phone"]["new"] > 0.85
    assert leaves["device=desktop"]["new"] < 0.15
    assert after.allocation_version == 2
    kept = read_unit_map(unit_map_file(workspace.experiments / "shop", "ranker", KEPT))
    again = live(workspace, after, range(1_200), later, kept.get)
    assert [row.experiments[0].variant for row in again] == [row.experiments[0].variant for row in first]
    assert {row.experiments[0].propensities["new"] for row in again} <= {0.5, *(of["new"] for of in leaves.values())}
    fresh = live(workspace, after, range(2_000, 3_200), later, kept.get)
    for row in fresh:
        assert row.experiments[0].propensities == leaves[row.experiments[0].context_leaf]
    report = measure(workspace, "shop", "ranker", later + timedelta(hours=1))
    assert report.method == "AIPW by logged probabilities"
    (goal,) = report.metrics
    assert goal.effect_size_ci[0] < 0.0 < goal.effect_size_ci[1]  # as much is won on phones as is lost on desktops
    assert next(check for check in report.checks if check.name == "sample_ratio").passed
    assert next(check for check in report.checks if check.name == "mixed_assignment").passed


def test_a_kept_unit_is_logged_with_the_probabilities_of_its_leaf_when_it_was_drawn():
    started = with_start(parse_experiment(TEXT, "shop"), NOW)
    second = with_allocation(started, NOW, leaves={"device=phone": {"old": 0.2, "new": 0.8}})
    third = with_allocation(second, NOW, leaves={"device=phone": {"old": 0.9, "new": 0.1}})
    units = [f"v{n}" for n in range(300)]
    drawn = {unit: assign(second, unit, leaf="device=phone") for unit in units}
    kept = UnitMap({unit: f"2:{each.variant}:device=phone" for unit, each in drawn.items()})
    for unit in units:
        assert assign(third, unit, 0.0, kept.get, "device=phone") == drawn[unit]
    assert {assign(third, unit, leaf="device=tablet").propensities["new"] for unit in units} == {0.5}
    assert parse_experiment(dump_experiment(third), "shop") == third


def test_a_leaf_is_what_is_known_of_a_unit_in_the_declared_order():
    two = parse_experiment(TEXT.replace('["device"]', '["country", "device"]'), "shop")
    assert leaf_of(two, {"device": "phone"}) == "country=unknown,device=phone"
    assert leaf_of(with_start(parse_experiment(TEXT.replace('leaves = ["device"]\n', ""), "shop"), NOW), {}) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"allocation": "fixed"}, "are steered by results, but allocation is 'fixed'"),
        ({"leaves": ["returning"]}, "changes from visit to visit"),
        ({"leaves": ["views"]}, "not known of a unit before"),
        ({"unit": "user"}, "a user has several devices"),
        ({"leaves": ["device", "device"]}, "occurs twice"),
        ({"rerandomize_days": 7.0}, "cannot go together"),
        ({"unit": "cluster", "cluster": "city"}, "holds units of many"),
    ],
    ids=["fixed", "visit", "after", "user", "twice", "period", "cluster"],
)
def test_leaves_that_cannot_be_are_refused(change, words):
    with pytest.raises(BadSettings, match=words):
        check_experiment(msgspec.structs.replace(parse_experiment(TEXT, "shop"), **change))


def test_a_leaf_with_few_units_follows_all_units():
    experiment = parse_experiment(TEXT, "shop")
    row = MetricResult(
        name="g", role="goal", variant="new", n_control=500, n_treatment=500, mean_control=1.0, mean_treatment=2.0,
        effect_size=1.0, effect_size_ci=(0.9, 1.1), rel_effect_size=None, rel_effect_size_ci=None, pvalue=0.0,
    )  # fmt: skip
    large = {"segment": LEAF, "value": "device=phone", **msgspec.to_builtins(row)}
    small = large | {"value": "device=tablet", "n_control": 50}
    other = large | {"segment": "country", "value": "AT"}
    found = leaf_weights(experiment, [large, small, other, large | {"value": "unknown"}], rng=np.random.default_rng(0))
    assert list(found) == ["device=phone"]
    assert found["device=phone"]["new"] == pytest.approx(0.9)


def rounds(rng, effects):
    """Ten days of a contextual bandit on two leaves with levels of their own; results steer each leaf each day."""
    experiment = with_start(parse_experiment(TEXT, "shop"), NOW)
    weights = dict.fromkeys(effects, 0.5)
    found = {name: [] for name in ("variant", "leaf", "y", "p", "day")}
    for day in range(10):
        for leaf, (level, effect) in effects.items():
            size = 150 if leaf == "phone" else 40 + 20 * day  # the mix shifts, as it does between weekdays
            new = rng.random(size) < weights[leaf]
            found["y"].append(rng.poisson(level + effect * new))
            found["variant"].append(np.where(new, "new", "old"))
            found["leaf"].append(np.full(size, leaf))
            found["p"].append(np.full(size, weights[leaf]))
            found["day"].append(np.full(size, day))
        for leaf in effects:
            mine = np.concatenate(found["leaf"]) == leaf
            units = _units(found, mine)
            report = analyze(units, experiment, NOW)
            drawn = thompson_weights(experiment, report.metrics, rng=rng)
            if drawn is not None:
                weights[leaf] = drawn["new"]
    return analyze(_units(found), experiment, NOW), {name: np.concatenate(each) for name, each in found.items()}


def _units(found, mask=None):
    columns = {name: np.concatenate(each) for name, each in found.items()}
    if mask is not None:
        columns = {name: each[mask] for name, each in columns.items()}
    p = columns["p"]
    return Units(
        variant=columns["variant"], columns={"views": columns["y"].astype(float)},
        propensities=np.column_stack([1 - p, p]), batch=columns["day"],
    )  # fmt: skip


@pytest.mark.slow
def test_the_effect_under_a_contextual_bandit_is_unbiased_where_the_naive_one_is_not():
    truth, estimates, naive, covered = 0.0, [], [], 0
    effects = {"phone": (1.0, 0.3), "desktop": (4.0, -0.3)}
    for run in range(150):
        report, columns = rounds(np.random.default_rng([0, run]), effects)
        phones = float((columns["leaf"] == "phone").mean())
        truth = 0.3 * phones - 0.3 * (1 - phones)
        (row,) = report.metrics
        estimates.append(row.effect_size - truth)
        new = columns["variant"] == "new"
        naive.append(columns["y"][new].mean() - columns["y"][~new].mean() - truth)
        covered += row.effect_size_ci[0] <= truth <= row.effect_size_ci[1]
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 3 * error
    assert abs(np.mean(naive)) > 0.3  # phones, where little is bought, were given to the new policy
    assert covered / 150 > 0.9


@pytest.mark.slow
def test_without_an_effect_a_contextual_bandit_finds_none_where_the_naive_test_does():
    found = naive = 0
    for run in range(150):
        report, columns = rounds(np.random.default_rng([1, run]), {"phone": (1.0, 0.0), "desktop": (4.0, 0.0)})
        found += report.metrics[0].pvalue < 0.05
        new = columns["variant"] == "new"
        one, other = columns["y"][new], columns["y"][~new]
        naive += abs(one.mean() - other.mean()) > 1.96 * np.sqrt(one.var() / one.size + other.var() / other.size)
    assert found / 150 < 0.09  # 5 % and two standard errors
    assert naive / 150 > 0.5
