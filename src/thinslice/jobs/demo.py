"""The demo's past: a generated shop and what its visitors did in the last weeks, written into a workspace once.

`python -m thinslice.jobs.demo WORKSPACE TENANT` runs it in a process of its own, so that the demo stays small.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from thinslice.settings import Workspace
from thinslice.simulate import history, home_goods, orders_of
from thinslice.store.lake import Lake

SESSIONS = 4000
"""Visits of the past: enough for a session model that is plainly better than popularity."""

CATALOG_RNG = 0
"""The seed of the catalog; the shoppers must know the same one."""


def fill(workspace: Workspace, tenant: str, *, now: datetime, rng: int = 0, sessions: int = SESSIONS) -> bool:
    """Writes catalog, history and orders into the lake, unless the tenant has a catalog already.

    Args:
        workspace: Must hold thinslice.toml.
        tenant: Whose shop it becomes.
        now: Aware UTC; the history ends before it.
        rng: The seed of the visitors of the past.
        sessions: How many visits.

    Returns:
        Whether anything was written.
    """
    lake = Lake(workspace.lake)
    items = home_goods(tenant, CATALOG_RNG)
    if lake.version("items") >= 0 and len(lake.scan("items", tenant=tenant, columns=["item_id"])):
        return False
    events = history(items, sessions, rng, now)
    lake.append("events", events)
    lake.append("orders", orders_of(events))
    lake.append("items", items)  # last: it says that all is there
    return True


def main(arguments: Sequence[str]) -> None:
    """Fills the workspace named first for the tenant named second."""
    fill(Workspace(Path(arguments[0])), arguments[1], now=datetime.now(UTC))


if __name__ == "__main__":
    main(sys.argv[1:])
