"""`thinslice experiment ledger`: every decision, what was shipped brought in all, and what offline figures foretold."""

import math
from typing import TYPE_CHECKING, Any

import click

from thinslice.cli.experiment_conduct import tenant_option
from thinslice.cli.workspace import chosen_tenant, json_option, print_json, workspace_option
from thinslice.settings import Workspace

if TYPE_CHECKING:
    from thinslice.experiments.program import Program
    from thinslice.stats import Estimate


@click.command("ledger")
@click.option("--metric", metavar="NAME", help="In which it is counted; by default the goal that most experiments had.")
@tenant_option
@workspace_option
@json_option
def ledger(metric: str | None, tenant: str | None, workspace: Workspace, as_json: bool) -> None:
    """Every decision so far, what all that was shipped brought together, and whether a holdout agrees."""
    from thinslice.experiments.program import sentence
    from thinslice.experiments.wording import interval_in_words, percent
    from thinslice.jobs.program import program_of

    of = program_of(workspace, chosen_tenant(workspace, tenant), metric)
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
    click.echo(f"\n{sentence(of)}")
    if of.foretold.n and of.foretold.same_sign is not None:
        slope = "" if of.foretold.slope is None else f", slope {of.foretold.slope.value:+.2f}"
        right = f"{of.foretold.same_sign:.0%} of {of.foretold.n} online effects"
        click.echo(f"Offline figures foretold the sign of {right}{slope}.")


def as_plain(of: "Program") -> dict[str, Any]:
    """The program as `--json` prints it: changes are relative, 0.02 for 2 % more."""
    found, told = of.cumulative, of.foretold
    return {
        "metric": of.metric,
        "outcomes": [
            {"experiment": each.experiment, "variant": each.variant, "shipped": each.shipped, **change(each.effect),
             "offline_change": None if each.foretold is None else math.expm1(each.foretold)}
            for each in of.outcomes
        ],
        "cumulative": None if found is None else {"shipped": found.shipped, **change(found.total)},
        "naive": None if found is None else change(found.naive),
        "holdout": None if of.holdout is None else change(of.holdout),
        "agreement": None if of.agreement is None else {
            "agrees": of.agreement.agrees, "statistic": of.agreement.statistic, "pvalue": of.agreement.pvalue,
        },
        "offline": {
            "n": told.n, "same_sign_share": told.same_sign,
            "slope": None if told.slope is None else told.slope.value,
            "slope_ci": None if told.slope is None else told.slope.ci,
        },
    }  # fmt: skip


def change(of: "Estimate") -> dict[str, Any]:
    """A log effect as a relative change and its interval."""
    from thinslice.experiments.program import as_change

    return {"change": math.expm1(of.value), "ci": as_change(of)}
