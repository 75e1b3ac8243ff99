import json
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

from thinslice.cli.init import make_tenant
from thinslice.errors import BadInput, UnknownName
from thinslice.experiments import assign, dump_experiment
from thinslice.experiments.analyze import analyze
from thinslice.experiments.evidence import Units
from thinslice.jobs.decisions import ledger
from thinslice.jobs.measure import measure, measure_all, report_file, write_report
from thinslice.jobs.provenance import contamination_of, explorers_of
from thinslice.metrics import DEFAULT_METRICS
from thinslice.records import Event, Experiment, ExperimentExposure, Exposure, Order, OrderLine, Variant
from thinslice.settings import Workspace, read_settings
from thinslice.store.lake import Lake
from thinslice.store.schemas import TrainedModel

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=7)
EXPERIMENT = Experiment(
    name="ranker", tenant="shop", started_at=START, ends_at=END, days=7.0, metrics=list(DEFAULT_METRICS),
    variants=[
        Variant(name="popular", policy="popular", weight=0.5), Variant(name="knn", policy="session-knn", weight=0.5),
    ],
)  # fmt: skip


class History:
    """What a shop's visitors did in a week, as records and as the unit rows that should come of it."""

    def __init__(self, experiment=EXPERIMENT, visitors=400, seed=0, ramp=None):
        rng = np.random.default_rng(seed)
        self.exposures, self.events, self.orders = [], [], []
        self.rows = {name: [] for name in ("exposures", "clicks", "views", "converted", "revenue_minor")}
        self.variants, self.propensities, self.days = [], [], []
        for number in range(visitors):
            now = START + timedelta(minutes=float(rng.uniform(0, 6 * 1440)))
            of = experiment if ramp is None or now < START + timedelta(days=3) else ramp
            self._visit(rng, of, f"visitor-{number}", now)

    def _visit(self, rng, experiment, visitor, now):
        got = assign(experiment, visitor)
        who = {"tenant": "shop", "visitor_id": visitor, "session_id": f"{visitor}-s"}
        noted = ExperimentExposure(
            experiment="ranker", variant=got.variant, unit="visitor", unit_id=visitor,
            allocation_version=got.allocation_version, propensities=got.propensities,
        )  # fmt: skip
        slates, clicks = int(rng.integers(1, 5)), 0
        for slate in range(slates):
            at, name = now + timedelta(minutes=slate), f"{visitor}-{slate}"
            self.exposures.append(
                Exposure(**who, recommendation_id=name, occurred_at=at, placement="home", policy=got.variant,
                         model_version="m", experiments=[noted])
            )  # fmt: skip
            if rng.random() < (0.5 if got.variant == "knn" else 0.3):
                clicks += 1
                for act in ("select_item", "view_item"):
                    self._event(who, act, at + timedelta(seconds=30), name if act == "select_item" else None)
        paid = 0
        if clicks and rng.random() < 0.5:
            paid = int(rng.lognormal(8, 0.5))
            self.orders.append(
                Order(**who, order_id=f"o-{visitor}", occurred_at=now + timedelta(minutes=9),
                      received_at=now + timedelta(minutes=9), currency="EUR", total_minor=paid,
                      lines=[OrderLine(item_id="a", quantity=1, price_minor=paid)])
            )  # fmt: skip
        self.variants.append(got.variant)
        self.days.append((now - START).days)
        self.propensities.append([got.propensities["popular"], got.propensities["knn"]])
        for name, value in zip(self.rows, (slates, clicks, clicks, int(paid > 0), paid), strict=True):
            self.rows[name].append(value)

    def _event(self, who, name, at, slate):
        number = len(self.events)
        self.events.append(
            Event(**who, event_id=f"e{number}", name=name, occurred_at=at, received_at=at, recommendation_id=slate,
                  item_id="a")
        )  # fmt: skip

    def write(self, workspace):
        lake = Lake(workspace.lake)
        for table in ("exposures", "events", "orders"):
            lake.append(table, getattr(self, table))

    def expected(self, weighted=False):
        units = Units(self.variants, self.rows)
        if weighted:
            units = units._replace(propensities=self.propensities, batch=self.days)
        return analyze(units, EXPERIMENT, END)


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path)
    make_tenant(workspace, "shop")
    return workspace


def define(workspace, experiment=EXPERIMENT):
    path = workspace.experiments / "shop" / f"{experiment.name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump_experiment(experiment), encoding="utf-8")


def same(one, other):
    assert [row.name for row in one.metrics] == [row.name for row in other.metrics]
    for a, b in zip(one.metrics, other.metrics, strict=True):
        assert (a.n_control, a.n_treatment, a.reading) == (b.n_control, b.n_treatment, b.reading)
        assert a.mean_treatment == pytest.approx(b.mean_treatment)
        assert a.effect_size_ci == pytest.approx(b.effect_size_ci)
        assert a.rel_effect_size_ci == pytest.approx(b.rel_effect_size_ci)
        assert a.pvalue == pytest.approx(b.pvalue)


def test_what_the_lake_holds_is_measured_as_its_rows(workspace):
    history = History()
    history.write(workspace)
    define(workspace)
    got = measure(workspace, "shop", "ranker", END)
    same(got, history.expected())
    assert [check.name for check in got.checks] == [
        "sample_ratio", "mixed_assignment", "duplicate_exposures", "isolated_training", "effect_over_time",
        "sample_ratio_over_time", "sample_ratio_by_day",
    ]  # fmt: skip
    assert all(check.passed for check in got.checks)
    assert got.metrics[2].name == "click_through_rate"
    assert got.metrics[2].reading == "better"
    assert got.decision.action in ("ship", "extend", "keep")


def test_the_curve_ends_at_the_report_and_has_at_most_thirty_points(workspace):
    history = History()
    history.write(workspace)
    define(workspace)
    got = measure(workspace, "shop", "ranker", END)
    last = [row for row in got.cumulative if row["until"] == got.cumulative[-1]["until"]]
    assert len({row["until"] for row in got.cumulative}) <= 30
    for row, metric in zip(last, got.metrics, strict=True):
        assert row["effect_size_ci"] == pytest.approx(list(metric.effect_size_ci))
    assert START.isoformat() < got.cumulative[0]["until"] < got.cumulative[-1]["until"] <= END.isoformat()


def test_a_report_before_the_end_sees_only_what_had_happened_and_extends(workspace):
    History().write(workspace)
    define(workspace)
    got = measure(workspace, "shop", "ranker", START + timedelta(days=2))
    assert 50 < sum(got.units.values()) < 250
    assert got.decision.action == "extend"
    assert "5 days to go" in got.decision.sentence


def test_units_assigned_under_changed_weights_are_weighted_by_their_probabilities(workspace):
    changed = msgspec.structs.replace(
        EXPERIMENT, allocation_version=2,
        variants=[
            Variant(name="popular", policy="popular", weight=0.2), Variant(name="knn", policy="knn", weight=0.8),
        ],
    )  # fmt: skip
    history = History(visitors=600, ramp=changed)
    history.write(workspace)
    define(workspace)
    got = measure(workspace, "shop", "ranker", END)
    same(got, history.expected(weighted=True))
    assert got.checks[0].passed
    assert got.checks[0].pvalue == pytest.approx(history.expected(weighted=True).checks[0].pvalue)


def test_a_unit_in_two_variants_makes_the_report_invalid(workspace):
    history = History(visitors=50)
    first = history.exposures[0]
    other = "knn" if first.policy == "popular" else "popular"
    noted = msgspec.structs.replace(first.experiments[0], variant=other)
    history.exposures.append(msgspec.structs.replace(first, recommendation_id="again", experiments=[noted]))
    history.write(workspace)
    define(workspace)
    got = measure(workspace, "shop", "ranker", END)
    assert got.decision.action == "invalid"
    assert sum(got.units.values()) == 49


def test_an_empty_lake_gives_a_report_that_says_so(workspace):
    define(workspace)
    got = measure(workspace, "shop", "ranker", START + timedelta(days=1))
    assert got.units == {"popular": 0, "knn": 0}
    assert got.decision.action == "extend"
    assert "too few units" in got.decision.sentence
    assert measure(workspace, "shop", "ranker", END).decision.action == "extend"


def test_a_variant_that_the_file_does_not_know_is_refused(workspace):
    History(visitors=20).write(workspace)
    renamed = [Variant(name="old", policy="popular", weight=0.5), Variant(name="knn", policy="knn", weight=0.5)]
    define(workspace, msgspec.structs.replace(EXPERIMENT, variants=renamed))
    with pytest.raises(BadInput, match="name a variant 'popular'"):
        measure(workspace, "shop", "ranker", END)
    assert "popular" in measure_all(workspace, END)["shop/ranker"]


def test_an_unknown_experiment_is_refused_with_those_that_exist(workspace):
    define(workspace)
    with pytest.raises(UnknownName, match=r"no experiment 'rnker' \(there is: ranker\)"):
        measure(workspace, "shop", "rnker", END)


def test_the_jobs_write_a_report_for_the_pages_while_the_experiment_runs(workspace):
    History(visitors=60).write(workspace)
    define(workspace)
    define(workspace, msgspec.structs.replace(EXPERIMENT, name="draft", started_at=None, ends_at=None))
    assert set(measure_all(workspace, END)) == {"shop/ranker"}
    path = report_file(workspace, "shop", "ranker")
    assert sum(json.loads(path.read_bytes())["units"].values()) == 60
    assert [of.name for of in path.parent.iterdir()] == ["ranker.json"]
    define(workspace, msgspec.structs.replace(EXPERIMENT, stopped_at=END))
    assert set(measure_all(workspace, END + timedelta(hours=1))) == {"shop/ranker"}
    assert measure_all(workspace, END + timedelta(days=3)) == {}


def test_the_same_lake_gives_the_same_report_to_the_byte(workspace):
    History(visitors=80).write(workspace)
    define(workspace)
    for name in ("one", "two"):
        write_report(report_file(workspace, "shop", name), measure(workspace, "shop", "ranker", END))
    assert report_file(workspace, "shop", "one").read_bytes() == report_file(workspace, "shop", "two").read_bytes()


def trained(minutes, **shares):
    origin = {name: {"clicks": {}, "contamination": share} for name, share in shares.items()}
    return TrainedModel(
        tenant="shop", slot="live", version=f"v{minutes}", trained_at=START + timedelta(minutes=minutes),
        manifest={"lineage": {"ranker": origin}},
    )  # fmt: skip


def test_lessons_of_other_variants_are_reported_and_nothing_is_said_beside_a_variant_that_explores(workspace):
    define(workspace)
    History().write(workspace)
    lake = Lake(workspace.lake)
    before, after = trained(-5, popular=0.9), trained(99_999, popular=0.9)
    lake.append("models", [before, trained(5, popular=0.2, knn=0.4), trained(10, popular=0.4, knn=0.4), after])
    found = contamination_of(lake, EXPERIMENT, END)
    assert found == pytest.approx({"popular": 0.3, "knn": 0.4})
    early = measure(workspace, "shop", "ranker", END - timedelta(hours=1))
    (check,) = [each for each in early.checks if each.name == "contamination"]
    assert not check.passed
    assert explorers_of(read_settings(workspace).tenant("shop"), EXPERIMENT) == set()
    with workspace.settings_file.open("a", encoding="utf-8") as file:
        file.write('\n[tenants.shop.policies.session-knn]\nmodel = "session-knn"\nexplore = "epsilon-slot"\n')
    assert explorers_of(read_settings(workspace).tenant("shop"), EXPERIMENT) == {"knn"}
    assert measure(workspace, "shop", "ranker", END).decision.action == "invalid"


def test_without_a_trained_model_there_is_no_share(workspace):
    assert contamination_of(Lake(workspace.lake), EXPERIMENT, END) == {}


def test_the_decision_is_recorded_once_at_the_end_and_a_later_report_shows_it(workspace):
    define(workspace)
    history = History(visitors=300)
    history.write(workspace)
    lake = Lake(workspace.lake)
    assert measure(workspace, "shop", "ranker", END - timedelta(hours=1)).recorded_at is None
    assert ledger(lake, "shop") == []
    first = measure(workspace, "shop", "ranker", END)
    assert first.recorded_at == END
    late = [
        msgspec.structs.replace(of, order_id=f"late-{n}", total_minor=90_000) for n, of in enumerate(history.orders)
    ]
    lake.append("orders", late)
    second = measure(workspace, "shop", "ranker", END + timedelta(hours=5))
    assert second.metrics[0].mean_control != pytest.approx(first.metrics[0].mean_control)
    assert (second.decision, second.recorded_at) == (first.decision, END)
    (row,) = ledger(lake, "shop")
    assert (row.action, row.sentence) == (first.decision.action, first.decision.sentence)
    assert row.effects["click_through_rate/knn"]["effect_size"] == pytest.approx(first.metrics[2].effect_size)


def test_experiments_that_share_units_are_tested_for_interaction_and_those_that_cannot_meet_are_not(workspace):
    define(workspace)
    history = History(visitors=1200)
    history.write(workspace)
    beside = msgspec.structs.replace(
        EXPERIMENT, name="beside",
        variants=[Variant(name="x", policy="popular", weight=0.5), Variant(name="y", policy="newest", weight=0.5)],
    )  # fmt: skip
    long_ago = msgspec.structs.replace(
        beside, name="gone", started_at=START - timedelta(days=9), ends_at=START, stopped_at=START - timedelta(days=1)
    )
    for each in (beside, long_ago):
        define(workspace, each)
    elsewhere = []
    for exposure in history.exposures:
        got = assign(beside, exposure.visitor_id)
        noted = msgspec.structs.replace(
            exposure.experiments[0], experiment="beside", variant=got.variant, propensities=got.propensities
        )
        name = f"{exposure.recommendation_id}-b"
        elsewhere.append(msgspec.structs.replace(exposure, recommendation_id=name, experiments=[noted]))
    Lake(workspace.lake).append("exposures", elsewhere)
    checks = {check.name: check for check in measure(workspace, "shop", "ranker", END).checks}
    assert [name for name in checks if name.startswith("interaction")] == ["interaction_beside"]
    assert checks["interaction_beside"].passed
    assert "in x" in checks["interaction_beside"].detail
    assert "in y" in checks["interaction_beside"].detail
