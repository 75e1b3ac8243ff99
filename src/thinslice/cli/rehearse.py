"""`thinslice rehearse`: an experiment before it is run, on shoppers whose truth is known."""

from __future__ import annotations

from pathlib import Path

import click

from thinslice.cli.workspace import json_option, print_json
from thinslice.errors import BadInput


@click.command("rehearse", short_help="An experiment before it is run, on shoppers whose truth is known.")
@click.argument("scenario", required=False)
@click.option("--runs", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How often it is played.")
@click.option("--rng", type=click.IntRange(0), default=0, show_default=True, help="The seed of all chance.")
@json_option
def command(scenario: str | None, runs: int, rng: int, as_json: bool) -> None:
    """Play an experiment many times where the truth is known, and see what its report would say.

    SCENARIO is the name of one that is shipped (without a name they are listed) or a TOML file of your own that says
    which one it is like. Assignment, ranking, training, checks and analysis are those of production.
    """
    from thinslice.cli.rehearse_report import print_rehearsal, print_scenarios, run_bar
    from thinslice.jobs.rehearse import rehearse
    from thinslice.simulate.scenarios import SCENARIOS, find_scenario, parse_scenario

    if scenario is None:
        if as_json:
            print_json([{"name": name, "says": each.says} for name, each in SCENARIOS.items()])
        else:
            print_scenarios(SCENARIOS)
        return
    if scenario.endswith(".toml"):
        path = Path(scenario)
        if not path.is_file():
            raise BadInput(f"there is no file {path}.")
        name, found = parse_scenario(path.read_text(encoding="utf-8"), path.name)
    else:
        name, found = scenario, find_scenario(scenario)
    with run_bar() as tell:
        result = rehearse(name, found, runs=runs, rng=rng, tell=tell)
    if as_json:
        print_json(result.as_json())
    else:
        print_rehearsal(result)
