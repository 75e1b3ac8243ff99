"""The cut: the column split is honored, else the last days are the test; sessions are never cut."""

import numpy as np
import pytest

from thinslice.errors import BadInput
from thinslice.evaluation import split_log, stages
from thinslice.records import ACTIONS
from thinslice.sessions import VISITOR

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


def baskets(order):
    """Sixty baskets a day apart, five of nine items each, all rows of one at the same second."""
    draw = np.random.default_rng(1)
    kept = [sorted(draw.permutation(9)[:5].tolist()) for _ in range(60)]
    return log([(f"s{day}", f"i{item}", START_S + day * DAY_S)
                for day, basket in enumerate(kept) for item in order(basket)])  # fmt: skip


@pytest.mark.parametrize("order", [list, lambda basket: basket[::-1]], ids=["rising", "falling"])
def test_a_basket_that_a_file_sorts_by_item_is_asked_in_any_order(order):
    columns = baskets(order)
    split = split_log(columns)
    assert "shuffled" in split.how["same_moment"]
    assert sum(session == sorted(session, reverse=order is not list) for session in split.sessions) < 2
    of = {name: columns["item_id"][columns["session_id"] == name] for name in columns["session_id"]}
    assert sorted(split.sessions[0]) == sorted(of["s53"].tolist())
    assert split_log(columns).sessions == split.sessions  # the same each time


def test_baskets_in_an_order_of_their_own_and_clicks_at_different_times_stay_as_they_are():
    draw = np.random.default_rng(2)
    columns = baskets(lambda basket: draw.permutation(basket).tolist())
    split = split_log(columns)
    assert "same_moment" not in split.how
    assert split.sessions[0] == columns["item_id"][columns["session_id"] == "s53"].tolist()
    sorted_by_item = baskets(list)
    sorted_by_item["ts"] += np.tile(np.arange(5), 60)
    assert "same_moment" not in split_log(sorted_by_item).how


def test_of_a_long_log_it_is_the_last_seven():
    split = split_log(log(sessions(40)))
    assert (split.how["split"], split.how["test_sessions"]) == ("last 7 days", 7)


def test_of_a_log_without_a_clock_it_is_the_last_tenth_of_the_sessions():
    split = split_log(log(sessions(50, every=2, start=0)))
    assert split.how["order_only"]
    assert (split.how["split"], split.how["test_sessions"]) == ("last 10 % of the sessions", 5)


def test_so_it_is_of_a_log_shorter_than_a_day():
    split = split_log(log(sessions(50, every=600)))
    assert not split.how["order_only"]
    assert (split.how["split"], split.how["test_sessions"]) == ("last 10 % of the sessions", 5)
    with pytest.raises(BadInput, match="cutting off the last 1 day leaves one side empty"):
        split_log(log(sessions(50, every=600)), test_days=1)


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


def person(name, moments):
    return [(name, item, START_S + DAY_S * day) for day, item in moments]


def test_a_cut_at_a_moment_goes_through_sessions_and_keeps_what_came_before_as_history():
    rows = [*person("ann", [(0, "a"), (5, "b"), (9.2, "c"), (9.5, "a")]), *person("ben", [(1, "b"), (2, "c")]),
            *person("new", [(9.4, "a"), (9.6, "b")])]  # fmt: skip
    split = split_log(log(rows), cut="moment")
    assert split.how["train_clicks"] == 4
    assert sorted(zip(split.sessions, split.first, strict=True)) == [(["a", "b"], 1), (["a", "b", "c", "a"], 2)]
    assert split.query_count == 3
    assert split.how["split"] == "last 1 day, through sessions"


def test_who_is_known_is_told_and_who_is_not_is_nobody():
    rows = sessions(4)
    names = ["ann", "ann", "ben", "ben", "", "", "ann", "ann"]
    split = split_log(log(rows, split=["train"] * 4 + ["test"] * 4, user_id=names))
    assert split.users == [None, "ann"]
    assert list(split.train.user_ids) == ["ann", "ben"]
    numbered = split_log(log(rows, split=["train"] * 4 + ["test"] * 4, visitor_id=[7] * 6 + [-1] * 2))
    assert numbered.users == ["7", None]
    assert split_log(log(rows, split=["train"] * 4 + ["test"] * 4)).users == [None, None]


def test_clicks_on_items_never_seen_are_asked_apart_with_what_was_known_before_them():
    rows = [("s", "a", 1.0), ("s", "b", 2.0), ("t", "a", 3.0), ("t", "new", 4.0), ("t", "b", 5.0), ("u", "new", 6.0)]
    split = split_log(log(rows, split=["train"] * 2 + ["test"] * 4))
    assert split.unseen.sessions == [["a", "new"]]
    assert split.unseen.owner.tolist() == [0]


def test_how_many_days_are_asked_can_be_told():
    split = split_log(log(sessions(40)), test_days=3)
    assert (split.how["split"], split.how["test_sessions"]) == ("last 3 days", 3)
    with pytest.raises(BadInput, match="its last days are not known"):
        split_log(log(sessions(40, start=0)), test_days=3)


def test_in_stages_a_session_is_asked_of_what_had_ended_before_it_began():
    rows = sessions(48, every=DAY_S / 4)
    found = stages(log(rows), 6.0)
    whole = split_log(log(rows))
    assert sum(stage.query_count for stage in found) == whole.query_count
    assert [stage.how["train_sessions"] for stage in found] == sorted(stage.how["train_sessions"] for stage in found)
    assert found[0].how["train_sessions"] == whole.how["train_sessions"]
    assert found[-1].how["train_sessions"] > whole.how["train_sessions"]
    asked = START_S + (48 - 4) * DAY_S / 4
    for number, stage in enumerate(found):
        assert stage.ended <= asked + (number + 1) * 6 * 3600


def test_what_is_new_at_the_cut_is_known_in_a_later_stage():
    rows = [*sessions(20), ("x", "new", START_S + 19.1 * DAY_S), ("x", "a", START_S + 19.1 * DAY_S + 1),
            ("y", "a", START_S + 19.9 * DAY_S), ("y", "new", START_S + 19.9 * DAY_S + 1)]  # fmt: skip
    assert ["a", "new"] not in split_log(log(rows)).sessions
    assert any(["a", "new"] in stage.sessions for stage in stages(log(rows), 12.0))


@pytest.mark.parametrize(
    ("columns", "hours", "says"),
    [
        (log(sessions(50, start=0)), 6, "only tells the order"),
        (log(sessions(50)), 0, "every so many hours, got 0"),
        (log(sessions(50)), 0.01, "at most 1,000 are possible"),
    ],
)
def test_stages_that_cannot_be_are_refused(columns, hours, says):
    with pytest.raises(BadInput, match=says):
        stages(columns, hours)


def test_what_was_done_travels_with_the_clicks_of_a_log_without_views():
    split = split_log(log(sessions(4), split=["train"] * 4 + ["test"] * 4, event=["purchase", "cart"] * 4))
    assert split.train.action.tolist() == [ACTIONS.index("purchase"), ACTIONS.index("add_to_cart")] * 2
    views = split_log(log(sessions(4), split=["train"] * 4 + ["test"] * 4, event=["view"] * 8))
    assert views.train.action is None


def test_a_login_merges_visitor_and_user_and_only_from_then_on_is_known_who_asks():
    rows = [("s", "a", 0), ("s", "b", 1), ("t", "a", DAY_S), ("t", "b", DAY_S + 1), ("u", "b", 2 * DAY_S),
            ("u", "a", 2 * DAY_S + 1), ("w", "a", 3 * DAY_S), ("w", "b", 3 * DAY_S + 1)]  # fmt: skip
    users = ["", "", "", "ann", "", "", "", "ben"]
    columns = log(rows, user_id=users, visitor_id=["v"] * 6 + ["other"] * 2)
    early = split_log(columns | {"split": np.array(["train"] * 2 + ["test"] * 6)})
    assert list(early.train.user_ids) == [VISITOR + "v"]
    assert early.users == [VISITOR + "v", "ann", VISITOR + "other"]
    late = split_log(columns | {"split": np.array(["train"] * 6 + ["test"] * 2)})
    assert list(late.train.user_ids) == ["ann"]
    assert late.users == [VISITOR + "other"]
