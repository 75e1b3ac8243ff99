from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import BadSettings
from thinslice.experiments import (
    dump_experiment,
    is_running,
    look_times,
    parse_experiment,
    with_allocation,
    with_start,
)
from thinslice.experiments.definition import edits
from thinslice.metrics import DEFAULT_METRICS, METRICS, UNIT_COLUMNS
from thinslice.records import Experiment, Metric, Variant

GOOD = """
name = "knn-or-popular"
hypothesis = "Sessions tell more than sales ranks."
days = 14
[[variants]]
name = "popular"
policy = "popular"
weight = 0.5
[[variants]]
name = "knn"
policy = "session-knn"
weight = 0.5
[[metrics]]
name = "revenue_per_visitor"
[[metrics]]
name = "click_through_rate"
[[metrics]]
name = "clicks_per_session"
numerator = "clicks"
denominator = "sessions"
margin = 0.1
"""


def test_a_file_becomes_an_experiment():
    got = parse_experiment(GOOD, "shop", "a.toml")
    assert got.tenant == "shop"
    assert got.control_name == "popular"
    assert [(m.name, m.numerator, m.denominator, m.role, m.margin) for m in got.metrics] == [
        ("revenue_per_visitor", "revenue_minor", None, "goal", None),
        ("click_through_rate", "clicks", "exposures", "driver", None),
        ("clicks_per_session", "clicks", "sessions", "guardrail", 0.1),
    ]
    assert not is_running(got)


def test_without_metrics_the_default_ones_hold():
    text = 'name="a"\nvariants=[{name="a",policy="popular"},{name="b",policy="newest"},{name="c",policy="none"}]'
    got = parse_experiment(text, "shop")
    assert got.metrics == DEFAULT_METRICS
    assert abs(sum(v.weight for v in got.variants) - 1) < 1e-12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("weight = 0.5", "weight = 0.4"), "a.toml: the weights sum to 0.8; they have to sum to 1."),
        (('name = "knn"', 'name = "popular"'), "variant 'popular' occurs twice"),
        (('name = "knn"', 'name = "Größe"'), "is no name"),
        (('name = "knn"', 'name = "knn\\n"'), "is no name"),
        (("days = 14", "days = 0"), "days is 0"),
        (("days = 14", "dayz = 14"), "dayz"),
        (("days = 14", 'days = "two weeks"'), "days"),
        (("days = 14", 'control = "nobody"'), "control 'nobody' is no variant (there is: popular, knn)"),
        (("days = 14", 'unit = "moon"'), "unit is 'moon'; it can be visitor, user, session, cluster, block"),
        (("days = 14", 'training = "mixed"'), "training is 'mixed'"),
        (("days = 14", "coverage = 1.5"), "coverage is 1.5"),
        (("days = 14", "alpha = 0"), "alpha is 0"),
        (("days = 14", "allocation_version = 0"), "allocation_version is 0"),
        (("days = 14", 'tenant = "other"'), "tenant is 'other'"),
        (("days = 14", "started_at = 2026-01-01T00:00:00"), "without a time zone"),
        (("days = 14", "started_at = 2026-01-02T00:00:00Z\nends_at = 2026-01-01T00:00:00Z"), "lies before"),
        (("days = 14", "days = = 14"), "is not valid TOML"),
        (("margin = 0.1", "margin = 10"), "it is relative, 0.02 for 2 % worse"),
        (("margin = 0.1", 'role = "guardrail"'), "has no margin"),
        (("margin = 0.1", 'role = "goal"'), "there are 2 goals"),
        (("margin = 0.1", 'direction = "left"'), "direction of metric"),
        (('numerator = "clicks"', 'numerator = "klicks"'), "numerator 'klicks'"),
        (("days = 14", 'unit = "cluster"'), "unit is 'cluster' but cluster is missing"),
        (("days = 14", 'cluster = "city"'), 'clusters need unit = "cluster"'),
        (("days = 14", 'unit = "block"'), "unit is 'block' but block_minutes is missing"),
        (("days = 14", "block_minutes = 60"), 'blocks need unit = "block"'),
        (("days = 14", 'unit = "block"\nblock_minutes = 60\nburn_in_minutes = 60'), "burn_in_minutes is 60"),
        (("days = 14", "burn_in_minutes = 5"), "only blocks have a burn-in"),
        (("days = 14", 'unit = "block"\nblock_minutes = 60\ncoverage = 0.5'), "blocks take everybody"),
        (("days = 14", 'unit = "session"\nrerandomize_days = 7'), "each session is drawn anew anyway"),
        (("days = 14", 'unit = "session"\ncovariate_days = 7'), "a session has no past of its own"),
        (("days = 14", "covariate_days = inf"), "covariate_days is inf"),
        (("days = 14", "covariate_days = 7\nrerandomize_days = 7"), "their past is another variant's doing"),
        (("days = 14", "layer_range = [0.0, 0.5]"), "there is no layer"),
        (("days = 14", 'layer = "home"\nlayer_range = [0.5, 0.5]'), "layer_range is [0.5, 0.5]"),
        (("days = 14", 'kind = "backtest"'), "a backtest names in `of`"),
        (("days = 14", 'of = "ranker"'), "only a backtest comes after"),
        (("days = 14", "looks = 5"), "5 looks are planned, but no end"),
        (("days = 14", "days = 14\nlooks = 0"), "looks is 0; it is 1 to 1,000 looks"),
        (("days = 14", "looks = [2026-01-02T00:00:00Z, 2026-01-01T00:00:00Z]"), "have to follow one another"),
        (
            ("days = 14", "looks = [2026-01-02T00:00:00Z]\nends_at = 2026-01-01T00:00:00Z"),
            "a look at 2026-01-02T00:00:00+00:00 lies after ends_at",
        ),
        (("days = 14", 'segments = ["device", "converted"]'), "segment 'converted' is known only after the exposure"),
        (("days = 14", 'segments = ["add_to_cart"]'), "segment 'add_to_cart' is known only after the exposure"),
        (("days = 14", 'segments = ["device", "device"]'), "segment 'device' occurs twice"),
        (("days = 14", "power = 1"), "power is 1"),
        (("days = 14", 'allocation = "results"'), "allocation is 'results'; it can be fixed, thompson"),
        (("days = 14", 'allocation = "thompson"\nallocation_floor = 0.6'), "so that no variant dies out"),
        (("margin = 0.1", "quantile = 0.9"), "a quantile and a denominator"),
        (("margin = 0.1", "cap = 5\ncap_quantile = 0.99"), "one of them says where values are cut"),
        (("margin = 0.1", "cap_quantile = 99"), "the cap_quantile of metric 'clicks_per_session' is 99"),
        (("margin = 0.1", "cap = 0"), "the cap of metric 'clicks_per_session' is 0; it is above 0"),
        (("margin = 0.1", "mde = -0.1"), "the mde of metric 'clicks_per_session' is -0.1"),
        (('numerator = "clicks"', ""), "is not built in and has no numerator"),
        (("weight = 0.5\n[[metrics]]", "[[metrics]]"), "1 of 2 variants have a weight"),
    ],
)
def test_a_file_that_does_not_hold_together_is_refused_with_its_reason(change, words):
    assert change[0] in GOOD
    with pytest.raises(BadSettings) as caught:
        parse_experiment(GOOD.replace(*change), "shop", "a.toml")
    assert words in str(caught.value)


def test_one_variant_is_no_experiment():
    with pytest.raises(BadSettings, match="at least 2 variants, got 1"):
        parse_experiment('name="a"\nvariants=[{name="a",policy="popular"}]', "shop")
    with pytest.raises(BadSettings, match="at least 2 variants, got 0"):
        parse_experiment('name="a"\nvariants=[]', "shop")
    with pytest.raises(BadSettings, match="nothing to compare"):
        parse_experiment(GOOD.replace("weight = 0.5", "weight = 1", 1).replace("weight = 0.5", "weight = 0"), "shop")


names = st.from_regex(r"[a-z0-9_-]{1,64}", fullmatch=True)
times = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@st.composite
def experiments(draw):
    labels = draw(st.lists(names, min_size=2, max_size=4, unique=True))
    parts = [draw(st.integers(1, 9)) for _ in labels]
    metrics = [Metric(name="goal", numerator="orders", role="goal", direction=draw(st.sampled_from(["up", "down"])))]
    if draw(st.booleans()):
        margin = draw(st.floats(0.001, 0.99))
        metrics.append(Metric(name="g", numerator="views", denominator="sessions", role="guardrail", margin=margin))
    moments = sorted(draw(st.lists(times, min_size=3, max_size=3, unique=True)))
    unit = draw(st.sampled_from([
        {}, {"unit": "user", "rerandomize_days": 7.0}, {"unit": "cluster", "cluster": "city"},
        {"layer": "home", "layer_range": (0.25, 0.75)}, {"sticky": False, "covariate_days": 14.0, "looks": 3},
        {"allocation": "thompson", "allocation_floor": 0.2, "looks": [moments[1]], "segments": ["device", "country"]},
    ]))  # fmt: skip
    return Experiment(
        name=draw(names), tenant=draw(names), hypothesis=draw(st.text(st.characters(codec="utf-8"))), metrics=metrics,
        variants=[
            Variant(name=n, policy="popular", weight=p / sum(parts), forced=draw(st.sampled_from([[], [f"unit {n}"]])))
            for n, p in zip(labels, parts, strict=True)
        ],
        control=draw(st.sampled_from([*labels, ""])), coverage=draw(st.floats(0.001, 1)),
        days=draw(st.floats(0.01, 1000)), started_at=draw(st.none() | st.just(moments[0])),
        ends_at=draw(st.none() | st.just(moments[1])), stopped_at=draw(st.none() | st.just(moments[2])), **unit,
    )  # fmt: skip


@given(experiments(), times)
def test_a_start_is_signed_and_read_back_the_same(experiment, now):
    if experiment.ends_at is None and experiment.looks is None:
        started = with_start(experiment, now)
        assert parse_experiment(dump_experiment(started), experiment.tenant) == started
        assert edits(started) == []


@given(experiments())
def test_what_is_written_is_read_back_the_same(experiment):
    assert parse_experiment(dump_experiment(experiment), experiment.tenant) == experiment


def test_built_in_metrics_are_made_of_columns_that_exist():
    used = {c for metric in METRICS.values() for c in (metric.numerator, metric.denominator) if c}
    assert used <= set(UNIT_COLUMNS)


NOW = datetime(2026, 1, 1, tzinfo=UTC)
STARTED = with_start(parse_experiment(GOOD, "shop"), NOW)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("weight = 0.5", "weight = 0.50"), None),
        (('hypothesis = "Sessions', 'hypothesis = "All sessions'), None),
        (("margin = 0.1", "margin = 0.3"), "metrics"),
        (('policy = "popular"', 'policy = "newest"'), "variants"),
        (("coverage = 1.0", "coverage = 0.5"), "coverage"),
        (("ends_at = 2026-01-15", "ends_at = 2026-01-05"), "ends_at"),
        (('unit = "visitor"', 'unit = "user"'), "unit"),
    ],
)
def test_a_started_file_that_was_edited_in_what_matters_is_refused_by_the_name_of_the_field(change, field):
    text = dump_experiment(STARTED)
    assert change[0] in text
    edited = text.replace(*change)
    if field is None:
        assert edits(parse_experiment(edited, "shop")) == []
        return
    with pytest.raises(BadSettings, match=f"{field} of 'knn-or-popular' changed after its start"):
        parse_experiment(edited, "shop")
    assert edits(parse_experiment(edited, "shop", edited=True)) == [field]


def test_testers_may_be_added_while_it_runs():
    text = dump_experiment(STARTED).replace('policy = "popular"', 'policy = "popular"\nforced = ["tester-1"]')
    assert parse_experiment(text, "shop").variants[0].forced == ["tester-1"]


def test_a_ramp_is_a_new_allocation_version_and_its_history_stays():
    later = NOW.replace(day=3)
    ramped = with_allocation(
        with_start(parse_experiment(GOOD + "", "shop"), NOW), later, weights={"popular": 0.2, "knn": 0.8}
    )
    assert ramped.allocation_version == 2
    assert [(each.version, each.since, each.weights["knn"]) for each in ramped.history] == [
        (1, NOW, 0.5),
        (2, later, 0.8),
    ]
    assert parse_experiment(dump_experiment(ramped), "shop") == ramped


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"coverage": 0.5}, "coverage is 1 and only grows"),
        ({"coverage": 1.0}, "nothing changes"),
        ({"weights": {"knn": 0.7}}, "the weights sum to 1.2"),
        ({"weights": {"new": 0.7}}, "has no variant 'new' (there is: popular, knn)"),
    ],
    ids=["smaller", "same", "sum", "unknown"],
)
def test_an_allocation_that_cannot_be_is_refused(change, words):
    with pytest.raises(BadSettings) as caught:
        with_allocation(STARTED, NOW, **change)
    assert words in str(caught.value)


def test_planned_looks_are_spread_evenly_and_end_with_the_experiment():
    planned = with_start(parse_experiment(GOOD.replace("days = 14", "days = 10\nlooks = 5"), "shop"), NOW)
    assert [at.day for at in look_times(planned)] == [3, 5, 7, 9, 11]
    assert look_times(planned)[-1] == planned.ends_at
    assert look_times(STARTED) == []
