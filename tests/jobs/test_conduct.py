"""Ramps, holdouts, backtests, graph clusters and plans on a workspace with a past."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

from thinslice.cli.init import make_tenant
from thinslice.errors import BadInput, BadSettings, NotReady, UnknownName
from thinslice.experiments import assign, is_running, parse_experiment
from thinslice.jobs import conduct
from thinslice.jobs.design import design_experiment, read_history
from thinslice.jobs.measure import experiment_file, read_experiment
from thinslice.jobs.tend import tend
from thinslice.records import Edge, Event, Exposure, Order, OrderLine
from thinslice.serving.experiments import exposure_of
from thinslice.serving.unit_maps import GRAPH, KEPT, read_unit_map, unit_map_file
from thinslice.settings import Workspace
from thinslice.store.lake import Lake
from thinslice.store.schemas import Decided

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=2)
TEXT = (
    'name = "ranker"\ndays = 14\ntraining = "shared"\n'
    'variants = [{name = "old", policy = "popular"}, {name = "new", policy = "session-knn"}]\n'
)


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path)
    make_tenant(made, "shop")
    return made


def start(workspace, text=TEXT, now=NOW):
    return conduct.start_experiment(workspace, "shop", text, "a.toml", now)


def decided(workspace, action, variant):
    told = Decided(
        tenant="shop", experiment="ranker", decided_at=LATER, action=action, variant=variant,
        sentence="Why it was decided so.",
    )  # fmt: skip
    Lake(workspace.lake).add("decisions", [told])


def serve(workspace, experiment, visitors, at):
    rows = []
    for number in range(visitors):
        noted = exposure_of(experiment, f"v{number}", at.timestamp())
        rows.append(
            Exposure(
                recommendation_id=f"r{number}", tenant="shop", occurred_at=at, placement="home", policy="p",
                model_version="m", visitor_id=f"v{number}", experiments=[noted] if noted else [],
            )
        )  # fmt: skip
    Lake(workspace.lake).append("exposures", rows)


def test_a_ramp_to_more_coverage_keeps_everybody_and_stands_in_the_history(workspace):
    before = start(workspace, TEXT + "coverage = 0.2\n")
    done = conduct.ramp_experiment(workspace, "shop", "ranker", LATER, coverage=0.6)
    assert done.kept == 0
    stored = read_experiment(workspace, "shop", "ranker")
    assert (stored.coverage, stored.allocation_version) == (0.6, 2)
    assert [(each.version, each.coverage) for each in stored.history] == [(1, 0.2), (2, 0.6)]
    for n in range(1_000):
        assert assign(before, f"v{n}").variant in (None, assign(stored, f"v{n}").variant)


def test_units_that_were_served_keep_their_variant_when_weights_change(workspace):
    before = start(workspace)
    serve(workspace, before, 300, NOW + timedelta(hours=1))
    done = conduct.ramp_experiment(workspace, "shop", "ranker", LATER, weights={"old": 0.1, "new": 0.9})
    kept = read_unit_map(unit_map_file(workspace.experiments / "shop", "ranker", KEPT))
    assert len(kept) == done.kept
    assert 80 < done.kept < 160
    for n in range(300):
        assert assign(done.experiment, f"v{n}", LATER.timestamp(), kept.get).variant == assign(before, f"v{n}").variant
    again = conduct.ramp_experiment(workspace, "shop", "ranker", LATER, weights={"old": 0.5, "new": 0.5})
    assert again.kept == 0  # back where they were drawn


def test_without_stickiness_nobody_is_kept(workspace):
    before = start(workspace, TEXT + "sticky = false\n")
    serve(workspace, before, 50, NOW + timedelta(hours=1))
    done = conduct.ramp_experiment(workspace, "shop", "ranker", LATER, weights={"old": 0.1, "new": 0.9})
    assert done.kept == 0
    assert not unit_map_file(workspace.experiments / "shop", "ranker", KEPT).exists()


def test_what_cannot_be_ramped_is_refused(workspace):
    start(workspace)
    with pytest.raises(BadSettings, match="coverage is 1 and only grows"):
        conduct.ramp_experiment(workspace, "shop", "ranker", LATER, coverage=0.5)
    conduct.stop_experiment(workspace, "shop", "ranker", LATER)
    with pytest.raises(BadInput, match="is not running"):
        conduct.ramp_experiment(workspace, "shop", "ranker", LATER, weights={"old": 0.1, "new": 0.9})
    start(workspace, TEXT.replace("ranker", "fares") + 'unit = "block"\nblock_minutes = 60\n')
    with pytest.raises(BadInput, match="is a switchback"):
        conduct.ramp_experiment(workspace, "shop", "fares", LATER, weights={"old": 0.1, "new": 0.9})


def test_an_edited_experiment_is_refused_by_name_and_can_still_be_stopped(workspace):
    start(workspace)
    path = experiment_file(workspace, "shop", "ranker")
    path.write_text(path.read_text().replace("coverage = 1.0", "coverage = 0.5"))
    with pytest.raises(BadSettings, match="coverage of 'ranker' changed after its start"):
        conduct.ramp_experiment(workspace, "shop", "ranker", LATER, coverage=0.9)
    assert not is_running(conduct.stop_experiment(workspace, "shop", "ranker", LATER))


def test_a_layer_is_shared_by_ranges_that_do_not_touch(workspace):
    layered = TEXT + 'layer = "home"\nlayer_range = [0.2, 0.6]\n'
    start(workspace, layered)
    with pytest.raises(BadInput, match=r"'ranker' has \[0\.2, 0\.6\] of layer 'home'") as caught:
        start(workspace, layered.replace("ranker", "second"))
    assert "[0, 0.2] or [0.6, 1]" in str(caught.value)
    with pytest.raises(BadInput, match="deals out visitors"):
        start(workspace, layered.replace("ranker", "second").replace("[0.2, 0.6]", "[0.6, 1.0]") + 'unit = "user"\n')
    start(workspace, layered.replace("ranker", "second").replace("[0.2, 0.6]", "[0.6, 1.0]"))
    with pytest.raises(BadInput, match=r"layer_range can lie in \[0, 0\.2\]"):
        start(workspace, layered.replace("ranker", "third").replace("[0.2, 0.6]", "[0.0, 1.0]"))


def test_the_holdout_has_a_measured_control_of_its_own_size(workspace):
    held = conduct.start_holdout(workspace, "shop", 0.05, NOW)
    assert (held.kind, held.coverage, held.control_name) == ("holdout", 0.1, "held")
    assert [(each.name, each.policy, each.weight) for each in held.variants] == [
        ("held", "session-knn", 0.5), ("measured", "unchanged", 0.5),
    ]  # fmt: skip
    assert conduct.running_holdout(workspace, "shop").name == "holdout"
    with pytest.raises(BadInput, match="has a holdout already"):
        conduct.start_holdout(workspace, "shop", 0.05, NOW)
    conduct.stop_holdout(workspace, "shop", LATER)
    with pytest.raises(UnknownName, match="has no holdout"):
        conduct.stop_holdout(workspace, "shop", LATER)
    assert conduct.start_holdout(workspace, "shop", 0.02, LATER, policy="popular").name == "holdout-2"


@pytest.mark.parametrize("share", [0.0, 0.6, -0.1, float("nan")])
def test_a_holdout_that_leaves_no_room_for_its_control_is_refused(workspace, share):
    with pytest.raises(BadInput, match="cannot be"):
        conduct.start_holdout(workspace, "shop", share, NOW)


def test_a_backtest_gives_a_share_the_old_policy_back_and_reads_like_the_test_before(workspace):
    start(workspace)
    with pytest.raises(BadInput, match="still runs"):
        conduct.start_backtest(workspace, "shop", "ranker", 0.1, LATER)
    conduct.stop_experiment(workspace, "shop", "ranker", LATER)
    with pytest.raises(BadInput, match=r"nothing was decided of 'ranker' yet.*2026-03-15 00:00 UTC"):
        conduct.start_backtest(workspace, "shop", "ranker", 0.1, LATER)
    decided(workspace, "ship", "new")
    back = conduct.start_backtest(workspace, "shop", "ranker", 0.1, LATER)
    assert (back.name, back.kind, back.of, back.coverage, back.days) == (
        "ranker-backtest",
        "backtest",
        "ranker",
        0.2,
        14,
    )
    assert [(each.name, each.policy, each.weight) for each in back.variants] == [
        ("old", "popular", 0.5), ("new", "session-knn", 0.5),
    ]  # fmt: skip
    assert back.control_name == "old"
    assert back.started_at == LATER
    assert [metric.name for metric in back.metrics] == [
        m.name for m in read_experiment(workspace, "shop", "ranker").metrics
    ]


def test_a_backtest_of_several_treatments_asks_which_was_shipped(workspace):
    start(workspace, TEXT.replace("]\n", ', {name = "third", policy = "newest"}]\n'))
    conduct.stop_experiment(workspace, "shop", "ranker", LATER)
    decided(workspace, "keep", "old")
    with pytest.raises(BadInput, match=r"Why it was decided so\. `--variant NAME` says which one was shipped all the"):
        conduct.start_backtest(workspace, "shop", "ranker", 0.1, LATER)
    with pytest.raises(UnknownName, match="there is: new, third"):
        conduct.start_backtest(workspace, "shop", "ranker", 0.1, LATER, variant="old")
    back = conduct.start_backtest(workspace, "shop", "ranker", 0.1, LATER, variant="third")
    assert [each.name for each in back.variants] == ["old", "third"]


def test_a_variant_that_leaves_the_placement_alone_cannot_learn_apart(workspace):
    text = TEXT.replace('"popular"', '"unchanged"')
    with pytest.raises(BadInput, match="leaves the placement unchanged"):
        start(workspace, text.replace("shared", "isolated"))
    assert start(workspace, text).variants[0].policy == "unchanged"


def test_people_who_know_each_other_are_one_cluster(workspace):
    text = TEXT + 'unit = "cluster"\ncluster = "people-graph"\n'
    with pytest.raises(NotReady, match="has no edges"):
        start(workspace, text)
    ties = [(f"u{g}-{a}", f"u{g}-{b}") for g in range(60) for a in range(4) for b in range(a)]
    Lake(workspace.lake).append(
        "edges", [Edge(tenant="shop", from_id=a, to_id=b, kind="follow", occurred_at=NOW) for a, b in ties]
    )
    start(workspace, text, LATER)
    found = read_unit_map(unit_map_file(workspace.experiments / "shop", "ranker", GRAPH))
    assert len(found) == 240
    assert len({found.get(f"u{g}-{a}") for g in range(60) for a in range(4)}) == 60
    assert found.get("u7-0") == found.get("u7-3")


def test_results_steer_the_weights_and_who_was_served_keeps_the_variant(workspace):
    before = start(workspace, TEXT + 'allocation = "thompson"\nmetrics = [{name = "views_per_visitor"}]\n')
    serve(workspace, before, 600, NOW + timedelta(hours=1))
    assert tend(workspace, NOW + timedelta(minutes=59)) == {}
    rng = np.random.default_rng(0)
    events = []
    for n in range(600):
        rate = 4 if assign(before, f"v{n}").variant == "new" else 3
        at = NOW + timedelta(hours=1, minutes=5)
        events += [
            Event(tenant="shop", event_id=f"{n}.{k}", name="view_item", occurred_at=at, received_at=at,
                  visitor_id=f"v{n}", item_id="a")
            for k in range(int(rng.poisson(rate)))
        ]  # fmt: skip
    Lake(workspace.lake).append("events", events)
    said = tend(workspace, LATER)
    assert said["shop/ranker"].startswith("allocation 2: old 10.0%, new 90.0%")
    steered = read_experiment(workspace, "shop", "ranker")
    assert [each.weights["new"] for each in steered.history] == [0.5, 0.9]
    kept = read_unit_map(unit_map_file(workspace.experiments / "shop", "ranker", KEPT))
    for n in range(600):
        assert assign(steered, f"v{n}", LATER.timestamp(), kept.get).variant == assign(before, f"v{n}").variant
    assert tend(workspace, LATER + timedelta(hours=2)) == {}  # nothing new, so no new allocation


def test_units_whose_first_slate_came_late_to_the_lake_are_kept_too(workspace):
    before = start(workspace)
    serve(workspace, before, 100, NOW + timedelta(hours=1))
    first = conduct.ramp_experiment(workspace, "shop", "ranker", LATER, weights={"old": 0.1, "new": 0.9}).kept
    late = [
        Exposure(recommendation_id=f"late{n}", tenant="shop", occurred_at=LATER - timedelta(seconds=20),
                 placement="home", policy="p", model_version="m", visitor_id=f"w{n}",
                 experiments=[exposure_of(before, f"w{n}")])
        for n in range(100)
    ]  # fmt: skip
    Lake(workspace.lake).append("exposures", late)
    assert "units keep their first variant" in tend(workspace, LATER + timedelta(minutes=1))["shop/ranker"]
    assert len(read_unit_map(unit_map_file(workspace.experiments / "shop", "ranker", KEPT))) > first
    assert tend(workspace, LATER + timedelta(minutes=2)) == {}


@pytest.fixture
def past(workspace):
    """28 days of visitors who look and buy, and what each did."""
    rng = np.random.default_rng(0)
    lake, events, exposures, orders, truth = Lake(workspace.lake), [], [], [], {}
    for number in range(300):
        at, who = NOW - timedelta(days=float(rng.uniform(0.2, 27.9))), f"v{number}"
        views = int(rng.integers(1, 6))
        exposures.append(
            Exposure(recommendation_id=f"r{number}", tenant="shop", occurred_at=at, placement="home", policy="p",
                     model_version="m", visitor_id=who, session_id=f"s{number}")
        )  # fmt: skip
        for n in (-1, *range(views)):  # the first one a day before the first slate
            when = at + timedelta(minutes=n) if n >= 0 else at - timedelta(days=1)
            events.append(
                Event(tenant="shop", event_id=f"e{number}.{n}", name="view_item", occurred_at=when, received_at=when,
                      visitor_id=who, session_id=f"s{number}", item_id="a", context={"city": f"c{number % 20}"})
            )  # fmt: skip
        paid = int(rng.integers(100, 900)) if rng.random() < 0.4 else 0
        if paid:
            when = at + timedelta(minutes=9)
            orders.append(
                Order(tenant="shop", order_id=f"o{number}", occurred_at=when, received_at=when, currency="EUR",
                      total_minor=paid, visitor_id=who, lines=[OrderLine(item_id="a", quantity=1, price_minor=paid)])
            )  # fmt: skip
        truth[who] = (views, paid)
    for table, rows in (("events", events), ("exposures", exposures), ("orders", orders)):
        lake.append(table, rows)
    return truth


def plan(text=""):
    return parse_experiment(
        TEXT
        + text
        + '[[metrics]]\nname = "revenue_per_visitor"\nmde = 0.2\n'
        + '[[metrics]]\nname = "views_per_visitor"\nmargin = 0.1\n',
        "shop",
    )


def test_the_past_is_counted_from_the_first_slate_on_and_the_time_before_apart(workspace, past):
    history = read_history(workspace, plan("covariate_days = 7\n"), NOW, 28)
    order = sorted(past)
    assert history.columns["views"].tolist() == [past[who][0] for who in order]
    assert history.columns["revenue_minor"].tolist() == [past[who][1] for who in order]
    assert history.columns["past_views"].tolist() == [1.0] * 300
    assert sum(history.new_units) == 300
    assert len(history.new_units) == 28


def test_a_plan_comes_from_the_tenants_own_past(workspace, past):
    got = design_experiment(workspace, plan(), NOW)
    revenue, views = got.rows
    assert (got.units, got.history_days, got.days) == (300, 28, 14)
    assert revenue.mean == pytest.approx(np.mean([paid for _, paid in past.values()]))
    assert revenue.days_for_wanted > 28
    assert views.days_for_margin > 0
    assert msgspec.json.encode(got)


def test_cities_and_blocks_of_time_have_rows_of_their_own(workspace, past):
    cities = read_history(workspace, plan('unit = "cluster"\ncluster = "city"\n'), NOW, 28)
    assert cities.columns["unit_weight"].tolist() == [15.0] * 20
    # the events of visitors decide their city, so what they did before the first slate counts too
    assert cities.columns["views"].sum() >= sum(views for views, _ in past.values())
    blocks = read_history(workspace, plan('unit = "block"\nblock_minutes = 240\n'), NOW, 28)
    assert blocks.columns["views"].sum() == sum(views for views, _ in past.values())
    assert blocks.new_units == [6.0] * 28
    assert design_experiment(workspace, plan('unit = "block"\nblock_minutes = 240\n'), NOW).rows[0].mde > 0


def test_a_past_that_names_no_visitor_says_what_to_plan_with(workspace):
    at = NOW - timedelta(days=2)
    Lake(workspace.lake).append("events", [
        Event(event_id="e", tenant="shop", name="view_item", user_id="u", session_id="s", item_id="a", occurred_at=at,
              received_at=at)
    ])  # fmt: skip
    with pytest.raises(NotReady, match="had no visitor") as refused:
        design_experiment(workspace, plan(), NOW)
    assert refused.value.hint.endswith("name no visitor; plan with --unit user or --unit session.")


def test_without_a_past_nothing_is_planned(workspace):
    with pytest.raises(NotReady, match="had no visitor in the last 28 days"):
        design_experiment(workspace, plan(), NOW)
    with pytest.raises(BadInput, match="clusters of items cannot be planned"):
        design_experiment(workspace, plan('unit = "cluster"\ncluster = "item-graph"\n'), NOW)


def test_a_context_that_names_no_cluster_is_told_so(workspace, past):
    with pytest.raises(NotReady, match="no event of the last 28 days names a 'school'"):
        design_experiment(workspace, plan('unit = "cluster"\ncluster = "school"\n'), NOW)


def test_the_units_of_the_plan_stand_in_the_file_and_tune_the_sequences(workspace):
    lake = Lake(workspace.lake)
    lake.append("events", [
        Event(event_id=f"e{day}-{n}", tenant="shop", name="view_item", visitor_id=f"v{day}-{n}", item_id="a",
              occurred_at=NOW - timedelta(days=day, hours=1), received_at=NOW)
        for day in range(14) for n in range(30)
    ])  # fmt: skip
    started = start(workspace, TEXT + "coverage = 0.5\n")
    assert started.planned_units == 14 * 30 / 2
    plan = design_experiment(workspace, parse_experiment(TEXT + "coverage = 0.5\n", "shop"), NOW, days=14)
    assert plan.planned_units == started.planned_units
    assert start(workspace, TEXT.replace("ranker", "own") + "planned_units = 77\n").planned_units == 77
    assert start(workspace, TEXT.replace("ranker", "open").replace("days = 14\n", "")).planned_units is None
    blocks = TEXT.replace("ranker", "fares") + 'unit = "block"\nblock_minutes = 240\n'
    assert start(workspace, blocks).planned_units == 14 * 6
