"""Cuts a log into what models may learn from and the later clicks that they must foresee."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models import from_columns, goes_together, is_order_index
from thinslice.records import ACTIONS, Interactions
from thinslice.sessions import identify, known_at_start, people

DAY_S = 86_400
VIEWS = ("view", "view_item", "click")
"""Event names that are clicks on an item; a log without any of them is taken whole."""

OTHER_NAMES = {"click": "view_item", "view": "view_item", "cart": "add_to_cart", "buy": "purchase", "order": "purchase"}
"""What other logs call our actions."""

SORTED_PAIRS, SORTED_SHARE = 200, 0.99
"""Of so many neighbors of the same session and moment so many must rise (or fall) for a file to be sorted by item."""

CUTS = ("session", "moment")
"""Where a cut by time may go: between sessions, or through them at one moment."""


class Unseen(NamedTuple):
    """Clicks on items that nobody had clicked before the cut; asked apart, since most models cannot know them.

    Attributes:
        sessions: What was known (item ids, oldest first), then the unseen item.
        owner: Shape (queries,), int32: which test session each belongs to.
    """

    sessions: list[list[str]]
    owner: NDArray[np.int32]


class Split(NamedTuple):
    """What a model learns from, and the test sessions (item ids, oldest first) that it is asked about.

    Attributes:
        train: What models learn from.
        sessions: Test sessions with at least two known items, unknown items removed.
        how: The cut in plain values, for the report.
        first: Which click of each session is asked for first; the ones before are history, and train may hold them.
        users: Who asks in each session, as far as that was known when it began; None where nobody was.
        unseen: Clicks on items that are not in train.
        ended: When the last click of train was (unix seconds, or an order): the moment of the cut.
    """

    train: Interactions
    sessions: list[list[str]]
    how: dict[str, Any]
    first: list[int]
    users: list[str | None]
    unseen: Unseen
    ended: float

    @property
    def query_count(self) -> int:
        """Every click but the first of a session is asked for once."""
        return sum(len(session) - start for session, start in zip(self.sessions, self.first, strict=True))


class Log(NamedTuple):
    """The rows that count: which are learned from, which are asked for, and whether the cut goes through sessions.

    `user` and `visitor` are empty where unknown; None without such a column.
    """

    session: NDArray[Any]
    item: NDArray[Any]
    time: NDArray[np.float64]
    user: NDArray[np.str_] | None
    visitor: NDArray[np.str_] | None
    learn: NDArray[np.bool_]
    ask: NDArray[np.bool_]
    through: bool
    how: dict[str, Any]
    action: NDArray[np.uint8] | None = None


def split_log(
    columns: Mapping[str, NDArray[Any]],
    *,
    order_only: bool | None = None,
    cut: str = "session",
    test_days: float | None = None,
) -> Split:
    """Cuts by the column `split` if there is one, else the last days by time are the test.

    Without a column `split`: the last day when the log spans less than 30 days, else the last 7; of a log that only
    tells the order, or is shorter than a day, the last tenth of the sessions. A session belongs where its last click
    is and is never cut, unless `cut` is `moment`: then every click before one moment is learned from and every later
    one is asked for, with all that its session did before as history. That is for logs in which a session is a person.

    Args:
        columns: `session_id`, `item_id`, `ts` (unix seconds or an order), and if present `event`, `split` and
            `user_id` and `visitor_id` (empty or -1 where unknown); (rows,).
        order_only: Whether `ts` only tells the order; None finds out.
        cut: `session` or `moment`.
        test_days: How many days are the test, in place of 1 or 7.

    Raises:
        BadInput: A column is missing or has holes, one side of the cut is empty, or days are asked of a mere order.
    """
    log = cut_log(columns, order_only, cut, test_days)
    return _split(log, log.learn, log.ask)


def stages(
    columns: Mapping[str, NDArray[Any]],
    hours: float,
    *,
    order_only: bool | None = None,
    test_days: float | None = None,
) -> list[Split]:
    """The same cut, but models learn anew every so many hours from all sessions that ended until then.

    So each test session is asked at the moment when it began: of a model that knows what a served one would have
    known, at most `hours` old. Stages without a test session are left out.

    Args:
        columns: As `split_log`.
        hours: How often models learn.
        order_only: As `split_log`.
        test_days: As `split_log`.

    Raises:
        BadInput: As `split_log`; also if `ts` only tells the order, or there would be more than 1,000 stages.
    """
    if not hours > 0:
        raise BadInput(f"models can only learn every so many hours, got {hours}.")
    log = cut_log(columns, order_only, "session", test_days)
    if log.how["order_only"]:
        raise BadInput("ts only tells the order of this log, so nothing can be learned every so many hours of it.")
    _, session = np.unique(log.session, return_inverse=True)
    began, ended = np.full(session.max() + 1, np.inf), np.full(session.max() + 1, -np.inf)
    np.minimum.at(began, session, log.time)
    np.maximum.at(ended, session, log.time)
    cut_at = float(log.time[log.learn].max())
    stage = np.maximum(np.floor((began - cut_at) / (hours * 3600)), 0).astype(np.int64)
    count = int(stage[session[log.ask]].max()) + 1
    if count > 1000:
        raise BadInput(f"every {hours:g} hours would be {count:,} times, at most 1,000 are possible.")
    found = []
    for number in range(count):
        past = log.ask & (ended[session] < cut_at + number * hours * 3600)
        ask = log.ask & (stage[session] == number)
        if ask.any():
            with suppress(NothingAsked):
                found.append(_split(log, log.learn | (past if number else False), ask))
    if not found:
        raise NothingAsked(f"no test session has two items that were known at its start (every {hours:g} hours).")
    return found


class NothingAsked(BadInput):
    """No test session has two items that a model could know."""


def cut_log(columns: Mapping[str, NDArray[Any]], order_only: bool | None, cut: str, test_days: float | None) -> Log:
    """The rows that count and how they are cut; arguments and errors as of `split_log`."""
    missing = [name for name in ("session_id", "item_id", "ts") if name not in columns]
    if missing:
        there = ", ".join(columns) or "none"
        raise BadInput(f"the events lack the column {', '.join(missing)} (there is: {there}).",
                       hint="Needed are session_id, item_id and ts; event and split are used if present.")  # fmt: skip
    if cut not in CUTS:
        raise BadInput(f"a log is cut by {' or '.join(CUTS)}, not by {cut!r}.")
    rows = len(columns["ts"])
    kept = np.ones(rows, dtype=bool)
    event = "all"
    if "event" in columns:
        views = np.isin(columns["event"].astype(str), VIEWS)
        if views.any():
            kept, event = views, ", ".join(sorted(set(columns["event"][views].astype(str).tolist())))
    log = {name: column[kept] for name, column in columns.items()}
    times = np.asarray(log["ts"], dtype=np.float64)
    if times.size == 0:
        raise BadInput("the events are empty: there is nothing to learn from.")
    if not np.isfinite(times).all():
        raise BadInput(f"{int((~np.isfinite(times)).sum())} of {len(times)} values of ts are not finite numbers.")
    if order_only is None:
        order_only = is_order_index(times)
    shuffled = _shuffled(log, times)
    if shuffled is not None:
        log = {name: column[shuffled] for name, column in log.items()}
    if "split" in log and test_days is None and cut == "session":
        part = log["split"].astype(str)
        learn, ask = part == "train", part == "test"
        words = "column split"
        if not learn.any() or not ask.any():
            names = ", ".join(sorted(set(part.tolist())))
            raise BadInput(f"the column split needs rows `train` and rows `test`, it has: {names}.")
    else:
        learn, ask, words = _cut_by_time(log["session_id"], times, order_only, cut, test_days)
    how = {"split": words, "events": event, "order_only": order_only}
    if shuffled is not None:
        how["same_moment"] = "shuffled, since the file sorts them by item"
    user, visitor = _ids(log, "user_id"), _ids(log, "visitor_id")
    return Log(log["session_id"], log["item_id"], times, user, visitor, learn, ask, cut == "moment", how, _actions(log))


def _shuffled(log: Mapping[str, NDArray[Any]], times: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """The rows with those of one session and moment in any order, where the file sorts them by item; else None.

    A basket whose rows all have one time has no order. Sorted by item it would tell which items cannot come next.
    """
    _, session = np.unique(log["session_id"], return_inverse=True)
    order = np.lexsort((times, session))
    item = log["item_id"][order]
    same = (np.diff(session[order]) == 0) & (np.diff(times[order]) == 0) & (item[1:] != item[:-1])
    pairs = int(same.sum())
    rising = float((item[1:] > item[:-1])[same].mean()) if pairs else 0.5
    if pairs < SORTED_PAIRS or max(rising, 1 - rising) < SORTED_SHARE:
        return None
    rows = np.arange(len(times))
    rows[order] = np.lexsort((np.random.default_rng(0).random(len(times)), times, session))
    return rows


def _actions(log: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8] | None:
    """Codes into `records.ACTIONS`; None where all are views."""
    if "action_code" in log:
        codes = log["action_code"].astype(np.uint8)
    elif "event" in log:
        names, place = np.unique(log["event"].astype(str), return_inverse=True)
        known = [ACTIONS.index(name) if (name := OTHER_NAMES.get(each, each)) in ACTIONS else 0 for each in names]
        codes = np.array(known, dtype=np.uint8)[place.ravel()]
    else:
        return None
    return codes if codes.any() else None


def _ids(log: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.str_] | None:
    """Who did each row, empty where unknown; None without such a column."""
    if name not in log:
        return None
    ids = log[name].astype(np.str_)
    return np.where(np.isin(ids, ("-1", "None", "nan")), "", ids)


def _people(log: Log, until: float) -> tuple[NDArray[np.str_] | None, NDArray[np.str_] | None]:
    """Who did each row: as known at a moment, for learning; and as known when the session began, for asking.

    Where the log names both, a login merges visitor and user; a visitor whom no login names is a person, too.
    """
    if log.user is None or log.visitor is None:
        only = log.user if log.visitor is None else log.visitor
        return only, only if only is None else only[_first_rows(log)]
    first = _first_rows(log)
    heads, session = np.unique(first, return_inverse=True)
    order = np.argsort(log.time, kind="stable")
    named = order[log.user[order] != ""]
    last = np.full(len(heads), -1)
    last[session[named]] = named
    latest = np.append(log.user, "")[last]
    ended = np.full(len(heads), -np.inf)
    np.maximum.at(ended, session, log.time)
    visitor, started = log.visitor[heads], log.time[heads]
    known = identify(visitor, latest, started, ended, as_of=until).user
    asked = known_at_start(visitor, log.user[heads], latest, started)
    return np.array(people(known, visitor))[session], np.array(people(asked, visitor))[session]


def _first_rows(log: Log) -> NDArray[np.int64]:
    """The row with which each row's session began."""
    _, session = np.unique(log.session, return_inverse=True)
    order = np.lexsort((log.time, session))
    begins = np.append(True, np.diff(session[order]) != 0)
    heads: NDArray[np.int64] = order[begins][session.ravel()]
    return heads


def _split(log: Log, learn: NDArray[np.bool_], ask: NDArray[np.bool_]) -> Split:
    """Interactions of the rows to learn from, and sessions of the rows to ask for with what came before them."""
    order_only = bool(log.how["order_only"])
    ended = float(log.time[learn].max())
    learned, asking = _people(log, ended)
    train = from_columns(
        log.session[learn], log.item[learn], log.time[learn], order_only=order_only,
        users=None if learned is None else learned[learn],
        actions=None if log.action is None else log.action[learn],
    )  # fmt: skip
    shown = ask | (learn & np.isin(log.session, log.session[ask])) if log.through else ask
    test = from_columns(
        log.session[shown], log.item[shown], log.time[shown], order_only=order_only,
        users=None if asking is None else asking[shown],
        actions=None if log.action is None else log.action[shown],
    )  # fmt: skip
    begins = float(log.time[ask].min())
    known = set(train.item_ids)
    seen = [name in known for name in test.item_ids]
    sessions: list[list[str]] = []
    first: list[int] = []
    who: list[str | None] = []
    unseen: list[list[str]] = []
    owner: list[int] = []
    for number, (start, end) in enumerate(zip(test.session_ptr[:-1].tolist(), test.session_ptr[1:].tolist(),
                                              strict=True)):  # fmt: skip
        session: list[str] = []
        history = 0
        for code, time in zip(test.item[start:end].tolist(), test.time[start:end].tolist(), strict=True):
            asked = not log.through or time >= begins
            if seen[code]:
                session.append(test.item_ids[code])
                history += not asked
            elif asked and session:
                unseen.append([*session, test.item_ids[code]])
                owner.append(number)
        if len(session) > max(history, 1):
            sessions.append(session)
            first.append(max(history, 1))
            user = -1 if test.user is None else int(test.user[number])
            who.append(test.user_ids[user] if user >= 0 else None)
    if not sessions:
        hint = "Ask with a longer log."
        if not goes_together(train) and not goes_together(test):
            hint = "No session of this log holds two different items: nothing can be foreseen, and popular is enough."
        message = f"no test session has two items that occur in the {len(train.item)} clicks before."
        raise NothingAsked(message, hint=hint)
    how = {
        **log.how,
        "train_sessions": len(train.session_ptr) - 1,
        "train_clicks": len(train.item),
        "train_items": len(train.item_ids),
        "test_sessions": len(sessions),
        "test_clicks_unknown_removed": int((~np.asarray(seen, dtype=bool))[test.item].sum()),
    }
    return Split(train, sessions, how, first, who, Unseen(unseen, np.array(owner, dtype=np.int32)), ended)


def _cut_by_time(
    session_ids: NDArray[Any], times: NDArray[np.float64], order_only: bool, cut: str, test_days: float | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], str]:
    """Masks of train and test rows, and the cut in words."""
    _, session = np.unique(session_ids.astype(str) if session_ids.dtype.kind == "O" else session_ids,
                           return_inverse=True)  # fmt: skip
    last = np.full(int(session.max()) + 1, -np.inf)
    np.maximum.at(last, session, times)
    decides = times if cut == "moment" else last
    days = test_days if test_days is not None else 1 if times.max() - times.min() < 30 * DAY_S else 7
    if order_only and test_days is not None:
        raise BadInput("ts only tells the order of this log, so its last days are not known.")
    ask = decides > times.max() - days * DAY_S
    words = f"last {days:g} day{'' if days == 1 else 's'}"
    if order_only or (test_days is None and ask.all()):  # no clock, or too short a log
        ask = decides > np.sort(decides)[max(int(len(decides) * 0.9) - 1, 0)]
        words = f"last 10 % of the {'clicks' if cut == 'moment' else 'sessions'}"
    if ask.all() or not ask.any():
        raise BadInput(f"cutting off the {words} leaves one side empty: all {len(last)} sessions fall together.",
                       hint="A column split with train and test decides it yourself.")  # fmt: skip
    rows = ask if cut == "moment" else ask[session]
    return ~rows, rows, words + (", through sessions" if cut == "moment" else "")
