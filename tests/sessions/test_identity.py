"""A login merges visitor and user: backwards, forwards only on a device of one person, never from the future."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thinslice.sessions import VISITOR, identify, known_at_start, people


def merged(*sessions, as_of=None):
    """(visitor, user, start) → the user of each session; a session takes 5 s."""
    visitor, user, start = (list(column) for column in zip(*sessions, strict=True))
    return identify(visitor, user, start, [at + 5 for at in start], as_of=as_of)


def test_what_a_visitor_did_before_the_login_belongs_to_the_user():
    found = merged(("v", "", 0), ("v", "", 10), ("v", "ann", 20), ("w", "", 30))
    assert found.user.tolist() == ["ann", "ann", "ann", ""]
    assert found.known_at.tolist() == [20, 20, 25, np.inf]


def test_after_a_logout_the_visitor_is_still_the_same_person():
    found = merged(("v", "ann", 0), ("v", "", 10))
    assert found.user.tolist() == ["ann", "ann"]
    assert found.known_at.tolist() == [5, 15]


def test_on_a_shared_device_each_session_goes_to_the_next_login_and_none_after_the_last():
    found = merged(("v", "", 0), ("v", "ann", 10), ("v", "", 20), ("v", "bob", 30), ("v", "", 40))
    assert found.user.tolist() == ["ann", "ann", "bob", "bob", ""]


def test_a_login_of_the_future_is_not_known_yet():
    sessions = (("v", "", 0), ("v", "", 10), ("v", "ann", 20), ("v", "", 30))
    assert merged(*sessions, as_of=15).user.tolist() == ["", "", "", ""]
    assert merged(*sessions, as_of=20).user.tolist() == ["ann", "ann", "ann", ""]
    assert merged(*sessions).user.tolist() == ["ann"] * 4


def test_a_second_user_of_the_future_takes_nothing_back():
    sessions = (("v", "ann", 0), ("v", "", 10), ("v", "bob", 20))
    assert merged(*sessions, as_of=12).user.tolist() == ["ann", "ann", ""]
    assert merged(*sessions).user.tolist() == ["ann", "bob", "bob"]


def test_without_a_visitor_id_nothing_is_merged():
    assert merged(("", "", 0), ("", "ann", 10)).user.tolist() == ["", "ann"]


def test_nothing_gives_nothing():
    found = identify([], [], [], [])
    assert found.user.tolist() == []
    assert found.known_at.tolist() == []


def test_a_session_is_asked_as_whom_the_service_knew_when_it_began():
    visitor, first, last = ["v", "v", "v", "w", ""], ["", "", "", "", ""], ["", "ann", "bob", "", "eve"]
    asked = known_at_start(visitor, first, last, [0, 10, 20, 30, 40])
    assert asked == ["", "", "ann", "", ""]  # the login within a session is not known at its start
    assert people(asked, visitor) == [VISITOR + "v", VISITOR + "v", "ann", VISITOR + "w", ""]


sessions = st.lists(
    st.tuples(st.sampled_from(["", "v", "w"]), st.sampled_from(["", "", "ann", "bob"]), st.integers(0, 50)),
    min_size=1, max_size=12,
)  # fmt: skip


@given(sessions, st.integers(0, 60))
def test_what_is_known_at_a_moment_is_what_the_log_until_then_says(rows, moment):
    before = [row for row in rows if row[2] <= moment]
    found = merged(*rows, as_of=moment)
    seen = [number for number, row in enumerate(rows) if row[2] <= moment]
    if before:
        alone = merged(*before)
        assert found.user[seen].tolist() == alone.user.tolist()
        assert found.known_at[seen].tolist() == alone.known_at.tolist()
    assert all(not found.user[number] for number, row in enumerate(rows) if row[2] > moment)


@given(sessions)
def test_a_login_is_never_overruled_and_nobody_is_invented(rows):
    found = merged(*rows)
    for (visitor, user, start), named, at in zip(rows, found.user.tolist(), found.known_at.tolist(), strict=True):
        assert not user or named == user
        assert named in {""} | {other for who, other, _ in rows if who == visitor} | {user}
        assert at >= start
