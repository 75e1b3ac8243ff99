"""Columns become sessions, oldest first; nothing is lost, nothing depends on the order of the rows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.models import Vocabulary, from_columns

columns = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 1000)), max_size=40)


def as_lists(found):
    ends = found.session_ptr.tolist()
    return [[found.item_ids[code] for code in found.item[start:end]] for start, end in pairwise(ends)]


def test_sessions_come_oldest_first_by_their_last_click():
    found = from_columns(["x", "y", "x", "z"], ["a", "b", "c", "a"], [1, 2, 9, 3])
    assert as_lists(found) == [["b"], ["a"], ["a", "c"]]
    assert found.time.tolist() == [2, 3, 1, 9]


@given(columns)
def test_every_click_is_kept_in_its_session_in_the_order_of_time(rows):
    found = from_columns([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    sessions = {}
    for session, item, time in rows:
        sessions.setdefault(session, []).append((time, str(item)))
    expected = [[item for _, item in sorted(clicks, key=lambda click: click[0])] for clicks in sessions.values()]
    assert sorted(as_lists(found)) == sorted(expected)
    last = [found.time[end - 1] for end in found.session_ptr[1:].tolist()]
    assert last == sorted(last)


@given(st.permutations([(f"s{n}", f"i{n % 3}", 10.0 * n) for n in range(7)]))
def test_the_order_of_the_rows_changes_nothing(rows):
    found = from_columns(*zip(*rows, strict=True))
    straight = from_columns(*zip(*sorted(rows), strict=True))
    assert found.item_ids == straight.item_ids
    assert found.item.tobytes() == straight.item.tobytes()
    assert found.session_ptr.tobytes() == straight.session_ptr.tobytes()


def test_numbers_text_and_mixed_ids_all_become_text():
    assert from_columns([1, 1], np.array([10, 9]), [1, 2]).item_ids == ["9", "10"]
    assert from_columns([1, 1], np.array(["b", "a"], dtype=object), [1, 2]).item_ids == ["a", "b"]
    assert from_columns([1, 1], np.array([7, "x"], dtype=object), [1, 2]).item_ids == ["7", "x"]


@given(st.lists(st.integers(-130, 125) | st.sampled_from([2**40, -(2**40)]), min_size=1, max_size=30))
def test_numbers_close_together_or_far_apart_get_codes_in_their_order(numbers):
    found = from_columns([0] * len(numbers), np.array(numbers), range(len(numbers)))
    assert found.item_ids == [str(number) for number in sorted(set(numbers))]
    assert [found.item_ids[code] for code in found.item.tolist()] == [str(number) for number in numbers]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.uint64])
def test_narrow_and_unsigned_numbers_are_not_cut(kind):
    limits = np.iinfo(kind)
    low, high = int(limits.min), int(limits.max)
    assert from_columns([0, 0], np.array([low, high], dtype=kind), [1, 2]).item_ids == [str(low), str(high)]
    near = from_columns([0, 0], np.array([high - 1, high], dtype=kind), [1, 2])
    assert near.item_ids == [str(high - 1), str(high)]


def test_a_running_number_is_told_from_a_clock():
    assert from_columns([1], [1], [982_960]).order_only
    assert not from_columns([1], [1], [1_396_437_466]).order_only
    assert not from_columns([1], [1], [5], order_only=False).order_only


def test_columns_of_different_length_and_times_that_are_no_numbers_are_refused():
    with pytest.raises(BadInput, match=r"equally long, got \(1, 2, 2\)"):
        from_columns([1], [1, 2], [1, 2])
    with pytest.raises(BadInput, match="1 of 2 times are not finite"):
        from_columns([1, 1], [1, 2], [1, float("nan")])


@given(st.lists(st.text(max_size=12), unique=True, max_size=30))
def test_a_vocabulary_reads_back_as_it_was_written(item_ids):
    assert list(Vocabulary.from_arrays(Vocabulary(item_ids).arrays())) == item_ids


def test_a_session_belongs_to_the_last_user_that_was_named_in_it():
    found = from_columns(
        ["a", "a", "b", "c", "c"], [1, 2, 1, 1, 3], [1, 2, 3, 5, 4], order_only=True,
        users=["ann", "", "", "ben", "ann"],
    )  # fmt: skip
    assert found.user is not None
    assert [found.user_ids[code] if code >= 0 else None for code in found.user.tolist()] == ["ann", None, "ben"]
    assert from_columns(["a"], [1], [1], users=[""]).user is None


def test_actions_travel_with_their_clicks():
    found = from_columns(["a", "a", "b"], [1, 2, 3], [2, 1, 3], actions=np.array([4, 0, 2], dtype=np.uint8))
    assert found.action is not None
    assert found.action.tolist() == [0, 4, 2]
    with pytest.raises(BadInput, match="actions must be below 8, got 9"):
        from_columns(["a"], [1], [1], actions=np.array([9], dtype=np.uint8))
    with pytest.raises(BadInput, match="users must have 1 values, one a click, got 2"):
        from_columns(["a"], [1], [1], users=["x", "y"])
