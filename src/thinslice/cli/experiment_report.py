"""An experiment's report in the terminal: decision, effects on one scale around zero, checks; words beside colors."""

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from thinslice.metrics import MONEY_COLUMN
from thinslice.records import Experiment, MetricResult, Report
from thinslice.web.charts import Bounds
from thinslice.web.evidence import believed

COLORS = {
    "ship": "green", "keep": "yellow", "stop": "red", "extend": "yellow", "invalid": "red",
    "better": "green", "worse": "red", "not_worse": "cyan", "cannot_say": "bright_black",
}  # fmt: skip
"""Color of an action or a reading; the word always stands beside it."""

HEADLINES = {
    "ship": "SHIP", "keep": "KEEP CONTROL", "stop": "STOP, KEEP CONTROL", "extend": "EXTEND, DO NOT SHIP YET",
    "invalid": "INVALID, DO NOT READ THE EFFECTS",
}  # fmt: skip

ALARM = 0.05
"""Below this p-value (corrected over metrics and segments) a difference between segments is told."""

MOST_VALUES = 8
"""So many values of a segment are printed, the largest; the JSON holds all."""

STEPS = tuple(base * 10.0**power for power in range(-4, 5) for base in (1.0, 2.0, 4.0, 5.0))
"""Where the ends of the scale may lie, in percent."""


def print_report(console: Console, report: Report, *, experiment: Experiment | None = None, currency: str = "") -> None:
    """Prints a report.

    Args:
        console: Where to; its width decides how wide the bars are, 60 columns and more look right.
        report: What to print.
        experiment: Its definition, so that money is printed as money.
        currency: The tenant's currency.
    """
    money = set()
    if experiment is not None and currency:
        money = {
            metric.name
            for metric in experiment.metrics
            if metric.numerator == MONEY_COLUMN and metric.denominator != MONEY_COLUMN
        }
    console.print(_headline(report))
    for variant in dict.fromkeys(row.variant for row in report.metrics):
        rows = [row for row in report.metrics if row.variant == variant]
        console.print()
        console.print(_effects(rows, report, width=console.width, currency=currency, money=money))
    others = any(row["role"] != "goal" for row in report.segments)
    for segments in _goal_by_segment(report):
        console.print()
        console.print(_segments(segments, width=console.width, others=others))
    console.print()
    for words in _beside(report):
        console.print(Text(words))
    for check in sorted(report.checks, key=lambda check: check.passed):
        chance = "" if check.pvalue is None else f"  p = {check.pvalue:.2g}"
        mark, word, color = ("✓", "passed", "green") if check.passed else ("✗", "FAILED", "red")
        line = Text.assemble((f"{mark} {check.name} {word}", color), f"{chance}  {check.detail}")
        console.print(line)
        if not check.passed and check.advice:
            console.print(Padding(Text(f"→ {check.advice}"), (0, 0, 0, 2)))


def _beside(report: Report) -> list[str]:
    """What is not a metric and no check: looks, the method, whether the effect lasts, where it differs."""
    lines = []
    if report.looks:
        lines.append(f"look {report.looks['look']} of {report.looks['of']} that were planned; intervals allow for it")
    if report.method not in ("", "Welch"):
        lines.append(f"estimated by {report.method}")
    for row in report.novelty.get("variants", []):
        if "steady" in row:
            early, steady = (change_or_dash(row[name]["rel_effect_size"]) for name in ("early", "steady"))
            word = "lasting" if row["stable"] else "whether it lasts cannot be told"
            if row["stable"] is False:
                word = "less is done later, the effect keeps its share" if row["same_share"] else "! not stable"
            first, late = report.novelty["early_days"], report.novelty["late_from"]
            lines.append(
                f"{word}: {row['variant']} {early} in a unit's first {first} days, {steady} from day {late} on"
            )
    for row in report.heterogeneity:
        if row["pvalue_bh"] is not None and row["pvalue_bh"] < ALARM:
            name = row["name"].replace("_", " ")
            lines.append(
                f"! {row['variant']}: the effect on {name} differs by {row['segment']}, p = {row['pvalue']:.2g}"
            )
    return lines


def change_or_dash(share: float | None) -> str:
    """A relative change in percent, or a dash where there is none."""
    return "-" if share is None else f"{100 * share:+.1f} %"


def _headline(report: Report) -> RenderableType:
    action = report.decision.action
    lines = [Text(HEADLINES[action], style=f"bold {COLORS[action]}"), Text(report.decision.sentence)]
    return Panel(Group(*lines), title=Text(f"{report.experiment}{_age(report)}"), title_align="left",
                 border_style=COLORS[action], padding=(0, 1))  # fmt: skip


def _age(report: Report) -> str:
    if report.started_at is None or report.as_of is None:
        return ""
    day = math.floor((report.as_of - report.started_at).total_seconds() / 86_400) + 1
    if report.ends_at is None:
        return f"  day {day}"
    planned = max(1, math.ceil((report.ends_at - report.started_at).total_seconds() / 86_400))
    return f"  day {min(day, planned)}/{planned}"


def _effects(rows: list[MetricResult], report: Report, *, width: int, currency: str, money: set[str]) -> RenderableType:
    reach = _reach([row.rel_effect_size_ci for row in rows])
    variant = rows[0].variant
    compact = width < 92
    table = Table(box=None, padding=(0, 1), pad_edge=False, expand=False, header_style="bright_black")
    table.add_column("Metric", overflow="fold", max_width=28, min_width=6)
    if not compact:
        table.add_column(report.control, justify="right", no_wrap=True, overflow="ellipsis", max_width=14)
        table.add_column(variant, justify="right", no_wrap=True, overflow="ellipsis", max_width=14)
    bar = (max(11, min(31, width - 60)) if compact else max(13, min(41, width - 84))) | 1
    table.add_column(_axis(reach, bar), no_wrap=True, min_width=bar, max_width=bar)
    table.add_column("Change (95 %)", justify="right", no_wrap=True)
    table.add_column("Reading", overflow="fold")
    for row in rows:
        unit = currency if row.name in money else ""
        means = [] if compact else [_value(row, mean, unit) for mean in (row.mean_control, row.mean_treatment)]
        name = row.name.replace("_", " ") + (" ↓" if row.direction == "down" else "")
        reading = Text(row.reading.replace("_", " "), style=COLORS[row.reading])
        change, ci = row.rel_effect_size, row.rel_effect_size_ci
        table.add_row(
            name, *means, _bar(change, ci, row.reading, reach, bar), _change(change, ci, row.reading), reading
        )
    of = {report.control: rows[0].n_control, variant: rows[0].n_treatment}
    sizes = ", ".join(f"{name} {n:,} unit{'' if n == 1 else 's'}" for name, n in of.items())
    guarded = [f"{row.name.replace('_', ' ')} {100 * row.margin:g} %" for row in rows if row.margin is not None]
    margins = f"; accepted margin: {', '.join(guarded)}" if guarded else ""
    why = [f"{row.name.replace('_', ' ')} cannot be read: {row.why}." for row in rows if row.why]
    return Group(table, *(Text(line, style="bright_black") for line in (*why, sizes + margins)))


def _goal_by_segment(report: Report) -> list[list[dict[str, Any]]]:
    """Rows of the goal within segments, one list a treatment; those without an effect are left out."""
    rows = [row for row in report.segments if row["role"] == "goal" and None not in believed(row)[:2]]
    return [[row for row in rows if row["variant"] == each] for each in dict.fromkeys(row["variant"] for row in rows)]


def _segments(rows: list[dict[str, Any]], *, width: int, others: bool) -> RenderableType:
    """The goal's effect in the largest values of each segment, as far as it is to be believed."""
    shown: list[dict[str, Any]] = []
    for name in dict.fromkeys(row["segment"] for row in rows):
        shown += sorted((row for row in rows if row["segment"] == name), key=lambda row: -row["share"])[:MOST_VALUES]
    reach = _reach([believed(row)[1] for row in shown])
    bar = max(11, min(31, width - 65)) | 1
    table = Table(box=None, padding=(0, 1), pad_edge=False, expand=False, header_style="bright_black")
    table.add_column("Segment", overflow="fold", max_width=28, min_width=6)
    table.add_column("Units", justify="right", no_wrap=True)
    table.add_column(_axis(reach, bar), no_wrap=True, min_width=bar, max_width=bar)
    table.add_column("Change (95 %)", justify="right", no_wrap=True)
    table.add_column("Reading", overflow="fold")
    for row in shown:
        change, ci, reading = believed(row)
        table.add_row(
            f"{row['segment']} {row['value']}", f"{100 * row['share']:.0f} %", _bar(change, ci, reading, reach, bar),
            _change(change, ci, reading), Text(reading.replace("_", " "), style=COLORS[reading]),
        )  # fmt: skip
    name, variant = rows[0]["name"].replace("_", " "), rows[0]["variant"]
    told = f"{name} of {variant} by segment, pulled towards the others as far as noise explains the difference"
    left = len(rows) - len(shown)
    told += f"; {left:,} smaller ones stand in --json" if left else ""
    told += "; other metrics by segment stand in --html and --json" if others else ""
    return Group(table, Text(told, style="bright_black"))


def _reach(intervals: Sequence[Bounds | None]) -> float:
    """Half of the scale in percent: the smallest step that holds every interval, at most 100 %, at least 1 %."""
    ends = [abs(100 * end) for interval in intervals for end in (interval or ()) if end is not None]
    largest = min(max([*ends, 1.0]), 100.0)
    return next(step for step in STEPS if step >= largest)


def _axis(reach: float, width: int) -> Text:
    """The labels of the scale: its ends and zero."""
    left, right = f"-{reach:g}%", f"+{reach:g}%"
    half = width // 2
    return Text(left.ljust(half)[:half] + "0" + right.rjust(half)[-half:])


def _bar(change: float | None, ci: Bounds | None, reading: str, reach: float, width: int) -> Text:
    """One interval on the shared scale; zero is always drawn, an arrow says that it goes on."""
    half = width // 2
    cells = [" "] * width
    if ci is not None and change is not None:
        low, high = (_place(end, default, reach, half) for end, default in zip(ci, (-math.inf, math.inf), strict=True))
        for place in range(max(low, 0), min(high, width - 1) + 1):
            cells[place] = "─"
        if low < 0:
            cells[0] = "←"
        if high >= width:
            cells[-1] = "→"
    cells[half] = "┼" if cells[half] == "─" else "│"
    if ci is not None and change is not None:
        middle = _place(change, 0.0, reach, half)
        if 0 <= middle < width:
            cells[middle] = "●"
    text = Text("".join(cells), style=COLORS[reading])
    if cells[half] == "│":
        text.stylize("bright_black", half, half + 1)
    return text


def _place(end: float | None, default: float, reach: float, half: int) -> int:
    """The cell of a relative change; -1 or one past the end when it lies outside."""
    value = default if end is None else 100 * end
    if value < -reach:
        return -1
    if value > reach:
        return 2 * half + 1
    return half + round(value / reach * half)


def _value(row: MetricResult, value: float | None, currency: str) -> str:
    """A mean as money, as a share where both lie between 0 and 1, or with four figures."""
    if value is None:
        return "-"
    if currency:
        return f"{value / 100:,.2f} {currency}"
    means = [mean for mean in (row.mean_control, row.mean_treatment) if mean is not None]
    if "_per_" not in row.name and all(0 <= mean <= 1 for mean in means):
        return f"{100 * value:.2f} %"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _change(change: float | None, ci: Bounds | None, reading: str) -> Text:
    if change is None or ci is None:
        return Text("-", style="bright_black")
    ends = ["∞" if end is None else f"{100 * end:+.1f}" for end in ci]
    ends[0] = "-∞" if ends[0] == "∞" else ends[0]
    return Text.assemble((f"{100 * change:+.1f} %", COLORS[reading]), (f" [{ends[0]}, {ends[1]}]", "bright_black"))
