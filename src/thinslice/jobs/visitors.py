"""What experiments may know of visitors before a slate: when they were first seen, and in which country they live."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from thinslice.experiments import is_running, is_shadowed
from thinslice.experiments.unit_map import FirstSeen, UnitMap
from thinslice.records import Experiment
from thinslice.serving.unit_maps import COUNTRY, SEEN, VISITORS, unit_map_file, write_unit_map
from thinslice.settings import Workspace
from thinslice.store.lake import Lake

EVERY = timedelta(minutes=10)
"""So often the maps are made anew: a visitor comes back half an hour later at the earliest."""

LOOK_BACK = timedelta(days=180)
"""Who came longer ago is new again."""

MOST_VISITORS = 2_000_000
"""So many visitors are known, those who came last: a worker keeps 12 bytes for each."""


def wanted_of(experiments: Iterable[Experiment]) -> set[str]:
    """Which of `returning` and `country` running or shadowed experiments declare."""
    names = {
        name for each in experiments if is_running(each) or is_shadowed(each)
        for name in (*each.segments, *each.leaves)
    }  # fmt: skip
    return names & {"returning", "country"}


def note_visitors(workspace: Workspace, tenant: str, wanted: Iterable[str], now: datetime) -> dict[str, int]:
    """Writes the maps that are wanted and older than `EVERY`, for the workers.

    Args:
        workspace: Whose lake is read.
        tenant: Whose visitors.
        wanted: As `wanted_of` says.
        now: Aware; who came later is not known.

    Returns:
        Map → how many visitors or users it holds, of those that were written.
    """
    kinds = {"returning": SEEN, "country": COUNTRY}
    done = {}
    for name in sorted(wanted):
        path = unit_map_file(workspace.experiments / tenant, VISITORS, kinds[name])
        if path.is_file() and now.timestamp() - path.stat().st_mtime < EVERY.total_seconds():
            continue
        made = first_seen(workspace, tenant, now) if name == "returning" else countries(workspace, tenant)
        write_unit_map(path, made)
        done[name] = len(made)
    return done


def first_seen(workspace: Workspace, tenant: str, now: datetime) -> FirstSeen:
    """When each visitor of the last `LOOK_BACK` was first seen, by an event or a slate; bots are nobody."""
    lake = Lake(workspace.lake)
    tables = [name for name in ("events", "exposures") if lake.version(name) >= 0]
    if not tables:
        return FirstSeen({})
    since = now - LOOK_BACK
    parts = " UNION ALL ".join(
        f"SELECT visitor_id, occurred_at FROM {name} WHERE visitor_id IS NOT NULL AND NOT is_bot "
        f"AND occurred_at > TIMESTAMPTZ '{since.isoformat()}' AND occurred_at <= TIMESTAMPTZ '{now.isoformat()}'"
        for name in tables
    )
    connection = lake.connect(tenant=tenant)
    try:
        rows = connection.execute(
            f"SELECT visitor_id, epoch(min(occurred_at)) FROM ({parts}) GROUP BY visitor_id "
            f"ORDER BY max(occurred_at) DESC, visitor_id LIMIT {MOST_VISITORS}"
        ).fetchall()
    finally:
        connection.close()
    return FirstSeen({str(visitor): float(at) for visitor, at in rows})


def countries(workspace: Workspace, tenant: str) -> UnitMap:
    """The attribute `country` of the users that the shop told of, of those who consent."""
    lake = Lake(workspace.lake)
    if lake.version("users") < 0:
        return UnitMap({})
    connection = lake.connect(tenant=tenant)
    try:
        rows = connection.execute(
            "SELECT user_id, attributes ->> '$.country' AS country FROM users "
            "WHERE consent IN ('personalization', 'measurement') AND (attributes ->> '$.country') <> ''"
        ).fetchall()
    finally:
        connection.close()
    return UnitMap({str(user): str(country)[:64] for user, country in rows})
