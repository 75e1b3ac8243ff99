"""The table of sessions: each visit once, when it is over, whatever is killed or comes late."""

from datetime import UTC, datetime, timedelta

import pytest

from thinslice.jobs.sessions import RAN_AT, write_sessions
from thinslice.records import Event, ExperimentExposure, Exposure, Session
from thinslice.store.lake import Lake
from thinslice.store.schemas import to_records

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=2)


def event(number, minutes, name="view_item", tenant="shop", **who):
    at = NOW + timedelta(minutes=minutes)
    return Event(event_id=f"e{number}", tenant=tenant, name=name, occurred_at=at, received_at=at, item_id="a", **who)


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")


def table(lake, tenant="shop"):
    connection = lake.connect(tenant=tenant)
    try:
        query = "SELECT * FROM sessions ORDER BY started_at, session_id"
        return to_records(Session, connection.sql(query).to_arrow_table())
    finally:
        connection.close()


def test_a_visit_stands_in_the_table_with_its_counts_once_it_is_over(lake):
    lake.add("events", [
        event(1, 0, visitor_id="v"), event(2, 5, "add_to_cart", visitor_id="v", user_id="u"),
        event(3, 6, "purchase", visitor_id="v", order_id="o"), event(4, 6, "purchase", visitor_id="v", order_id="o"),
        event(5, 60, visitor_id="v"), event(6, 3, visitor_id="w", session_id="s"), event(7, 4),
    ])  # fmt: skip
    soon = write_sessions(lake, NOW + timedelta(minutes=20))
    assert soon == (0, (NOW + timedelta(minutes=33)).timestamp())
    assert table(lake) == []
    assert write_sessions(lake, NOW + timedelta(minutes=40)).sessions == 2
    first, named = table(lake)
    start = int(NOW.timestamp())
    assert first == Session(
        tenant="shop", session_id=f"~v.{start}", started_at=NOW, ended_at=NOW + timedelta(minutes=6), visitor_id="v",
        user_id="u", event_count=4, view_count=1, cart_count=1, purchase_count=1,
    )  # fmt: skip
    assert (named.session_id, named.visitor_id, named.event_count) == ("s", "w", 1)
    assert write_sessions(lake, LATER) == (1, None)
    assert [row.event_count for row in table(lake)] == [4, 1, 1]


def test_the_same_run_again_writes_nothing(lake):
    lake.add("events", [event(n, n % 7, visitor_id=f"v{n % 5}") for n in range(40)])
    write_sessions(lake, LATER)
    version = lake.version("sessions")
    for hours in (0, 1, 24):
        assert write_sessions(lake, LATER + timedelta(hours=hours)).sessions == 0
    assert lake.version("sessions") == version
    assert lake.scan("sessions").num_rows == 5


class Killed(Exception):
    pass


@pytest.mark.parametrize("survived", range(5))
def test_a_run_that_was_killed_between_two_commits_is_repeated_and_writes_each_visit_once(lake, monkeypatch, survived):
    events = [event(n, n % 20, visitor_id=f"v{n % 30}") for n in range(120)]
    lake.add("events", events)
    add, commits = lake.add, []

    def mortal(*arguments, **told):
        if len(commits) == survived:
            raise Killed
        commits.append(1)
        return add(*arguments, **told)

    monkeypatch.setattr(lake, "add", mortal)
    with pytest.raises(Killed):
        write_sessions(lake, LATER, chunk=20)
    assert lake.covered_by("sessions", RAN_AT) == 0
    again = Lake(lake.root)
    write_sessions(again, LATER, chunk=20)
    assert again.scan("sessions").num_rows == len(table(again)) == 30
    assert sum(row.event_count for row in table(again)) == len(events)
    assert again.covered_by("sessions", RAN_AT) > 0


def test_what_comes_late_replaces_the_row_and_touches_no_other(lake):
    lake.add("events", [event(1, 0, session_id="s"), event(2, 10, session_id="s"), event(3, 0, session_id="t")])
    write_sessions(lake, LATER)
    lake.add("events", [event(4, 5, session_id="s")])
    assert write_sessions(lake, LATER + timedelta(minutes=1)).sessions == 1
    assert {row.session_id: row.event_count for row in table(lake)} == {"s": 3, "t": 1}
    lake.add("events", [event(5, 300, session_id="s")])
    assert write_sessions(lake, LATER + timedelta(hours=9)).sessions == 1
    assert {row.session_id: row.event_count for row in table(lake)} == {"s": 4, "t": 1}


def test_joined_files_change_nothing(lake):
    for n in range(4):
        lake.add("events", [event(n, n, visitor_id="v")])
        write_sessions(lake, LATER + timedelta(minutes=n))
    lake.maintain(now=LATER)
    assert write_sessions(lake, LATER + timedelta(days=1)).sessions == 0
    assert [row.event_count for row in table(lake)] == [4]


def test_tenants_stay_apart_and_bots_are_tagged(lake):
    fast = [event(n, n / 600, tenant="mall", visitor_id="v") for n in range(200)]
    lake.add("events", [event(900, 0, visitor_id="v"), *fast])
    write_sessions(lake, LATER)
    assert [(row.event_count, row.is_bot) for row in table(lake)] == [(1, False)]
    assert [(row.event_count, row.is_bot) for row in table(lake, "mall")] == [(200, True)]


def test_a_visit_carries_the_variant_in_force_at_its_start(lake):
    def exposure(minutes, variant):
        noted = ExperimentExposure(experiment="ranker", variant=variant, unit="visitor", unit_id="v",
                                   allocation_version=1, propensities={"old": 0.5, "new": 0.5})  # fmt: skip
        at = NOW + timedelta(minutes=minutes)
        return Exposure(recommendation_id=f"r{minutes}", tenant="shop", occurred_at=at,
                        placement="home", policy="p", model_version="m", visitor_id="v",
                        experiments=[noted])  # fmt: skip

    lake.add("events", [event(1, 0, visitor_id="v"), event(2, 10, visitor_id="v"), event(3, 100, visitor_id="v"),
                        event(4, 0, visitor_id="w")])  # fmt: skip
    lake.add("exposures", [exposure(1, "old"), exposure(101, "new")])
    write_sessions(lake, NOW + timedelta(hours=5))
    got = {(row.visitor_id, row.started_at): row.assignments for row in table(lake)}
    assert got == {
        ("v", NOW): {"ranker": "old"}, ("v", NOW + timedelta(minutes=100)): {"ranker": "old"}, ("w", NOW): {},
    }  # fmt: skip
