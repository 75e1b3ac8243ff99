"""What variants share, from the lake to the report: days, ramps, pooled models, neighbors, as production logs them."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

from thinslice.cli.init import make_tenant
from thinslice.experiments import assign, dump_experiment, with_start
from thinslice.experiments.assign import is_pooled
from thinslice.jobs.measure import measure
from thinslice.jobs.training_data import assigned, read_clicks
from thinslice.metrics import METRICS
from thinslice.records import Allocation, Edge, Event, Experiment, Exposure, Variant
from thinslice.serving.experiments import ExperimentFiles, Visit, exposure_of
from thinslice.settings import Workspace
from thinslice.store.lake import Lake

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 10
PLAN = Experiment(
    name="ranker", tenant="shop", days=float(DAYS),
    metrics=[msgspec.structs.replace(METRICS["click_through_rate"], role="goal")],
    variants=[
        Variant(name="old", policy="popular", weight=0.5), Variant(name="new", policy="session-knn", weight=0.5),
    ],
)  # fmt: skip


class Log:
    """Slates and clicks of visitors of whom each comes on one day, looks at an item and is served once or more."""

    def __init__(self, seed=0):
        self.rng, self.exposures, self.events, self.edges = np.random.default_rng(seed), [], [], []

    def visit(self, experiment, visitor, at, click, item="a", user=None):
        one = None if at < START else exposure_of(experiment, user or visitor, at.timestamp())
        if one is None and at >= START:
            return
        variant = "old" if one is None else one.variant
        policy = next(each.policy for each in experiment.variants if each.name == variant)
        who = {"tenant": "shop", "visitor_id": visitor, "session_id": f"{visitor}-s", "user_id": user}
        self._event(who, "view_item", at - timedelta(seconds=5), item, None)
        for slate in range(int(self.rng.integers(1, 4))):
            name = f"{visitor}-{at:%d}-{slate}"
            self.exposures.append(
                Exposure(**who, recommendation_id=name, occurred_at=at + timedelta(seconds=slate), placement="home",
                         policy=policy, model_version="m", experiments=[] if one is None else [one])
            )  # fmt: skip
            pooled = one is not None and one.context_leaf == "pooled"
            if self.rng.random() < click(variant, pooled, at):
                self._event(who, "select_item", at + timedelta(seconds=30), item, name)

    def _event(self, who, name, at, item, slate):
        self.events.append(
            Event(**who, event_id=f"e{len(self.events)}", name=name, occurred_at=at, received_at=at, item_id=item,
                  recommendation_id=slate)
        )  # fmt: skip

    def report(self, tmp_path, experiment):
        workspace = Workspace(tmp_path)
        make_tenant(workspace, "shop")
        lake = Lake(workspace.lake)
        for table in ("exposures", "events", "edges"):
            if getattr(self, table):
                lake.append(table, getattr(self, table))
        path = workspace.experiments / "shop" / "ranker.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump_experiment(experiment), encoding="utf-8")
        return measure(workspace, "shop", "ranker", START + timedelta(days=DAYS))


def checks_of(report):
    return {check.name: check for check in report.checks}


def lived(tmp_path, experiment, click, *, a_day=120, before=0, seed=0):
    log = Log(seed)
    for day in range(-before, DAYS):
        for number in range(a_day):
            log.visit(experiment, f"v{day}-{number}", START + timedelta(days=day, minutes=11 * (number % 130)), click)
    return log.report(tmp_path, experiment)


def test_a_quiet_experiment_is_watched_and_raises_no_alarm(tmp_path):
    found = checks_of(lived(tmp_path, with_start(PLAN, START), lambda *_: 0.3, before=5))
    assert {"control_over_ramp", "spillover", "effect_over_time"} <= set(found)
    assert [check.name for check in found.values() if not check.passed] == []
    assert found["control_over_ramp"].interval[0] < 0 < found["control_over_ramp"].interval[1]


def test_control_that_jumps_when_treatment_comes_is_told_by_the_days_before(tmp_path):
    started = with_start(msgspec.structs.replace(PLAN, training="shared"), START)
    found = checks_of(lived(tmp_path, started, lambda variant, pooled, at: 0.2 if at < START else 0.4, before=6))
    check = found["control_over_ramp"]
    assert not check.passed
    assert "against the days when they had none" in check.detail
    assert "Isolate training" in check.advice


def test_a_ramp_is_read_from_the_history(tmp_path):
    started = with_start(msgspec.structs.replace(PLAN, coverage=0.4), START)
    half = START + timedelta(days=5)
    ramped = msgspec.structs.replace(
        started, coverage=1.0, allocation_version=2, fingerprint={},
        history=[*started.history, Allocation(version=2, since=half, coverage=1.0, weights={"old": 0.5, "new": 0.5})],
    )  # fmt: skip
    log = Log()
    for day in range(DAYS):
        for number in range(160):
            at = START + timedelta(days=day, minutes=5 * number)
            log.visit(
                started if day < 5 else ramped, f"v{day}-{number}", at, lambda _, __, at: 0.4 if at < half else 0.2
            )
    check = checks_of(log.report(tmp_path, ramped))["control_over_ramp"]
    assert not check.passed
    assert check.detail.startswith("control's click_through_rate while treatments had 50.0 % of the traffic, against")
    assert "20.0 %" in check.detail


def test_units_of_pooled_models_are_left_out_of_effects_and_tell_what_sharing_does(tmp_path):
    started = with_start(msgspec.structs.replace(PLAN, pooled_share=0.5), START)

    def click(variant, pooled, at):
        return 0.5 if pooled and variant == "old" else {"old": 0.2, "new": 0.4}[variant]

    report = lived(tmp_path, started, click, a_day=300)
    own = sum(
        not is_pooled(started, f"v{day}-{number}") and assign(started, f"v{day}-{number}").variant is not None
        for day in range(DAYS) for number in range(300)
    )  # fmt: skip
    assert sum(report.units.values()) == own
    assert report.metrics[0].rel_effect_size == pytest.approx(1.0, abs=0.25)
    check = checks_of(report)["own_against_pooled"]
    assert not check.passed
    assert check.estimate == pytest.approx(-0.3, abs=0.08)


def test_an_effect_that_comes_with_the_days_is_told(tmp_path):
    def click(variant, pooled, at):
        return 0.3 if variant == "old" else 0.1 + 0.04 * (at - START).days

    check = checks_of(lived(tmp_path, with_start(PLAN, START), click, a_day=200))["effect_over_time"]
    assert not check.passed
    assert "starts cold" in check.detail


def test_reports_and_slates_are_watched_by_browser_and_for_being_logged_twice(tmp_path):
    started = with_start(msgspec.structs.replace(PLAN, segments=["browser"]), START)
    log = Log()
    for number in range(1_500):
        log.visit(started, f"v{number}", START + timedelta(days=number % DAYS, minutes=number % 600), lambda *_: 0.3)
    for slate in log.exposures[:]:
        browser = "webkit" if int(slate.visitor_id[1:]) % 3 == 0 else "chromium"
        log.exposures[log.exposures.index(slate)] = msgspec.structs.replace(slate, segments={"browser": browser})
        lost = 0.5 if browser == "webkit" and slate.experiments[0].variant == "new" else 0.1
        if log.rng.random() > lost:
            who = {"tenant": "shop", "visitor_id": slate.visitor_id, "session_id": slate.session_id, "user_id": None}
            log._event(who, "view_item_list", slate.occurred_at + timedelta(seconds=2), None, slate.recommendation_id)
    log.exposures.append(log.exposures[0])
    found = checks_of(log.report(tmp_path, started))
    assert not found["log_loss_by_segment"].passed
    assert "browser = webkit" in found["log_loss_by_segment"].detail
    assert found["duplicate_exposures"].detail.startswith(
        f"of {len(log.exposures) - 1:,} slates these were logged more"
    )


def test_pooled_models_serve_their_units_and_those_sessions_teach_no_variant(tmp_path):
    started = with_start(msgspec.structs.replace(PLAN, pooled_share=0.5), START)
    folder = tmp_path / "experiments" / "shop"
    folder.mkdir(parents=True)
    (folder / "ranker.toml").write_text(dump_experiment(started), encoding="utf-8")
    files = ExperimentFiles(tmp_path / "experiments")
    slots = {}
    for number in range(200):
        choice = files.choose("shop", START.timestamp() + 60, Visit("home", f"v{number}"))
        (one,) = choice.exposed
        slots.setdefault(one.context_leaf, set()).add(choice.slot)
    assert slots == {"pooled": {"live"}, "": {"exp.ranker.old", "exp.ranker.new"}}
    log = Log()
    for number in range(200):
        log.visit(started, f"v{number}", START + timedelta(minutes=number), lambda *_: 0.3)
    log.report(tmp_path, started)
    lake = Lake(Workspace(tmp_path).lake)
    clicks = read_clicks(lake, "shop", START + timedelta(days=DAYS))
    labels = assigned(lake, clicks, started)
    pooled = np.array([is_pooled(started, visitor) for visitor in clicks.visitor.tolist()])
    assert 0.2 < pooled.mean() < 0.8
    assert set(labels[pooled].tolist()) == {""}
    assert {"old", "new"} <= set(labels[~pooled].tolist())


@pytest.mark.parametrize("kind", ["item", "people"])
def test_neighbors_that_take_from_control_are_found(tmp_path, kind):
    unit = "user" if kind == "people" else "visitor"
    started = with_start(msgspec.structs.replace(PLAN, unit=unit), START)
    log = Log()
    names = [f"u{number}" for number in range(3_200)]
    treated = {name: assign(started, name).variant == "new" for name in names}
    for number, name in enumerate(names):
        group = number // 4
        mates = [other for other in names[4 * group : 4 * group + 4] if other != name]
        share = sum(treated[other] for other in mates) / len(mates)
        at = START + timedelta(days=group % DAYS, minutes=number % 600)
        user = name if unit == "user" else None
        log.visit(started, name, at, lambda *_, taken=share: 0.5 - 0.35 * taken, item=f"i{group}", user=user)
        if kind == "people":
            log.edges += [
                Edge(tenant="shop", from_id=name, to_id=other, kind="connection", occurred_at=START) for other in mates
            ]
    check = checks_of(log.report(tmp_path, started))["spillover"]
    assert not check.passed
    assert check.estimate == pytest.approx(-0.35, abs=0.15)
    assert ("people they follow" in check.detail) or ("the same item on the same day" in check.detail)
