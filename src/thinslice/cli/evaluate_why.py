"""`thinslice evaluate --why`: what data, features and size bring to one model; each fit becomes a row of `trials`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from thinslice.cli.tables import paper, plain_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from thinslice.records import Item
    from thinslice.settings import Workspace


def find_why(
    columns: Mapping[str, NDArray[Any]],
    items: Sequence[Item],
    name: str,
    k: int,
    seeds: int,
    progress: Callable[[str, int, int], None],
    **how: Any,
) -> dict[str, Any]:
    """What `why` finds of one model on one log; a fit at a time is told to `progress`."""
    from thinslice.evaluation import split_log
    from thinslice.evaluation.why import why
    from thinslice.models import MODELS

    split = split_log(columns, **how)
    before = 0

    def told(done: int, all_of_them: int) -> None:
        nonlocal before
        progress(name, done - before, all_of_them)
        before = done

    return {"protocol": split.how, **why(MODELS[name], split, k, items=items, seeds=seeds, progress=told)}


def keep_trials(workspace: Workspace, tenant: str, found: Mapping[str, Any]) -> int:
    """Writes the fits into the lake's table `trials` and returns how many rows that were."""
    from thinslice.store.lake import Lake
    from thinslice.store.schemas import Trial

    now = datetime.now(UTC)
    run_id = f"{found['model']}-{now:%Y%m%dT%H%M%S%f}"
    lake = Lake(workspace.lake)
    version = lake.version("events")
    rows = [
        Trial(tenant=tenant, trial_id=f"{run_id}-{number}", run_id=run_id, ran_at=now, model=found["model"],
              lake_version=version, k=found["k"], **trial)
        for number, trial in enumerate(found["trials"])
    ]  # fmt: skip
    lake.append("trials", rows)
    return len(rows)


def print_why(found: Mapping[str, Any], kept: int) -> None:
    """The learning curve, what each loss is, and what buys the next point."""
    console = paper()
    metric = found["metric"]
    head = f"{metric.upper()}@{found['k']}"
    table = plain_table(found["model"], fold=True)
    table.add_column(head, justify="right", no_wrap=True)
    table.add_column("loss, 95 %", justify="right", no_wrap=True)
    for point in reversed(found["curve"]):
        what = "all data" if point["share"] == 1 else f"{point['share']:g} of the sessions"
        table.add_row(what, _between(point[metric], point["ci"]), "")
    for title, rows in (("without", found["features"]), ("smaller:", found["size"])):
        for row in rows:
            table.add_row(f"{title} {row['what']}", "", _between(row["loss"], row["ci"]))
    console.print(table)
    console.print(f"{found['queries']:,} queries, {found['seeds']} seeds, {len(found['trials'])} fits.")
    if kept:
        console.print(f"{kept} rows were added to the table `trials`.")
    console.print(found["sentence"])


def _between(value: float, ci: Sequence[float | None]) -> str:
    low, high = ci
    return f"{value:.4f}" if low is None else f"{value:.4f} ({low:.4f} to {high:.4f})"
