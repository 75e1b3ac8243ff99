"""The variant of an experiment as an OpenFeature flag."""

from datetime import UTC, datetime, timedelta

import pytest
from openfeature import api as openfeature
from openfeature.evaluation_context import EvaluationContext
from openfeature.track import TrackingEventDetails

from thinslice.experiments import assign, bucket, dump_experiment, parse_experiment, with_start
from thinslice.serving import ExperimentFiles
from thinslice.serving.flags import ThinsliceProvider

NOW = datetime(2026, 5, 1, tzinfo=UTC)
TWO = """
[[variants]]
name = "old"
policy = "popular"
weight = 0.2
[[variants]]
name = "new"
policy = "newest"
weight = 0.8
"""


class Log:
    def __init__(self):
        self.rows, self.events = [], []

    def exposure(self, exposure):
        self.rows.append(exposure)


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def start(tmp_path):
    def write(text):
        started = with_start(parse_experiment(text, "shop"), NOW)
        (tmp_path / "shop").mkdir(exist_ok=True)
        (tmp_path / "shop" / f"{started.name}.toml").write_text(dump_experiment(started))
        return started

    return write


@pytest.fixture
def client(tmp_path, log):
    moment = [NOW]

    def clock():
        moment[0] += timedelta(seconds=1)
        return moment[0]

    provider = ThinsliceProvider("shop", ExperimentFiles(tmp_path), log, events=log.events.append, clock=clock)
    openfeature.set_provider(provider, "thinslice-test")
    yield openfeature.get_client("thinslice-test")
    openfeature.clear_providers()


def who(key, **attributes):
    return EvaluationContext(targeting_key=key, attributes=attributes)


def test_a_flag_is_the_variant_with_its_bucket_and_probability(client, start):
    of = start('name = "ranker"\n' + TWO)
    for n in range(30):
        got = client.get_string_details("ranker", "none", who(f"v{n}"))
        assert got.value == got.variant == assign(of, f"v{n}").variant
        assert got.reason == "SPLIT"
        assert got.flag_metadata["propensity"] == {"old": 0.2, "new": 0.8}[got.value]
        assert got.flag_metadata["bucket"] == bucket("shop:ranker", f"v{n}")
        assert got.flag_metadata["allocation_version"] == 1
        assert client.get_boolean_value("ranker", False, who(f"v{n}")) == (got.value == "new")
        policy = {"old": "popular", "new": "newest"}[got.value]
        assert client.get_object_value("ranker", {}, who(f"v{n}")) == {"variant": got.value, "policy": policy}


def test_each_evaluation_is_logged_with_the_full_vector(client, start, log):
    start('name = "ranker"\n' + TWO)
    client.get_string_value("ranker", "none", who("v1", session_id="s1"))
    (exposure,) = log.rows
    (noted,) = exposure.experiments
    assert (exposure.tenant, exposure.visitor_id, exposure.session_id) == ("shop", "v1", "s1")
    assert noted.propensities == {"old": 0.2, "new": 0.8}
    assert noted.unit_id == "v1"
    assert exposure.policy == {"old": "popular", "new": "newest"}[noted.variant]


def test_who_is_held_out_gets_the_default_and_is_logged_in_the_holdout_alone(client, start, log):
    start('name = "ranker"\n' + TWO)
    start(
        'name = "holdout"\nkind = "holdout"\ntraining = "shared"\n[[variants]]\nname = "held"\npolicy = "popular"\n'
        '[[variants]]\nname = "measured"\npolicy = "unchanged"\n'
    )
    seen = set()
    for n in range(40):
        got = client.get_string_details("ranker", "default", who(f"v{n}"))
        names = [each.experiment for each in log.rows[-1].experiments]
        seen.add((got.value == "default", tuple(names)))
    assert seen == {(True, ("holdout",)), (False, ("holdout", "ranker"))}


def test_outside_of_the_coverage_the_default_holds_and_nothing_is_logged(client, start, log):
    start('name = "ranker"\ncoverage = 0.01\n' + TWO)
    values = {client.get_string_value("ranker", "default", who(f"v{n}")) for n in range(20)}
    assert "default" in values
    assert len(log.rows) < 5


def test_the_unit_is_the_targeting_key_or_the_attribute_that_names_it(client, start, log):
    start('name = "byuser"\nunit = "user"\n' + TWO)
    start('name = "bycity"\nunit = "cluster"\ncluster = "city"\ntraining = "shared"\n' + TWO)
    client.get_string_value("byuser", "none", who("u7"))
    assert (log.rows[-1].user_id, log.rows[-1].experiments[0].unit_id) == ("u7", "u7")
    client.get_string_value("byuser", "none", who(None, user_id="u8"))
    assert log.rows[-1].experiments[0].unit_id == "u8"
    client.get_string_value("bycity", "none", who(None, city="Graz"))
    assert log.rows[-1].experiments[0].unit_id == "Graz"


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda client: client.get_string_details("absent", "x", who("v1")), "FLAG_NOT_FOUND"),
        (lambda client: client.get_string_details("ranker", "x", who(None)), "TARGETING_KEY_MISSING"),
        (lambda client: client.get_integer_details("ranker", 3, who("v1")), "TYPE_MISMATCH"),
        (lambda client: client.get_float_details("ranker", 3.0, who("v1")), "TYPE_MISMATCH"),
    ],
    ids=["absent", "nobody", "integer", "float"],
)
def test_what_cannot_be_resolved_is_the_default_with_its_reason(client, start, log, ask, code):
    start('name = "ranker"\n' + TWO)
    got = ask(client)
    assert got.value in ("x", 3, 3.0)
    assert got.error_code.value == code
    assert log.rows == []


def test_what_is_tracked_becomes_an_event(client, log):
    client.track("add_to_cart", who("v1", item_id="mug"), TrackingEventDetails(value=12.5))
    client.track("signed_up", who("v1"), TrackingEventDetails(attributes={"plan": "pro"}))
    first, second = log.events
    assert (first.name, first.visitor_id, first.item_id, first.value) == ("add_to_cart", "v1", "mug", 12.5)
    assert (second.name, second.context) == ("custom", {"name": "signed_up", "plan": "pro"})
    assert first.event_id != second.event_id
