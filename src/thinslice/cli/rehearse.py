"""`thinslice rehearse`: an experiment before it is run, on shoppers whose truth is known."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.errors import BadInput
from thinslice.settings import Workspace


@click.command("rehearse", short_help="An experiment before it is run, on shoppers whose truth is known.")
@click.argument("scenario", required=False)
@click.option("--runs", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How often it is played.")
@click.option("--rng", type=click.IntRange(0), default=0, show_default=True, help="The seed of all chance.")
@click.option("--traffic", type=click.FloatRange(1, 1_000_000),
              help="Units a day for an experiment file; absent: the tenant's, else 1,000.")  # fmt: skip
@click.option("--effect", type=click.FloatRange(-0.9, 10), default=0.05, show_default=True,
              help="The relative effect that an experiment file is rehearsed with.")  # fmt: skip
@click.option("--tenant", help="Whose experiment file it is.")
@workspace_option
@json_option
def command(
    scenario: str | None, runs: int, rng: int, traffic: float | None, effect: float, tenant: str | None,
    workspace: Workspace, as_json: bool,
) -> None:  # fmt: skip
    """Play an experiment many times where the truth is known, and see what its report would say.

    SCENARIO is the name of one that is shipped (without a name they are listed), a TOML file of your own that says
    which one it is like, or an experiment's file, which is played with and without an effect. Assignment, ranking,
    training, checks and analysis are those of production.
    """
    from thinslice.cli.rehearse_report import print_rehearsal, print_scenarios, run_bar, sentence
    from thinslice.jobs.rehearsal.kept import keep_rehearsal, whose
    from thinslice.jobs.rehearse import rehearse
    from thinslice.simulate.scenario import Scenario
    from thinslice.simulate.scenarios import SCENARIOS, find_scenario, parse_scenario

    if scenario is None:
        if as_json:
            print_json([{"name": name, "says": each.says} for name, each in SCENARIOS.items()])
        else:
            print_scenarios(SCENARIOS)
        return
    found: Scenario
    if scenario.endswith(".toml"):
        path = Path(scenario)
        if not path.is_file():
            raise BadInput(f"{path} is a folder." if path.is_dir() else f"there is no file {path}.")
        text = path.read_bytes()
        if b"variants" in text:
            from thinslice.jobs.rehearsal.own import own_experiment

            name, found = own_experiment(workspace, tenant, text, path.name, traffic=traffic, effect=effect)
        else:
            name, found = parse_scenario(text.decode("utf-8", "replace"), path.name)
    else:
        name, found = scenario, find_scenario(scenario)
    with run_bar() as tell:
        result = rehearse(name, found, runs=runs, rng=rng, tell=tell)
    owner = whose(workspace, tenant)
    if owner is not None:
        keep_rehearsal(workspace, owner, result.as_json(), sentence(result), datetime.now(UTC))
    if as_json:
        print_json(result.as_json())
    else:
        print_rehearsal(result)
