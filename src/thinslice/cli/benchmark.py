"""`thinslice benchmark`: freezes queries with goals, lets people label them, and runs: passed or failed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thinslice.cli.tables import paper, plain_table
from thinslice.cli.workspace import json_option, of, print_json, workspace_option
from thinslice.errors import BadInput
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

tenant_option = click.option("--tenant", default="shop", show_default=True, help="Whose benchmark.")


@click.group("benchmark", short_help="Goals written down before the first run: freeze, label, run.")
def command() -> None:
    """A frozen set of queries with goals that are written down before the first run."""


@command.command("freeze")
@click.argument("name")
@workspace_option
@tenant_option
@click.option("--goal", "goals", multiple=True, metavar="METRIC=SHARE", help="hr, mrr, ndcg, coverage, picks or bad.")
@click.option("--events", "events_file", type=click.Path(path_type=Path), help="A file of events instead of the lake.")
@click.option("--items", "items_file", type=click.Path(path_type=Path), help="A file of items instead of the lake.")
@click.option("--queries", type=click.IntRange(1), default=1000, show_default=True, help="How many, drawn at random.")
@click.option("-k", type=click.IntRange(1, 100), default=20, show_default=True, help="Length of a list.")
@click.option("--order-only", is_flag=True, help="ts is a running number, no time; by default found out.")
@click.option("--test-days", type=click.FloatRange(0, min_open=True), help="How many days at the end are asked about.")
@click.option("--note", default="", help="What this benchmark is for.")
@json_option
def freeze_(
    workspace: Workspace,
    tenant: str,
    name: str,
    goals: tuple[str, ...],
    events_file: Path | None,
    items_file: Path | None,
    queries: int,
    k: int,
    order_only: bool,
    test_days: float | None,
    note: str,
    as_json: bool,
) -> None:
    """Draws queries from the newest part of the log, keeps the rest to learn from, and writes the goals down."""
    import msgspec

    from thinslice.cli import benchmark_files as files
    from thinslice.cli.evaluate_input import read_feedback, read_log
    from thinslice.evaluation.benchmark import Benchmark, check_goals, freeze

    read_settings(workspace).tenant(tenant)
    wanted = _goals(goals)
    check_goals(wanted)
    path = files.head_file(workspace, tenant, name)
    now = datetime.now(UTC)
    columns, items = read_log(workspace, events_file, None if events_file is not None else tenant, items_file, now=now)
    feedback = read_feedback(workspace, tenant, columns if events_file is not None else None, now)
    frozen = freeze(columns, feedback, count=queries, order_only=True if order_only else None, test_days=test_days)
    head = Benchmark(
        name=name, tenant=tenant, frozen_at=now, k=k, goals=wanted, queries=len(frozen.queries),
        source=events_file.name if events_file is not None else "lake", split=frozen.split,
        order_only=frozen.train.order_only, sha256={}, note=note,
    )  # fmt: skip
    head = files.write(path, head, frozen, items)
    if as_json:
        print_json(msgspec.to_builtins(head) | {"file": str(path)})
        return
    labeled = sum(bool(query.good or query.bad) for query in frozen.queries)
    click.echo(
        f"{len(frozen.queries):,} queries are frozen ({frozen.split}); models learn from {len(frozen.train.item):,} "
        f"clicks before. {labeled:,} queries carry what the visitor bought, hid or reported."
    )
    click.echo(f"Goals: {', '.join(f'{metric} {goal:g}' for metric, goal in wanted.items())}. They stand in {path}.")
    named = name + of(tenant, workspace)
    click.echo(f"Next: `thinslice benchmark label {named}` for slates by hand, `thinslice benchmark run {named}`.")


@command.command("label")
@click.argument("name")
@workspace_option
@tenant_option
@click.option("--by", default="", help="Who labels; absent: the name that this computer knows you by.")
@click.option("--picks", type=click.Path(path_type=Path), help="Read picks from CSV or JSON Lines: query_id, item_id.")
@click.option(
    "--export", "export_to", type=click.Path(path_type=Path), help="Write the queries to a CSV, to pick from."
)
@click.option("--count", type=click.IntRange(1), default=20, show_default=True, help="How many queries to ask.")
@json_option
def label_(
    workspace: Workspace,
    tenant: str,
    name: str,
    by: str,
    picks: Path | None,
    export_to: Path | None,
    count: int,
    as_json: bool,
) -> None:
    """Picks slates by hand: from a file, or here, one query at a time. What was really clicked is not told."""
    import getpass

    from thinslice.cli import benchmark_files as files
    from thinslice.cli.benchmark_label import ask, export, keep, read_picks

    if picks is not None and export_to is not None:
        raise BadInput("--picks reads and --export writes.", hint="Do one at a time.")
    read_settings(workspace).tenant(tenant)
    head, frozen, items = files.read(files.head_file(workspace, tenant, name))
    person = by or getpass.getuser()
    if export_to is not None:
        export(export_to, frozen, items)
        if as_json:
            print_json({"benchmark": name, "queries": len(frozen.queries), "file": str(export_to)})
        else:
            click.echo(
                f"{len(frozen.queries):,} queries are in {export_to}; read picks with --picks FILE (query_id, item_id)."
            )
        return
    chosen = read_picks(picks, frozen) if picks is not None else ask(workspace, head, frozen, items, person, count)
    kept = keep(workspace, head, chosen, person)
    if as_json:
        print_json({"benchmark": name, "queries": len(chosen), "labels": kept, "by": person})
    else:
        click.echo(f"{kept:,} picks for {len(chosen):,} queries are kept as labels of {person}.")


@command.command("run")
@click.argument("name")
@workspace_option
@tenant_option
@click.option("--models", help="Names, with commas between; by default the default pipeline. Popular is always there.")
@json_option
def run_(workspace: Workspace, tenant: str, name: str, models: str | None, as_json: bool) -> None:
    """Asks the models the frozen queries: passed or failed per goal, beside baseline, picked slates and ceiling.

    The exit code is 0 when one of the models passed all goals, else 1.
    """
    from thinslice.cli import benchmark_files as files
    from thinslice.cli.benchmark_label import picks_of
    from thinslice.cli.evaluate import names_of
    from thinslice.cli.evaluate_report import progress_bar
    from thinslice.evaluation import named_models
    from thinslice.evaluation.benchmark import changed_goals, check_goals, judge, verdicts
    from thinslice.models import MODELS

    read_settings(workspace).tenant(tenant)
    path = files.head_file(workspace, tenant, name)
    head, frozen, items = files.read(path)
    check_goals(head.goals)
    asked = named_models(names_of(models)) if models is not None else named_models(None)[-1:]
    chosen = named_models(["popular", *asked])
    earlier = files.runs(path)
    changed = changed_goals(earlier[0]["goals"], head.goals) if earlier else []
    picks = picks_of(workspace, head)
    with progress_bar() as progress:
        rows, skipped = judge(
            frozen, {each: MODELS[each] for each in chosen}, head.k, items=items, picks=picks, progress=progress
        )
    plain = []
    for row in rows:
        figures = {metric: {"value": it.value, "ci": it.interval()} for metric, it in row.figures.items()}
        judged = verdicts(row, head.goals) if row.kind == "model" else []
        passed = all_passed([each["passed"] for each in judged])
        plain.append({"name": row.name, "kind": row.kind, "n": row.n, "figures": figures, "goals": judged,
                      "passed": passed})  # fmt: skip
    done = [row["passed"] for row in plain if row["kind"] == "model" and row["name"] in asked]
    result: dict[str, Any] = {
        "benchmark": name, "tenant": tenant, "ran_at": datetime.now(UTC).isoformat(), "k": head.k,
        "goals": head.goals, "goals_changed": changed, "first_run": not earlier,
        "first_run_at": earlier[0]["ran_at"] if earlier else None, "queries": head.queries, "labeled": len(picks),
        "rows": plain, "skipped": skipped, "passed": True if True in done else None if None in done else False,
    }  # fmt: skip
    files.keep_run(path, {name: result[name] for name in ("ran_at", "goals", "goals_changed", "passed", "rows")})
    if as_json:
        print_json(result)
    else:
        _print(result)
    if not result["passed"]:
        raise click.exceptions.Exit(1)


def all_passed(goals: Sequence[bool | None]) -> bool | None:
    """Whether a model passed: failed by one goal is failed, and what cannot be said of one cannot be said of all.

    >>> all_passed([True, True]), all_passed([None, False]), all_passed([True, None]), all_passed([])
    (True, False, None, None)
    """
    return False if False in goals else None if None in goals or not goals else True


def _goals(words: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for word in words:
        metric, equals, share = word.partition("=")
        try:
            found[metric.strip()] = float(share)
        except ValueError:
            equals = ""
        if not equals:
            raise BadInput(f"--goal {word!r} is no goal.", hint="Write --goal hr=0.5 for instance.")
    return found


def _print(result: dict[str, Any]) -> None:
    console = paper()
    metrics = list(dict.fromkeys([*result["goals"], "hr", "mrr"]))
    table = plain_table(f"{result['benchmark']}, k = {result['k']}")
    table.add_column("n", justify="right", no_wrap=True)
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    table.add_column("goals", no_wrap=True)
    goal_cells = [f"≤ {goal:g}" if metric == "bad" else f"≥ {goal:g}" for metric, goal in result["goals"].items()]
    table.add_row("goal", "", *goal_cells, *[""] * (len(metrics) - len(goal_cells)), "")
    for row in result["rows"]:
        cells = [_figure(row["figures"].get(metric)) for metric in metrics]
        words = "" if row["passed"] is None else "passed" if row["passed"] else "failed"
        table.add_row(row["name"], f"{row['n']:,}", *cells, words)
    console.print(table)
    for row in result["rows"]:
        for goal in row["goals"]:
            if goal["passed"] is None:
                console.print(f"{row['name']}: {goal['metric']} cannot be said: nothing is labeled for it.")
            elif not goal["sure"]:
                word = "passed" if goal["passed"] else "failed"
                console.print(f"{row['name']}: {goal['metric']} {word}, but its interval holds the goal.")
    for row in result["skipped"]:
        console.print(f"{row['name']} was left out: {row['reason']}")
    if result["goals_changed"]:
        console.print(
            f"Since the first run ({result['first_run_at']}) goals were changed: {'; '.join(result['goals_changed'])}."
        )
    said = {True: "Passed.", False: "Failed.", None: "Neither passed nor failed: label what the goals ask for first."}
    console.print(said[result["passed"]])


def _figure(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return "–"
    low, high = estimate["ci"]
    return f"{estimate['value']:.4f}" + ("" if low is None else f" ±{(high - low) / 2:.4f}")
