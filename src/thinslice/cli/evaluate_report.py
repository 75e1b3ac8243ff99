"""Prints what `thinslice evaluate` found, for people: figures, where they hold, and which model is enough."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from thinslice.cli.tables import WIDE, paper, plain_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console


EVERY_S = 10.0
"""Where stderr is no terminal a line says this often how far a model is."""


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar a model on stderr, where "learns" stands until the first answer; lines where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bars: dict[str, Any] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:

        def told(name: str, more: int, queries: int) -> None:
            if name not in bars:
                bars[name] = bar.add_task(name, total=queries)
            bar.update(bars[name], advance=more, description=name if more else f"{name} learns")

        yield told


def _lines() -> Callable[[str, int, int], None]:
    """Says on stderr when a model begins to learn and, every `EVERY_S` seconds, how much it has answered."""
    done: dict[str, int] = {}
    said_at = time.monotonic()

    def told(name: str, more: int, queries: int) -> None:
        nonlocal said_at
        done[name] = done.get(name, 0) + more
        now = time.monotonic()
        if more == 0:
            click.echo(f"{name} learns", err=True)
        elif now - said_at >= EVERY_S:
            click.echo(f"{name}: {done[name]:,} of {queries:,} queries", err=True)
        else:
            return
        said_at = now

    return told


def print_report(result: dict[str, Any], k: int) -> None:
    """One line a model, where they are good, how they differ, how it was made, and what is enough."""
    console = paper()
    _figures(console, result, k)
    _segments(console, result, k)
    _differences(console, result, k)
    _words(console, result)


def _figures(console: Console, result: dict[str, Any], k: int) -> None:
    wide = console.width >= WIDE
    heads = [f"HR@{k}", f"MRR@{k}", *([f"NDCG@{k}"] if wide else []), "coverage"]
    heads += ["novelty", "popularity"] if wide else []
    heads += ["fit s", "p50/p99 µs", *(["B/event"] if wide else [])]
    table = plain_table("model")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in result["models"]:
        cells = {
            f"HR@{k}": _with_error(row["hr"], row["hr_se"]),
            f"MRR@{k}": _with_error(row["mrr"], row["mrr_se"]),
            f"NDCG@{k}": f"{row['ndcg']:.4f}",
            "coverage": f"{row['coverage']:.1%}",
            "novelty": "" if row["novelty"] is None else f"{row['novelty']:.1f}",
            "popularity": "" if row["popularity_lift"] is None else f"{row['popularity_lift']:+.0%}",
            "fit s": f"{row['fit_cpu_s']:.2f}",
            "p50/p99 µs": f"{row['query_us']['p50']:.0f}/{row['query_us']['p99']:.0f}",
            "B/event": f"{row['bytes_per_event']:.1f}",
        }
        table.add_row(row["name"], *(cells[head] for head in heads))
    console.print(table)
    for row in result["skipped"]:
        console.print(f"{row['name']} was left out: {row['reason']}")


def _segments(console: Console, result: dict[str, Any], k: int) -> None:
    """Hit rates by segment, of the simplest, the best, the default pipeline and popular."""
    rows = {row["name"]: row for row in result["models"]}
    best = max(rows.values(), key=lambda row: float(row["mrr"]))["name"]
    wide = console.width >= WIDE
    chosen = [name for name in rows if name in ("popular", result["simplest"], best, list(rows)[-1])]
    table = plain_table(f"HR@{k} by …", fold=not wide)
    table.add_column("queries", justify="right", no_wrap=True)
    for name in chosen:
        table.add_column(name, justify="right", no_wrap=True)
    for place, segment in enumerate(rows[chosen[0]]["segments"]):
        cells = [rows[name]["segments"][place] for name in chosen]
        table.add_row(
            f"{segment['by']}: {segment['segment']}",
            f"{segment['n']:,}",
            *(_with_error(cell["hr"], cell["hr_se"] if wide else None) for cell in cells),
        )
    console.print()
    console.print(table)


def _differences(console: Console, result: dict[str, Any], k: int) -> None:
    """The default pipeline against the best of the others."""
    rows = [row for row in result["differences"] if row["model"] == result["models"][-1]["name"]]
    if not rows:
        return
    console.print()
    for row in rows:
        low, high = row["ci"]
        between = "" if low is None else f" ({low:+.4f} to {high:+.4f})"
        console.print(
            f"{row['model']} against {row['against']}: {row['metric'].upper()}@{k} "
            f"{row['difference']:+.4f}{between}, {row['reading'].replace('_', ' ')}"
        )


def _words(console: Console, result: dict[str, Any]) -> None:
    how = result["protocol"]
    time = "order only" if how["order_only"] else "clock times"
    console.print(
        f"{how['queries']:,} queries in {how['test_sessions']:,} test sessions ({how['split']}; {time}); learned from "
        f"{how['train_clicks']:,} clicks in {how['train_sessions']:,} sessions, {how['learned']}. Ties count against "
        "the model; ± is 95 %, clustered by session; novelty in bits; popularity is how much more clicked the shown "
        "items are than the looked for; times are CPU time."
    )
    if "same_moment" in how:
        console.print(f"Clicks of one session and moment were {how['same_moment']}.")
    console.print(result["sentence"])


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" + (f" ±{1.96 * error:.4f}" if error is not None else "")
