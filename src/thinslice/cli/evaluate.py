"""`thinslice evaluate`: how well each model would have foreseen the clicks of a log that is already there."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.errors import BadInput
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from thinslice.records import Item

EVENT_COLUMNS = ("session_id", "item_id", "ts", "event", "split")


@click.command("evaluate", short_help="How well each model would have ranked the sessions of a tenant or file.")
@workspace_option
@click.option("--events", "events_file", type=click.Path(path_type=Path), help="A Parquet file of events.")
@click.option("--tenant", help="The events of this tenant's lake instead of a file.")
@click.option("--items", "items_file", type=click.Path(path_type=Path), help="A Parquet file of items (item_id, …).")
@click.option("--models", help="Names, with commas between; by default all.")
@click.option("-k", type=click.IntRange(1, 1000), default=20, show_default=True, help="Length of a list.")
@click.option("--order-only", is_flag=True, help="ts is a running number, no time; by default found out.")
@json_option
def command(
    workspace: Workspace,
    events_file: Path | None,
    tenant: str | None,
    items_file: Path | None,
    models: str | None,
    k: int,
    order_only: bool,
    as_json: bool,
) -> None:
    """How well each model would have foreseen the clicks of a log, and at what price.

    The file needs the columns session_id, item_id and ts (unix seconds, a timestamp, or a running number); `event`
    chooses the views, `split` (train, test) decides the cut. Without it the last days are the test.
    """
    if (events_file is None) == (tenant is None):
        raise BadInput("evaluate needs either --events FILE.parquet or --tenant NAME.")
    items: list[Item]
    if events_file is not None:
        columns, items = read_events(events_file), []
    else:
        assert tenant is not None
        columns, items = read_lake(workspace, tenant)
    if items_file is not None:
        items = read_items(items_file)
    from thinslice.evaluation import evaluate

    with progress_bar() as progress:
        result = evaluate(
            columns,
            None if models is None else [name.strip() for name in models.split(",") if name.strip()],
            k,
            items=items,
            order_only=True if order_only else None,
            progress=progress,
        )
    if as_json:
        print_json(result)
    else:
        print_table(result, k)


def read_events(path: Path) -> dict[str, NDArray[Any]]:
    """The columns that `evaluate` reads from a Parquet file; times become unix seconds.

    Raises:
        BadInput: It is no Parquet file, a column is missing, has holes, or is of a type that cannot be meant.
    """
    table = _read_parquet(path, EVENT_COLUMNS, needed=("session_id", "item_id", "ts"))
    return {name: _column(table, name, str(path)) for name in table.column_names}


def read_lake(workspace: Workspace, tenant: str) -> tuple[dict[str, NDArray[Any]], list[Item]]:
    """What `train` would learn from: a tenant's clicks in sessions from the lake, and its catalog."""
    from datetime import UTC, datetime

    from thinslice.jobs import train
    from thinslice.store.lake import Lake

    read_settings(workspace).tenant(tenant)
    lake = Lake(workspace.lake)
    clicks = train.read_clicks(lake, tenant, datetime.now(UTC))
    if len(clicks.item) == 0:
        raise BadInput(f"the lake holds nothing yet that the models of {tenant!r} could learn from.",
                       hint=f"`thinslice import events FILE --tenant {tenant}` brings some.")  # fmt: skip
    columns = {"session_id": clicks.session, "item_id": clicks.item, "ts": clicks.time}
    return columns, train.read_items(lake, tenant)


def read_items(path: Path) -> list[Item]:
    """Ids and dates of a catalog in a Parquet file (item_id; published_at and updated_at if present)."""
    return _items(_read_parquet(path, ("item_id", "updated_at", "published_at"), needed=("item_id",)), "file")


def _read_parquet(path: Path, wanted: Sequence[str], *, needed: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise BadInput(f"there is no file {path}.")
    try:
        there = pq.read_schema(path).names
        missing = [name for name in needed if name not in there]
        if missing:
            raise BadInput(f"{path} lacks the column {', '.join(missing)} (there is: {', '.join(there)}).")
        return pq.read_table(path, columns=[name for name in wanted if name in there])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise BadInput(f"{path} is not a Parquet file that can be read: {str(error).rstrip('.')}.") from None


def _column(table: pa.Table, name: str, where: str) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # an empty table has no chunk to combine
        column = pa.array([], type=column.type)
    if column.null_count:
        first = pc.index(pc.is_null(column), value=True).as_py()
        raise BadInput(
            f"{where}: {name} is empty in {column.null_count} of {len(column)} rows, first in row {first + 1}."
        )
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if name == "ts":
        if pa.types.is_timestamp(column.type):
            return _seconds(column)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise BadInput(f"{where}: ts must be a number or a timestamp, it is {column.type}.")
        seconds: NDArray[Any] = column.to_numpy(zero_copy_only=False).astype("float64")
        return seconds
    if not (
        pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        raise BadInput(f"{where}: {name} must be whole numbers or text, it is {column.type}.")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _seconds(column: pa.Array) -> NDArray[np.float64]:
    import pyarrow as pa

    micro = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    seconds: NDArray[np.float64] = micro.to_numpy(zero_copy_only=False) / 1e6
    return seconds


def _items(table: pa.Table, tenant: str) -> list[Item]:
    from datetime import UTC, datetime

    from thinslice.records import Item

    def date(value: Any) -> datetime | None:
        if not isinstance(value, datetime):
            return None
        return value if value.tzinfo else value.replace(tzinfo=UTC)

    early = datetime(1970, 1, 1, tzinfo=UTC)
    return [
        Item(
            tenant=tenant,
            item_id=str(row["item_id"]),
            updated_at=date(row.get("updated_at")) or early,
            published_at=date(row.get("published_at")),
        )
        for row in table.to_pylist()
    ]


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar a model on stderr; nothing is drawn where nobody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bars: dict[str, Any] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:

        def told(name: str, more: int, queries: int) -> None:
            if name not in bars:
                bars[name] = bar.add_task(name, total=queries)
            bar.advance(bars[name], more)

        yield told


def print_table(result: dict[str, Any], k: int) -> None:
    """The figures for people: one line a model, how they were made, and what is enough."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("model", no_wrap=True)
    for head in (f"HR@{k}", f"MRR@{k}", "coverage", "fit s", "p50/p99 µs", "B/event"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in result["models"]:
        table.add_row(
            row["name"],
            _with_error(row["hr"], row["hr_se"]),
            _with_error(row["mrr"], row["mrr_se"]),
            f"{row['coverage']:.1%}",
            f"{row['fit_cpu_s']:.2f}",
            f"{row['query_us']['p50']:.0f}/{row['query_us']['p99']:.0f}",
            f"{row['bytes_per_event']:.1f}",
        )
    console.print(table)
    how = result["protocol"]
    time = "order only" if how["order_only"] else "clock times"
    console.print(
        f"{how['queries']:,} queries in {how['test_sessions']:,} test sessions ({how['split']}; {time}); learned from "
        f"{how['train_clicks']:,} clicks in {how['train_sessions']:,} sessions. Ties count against the model; ± is "
        "95 %, clustered by session; times are CPU time."
    )
    console.print(f"Simplest that is not shown to be worse than the best: {result['simplest']}.")


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" + (f" ±{1.96 * error:.4f}" if error is not None else "")
