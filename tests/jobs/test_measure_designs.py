"""What a running experiment declares is what its report does: looks, caps, quantiles, its own past, segments."""

from datetime import UTC, datetime, timedelta

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from thinslice.experiments.decide import Doubts, decide
from thinslice.experiments.evidence import Look
from thinslice.experiments.segments import Harmed
from thinslice.jobs.measure import look_of, measure_in
from thinslice.records import Check, Experiment, Metric, MetricResult, Variant

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=14)
PLAN = Experiment(
    name="ranker", tenant="shop", started_at=START, ends_at=END,
    variants=[Variant(name="old", policy="a", weight=0.5), Variant(name="new", policy="b", weight=0.5)],
    metrics=[Metric(name="views", numerator="views", role="goal")],
)  # fmt: skip
EXPOSED = (
    "recommendation_id tenant occurred_at visitor_id session_id experiment variant unit_id is_bot shadow placement"
)
ACTED = "tenant name occurred_at visitor_id session_id recommendation_id is_bot duplicate"


@pytest.fixture(scope="module")
def lake():
    """1,200 visitors over ten days who view as much after their first slate as before it, twice as much on phones."""
    rng, database = np.random.default_rng(0), duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    served, events, phones = [], [], []
    for number in range(1_200):
        at, who = START + timedelta(hours=float(rng.uniform(0, 240))), f"v{number}"
        variant, habit = ["old", "new"][number % 2], float(rng.gamma(4, 2))
        phone = bool(rng.random() < 0.5)
        for slate in range(2):
            moment = at + timedelta(minutes=slate)
            served.append((f"r{number}-{slate}", "shop", moment, who, who, "ranker", variant, who, number % 100 == 99,
                           False, "home"))  # fmt: skip
            phones.append({"device": "phone" if phone else "desk"} if slate == 0 else {"device": "desk"})
        for _ in range(rng.poisson(habit)):
            before = at - timedelta(hours=float(rng.uniform(1, 100)))
            events.append(("shop", "view_item", before, who, f"{who}-old", None, False, False))
        for _ in range(rng.poisson(habit * (2 if phone else 1))):
            events.append(("shop", "view_item", at + timedelta(minutes=9), who, who, None, False, False))
    for table, rows, names in (("exposures", served, EXPOSED), ("events", events, ACTED)):
        columns = dict(zip(names.split(), map(list, zip(*rows, strict=True)), strict=True))
        if table == "exposures":
            columns["segments"] = pa.array([list(of.items()) for of in phones], type=pa.map_(pa.string(), pa.string()))
        database.register("rows", pa.table(columns))
        database.execute(f"CREATE TABLE {table} AS SELECT * FROM rows")
    database.execute(
        "CREATE VIEW exposure_variants AS SELECT *, MAP {'old': 0.5, 'new': 0.5} AS propensities FROM exposures"
    )
    database.execute("CREATE TABLE orders (tenant VARCHAR, visitor_id VARCHAR, session_id VARCHAR, total_minor BIGINT, "
                     "occurred_at TIMESTAMPTZ)")  # fmt: skip
    return database


def width(report, at=0):
    return np.ptp(report.metrics[at].effect_size_ci)


def test_what_a_unit_did_before_makes_the_interval_narrower_and_is_balanced(lake):
    plain, known = (measure_in(lake, msgspec.structs.replace(PLAN, covariate_days=of), END) for of in (None, 7.0))
    assert width(known) < 0.9 * width(plain)
    assert known.method == "CUPED"
    balance = next(check for check in known.checks if check.name == "covariate_balance")
    assert balance.passed
    assert "alike before the test" in balance.detail


def test_caps_quantiles_and_segments_as_of_the_first_exposure(lake):
    metrics = [
        *PLAN.metrics, Metric(name="capped", numerator="views", cap_quantile=0.9),
        Metric(name="median", numerator="views", quantile=0.5),
    ]  # fmt: skip
    got = measure_in(lake, msgspec.structs.replace(PLAN, metrics=metrics, segments=["device", "placement"]), END)
    views, capped, median = got.metrics
    assert width(got, 1) < width(got, 0)
    assert capped.mean_control < views.mean_control
    assert median.mean_control == round(median.mean_control)
    found = {(row["segment"], row["value"]): row["mean_control"] for row in got.segments if row["name"] == "views"}
    assert set(found) == {("device", "phone"), ("device", "desk"), ("placement", "home")}
    assert found["device", "phone"] > 1.5 * found["device", "desk"]
    assert (
        sum(row["n_control"] for row in got.segments if row["segment"] == "device" and row["name"] == "views")
        == (got.units["old"])
    )


def test_bots_are_left_out_whole(lake):
    got = measure_in(lake, PLAN, END)
    assert sum(got.units.values()) == 1_200 - 12
    assert got.units["new"] == 588


@pytest.mark.parametrize(
    ("looks", "day", "expected"),
    [
        (None, 3, None), (14, 0, (1, 14)), (14, 3, (3, 14)), (14, 3.9, (3, 14)), (14, 99, (14, 14)),
        ([START + timedelta(days=5), END], 6, (1, 2)), ([START + timedelta(days=5), END], 14, (2, 2)),
    ],
    ids=["none", "first", "third", "between", "after", "dates", "end"],
)  # fmt: skip
def test_the_look_is_the_last_one_that_was_due(looks, day, expected):
    got = look_of(msgspec.structs.replace(PLAN, looks=looks), START + timedelta(days=day))
    assert got == (None if expected is None else Look(*expected))


def test_looks_widen_a_running_report_and_say_so(lake):
    planned = msgspec.structs.replace(PLAN, looks=14)
    assert width(measure_in(lake, planned, END)) > 1.05 * width(measure_in(lake, PLAN, END))
    early = measure_in(lake, planned, START + timedelta(days=7))
    assert (early.looks["look"], early.decision.action) == (7, "extend")


def row(role, reading, **fields):
    return MetricResult(
        **{
            "name": role, "role": role, "variant": "new", "n_control": 9, "n_treatment": 9, "mean_control": 1.0,
            "mean_treatment": 1.1, "effect_size": 0.1, "effect_size_ci": (0.0, 0.2), "rel_effect_size": 0.1,
            "rel_effect_size_ci": (0.0, 0.2), "pvalue": 0.01, "pvalue_adjusted": 0.01, "margin": 0.05,
            "reading": reading, **fields,
        }
    )  # fmt: skip


def fading(early, steady, stable=False):
    def numbers(ci):
        return {
            "effect_size": sum(ci) / 2,
            "rel_effect_size": sum(ci) / 2,
            "rel_effect_size_ci": ci,
            "effect_size_ci": ci,
        }

    found = {
        "variant": "new",
        "early": numbers(early),
        "steady": numbers(steady),
        "stable": stable,
        "same_share": False,
    }
    return {"metric": "goal", "early_days": 3, "late_from": 7, "variants": [found]}


GOAL = msgspec.structs.replace(PLAN, metrics=[Metric(name="goal", numerator="views", role="goal")])


@pytest.mark.parametrize(
    ("reading", "doubts", "action", "words"),
    [
        ("better", Doubts(0.05), "ship", "Ship new"),
        ("better", Doubts(0.01), "ship", "Ship new"),
        ("better", Doubts(0.005), "extend", "not enough for one winner"),
        ("better", Doubts(0.05, harmed=[Harmed("new", "views fell on phones")]), "keep", "but views fell on phones"),
        ("better", Doubts(0.05, harmed=[Harmed("other", "views fell")]), "ship", "Ship new"),
        (
            "better",
            Doubts(0.05, novelty=fading((0.1, 0.2), (-0.01, 0.02))),
            "extend",
            "do not ship yet: the effect is not",
        ),
        ("better", Doubts(0.05, novelty=fading((0.1, 0.2), (0.01, 0.02))), "ship", "The effect is not stable"),
        ("better", Doubts(0.05, novelty=fading((0.1, 0.2), (-0.1, 0.2), stable=True)), "ship", "Ship new"),
        ("worse", Doubts(0.05, novelty=fading((-0.2, -0.1), (0.01, 0.02))), "extend", "do not stop yet"),
        ("better", Doubts(0.05, look=(3, 5)), "extend", "look 3 of 5"),
        ("not_worse", Doubts(0.05, foreign_lessons=0.2), "keep", "not shown to be better"),
        (
            "not_worse",
            Doubts(0.05, foreign_lessons=0.2, explorers=frozenset({"new"})),
            "invalid",
            "contamination failed",
        ),
    ],
    ids=range(12),
)
def test_what_speaks_against_an_effect_is_heard(reading, doubts, action, words):
    checks = [Check(name="contamination", passed=not doubts.foreign_lessons, statistic=0.2, pvalue=None, detail="20 %")]
    got = decide(GOAL, checks, [row("goal", reading)], END, doubts)
    assert got.action == action
    assert words in got.sentence
