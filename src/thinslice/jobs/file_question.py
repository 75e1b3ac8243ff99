"""What to compare in a file of an experiment that ran elsewhere: the command line's words, checked."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from thinslice.errors import BadInput


class Question(NamedTuple):
    """What to compare in a file, as the command line says it.

    Attributes:
        unit: The column of the unit's id.
        variant: The column of the variant.
        control: The control's name.
        metrics: `NAME=COL` or `NAME=COL/COL`; the first is the goal.
        quantiles: `NAME=COL@0.9`, that quantile of a unit's sum of the column; they stand after the metrics.
        margins: `NAME=0.02`, relative and positive.
        caps: `NAME=VALUE` or `NAME=q0.99`: a unit's sum counts at most so much.
        expected: Planned shares, control first and then the others by name, or `NAME=SHARE`; empty: equal shares.
        propensity: Columns with the logged probability of each variant, in the same order, or `NAME=COL`.
        covariate: A column that was known before the assignment.
        segments: Columns that were known before the assignment, to look at their values one by one.
        day: A column of days or times: the cumulative effect, novelty, and the split over time.
        exposure: The column of when a unit was exposed first; rows of an earlier day count nowhere.
        cluster: The column of what was randomized as a whole.
        block: The column of the time block that was randomized as a whole (a switchback).
        burn_in: How many values of `day` are left out at the start of each block.
        looks: How many looks were planned; intervals are then those of O'Brien-Fleming. 0 is one look, at the end.
        planned_days: How many days were planned; tells which look this is. None: as many as there are looks.
    """

    unit: str
    variant: str
    control: str
    metrics: Sequence[str] = ()
    quantiles: Sequence[str] = ()
    margins: Sequence[str] = ()
    caps: Sequence[str] = ()
    expected: str = ""
    propensity: str = ""
    covariate: str | None = None
    segments: Sequence[str] = ()
    day: str | None = None
    exposure: str | None = None
    cluster: str | None = None
    block: str | None = None
    burn_in: int = 0
    looks: int = 0
    planned_days: float | None = None


class AskedMetric(NamedTuple):
    """One metric as it was asked for: columns of the file, and perhaps a quantile and a cap (one of the two kinds)."""

    name: str
    numerator: str
    denominator: str | None = None
    quantile: float | None = None
    cap: float | None = None
    cap_quantile: float | None = None


def asked_metrics(ask: Question, columns: set[str]) -> list[AskedMetric]:
    """Every metric of a question, means and ratios before quantiles.

    Args:
        ask: The question.
        columns: The file's columns; a column whose name holds a slash is taken as it is.

    Raises:
        BadInput: An entry that does not read, a name twice, or a cap for no metric.
    """
    found = [_parse_metric(entry, columns) for entry in ask.metrics]
    found += [_parse_quantile(entry) for entry in ask.quantiles]
    names = [metric.name for metric in found]
    if not names:
        raise BadInput("at least one --metric is needed, got 0.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"metric {twice[0]!r} occurs twice.")
    caps = dict(_parse_cap(entry, names) for entry in ask.caps)
    capped = [metric._replace(cap=caps[metric.name][0], cap_quantile=caps[metric.name][1])
              if metric.name in caps else metric for metric in found]  # fmt: skip
    strange = next((of for of in capped if of.name in caps and of.quantile is not None), None)
    if strange is not None:
        raise BadInput(f"--cap {strange.name}: a quantile needs no cap, a few large values do not move it.")
    return capped


def asked_margins(entries: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Margins by metric.

    Raises:
        BadInput: A metric that there is not, or a margin outside of 0..1.
    """
    margins = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if name not in names:
            raise BadInput(f"--margin names metric {name!r}, which is not asked for (there is: {', '.join(names)}).")
        margins[name] = number_of(value, f"--margin {name}")
        if not 0 < margins[name] < 1:
            raise BadInput(f"--margin {entry}: a margin is relative and positive, 0.02 for 2 % worse.")
    return margins


def check_design(ask: Question) -> None:
    """Refuses options that do not go together.

    Raises:
        BadInput: With what to leave out or to add.
    """
    if not 0 <= ask.looks <= 1_000:
        raise BadInput(f"--looks is {ask.looks}; it is how many looks were planned, from 1 to 1,000.")
    if ask.planned_days is not None and not (0 < ask.planned_days < math.inf and ask.looks and ask.day):
        raise BadInput("--planned-days tells which of the --looks this is, by --day; it is above 0 and needs both.")
    if ask.exposure is not None and ask.day is None:
        raise BadInput("--exposure needs --day: a row is told to be too early by its day.")
    if ask.block is None and ask.burn_in:
        raise BadInput("--burn-in needs --block: it is left out after each switch between blocks.")
    if ask.burn_in < 0:
        raise BadInput(f"--burn-in is {ask.burn_in}; it is not negative.")
    if ask.block is not None:
        if ask.day is None:
            raise BadInput("--block needs --day: blocks are put in order, and what follows a switch left out, by time.")
        for option, value, why in (
            ("--cluster", ask.cluster, "the block is what was randomized as a whole"),
            ("--propensity", ask.propensity, "blocks are dealt out with constant shares, balanced over hours and days"),
            ("--exposure", ask.exposure, "a unit meets both sides, so it has no first exposure to one of them"),
            ("--covariate", ask.covariate, "what a unit did before says nothing of the hour that a block lies in"),
            ("--looks", ask.looks, "too few ways to deal out the blocks are there to be as strict as an early look"),
        ):  # fmt: skip
            if value:
                raise BadInput(f"{option} does not go with --block: {why}.")
    if ask.quantiles and (ask.propensity or ask.cluster):
        raise BadInput(
            "--quantile does not go with --propensity or --cluster: its interval is right for units that were "
            "assigned one by one with constant shares.",
            hint="Compare means or ratios, with --cap where a few large values rule.",
        )


def _parse_metric(entry: str, columns: set[str]) -> AskedMetric:
    name, equals, formula = entry.partition("=")
    if not (name and equals and formula):
        raise BadInput(f"--metric {entry!r} is not NAME=COLUMN or NAME=COLUMN/COLUMN.")
    if formula in columns or "/" not in formula:
        return AskedMetric(name, formula)
    numerator, _, denominator = formula.partition("/")
    return AskedMetric(name, numerator, denominator)


def _parse_quantile(entry: str) -> AskedMetric:
    read = re.fullmatch(r"([^=]+)=(.+)@([^@]+)", entry)
    if read is None:
        raise BadInput(f"--quantile {entry!r} is not NAME=COLUMN@0.9.")
    quantile = number_of(read[3], f"--quantile {read[1]}")
    if not 0 < quantile < 1:
        raise BadInput(f"--quantile {entry}: a quantile lies between 0 and 1, 0.9 for the value that 10 % exceed.")
    return AskedMetric(read[1], read[2], quantile=quantile)


def _parse_cap(entry: str, names: Sequence[str]) -> tuple[str, tuple[float | None, float | None]]:
    name, _, value = entry.partition("=")
    if name not in names:
        raise BadInput(f"--cap names metric {name!r}, which is not asked for (there is: {', '.join(names)}).")
    if value.startswith("q"):
        share = number_of(value[1:], f"--cap {name}")
        if not 0.5 <= share < 1:
            raise BadInput(f"--cap {entry}: q0.99 caps at what 1 % of the units exceed; it lies between 0.5 and 1.")
        return name, (None, share)
    cap = number_of(value, f"--cap {name}")
    if cap <= 0:
        raise BadInput(f"--cap {entry}: a cap is above 0.")
    return name, (cap, None)


def number_of(value: str, option: str) -> float:
    """A finite number that stands behind an option.

    Raises:
        BadInput: It is none.
    """
    try:
        number = float(value)
    except ValueError:
        raise BadInput(f"{option}: {value!r} is no number.") from None
    if not math.isfinite(number):
        raise BadInput(f"{option}: {value!r} is no finite number.")
    return number


def entries_of(value: str) -> list[str]:
    """What is separated by commas."""
    return [entry.strip() for entry in value.split(",")] if value.strip() else []
