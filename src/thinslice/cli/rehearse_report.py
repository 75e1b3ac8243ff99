"""Prints what a rehearsal found, for people: the truth, what each design said of it, and one sentence at the end."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinslice.web.wording import few

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from thinslice.jobs.rehearse import Design, Rehearsal
    from thinslice.simulate.scenario import Scenario


@contextmanager
def run_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar over the runs on stderr; nothing is drawn where nobody looks."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("runs", total=None)

        def told(done: int, runs: int) -> None:
            bar.update(task, completed=done, total=runs)

        yield told


def print_scenarios(scenarios: Mapping[str, Scenario]) -> None:
    """One line a scenario."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, scenario in scenarios.items():
        table.add_row(name, scenario.says)
    Console(highlight=False).print(table)


WARNINGS = {
    "sample_ratio": "the split is not as planned",
    "sample_ratio_over_time": "the split is off from some day on",
    "sample_ratio_by_day": "the split is off on some days",
    "sample_ratio_by_segment": "the split is off in one segment",
    "mixed_assignment": "units were seen in two variants",
    "isolated_training": "variants learn from each other's sessions",
    "contamination": "a model learned from what the other variant caused",
    "own_against_pooled": "sharing training data moves the effect",
    "control_over_ramp": "control changes as treatment gets more of the traffic",
    "spillover": "what neighbors get reaches control",
    "effect_over_time": "the effect changes as days go by",
    "novelty": "the effect changes with a unit's days since its first exposure",
    "harmed_segment": "a large segment is harmed",
    "covariate_balance": "variants differed before the test",
    "missing_exposures": "one variant's reports get lost",
    "log_loss_by_segment": "one variant's reports get lost in a segment",
    "bots_by_variant": "bots fall unevenly",
    "unknown_segments": "a segment was never sent",
    "cannibalization": "the shelf takes clicks from its neighbors",
    "mean_weight": "the log does not hold what the new ranker would show",
    "max_weight_share": "a few rows of the log decide",
    "effective_sample_size": "too few rows of the log count",
}
"""What a warning means, in a few words; others go by their names."""

NEVER_APART = "\N{NO-BREAK SPACE}%"
"""A number and its sign stay on one line."""

LEGEND = (
    "found: mean of what it found. bias: found less the truth. sign: runs with the wrong sign. covers: runs whose 95 % "
    "interval held the truth. sees: runs that saw a difference. warns: runs with a warning."
)
"""What the columns hold."""


def print_rehearsal(found: Rehearsal) -> None:
    """The question, one row a design, what each warned of, and one sentence that says what would have happened."""
    console = Console(highlight=False)
    runs = "1 run" if found.runs == 1 else f"{found.runs:,} runs"
    console.print(Text(f"{found.scenario}, {runs}: ", style="bold") + Text(found.says))
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bright_black")
    table.add_column("design", overflow="fold")
    for head in ("found", "bias", "sign", "covers", "sees", "warns", "decides"):
        table.add_column(head, justify="right", no_wrap=head != "decides")
    table.add_row("the truth", _change(found, found.truth["effect_size"]), *[""] * 6)
    for design in found.designs:
        decides = next((f"{action} {_share(share)}" for action, share in design.actions.items()), "-")
        table.add_row(
            design.words, _change(found, design.estimate_mean), _change(found, design.bias),
            _share(design.wrong_sign_share), _share(design.coverage), _share(design.rejection_rate),
            _share(design.warned_share), decides,
        )  # fmt: skip
    console.print(table)
    console.print(Text(LEGEND, style="bright_black"))
    if few(found.runs):
        console.print(Text(few(found.runs).replace(" %", NEVER_APART), style="yellow"))
    console.print()
    for design in found.designs:
        if design.warnings:
            console.print(Text(f"{_capital(design.words)} warned:"))
        for name, share in design.warnings.items():
            said = f"  ! {WARNINGS.get(name, name.replace('_', ' '))} ({name}, {_share(share)} of the runs)"
            console.print(Text(said.replace(" %", NEVER_APART), style="yellow"))
    quiet = [design.words for design in found.designs if not design.warnings]
    if quiet:
        console.print(Text(f"Without a warning: {', '.join(quiet)}."))
    console.print()
    console.print(sentence(found).replace(" %", NEVER_APART))


def sentence(found: Rehearsal) -> str:
    """What an ordinary test would have told, what is true, and what our design tells."""
    ordinary, ours = found.designs[0], found.designs[-1]
    effect = found.truth["effect_size"]
    if ordinary.name == "nothing":
        shipped = _share(ours.actions.get("ship", 0.0))
        return (
            f"Without an effect your experiment sees one in {_share(ordinary.rejection_rate)} of the runs; an effect "
            f"of {_change(found, effect)} it sees in {_share(ours.rejection_rate)} and ships in {shipped}."
        )
    if not effect:
        seen = f"{ordinary.words} sees a difference in {_share(ordinary.rejection_rate)} of the runs"
        if ours is not ordinary:
            seen += f", {ours.words} in {_share(ours.rejection_rate)}"
        return _capital(f"there is nothing to see: {seen}; 5 % is what a sound test does.")
    told = f"{ordinary.words} would have told you {_told(found, ordinary)}; the truth is {_change(found, effect)}"
    if ours is not ordinary:
        told += f"; {ours.words} tells {_told(found, ours)}"
        told += " and warns" if ours.warned_share >= 0.5 else ""
    return _capital(f"{told}.")


def _told(found: Rehearsal, design: Design) -> str:
    if design.rejection_rate < 0.5:
        return f"{_change(found, design.estimate_mean)}, mostly without seeing a difference"
    return _change(found, design.estimate_mean)


def _change(found: Rehearsal, effect: float | None) -> str:
    """An effect relative to control where there is something to be relative to."""
    control = found.truth["mean_control"]
    if effect is None:
        return "nothing"
    return f"{100 * effect / control:+.1f} %" if control else f"{effect:+.4g}"


def _share(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.0f} %" if value in (0, 1) or 0.1 <= value <= 0.9 else f"{100 * value:.1f} %"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
