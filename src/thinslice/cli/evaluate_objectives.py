"""`thinslice evaluate --objectives`: the curve between clicks and what a policy may weigh beside them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from thinslice.cli.tables import paper, plain_table
from thinslice.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from thinslice.records import Item
    from thinslice.settings import Workspace


def parse_objectives(text: str) -> dict[str, float]:
    """Weights from `purchase=1,refund=-0.3`.

    Raises:
        BadInput: It is not made of NAME=NUMBER.

    >>> parse_objectives("purchase=1, refund=-0.3")
    {'purchase': 1.0, 'refund': -0.3}
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, weight = part.partition("=")
        try:
            found[name.strip()] = float(weight)
        except ValueError:
            equals = ""
        if not equals:
            raise BadInput(f"{part.strip()!r} is no objective.", hint="Write --objectives purchase=1,refund=-0.3.")
    return found


def find_trade_off(
    workspace: Workspace,
    tenant: str | None,
    columns: Mapping[str, NDArray[Any]],
    items: Sequence[Item],
    name: str,
    objectives: str,
    k: int,
    **how: Any,
) -> dict[str, Any]:
    """What `trade_off` finds on one log; of a tenant the lake also says what was sent back, reported or hidden."""
    from thinslice.evaluation.objectives import trade_off

    if how.pop("cut", "session") != "session":
        raise BadInput("--objectives cuts between sessions.", hint="Leave --cut away.")
    refusals = None
    if tenant is not None:
        from thinslice.jobs.bandits import count_refusals
        from thinslice.store.lake import Lake

        def refusals(until: float) -> Mapping[str, Mapping[str, int]]:
            return count_refusals(Lake(workspace.lake), tenant, datetime.fromtimestamp(until, UTC))

    return trade_off(columns, name, parse_objectives(objectives), k, items=items, refusals=refusals, **how)


def print_trade_off(found: Mapping[str, Any]) -> None:
    """One line a point of the curve, and what the columns are."""
    console = paper()
    names = list(found["mean"])
    table = plain_table("weight")
    for head in (f"HR@{found['k']}", "MRR", *(f"{name}: chance" for name in names), *(f"{name}: HR" for name in names)):
        table.add_column(head, justify="right", overflow="fold")
    for point in found["curve"]:
        error = "" if point["hr_se"] is None else f" ±{1.96 * point['hr_se']:.4f}"
        seen = [point["observed"][name] for name in names]
        table.add_row(
            f"{point['share']:.0%}",
            f"{point['hr']:.4f}{error}",
            f"{point['mrr']:.4f}",
            *(f"{point['predicted'][name]:.2%}" for name in names),
            *("-" if each["hr"] is None else f"{each['hr']:.4f} ({each['n']})" for each in seen),
        )
    console.print(table)
    shown = {(point["hr"], point["mrr"], *point["predicted"].values()) for point in found["curve"]}
    if len(shown) == 1:
        console.print(
            "No weight changes what is shown: too little is known of these actions to tell one item from another."
        )
    console.print(
        f"{found['model']}, {found['queries']:,} questions of {found['sessions']:,} sessions "
        f"({found['protocol']['split']}). Weight: how much lies on the objectives, the rest on the ranking as it is. "
        "Chance: predicted, when a place of the slate is clicked. HR: of the clicks that went on to the action, how "
        "many stood in the slate (of how many)."
    )
