"""Sessions: what each visit came to, written down once it has ended, so that reports need not piece events together."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from thinslice.records import SESSION_GAP_S, Session
from thinslice.sessions import assigned_at_start, sessionize
from thinslice.sessions.live import is_bot_rate, made_id
from thinslice.store.lake import Lake
from thinslice.store.views import files_sql

CHUNK = 500_000
"""Events that are looked at in one go, about; bounds the memory."""

READ_TO, RAN_AT = "events-version", "sessions-ran-at"
"""How far the table `sessions` covers the events, kept in its own commits: a version, and unix microseconds."""

_WHO = """
CASE WHEN session_id IS NOT NULL THEN 's' || session_id WHEN visitor_id IS NOT NULL THEN 'v' || visitor_id
     ELSE 'u' || user_id END
"""


class Written(NamedTuple):
    """What one run did.

    Attributes:
        sessions: How many sessions are new in the lake, or say more than before.
        due_at: Unix seconds at which the next open session may have ended; None when none is open.
    """

    sessions: int
    due_at: float | None


def write_sessions(lake: Lake, now: datetime, *, chunk: int = CHUNK) -> Written:
    """Brings the sessions that have ended into the table `sessions`, each once.

    Looked at are those who did something since the last run, or whose session was still open then. A session that
    the shop named and that goes on after its row was written gets a newer row, which replaces the older one; events
    that come late do likewise. How far the events are covered stands in the commit of the rows itself, so that a run
    that was killed is repeated, and writes nothing twice.

    Args:
        lake: Where the events are and the sessions go.
        now: Aware; a session has ended when its last event is 30 minutes ago.
        chunk: Events in one go, about.
    """
    version = lake.version("events")
    if version < 0:
        return Written(0, None)
    done, ran_at = lake.covered_by("sessions", READ_TO), lake.covered_by("sessions", RAN_AT) / 1e6
    news = lake.changed_files("events", done if ran_at else None, version)
    connection = lake.connect(versions={"events": version})
    try:
        count = _touched(connection, news, ran_at)
        parts = max(1, -(-count // chunk))
        written, due = 0, []
        for part in range(parts):
            rows, open_until = _ended(connection, part, parts, now.timestamp())
            due += [open_until] if open_until is not None else []
            last = part == parts - 1
            marks = {READ_TO: version, RAN_AT: int(now.timestamp() * 1e6)} if last else {}
            added = lake.add("sessions", rows, covered=marks).kept if rows else 0
            if last and written and not added:
                lake.append("sessions", [], covered=marks)
            written += added
    finally:
        connection.close()
    return Written(written, min(due, default=None))


def _touched(connection: duckdb.DuckDBPyConnection, news: Sequence[str], ran_at: float) -> int:
    """Makes the table `touched` of who is to be looked at, and returns how many events they have."""
    fresh = f"SELECT tenant, {_WHO} AS who FROM {files_sql(news)} UNION" if news else ""
    connection.execute(
        f"""
        CREATE TEMP VIEW visits AS
        SELECT *, {_WHO} AS who FROM events
        WHERE NOT duplicate AND coalesce(session_id, visitor_id, user_id) IS NOT NULL;
        CREATE TEMP TABLE touched AS
        SELECT tenant, who FROM (
            {fresh} SELECT tenant, who FROM visits WHERE epoch(occurred_at) > {ran_at - SESSION_GAP_S!r}
        ) WHERE who IS NOT NULL
        """
    )
    found = connection.execute("SELECT count(*) FROM visits SEMI JOIN touched USING (tenant, who)").fetchone()
    return int(found[0]) if found else 0


def _ended(
    connection: duckdb.DuckDBPyConnection, part: int, parts: int, now: float
) -> tuple[list[Session], float | None]:
    """The ended sessions of one part of those touched, and when the next of the open ones may end."""
    columns = connection.execute(
        f"""
        SELECT tenant, coalesce(visitor_id, '') AS visitor, coalesce(session_id, '') AS session_id,
               coalesce(user_id, '') AS user_id, epoch(occurred_at) AS at, is_bot, name = 'view_item' AS is_view,
               name = 'add_to_cart' AS is_cart,
               CASE WHEN name = 'purchase' THEN coalesce(order_id, split_part(event_id, '#', 1)) ELSE '' END AS bought
        FROM visits SEMI JOIN touched USING (tenant, who)
        WHERE hash(tenant, who) % {parts} = {part}
        ORDER BY tenant, occurred_at, event_id
        """
    ).fetchnumpy()
    tenants = columns["tenant"].tolist()
    rows: list[Session] = []
    due: list[float] = []
    bounds = [0, *(n for n in range(1, len(tenants)) if tenants[n] != tenants[n - 1]), len(tenants)]
    for first, last in pairwise(bounds):
        if first < last:
            of = {name: values[first:last] for name, values in columns.items()}
            made, until = _of_tenant(connection, tenants[first], of, now)
            rows += made
            due += [until] if until is not None else []
    return rows, min(due, default=None)


def _of_tenant(
    connection: duckdb.DuckDBPyConnection, tenant: str, columns: Mapping[str, NDArray[Any]], now: float
) -> tuple[list[Session], float | None]:
    visitors, names, users = (columns[name].tolist() for name in ("visitor", "session_id", "user_id"))
    found = sessionize(visitors, names, columns["at"], user=users)
    total = len(found.started)
    code = found.code
    views, carts, bots = (
        np.bincount(code, weights=np.asarray(columns[name], dtype=np.float64), minlength=total).astype(int).tolist()
        for name in ("is_view", "is_cart", "is_bot")
    )
    bought = np.zeros(total, dtype=np.int64)
    for session, _ in {pair for pair in zip(code.tolist(), columns["bought"].tolist(), strict=True) if pair[1]}:
        bought[session] += 1
    visitor, user = [""] * total, [""] * total
    for session, one, known in zip(code.tolist(), visitors, users, strict=True):
        visitor[session] = visitor[session] or one
        user[session] = known or user[session]
    started, ended, events = found.started.tolist(), found.ended.tolist(), found.event_count.tolist()
    ids = [
        names[first] or made_id(visitor[session] or user[session], started[session])
        for session, first in enumerate(found.first.tolist())
    ]
    units = {"visitor": visitor, "session": ids, "user": user}
    assigned = _assignments(connection, tenant, found.started, found.ended, units)
    is_over = [at + SESSION_GAP_S < now for at in ended]
    rows = [
        Session(
            tenant=tenant, session_id=ids[n], started_at=datetime.fromtimestamp(started[n], UTC),
            ended_at=datetime.fromtimestamp(ended[n], UTC), visitor_id=visitor[n] or None, user_id=user[n] or None,
            event_count=events[n], view_count=views[n], cart_count=carts[n], purchase_count=int(bought[n]),
            is_bot=bots[n] > 0 or is_bot_rate(events[n], ended[n] - started[n]),
            assignments={name: variants[n] for name, variants in assigned.items() if variants[n]},
        )
        for n in range(total) if is_over[n]
    ]  # fmt: skip
    return rows, min((ended[n] + SESSION_GAP_S for n in range(total) if not is_over[n]), default=None)


def _assignments(
    connection: duckdb.DuckDBPyConnection,
    tenant: str,
    started: NDArray[np.float64],
    ended: NDArray[np.float64],
    units: Mapping[str, Sequence[str]],
) -> dict[str, list[str]]:
    """Experiment → each session's variant as of its start, empty where it was in none."""
    assigned: dict[str, list[str]] = {}
    experiments = connection.execute(
        "SELECT DISTINCT experiment, unit FROM exposure_variants WHERE tenant = ? ORDER BY ALL", [tenant]
    ).fetchall()
    for name, unit in experiments:
        if unit not in units:
            continue
        connection.register("asked", pa.table({"unit_id": pa.array(sorted(set(units[unit])), pa.string())}))
        exposed = connection.execute(
            """
            SELECT unit_id, epoch(occurred_at) AS at, variant
            FROM exposure_variants SEMI JOIN asked USING (unit_id)
            WHERE tenant = ? AND experiment = ? AND unit = ? AND epoch(occurred_at) <= ?
            """,
            [tenant, name, unit, float(ended.max(initial=0.0))],
        ).fetchnumpy()
        assigned[name] = assigned_at_start(
            started, ended, units[unit], exposed["unit_id"].tolist(), exposed["at"], exposed["variant"].tolist()
        ).tolist()
    return assigned
