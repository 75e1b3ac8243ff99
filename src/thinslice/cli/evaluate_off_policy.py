"""`thinslice evaluate --off-policy`: what another policy would have earned on the slates that were shown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from thinslice.cli.tables import paper, plain_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thinslice.settings import Workspace


def find_value(workspace: Workspace, tenant: str, target: str, days: float | None) -> dict[str, Any]:
    """What `judge` finds in a tenant's lake."""
    from thinslice.jobs.off_policy import judge

    return judge(workspace, tenant, target, days=7.0 if days is None else days, now=datetime.now(UTC))


def print_value(found: Mapping[str, Any]) -> None:
    """The gates, then the estimates, then one sentence; after a gate that does not pass no estimate."""
    console = paper()
    table = plain_table("gate")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("needed")
    table.add_column("passed")
    for gate in found["gates"]:
        table.add_row(gate["name"], f"{gate['value']:.4g}", gate["need"], "yes" if gate["passed"] else "no")
    console.print(table)
    if found["estimates"]:
        table = plain_table("estimator", fold=True)
        for head in (f"clicks a slate of {found['target']}", "95 %"):
            table.add_column(head, overflow="fold")
        for each in found["estimates"]:
            table.add_row(each["name"], f"{each['value']:.4f}", f"{each['ci'][0]:.4f} to {each['ci'][1]:.4f}")
        console.print(table)
    console.print(
        f"{found['slates']:,} slates of {found['logged']} since {found['since'][:16]}; {found['places']:,} of "
        f"{found['places_shown']:,} places were left to chance, the others say nothing of other items. "
        f"{found['target']} would have put the same item on {found['matched']:.1%} of them."
    )
    console.print(found["sentence"])
