"""`thinslice experiment design`: what an experiment can show in how many days, from the tenant's own past."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thinslice.cli.experiment_conduct import whose_options
from thinslice.cli.experiment_shadow import print_support
from thinslice.cli.workspace import chosen_tenant, print_json
from thinslice.errors import BadInput
from thinslice.settings import Workspace

if TYPE_CHECKING:
    from thinslice.experiments.design import Design, DesignRow


@click.command("design")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--metric", "metrics", multiple=True, metavar="NAME[=0.05]",
              help="Instead of FILE: a built-in metric, and the smallest relative change that matters.")  # fmt: skip
@click.option(
    "--margin", "margins", multiple=True, metavar="NAME=0.02", help="Not worse by more than so much, relative."
)
@click.option("--unit", default="visitor", show_default=True, help="Instead of FILE: what is randomized.")
@click.option("--days", type=float, metavar="D", help="How long it is to run; default as FILE says, else 14.")
@click.option("--covariate-days", type=float, metavar="D", help="Take off what each unit did in the D days before.")
@click.option("--history", type=int, default=28, show_default=True, metavar="D", help="Days of the past to plan from.")
@whose_options
def design(
    file: Path | None, metrics: tuple[str, ...], margins: tuple[str, ...], unit: str, days: float | None,
    covariate_days: float | None, history: int, tenant: str | None, workspace: Workspace, as_json: bool,
) -> None:  # fmt: skip
    """Plan the experiment in FILE (TOML), or one of two equal variants by --metric: power, smallest effect, days."""
    import msgspec

    from thinslice.experiments import parse_experiment
    from thinslice.jobs.design import design_experiment
    from thinslice.jobs.support import support_of

    of = chosen_tenant(workspace, tenant)
    if (file is None) == (not metrics and not margins):
        raise BadInput("give an experiment's FILE, or metrics with --metric and --margin.")
    if file is not None:
        experiment = parse_experiment(file.read_bytes(), of, str(file))
    else:
        experiment = parse_experiment(_text(metrics, margins, unit), of, "the options")
    if covariate_days is not None:
        experiment = msgspec.structs.replace(experiment, covariate_days=covariate_days)
    now = datetime.now(UTC)
    plan = design_experiment(workspace, experiment, now, history_days=history, days=days)
    supports = support_of(workspace, experiment, now) if file is not None else []
    if as_json:
        print_json(msgspec.to_builtins(plan) | {"support": msgspec.to_builtins(supports)})
        return
    _print(plan)
    if supports:
        click.echo("\nBefore its launch:")
    for each in supports:
        print_support(each)


def _text(metrics: tuple[str, ...], margins: tuple[str, ...], unit: str) -> str:
    """The experiment that the options ask for, as its file would say it."""
    wanted: dict[str, dict[str, float]] = {}
    for field, given in (("mde", metrics), ("margin", margins)):
        for each in given:
            name, equals, value = each.partition("=")
            fields = wanted.setdefault(name, {})
            if not equals and field == "mde":
                continue
            try:
                fields[field] = float(value)
            except ValueError:
                raise BadInput(f"{each!r} is no NAME=SHARE.", hint="For example revenue_per_visitor=0.05.") from None
    lines = ['name = "plan"', f'unit = "{unit}"', 'training = "shared"']
    lines.append('variants = [{name = "control", policy = "popular"}, {name = "treatment", policy = "session-knn"}]')
    for name, fields in wanted.items():
        lines += ["[[metrics]]", f'name = "{name}"', *(f"{key} = {value!r}" for key, value in fields.items())]
    return "\n".join(lines)


def _print(plan: "Design") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(plan.sentence)
    past = "day" if plan.history_days == 1 else f"{plan.history_days} days"
    console.print(
        f"{plan.units:,} {plan.unit}s in the last {past}, {plan.units_a_day:,.0f} new a day.",
        style="dim",
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("Metric", no_wrap=True)
    if len({row.variant for row in plan.rows}) > 1:
        table.add_column("Variant", no_wrap=True)
    for name in ("Now", f"{plan.days:g} d show", "Wanted", "Days", "Margin", "Days"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in plan.rows:
        cells = [row.metric] if len(table.columns) == 7 else [row.metric, row.variant]
        table.add_row(
            *cells, _number(row.mean, "{:,.4g}"), _number(row.mde, "{:.1%}"), _number(row.wanted, "{:.1%}"),
            _days(row, row.wanted, row.days_for_wanted), _number(row.margin, "{:.1%}"),
            _days(row, row.margin, row.days_for_margin),
        )  # fmt: skip
    console.print(table)
    for row in plan.rows:
        if row.mde is None:
            console.print(row.sentence)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _days(row: "DesignRow", asked: float | None, days: int | None) -> str:
    if asked is None:
        return ""
    if row.mde is None:
        return "-"
    return "> 1 year" if days is None else str(days)
