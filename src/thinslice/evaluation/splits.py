"""Cuts a log into what models may learn from and the later clicks that they must foresee."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models import from_columns, is_order_index
from thinslice.records import Interactions

DAY_S = 86_400
VIEWS = ("view", "view_item", "click")
"""Event names that are clicks on an item; a log without any of them is taken whole."""


class Split(NamedTuple):
    """What a model learns from, and the test sessions (item ids, oldest first) that it is asked about.

    Attributes:
        train: What models learn from.
        sessions: Test sessions with at least two known items, unknown items removed.
        how: The cut in plain values, for the report.
    """

    train: Interactions
    sessions: list[list[str]]
    how: dict[str, Any]

    @property
    def query_count(self) -> int:
        """Every click but the first of a session is asked for once."""
        return sum(len(session) - 1 for session in self.sessions)


def split_log(columns: Mapping[str, NDArray[Any]], *, order_only: bool | None = None) -> Split:
    """Cuts by the column `split` if there is one, else the last days by time are the test.

    Without a column `split`: the last day when the log spans less than 30 days, else the last 7; of a log that only
    tells the order, the last tenth of the sessions. A session belongs where its last click is, and is never cut.

    Args:
        columns: `session_id`, `item_id`, `ts` (unix seconds or an order), and if present `event` and `split`; (rows,).
        order_only: Whether `ts` only tells the order; None finds out.

    Raises:
        BadInput: A column is missing or has holes, or one side of the cut is empty.
    """
    missing = [name for name in ("session_id", "item_id", "ts") if name not in columns]
    if missing:
        there = ", ".join(columns) or "none"
        raise BadInput(f"the events lack the column {', '.join(missing)} (there is: {there}).",
                       hint="Needed are session_id, item_id and ts; event and split are used if present.")  # fmt: skip
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
    if "split" in log:
        part = log["split"].astype(str)
        learn, ask = part == "train", part == "test"
        cut = "column split"
        if not learn.any() or not ask.any():
            names = ", ".join(sorted(set(part.tolist())))
            raise BadInput(f"the column split needs rows `train` and rows `test`, it has: {names}.")
    else:
        learn, ask, cut = _cut_by_time(log["session_id"], times, order_only=order_only)
    train = from_columns(log["session_id"][learn], log["item_id"][learn], times[learn], order_only=order_only)
    test = from_columns(log["session_id"][ask], log["item_id"][ask], times[ask], order_only=order_only)
    known = set(train.item_ids)
    seen = [name in known for name in test.item_ids]
    sessions = []
    for start, end in zip(test.session_ptr[:-1].tolist(), test.session_ptr[1:].tolist(), strict=True):
        session = [test.item_ids[code] for code in test.item[start:end].tolist() if seen[code]]
        if len(session) > 1:
            sessions.append(session)
    if not sessions:
        raise BadInput(f"no test session has two items that occur in the {len(train.item)} clicks before.",
                       hint="Ask with a longer log.")  # fmt: skip
    how = {
        "split": cut,
        "events": event,
        "order_only": order_only,
        "train_sessions": len(train.session_ptr) - 1,
        "train_clicks": len(train.item),
        "train_items": len(train.item_ids),
        "test_sessions": len(sessions),
        "test_clicks_unknown_removed": int(len(test.item) - np.asarray(seen, dtype=bool)[test.item].sum()),
    }
    return Split(train, sessions, how)


def _cut_by_time(
    session_ids: NDArray[Any], times: NDArray[np.float64], *, order_only: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], str]:
    """Masks of train and test rows, and the cut in words."""
    _, session = np.unique(session_ids.astype(str) if session_ids.dtype.kind == "O" else session_ids,
                           return_inverse=True)  # fmt: skip
    last = np.full(int(session.max()) + 1, -np.inf)
    np.maximum.at(last, session, times)
    if order_only:
        ask = last > np.sort(last)[int(len(last) * 0.9) - 1] if len(last) > 1 else last > last[0]
        cut = "last 10 % of the sessions"
    else:
        days = 1 if times.max() - times.min() < 30 * DAY_S else 7
        ask = last > times.max() - days * DAY_S
        cut = f"last {days} day{'s' if days > 1 else ''}"
    if ask.all() or not ask.any():
        raise BadInput(f"cutting off the {cut} leaves one side empty: all {len(last)} sessions fall together.",
                       hint="A column split with train and test decides it yourself.")  # fmt: skip
    return ~ask[session], ask[session], cut
