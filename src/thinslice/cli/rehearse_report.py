"""Prints what a rehearsal found, for people: the truth, what each design said of it, and one sentence at the end."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

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


def print_rehearsal(found: Rehearsal) -> None:
    """The question, one row a design, and one sentence that says what would have happened."""
    console = Console(highlight=False)
    console.print(Text(f"{found.scenario}, {found.runs} runs: ", style="bold") + Text(found.says))
    console.print()
    wide = console.width >= 100
    heads = ["says", "sign wrong", *(["95 % holds truth"] if wide else []), "sees a difference", "warns", "decides"]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bright_black")
    table.add_column("design", overflow="fold")
    for head in heads:
        table.add_column(head, justify="right")
    table.add_row("the truth", *[_change(found, found.truth["effect_size"]), *[""] * (len(heads) - 1)])
    for design in found.designs:
        cells = {
            "says": _change(found, design.estimate_mean),
            "sign wrong": _share(design.wrong_sign_share),
            "95 % holds truth": _share(design.coverage),
            "sees a difference": _share(design.rejection_rate),
            "warns": _share(design.warned_share),
            "decides": next((f"{action} {_share(share)}" for action, share in design.actions.items()), ""),
        }
        table.add_row(design.words, *(cells[head] for head in heads))
    console.print(table)
    for design in found.designs:
        if design.warnings:
            fired = ", ".join(f"{name} in {_share(share)}" for name, share in design.warnings.items())
            console.print(Text(f"{design.words} warned: {fired} of the runs.", style="yellow"))
    console.print()
    console.print(sentence(found))


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
