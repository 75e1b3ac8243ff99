from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import BadSettings
from thinslice.experiments import dump_experiment, is_running, parse_experiment
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
        (("days = 14", 'unit = "moon"'), "unit is 'moon'; it can be visitor, session, user"),
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
    moments = sorted(draw(st.lists(times, min_size=3, max_size=3)))
    return Experiment(
        name=draw(names), tenant=draw(names), hypothesis=draw(st.text(st.characters(codec="utf-8"))), metrics=metrics,
        variants=[Variant(name=n, policy="popular", weight=p / sum(parts)) for n, p in zip(labels, parts, strict=True)],
        control=draw(st.sampled_from([*labels, ""])), coverage=draw(st.floats(0.001, 1)),
        days=draw(st.none() | st.floats(0.01, 1000)), started_at=draw(st.none() | st.just(moments[0])),
        ends_at=draw(st.none() | st.just(moments[1])), stopped_at=draw(st.none() | st.just(moments[2])),
    )  # fmt: skip


@given(experiments())
def test_what_is_written_is_read_back_the_same(experiment):
    assert parse_experiment(dump_experiment(experiment), experiment.tenant) == experiment


def test_built_in_metrics_are_made_of_columns_that_exist():
    used = {c for metric in METRICS.values() for c in (metric.numerator, metric.denominator) if c}
    assert used <= set(UNIT_COLUMNS)
