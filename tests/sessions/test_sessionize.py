"""Sessions at job time."""

from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.records import ACTIONS, Event
from thinslice.sessions import apply, assigned_at_start, sessionize, visits

events = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "b"]),
        st.sampled_from(["", "", "s", "t"]),
        st.sampled_from(["", "u"]),
        st.integers(0, 20_000),
    ),
    max_size=60,
)


def columns(rows):
    return [r[0] for r in rows], [r[1] for r in rows], [r[3] for r in rows], [r[2] for r in rows]


def by_hand(rows, gap=1800):
    """The slow, obvious way."""
    keys = {}
    for row, (visitor, session, user, at) in enumerate(rows):
        key = ("s", session) if session else ("v", visitor) if visitor else ("u", user) if user else None
        if key:
            keys.setdefault(key, []).append((at, row))
    groups = []
    for key, each in keys.items():
        each.sort()
        run = [each[0]]
        for before, here in pairwise(each):
            if key[0] != "s" and here[0] - before[0] > gap:
                groups.append(run)
                run = []
            run.append(here)
        groups.append(run)
    return {frozenset(row for _, row in group) for group in groups}


@settings(max_examples=200, deadline=None)
@given(events)
def test_sessions_are_those_that_one_would_find_by_hand(rows):
    visitor, session, time, user = columns(rows)
    found = sessionize(visitor, session, time, user=user)
    groups = {}
    for row, code in enumerate(found.code.tolist()):
        if code >= 0:
            groups.setdefault(code, set()).add(row)
    assert {frozenset(group) for group in groups.values()} == by_hand(rows)
    assert sorted(groups) == list(range(len(found.started)))
    for code, group in groups.items():
        times = [time[row] for row in group]
        assert (found.started[code], found.ended[code], found.event_count[code]) == (min(times), max(times), len(times))
        assert found.first[code] in group


@settings(max_examples=50, deadline=None)
@given(events)
def test_sessions_are_numbered_by_their_start(rows):
    visitor, session, time, user = columns(rows)
    assert np.all(np.diff(sessionize(visitor, session, time, user=user).started) >= 0)


def test_a_given_session_is_never_split_and_a_silence_of_a_visitor_is():
    found = sessionize(["a", "a", "b", "b"], ["s", "s", "", ""], [0, 90_000, 0, 90_000])
    assert found.code[0] == found.code[1]
    assert found.code[2] != found.code[3]


def test_exactly_thirty_minutes_is_still_the_same_session():
    assert len(sessionize(["a", "a"], ["", ""], [0, 1800]).started) == 1
    assert len(sessionize(["a", "a"], ["", ""], [0, 1801]).started) == 2


def test_an_event_of_nobody_is_in_no_session():
    assert sessionize([""], [""], [0]).code.tolist() == [-1]


def test_an_empty_log_has_no_sessions():
    assert len(sessionize([], [], []).started) == 0


def test_a_session_belongs_to_the_variant_of_the_last_exposure_before_it():
    started, ended = np.array([0.0, 100.0, 300.0, 100.0]), np.array([10.0, 110.0, 310.0, 110.0])
    found = assigned_at_start(
        started, ended, ["a", "a", "a", "b"], ["a", "a"], [105.0, 200.0], ["control", "treatment"]
    )
    assert found.tolist() == ["", "control", "treatment", ""]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=15),
    st.lists(st.tuples(st.sampled_from(["a", "b", "d", ""]), st.integers(0, 50)), max_size=10),
)
def test_assignments_are_those_that_one_would_find_by_hand(exposures, sessions):
    variants = [f"v{row}" for row in range(len(exposures))]
    started = np.array([at for _, at in sessions], dtype=float)
    found = assigned_at_start(
        started, started + 5, [unit for unit, _ in sessions],
        [unit for unit, _ in exposures], [at for _, at in exposures], variants,
    )  # fmt: skip
    for (unit, at), variant in zip(sessions, found.tolist(), strict=True):
        own = sorted((when, row) for row, (who, when) in enumerate(exposures) if who == unit)
        before = [row for when, row in own if when <= at]
        inside = [row for when, row in own if at < when <= at + 5]
        assert variant == (f"v{before[-1]}" if before else f"v{inside[0]}" if inside else "")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from(ACTIONS[:5])), max_size=40))
def test_visits_at_job_time_are_those_of_the_live_session(rows):
    began = datetime(2026, 3, 1, tzinfo=UTC)
    live = {
        visitor: apply(None, [
            Event(event_id=str(second), tenant="shop", name=name, visitor_id=visitor, item_id=item,
                  occurred_at=began + timedelta(seconds=second), received_at=began)
            for second, (who, item, name) in enumerate(rows) if who == visitor
        ])
        for visitor in "ab"
    }  # fmt: skip
    session = np.array(["ab".index(who) for who, _, _ in rows], dtype=np.int64)
    item = np.array(["xyz".index(each) for _, each, _ in rows], dtype=np.int32)
    action = np.array([ACTIONS.index(name) for _, _, name in rows], dtype=np.uint8)
    last, strongest = visits(session, item, action)
    assert last.tolist() == sorted(last.tolist())
    for code, visitor in enumerate("ab"):
        own = session[last] == code
        items = ["xyz"[each] for each in item[last[own]].tolist()]
        seconds = last[own].tolist()
        if live[visitor] is None:
            assert not items
            continue
        assert items == live[visitor].items
        assert [began.timestamp() + second for second in seconds] == live[visitor].times
        firsts = [0, *np.cumsum([len(list(run)) for run in _runs(rows, visitor)]).tolist()]
        acts = [ACTIONS.index(name) for who, _, name in rows if who == visitor]
        assert strongest[own].tolist() == [max(acts[a:b]) for a, b in pairwise(firsts)]


def _runs(rows, visitor):
    return [list(run) for _, run in groupby(item for who, item, _ in rows if who == visitor)]
