"""`thinslice experiment ledger`: every decision, what was shipped brought in all, and what offline figures foretold."""

import math
from typing import TYPE_CHECKING

import click

from thinslice.cli.experiment_conduct import whose_options
from thinslice.cli.workspace import chosen_tenant, print_json
from thinslice.settings import Workspace

if TYPE_CHECKING:
    from thinslice.experiments.program import Foretold


@click.command("ledger")
@click.option("--metric", metavar="NAME", help="In which it is counted; by default the goal that most experiments had.")
@whose_options
def ledger(metric: str | None, tenant: str | None, workspace: Workspace, as_json: bool) -> None:
    """Every decision so far, what all that was shipped brought together, and whether a holdout agrees."""
    from thinslice.experiments.program import sentence
    from thinslice.experiments.wording import interval_in_words, percent
    from thinslice.jobs.program import as_plain, change, program_of, write_program

    whose = chosen_tenant(workspace, tenant)
    of = program_of(workspace, whose, metric)
    if metric is None:
        write_program(workspace, whose, of)
    if as_json:
        print_json(as_plain(of))
        return
    if not of.outcomes:
        click.echo("No experiment has ended with a decision yet.")
        return
    width = max(len(each.experiment) for each in of.outcomes)
    for each in of.outcomes:
        row = change(each.effect)
        told = "" if each.foretold is None else f"   offline {percent(math.expm1(each.foretold))}"
        word = "shipped" if each.shipped else "not shipped"
        click.echo(
            f"{each.experiment:<{width}}  {each.variant:<20} {word:<12} {percent(row['change'])} "
            f"({interval_in_words(row['ci'])}){told}"
        )
        if each.again is not None and each.lasts is not None:
            later, word = change(each.again), "agrees" if each.lasts.agrees else "does not agree"
            said = f"{percent(later['change'])} ({interval_in_words(later['ci'])})"
            click.echo(f"{'':<{width}}  {'':<20} {'backtest':<12} {said}: {word}")
    click.echo(f"\n{sentence(of)}")
    if of.foretold.n and of.foretold.same_sign is not None:
        right = f"{of.foretold.same_sign:.0%} of {of.foretold.n} online effects"
        click.echo(f"Offline figures foretold the sign of {right}{_slope(of.foretold)}.")


def _slope(of: "Foretold") -> str:
    """How much an offline change was worth online; a slope of 1 is as much as foretold."""
    if of.slope is None:
        return ""
    bounds = ""
    if of.slope.ci is not None and None not in of.slope.ci:
        bounds = f" ({of.slope.ci[0]:+.2f} to {of.slope.ci[1]:+.2f})"
    return f"; 10 % more offline was {of.slope.value * 10:+.1f} % online, slope {of.slope.value:+.2f}{bounds}"
