"""What a tenant's models learn from: clicks in sessions and the catalog, read from the lake as it is now."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.experiments.isolation import block_labels
from thinslice.experiments.lineage import POOLED_LEAF
from thinslice.models import from_columns
from thinslice.records import ACTIONS, Experiment, Interactions, Item, User
from thinslice.sessions import (
    SESSION_EVENTS,
    VISITOR,
    assigned_at_start,
    identify,
    known_at_start,
    people,
    sessionize,
    visits,
)
from thinslice.sessions.live import BOT_EVENTS, BOT_RATE_PER_S
from thinslice.store.lake import Lake
from thinslice.store.schemas import to_records

MAX_SESSIONS = 2_000_000
"""Only so many of the newest sessions are learned from."""

BATCH = 100_000
"""Rows of the lake that are held as texts at a time."""

MOST_PEOPLE = 200_000
"""Only so many people, those who came last, are known to models: a worker keeps about 200 bytes for each."""


@dataclass(frozen=True, kw_only=True)
class Clicks:
    """What a tenant's visitors did, one row a visit of an item, in the order of time.

    Attributes:
        session: Shape (clicks,), int32: the session's code, 0 ... sessions - 1.
        item: Shape (clicks,), int32, codes into `item_ids`.
        time: Shape (clicks,), float64, unix seconds.
        action: Shape (clicks,), uint8, codes into `records.ACTIONS`; interest of other kinds counts as a view.
        started: Shape (sessions,), float64, unix seconds.
        ended: Shape (sessions,), float64, unix seconds.
        visitor: Shape (sessions,), texts, empty where unknown.
        session_id: Shape (sessions,), texts, empty where unknown.
        user: Shape (sessions,), texts, empty where unknown: at the start of the session.
        known_user: Shape (sessions,), texts, empty where unknown: the last one named in the session.
        item_ids: The distinct items, sorted. Each distinct text is held once, here and in the columns of sessions.
    """

    session: NDArray[np.int32]
    item: NDArray[np.int32]
    time: NDArray[np.float64]
    action: NDArray[np.uint8]
    started: NDArray[np.float64]
    ended: NDArray[np.float64]
    visitor: NDArray[np.object_]
    session_id: NDArray[np.object_]
    user: NDArray[np.object_]
    known_user: NDArray[np.object_]
    item_ids: list[str]

    def items_of(self, rows: NDArray[Any]) -> list[str]:
        """The item ids of some clicks."""
        return [self.item_ids[code] for code in self.item[rows].tolist()]


def read_clicks(lake: Lake, tenant: str, now: datetime, versions: Mapping[str, int] | None = None) -> Clicks:
    """A tenant's clicks from the lake: consented, no bots, no duplicates, with an identity and an item.

    Several on one item in a row are one, with the strongest action and the time of the last, as in a live session.

    Args:
        lake: Where they lie.
        tenant: Whose.
        now: Aware UTC; later clicks (of clocks that run ahead) are left out.
        versions: Tables as they were at these versions.
    """
    names = ", ".join(f"'{name}'" for name in sorted(SESSION_EVENTS))
    connection = lake.connect(tenant=tenant, versions=versions)
    texts_of = {name: _Texts() for name in ("visitor_id", "session_id", "user_id", "item_id", "name")}
    times = [np.empty(0)]
    try:
        rows = connection.execute(
            f"""
            SELECT {", ".join(texts_of)}, epoch(occurred_at) AS at
            FROM events
            WHERE name IN ({names}) AND item_id IS NOT NULL AND NOT is_bot AND NOT duplicate
              AND consent = 'personalization'
              AND coalesce(visitor_id, session_id, user_id) IS NOT NULL AND epoch(occurred_at) <= ?
            ORDER BY occurred_at, event_id
            """,
            [now.timestamp()],
        ).to_arrow_reader(BATCH)
        for batch in rows:
            for name, column in texts_of.items():
                column.add(batch.column(name))
            times.append(batch.column("at").to_numpy())
    finally:
        connection.close()
    at = np.concatenate(times)
    visitor, session_id, user = (texts_of[name].codes() for name in ("visitor_id", "session_id", "user_id"))
    sessions = sessionize(visitor, session_id, at, user=user)
    too_fast = (sessions.event_count >= BOT_EVENTS) & (
        sessions.event_count > BOT_RATE_PER_S * (sessions.ended - sessions.started)
    )
    keep = ~too_fast
    keep[: max(0, len(keep) - MAX_SESSIONS)] = False
    new_code = np.cumsum(keep, dtype=np.int32) - 1
    chosen = (sessions.code >= 0) & keep[np.maximum(sessions.code, 0)] if len(keep) else np.zeros(0, dtype=np.bool_)
    first = sessions.first[keep]
    named = np.flatnonzero((sessions.code >= 0) & (user >= 0))
    last_named = np.full(len(keep), -1, dtype=np.int32)
    last_named[sessions.code[named]] = user[named]  # rows are in the order of time: the last one stays
    item_ids, item = texts_of["item_id"].sorted_codes()
    users = texts_of["user_id"]
    rows = np.flatnonzero(chosen)
    last, action = visits(sessions.code[rows], item[rows], _actions(texts_of["name"])[rows])
    rows = rows[last]
    return Clicks(
        session=new_code[sessions.code[rows]].astype(np.int32),
        item=item[rows],
        time=at[rows],
        action=action,
        started=sessions.started[keep],
        ended=sessions.ended[keep],
        visitor=texts_of["visitor_id"].of(visitor[first]),
        session_id=texts_of["session_id"].of(session_id[first]),
        user=users.of(user[first]),
        known_user=users.of(last_named[keep]),
        item_ids=item_ids,
    )


class _Texts:
    """A column of texts, read batch by batch: each distinct text once, in the order of first coming, and codes."""

    def __init__(self) -> None:
        self._place: dict[str, int] = {}
        self._codes: list[NDArray[np.int32]] = [np.empty(0, np.int32)]

    def add(self, column: Any) -> None:
        """More rows, an Arrow array of texts; one that is missing or empty has no code."""
        encoded = column.dictionary_encode()
        number = self._place.setdefault
        known = [number(text, len(self._place)) if text else -1 for text in encoded.dictionary.to_pylist()]
        place = np.array([*known, -1], dtype=np.int32)
        self._codes.append(place[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)])

    def codes(self) -> NDArray[np.int32]:
        """Shape (rows,): -1 where there is no text."""
        self._codes = [np.concatenate(self._codes)]
        return self._codes[0]

    def sorted_codes(self) -> tuple[list[str], NDArray[np.int32]]:
        """The distinct texts, sorted, and shape (rows,): codes into them, -1 where there is none."""
        names = sorted(self._place)
        rank = np.full(len(names) + 1, -1, np.int32)
        rank[[self._place[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        return names, rank[self.codes()]

    def of(self, codes: NDArray[Any]) -> NDArray[np.object_]:
        """The texts of some codes, empty for -1."""
        found: NDArray[np.object_] = np.array([*self._place, ""], dtype=np.object_)[codes]
        return found


def _actions(names: _Texts) -> NDArray[np.uint8]:
    """Codes into `records.ACTIONS`; interest of other kinds is a view."""
    texts, codes = names.sorted_codes()
    place = {name: code for code, name in enumerate(ACTIONS)}
    return np.array([*(place.get(name, 0) for name in texts), 0], dtype=np.uint8)[codes]


def texts(column: Any) -> NDArray[np.str_]:
    """A column of texts as DuckDB gives it, without holes."""
    return np.asarray(column, dtype=object).astype(np.str_) if len(column) else np.empty(0, dtype=np.str_)


def read_items(lake: Lake, tenant: str, versions: Mapping[str, int] | None = None) -> list[Item]:
    """A tenant's catalog from the lake, by item id: everything that a model may learn of an item."""
    connection = lake.connect(tenant=tenant, versions=versions)
    try:
        rows = connection.sql("SELECT * FROM items ORDER BY item_id").to_arrow_table()
    finally:
        connection.close()
    return to_records(Item, rows)


def read_users(lake: Lake, tenant: str, versions: Mapping[str, int] | None = None) -> list[User]:
    """What a tenant says of its users, by user id: those who consented to personalization."""
    connection = lake.connect(tenant=tenant, versions=versions)
    try:
        rows = connection.sql("SELECT * FROM users WHERE consent = 'personalization' ORDER BY user_id").to_arrow_table()
    finally:
        connection.close()
    return to_records(User, rows)


def assigned(lake: Lake, clicks: Clicks, experiment: Experiment) -> NDArray[np.str_]:
    """Shape (sessions,): the variant of an experiment that each session belongs to, empty outside of it.

    A session of a switchback belongs to the variant that was on as it began, one of a cluster to its visitor's. One
    that models served which learned from everybody belongs to none, so that it teaches none.
    """
    if experiment.unit == "block":
        return block_labels(experiment, clicks.started)
    key = "visitor_id" if experiment.unit == "cluster" else "unit_id"
    connection = lake.connect(tenant=experiment.tenant)
    try:
        rows = connection.execute(
            f"""
            SELECT {key} AS unit_id, epoch(occurred_at) AS at,
                   CASE WHEN context_leaf = '{POOLED_LEAF}' THEN '' ELSE variant END AS variant FROM exposure_variants
            WHERE experiment = ? AND {key} IS NOT NULL ORDER BY occurred_at, recommendation_id
            """,
            [experiment.name],
        ).fetchnumpy()
    finally:
        connection.close()
    unit = {"session": clicks.session_id, "user": clicks.user}.get(experiment.unit, clicks.visitor)
    return assigned_at_start(
        clicks.started,
        clicks.ended,
        unit,
        texts(rows["unit_id"]),
        np.asarray(rows["at"], dtype=np.float64),
        texts(rows["variant"]),
    )


def interactions_of(clicks: Clicks, mask: NDArray[np.bool_], *, as_of: float | None = None) -> Interactions:
    """The clicks of the chosen sessions in the shape that models learn from.

    A session belongs to the user whom its visitor turned out to be (`sessions.identify`), else to the visitor itself.

    Args:
        clicks: All of a tenant.
        mask: Shape (sessions,): which sessions.
        as_of: Unix seconds: logins of sessions that began later are not known; None: all are.
    """
    rows = mask[clicks.session] if len(clicks.session) else np.zeros(0, dtype=np.bool_)
    return from_columns(
        clicks.session[rows], clicks.item[rows], clicks.time[rows], actions=clicks.action[rows],
        session_users=people_of(clicks, as_of) if len(clicks.session) else None, item_names=clicks.item_ids,
    )  # fmt: skip


def people_of(clicks: Clicks, as_of: float | None = None) -> list[str]:
    """Who did each session, as far as that was known at a moment; empty for nobody, and for who came too long ago."""
    user: NDArray[Any] = clicks.known_user
    if (user != "").any():
        user = identify(clicks.visitor, user, clicks.started, clicks.ended, as_of=as_of).user
    found = people(user.tolist(), clicks.visitor.tolist())
    newest = dict.fromkeys(reversed(found))
    newest.pop("", None)
    if len(newest) > MOST_PEOPLE:
        kept = set(list(newest)[:MOST_PEOPLE])
        found = [who if who in kept else "" for who in found]
    return found


def people_in(interactions: Interactions) -> dict[str, int]:
    """How many are known: `users`, `visitors` whom no login names, and who of both `came_back` after a session."""
    if interactions.user is None:
        return {"users": 0, "visitors": 0, "came_back": 0}
    visitors = sum(name.startswith(VISITOR) for name in interactions.user_ids)
    sessions = np.bincount(interactions.user[interactions.user >= 0], minlength=len(interactions.user_ids))
    return {
        "users": len(interactions.user_ids) - visitors,
        "visitors": visitors,
        "came_back": int((sessions > 1).sum()),
    }


def askers_of(clicks: Clicks) -> list[str]:
    """Who asks in each session: the person as the service knows it when the session begins; empty for nobody."""
    at_start = known_at_start(clicks.visitor.tolist(), clicks.user.tolist(), clicks.known_user.tolist(), clicks.started)
    return people(at_start, clicks.visitor.tolist())


class Counted(NamedTuple):
    """How much the lake holds of one tenant.

    Attributes:
        rows: Events and items.
        feed: Changes as soon as an item comes or goes or is described otherwise; stock and status do not count.
    """

    rows: int
    feed: str


def count_all(lake: Lake) -> dict[str, Counted]:
    """Tenant → how much the lake holds."""
    connection = lake.connect()
    try:
        counted = connection.execute(
            """
            SELECT tenant, sum(n)::BIGINT, max(feed) FROM (
                SELECT tenant, count(*) AS n, '' AS feed FROM events GROUP BY tenant
                UNION ALL
                SELECT tenant, count(*), count(*) || ' items, ' || bit_xor(hash(
                    item_id, group_id, kind, title, description, categories, brand, price_minor, published_at, level,
                    creator_id, attributes, vectors
                )) FROM items GROUP BY tenant
            ) GROUP BY tenant
            """
        ).fetchall()
    finally:
        connection.close()
    return {str(tenant): Counted(int(rows), str(feed)) for tenant, rows, feed in counted}


class TrainingData(NamedTuple):
    """All that the models of one tenant learn from.

    Attributes:
        versions: Table → its version in the lake.
        counted: How much the lake held.
        clicks: What visitors did.
        everyone: The same in the shape that models learn from.
        items: The catalog.
        users: What the shop says of its users.
    """

    versions: dict[str, int]
    counted: Counted
    clicks: Clicks
    everyone: Interactions
    items: list[Item]
    users: list[User]


def read_training_data(lake: Lake, tenant: str, now: datetime) -> TrainingData:
    """Reads the lake as it is; clicks after `now` (of clocks that run ahead) are left for later."""
    versions = {name: lake.version(name) for name in ("events", "items", "users")}
    counted = count_all(lake).get(tenant, Counted(0, ""))
    there = {name: version for name, version in versions.items() if version >= 0}
    clicks = read_clicks(lake, tenant, now, there)
    everyone = interactions_of(clicks, np.ones(len(clicks.started), dtype=np.bool_))
    items, users = read_items(lake, tenant, there), read_users(lake, tenant, there)
    return TrainingData(versions, counted, clicks, everyone, items, users)
