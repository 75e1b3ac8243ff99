"""`thinslice evaluate`: how well each model would have foreseen the clicks of a log that is already there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.errors import BadInput
from thinslice.settings import Workspace, read_settings


@click.command("evaluate", short_help="How well each model would have ranked the sessions of a tenant or file.")
@workspace_option
@click.option(
    "--events", "events_file", type=click.Path(path_type=Path), help="A Parquet, CSV or JSON Lines file of events."
)
@click.option("--tenant", help="The events of this tenant's lake instead of a file.")
@click.option(
    "--items", "items_file", type=click.Path(path_type=Path), help="A Parquet, CSV or JSON Lines file of items."
)
@click.option("--models", help="Names, with commas between; by default all.")
@click.option("-k", type=click.IntRange(1, 1000), default=20, show_default=True, help="Length of a list.")
@click.option("--margin", type=click.FloatRange(0, 1, max_open=True),
              help="Relative loss that is accepted of a simpler model; absent: the tenant's, else 0.02.")  # fmt: skip
@click.option("--order-only", is_flag=True, help="ts is a running number, no time; by default found out.")
@click.option("--cut", type=click.Choice(["session", "moment"]), default="session", show_default=True,
              help="Cut between sessions, or through them: for logs in which a session is a person.")  # fmt: skip
@click.option("--test-days", type=click.FloatRange(0, min_open=True), help="How many days at the end are the test.")
@click.option("--refit-hours", type=click.FloatRange(0, min_open=True),
              help="Models learn anew this often during the test, as they would when they serve.")  # fmt: skip
@click.option("--errors", is_flag=True, help="The 50 sessions in which the (last) model is most wrong, in pictures.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the page of --errors goes.")
@click.option("--why", is_flag=True, help="What data, features and size bring to the (last) model; takes many fits.")
@click.option("--seeds", type=click.IntRange(2, 100), default=5, show_default=True, help="How often --why repeats.")
@click.option(
    "--objectives", help="What weighing actions brings and costs with the (last) model: purchase=1,refund=-0.3."
)
@click.option("--off-policy", "target", help="What this policy would have earned on the slates that were shown.")
@json_option
def command(
    workspace: Workspace,
    events_file: Path | None,
    tenant: str | None,
    items_file: Path | None,
    models: str | None,
    k: int,
    margin: float | None,
    order_only: bool,
    cut: str,
    test_days: float | None,
    refit_hours: float | None,
    errors: bool,
    out: Path | None,
    why: bool,
    seeds: int,
    objectives: str | None,
    target: str | None,
    as_json: bool,
) -> None:
    """How well each model would have foreseen the clicks of a log, and at what price.

    The file (Parquet, CSV, JSON Lines) needs the columns session_id, item_id and ts (unix seconds, a timestamp, or a
    running number); `event` chooses the views, `split` (train, test) decides the cut, `user_id` says who is known.
    Without `split` the last days are the test.
    """
    from thinslice.cli.evaluate_input import read_log
    from thinslice.cli.evaluate_report import print_report, progress_bar
    from thinslice.evaluation import MARGIN, evaluate, named_models

    if out is not None and not errors:
        raise BadInput("--out names the page of --errors.", hint="Add --errors, or leave --out away.")
    if sum((errors, why, objectives is not None, target is not None)) > 1:
        raise BadInput(
            "--errors, --why, --objectives and --off-policy: these are two questions.", hint="Ask one at a time."
        )
    if (errors or why) and refit_hours is not None:
        raise BadInput("--errors and --why look at a model that learned once.", hint="Leave --refit-hours away.")
    if target is not None:
        from thinslice.cli.evaluate_off_policy import find_value, print_value

        if tenant is None:
            raise BadInput("--off-policy needs slates that were shown.", hint="Name the --tenant whose they are.")
        value = find_value(workspace, tenant, target, test_days)
        if as_json:
            print_json(value)
        else:
            print_value(value)
        return
    columns, items = read_log(workspace, events_file, tenant, items_file)
    chosen = names_of(models)
    how: dict[str, Any] = {"order_only": True if order_only else None, "cut": cut, "test_days": test_days}
    if errors:
        from thinslice.cli.evaluate_errors import find_errors, print_errors

        name = named_models(chosen)[-1]
        catalog = items_file or events_file
        drawn = find_errors(
            columns,
            items,
            name,
            k,
            out=out or Path(f"errors-{name}.html"),
            where=f"Tenant {tenant}" if events_file is None else f"Events of {events_file.name}",
            pictures=catalog.resolve().parent if catalog is not None else None,
            **how,
        )
        if as_json:
            print_json(drawn)
        else:
            print_errors(drawn, items)
        return
    if why:
        from thinslice.cli.evaluate_why import find_why, keep_trials, print_why

        with progress_bar() as progress:
            found = find_why(columns, items, named_models(chosen)[-1], k, seeds, progress, **how)
        kept = keep_trials(workspace, tenant, found) if tenant is not None else 0
        if as_json:
            print_json(found)
        else:
            print_why(found, kept)
        return
    if objectives is not None:
        from thinslice.cli.evaluate_objectives import find_trade_off, print_trade_off

        if refit_hours is not None:
            raise BadInput("--objectives looks at a model that learned once.", hint="Leave --refit-hours away.")
        weighed = find_trade_off(workspace, tenant, columns, items, named_models(chosen)[-1], objectives, k, **how)
        if as_json:
            print_json(weighed)
        else:
            print_trade_off(weighed)
        return
    if margin is None:
        margin = MARGIN if tenant is None else read_settings(workspace).tenant(tenant).margin
    with progress_bar() as progress:
        result = evaluate(
            columns,
            chosen,
            k,
            items=items,
            margin=margin,
            refit_hours=refit_hours,
            progress=progress,
            **how,
        )
    if as_json:
        print_json(result)
    else:
        print_report(result, k)


def names_of(models: str | None) -> list[str] | None:
    """The names in a list with commas; None is all."""
    return None if models is None else [name.strip() for name in models.split(",") if name.strip()]
