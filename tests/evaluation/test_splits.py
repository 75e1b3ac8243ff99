"""The cut: the column split is honored, else the last days are the test; sessions are never cut."""

import numpy as np
import pytest

from thinslice.errors import BadInput
from thinslice.evaluation import split_log

DAY_S = 86_400.0
START_S = 1_700_000_000.0


def log(rows, **more):
    columns = {
        "session_id": np.array([row[0] for row in rows]),
        "item_id": np.array([row[1] for row in rows]),
        "ts": np.array([row[2] for row in rows], dtype=float),
    }
    return columns | {name: np.array(values) for name, values in more.items()}


def sessions(count, *, every=DAY_S, start=START_S):
    return [(f"s{n}", item, start + n * every + click) for n in range(count) for click, item in enumerate("ab")]


def test_the_column_split_decides_and_other_parts_are_left_out():
    split = split_log(log(sessions(3), split=["train", "train", "valid", "valid", "test", "test"]))
    assert split.how["train_sessions"] == 1
    assert split.sessions == [["a", "b"]]
    assert split.how["split"] == "column split"


def test_without_it_the_last_day_of_a_short_log_is_the_test():
    split = split_log(log(sessions(20, every=DAY_S / 4)))
    assert (split.how["split"], split.how["test_sessions"], split.how["train_sessions"]) == ("last 1 day", 4, 16)


def test_of_a_long_log_it_is_the_last_seven():
    split = split_log(log(sessions(40)))
    assert (split.how["split"], split.how["test_sessions"]) == ("last 7 days", 7)


def test_of_a_log_without_a_clock_it_is_the_last_tenth_of_the_sessions():
    split = split_log(log(sessions(50, every=2, start=0)))
    assert split.how["order_only"]
    assert (split.how["split"], split.how["test_sessions"]) == ("last 10 % of the sessions", 5)


def test_order_only_can_be_told():
    assert split_log(log(sessions(50)), order_only=True).how["order_only"]


def test_a_session_over_the_cut_is_asked_whole_and_learned_nothing_from():
    rows = [*sessions(10), ("over", "b", START_S + 8 * DAY_S), ("over", "a", START_S + 9.5 * DAY_S)]
    split = split_log(log(rows))
    assert ["b", "a"] in split.sessions
    assert split.how["train_clicks"] + sum(len(session) for session in split.sessions) == len(rows)


def test_test_items_that_were_never_seen_are_removed_first():
    rows = [("s", "a", 1.0), ("s", "b", 2.0), ("t", "a", 3.0), ("t", "new", 4.0), ("t", "b", 5.0), ("u", "new", 6.0)]
    split = split_log(log(rows, split=["train"] * 2 + ["test"] * 4))
    assert split.sessions == [["a", "b"]]
    assert split.how["test_clicks_unknown_removed"] == 2


def test_only_views_count_where_there_are_any():
    rows = [("s", "a", 1.0), ("s", "b", 2.0), ("t", "a", 3.0), ("t", "b", 4.0), ("t", "b", 5.0)]
    split = split_log(log(rows, split=["train", "train", "test", "test", "test"], event=["view"] * 4 + ["purchase"]))
    assert split.sessions == [["a", "b"]]
    assert split.how["events"] == "view"
    whole = split_log(log(rows, split=["train", "train", "test", "test", "test"], event=["purchase"] * 5))
    assert whole.how["events"] == "all"
    assert whole.sessions == [["a", "b", "b"]]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"session_id": np.array([1]), "ts": np.array([1])}, r"lack the column item_id \(there is: session_id, ts\)"),
        (log([]), "the events are empty"),
        (log(sessions(1)), "leaves one side empty: all 1 sessions fall together"),
        (log(sessions(2), split=["train", "train", "late", "late"]), "it has: late, train"),
        (
            log([("s", "a", 1), ("t", "b", 2), ("t", "c", 3)], split=["train", "test", "test"]),
            "no test session has two",
        ),
    ],
)
def test_a_log_that_cannot_be_cut_is_refused_with_what_it_has(columns, says):
    with pytest.raises(BadInput, match=says):
        split_log(columns)
