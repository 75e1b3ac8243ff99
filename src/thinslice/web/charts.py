"""Plots as plain SVG and positioned marks, drawn on the server; each comes with the finding in words.

Positions are percentages of the plot, so that a plot fits any width without JavaScript; texts stand outside of the
SVG and keep their size.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

Bounds = tuple[float | None, float | None]


class Tick(NamedTuple):
    """A mark of an axis: where (percent) and what it says."""

    at: float
    text: str


class Scale(NamedTuple):
    """A linear scale onto 0..100 percent."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a value stands, in percent, kept inside of the plot."""
        return round(100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low))), 3)

    def ticks(self, most: int = 5) -> list[Tick]:
        """Round values of the scale, zero among them when it is inside."""
        step = nice_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        values = [step * number for number in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [Tick(self.at(value), percent_label(value, step)) for value in values]


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `rough`.

    >>> nice_step(0.03)
    0.05
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return next(float(f"{factor * power:.12g}") for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999999)


def percent_label(value: float, step: float) -> str:
    """A tick in percent, with as many decimals as the step needs."""
    digits = max(0, -math.floor(math.log10(step * 100) + 1e-9))
    text = f"{100 * value:+.{digits}f} %" if abs(value) > step / 1000 else "0 %"
    return text.replace("-", "\N{MINUS SIGN}")


def shared_scale(intervals: Sequence[Bounds | None], *, extra: Sequence[float] = (), widest: float = 1.0) -> Scale:
    """One symmetric scale for all intervals; zero is always in the middle, bars beyond `widest` are cut.

    Args:
        intervals: Relative intervals; an open or missing bound does not count.
        extra: Further values that must be inside, such as margins.
        widest: The scale never goes further than this.
    """
    ends = [abs(end) for bounds in intervals if bounds is not None for end in bounds if end is not None]
    reach = max([0.02, *(abs(value) for value in extra), *(min(end, widest) for end in ends)]) * 1.08
    return Scale(-reach, reach)


class Bar(NamedTuple):
    """An interval bar on a scale, in percent of the width; `cut_*` when a bound lies outside."""

    left: float
    width: float
    point: float
    cut_low: bool
    cut_high: bool


def bar(scale: Scale, point: float | None, bounds: Bounds | None) -> Bar | None:
    """The bar of one metric; None when there is nothing to draw."""
    if point is None or bounds is None:
        return None
    low = -math.inf if bounds[0] is None else bounds[0]
    high = math.inf if bounds[1] is None else bounds[1]
    left, right = scale.at(max(low, scale.low)), scale.at(min(high, scale.high))
    return Bar(left, round(right - left, 3), scale.at(point), low < scale.low, high > scale.high)


def sparkline(values: Sequence[float], words: str) -> Markup:
    """A small line of values, oldest first.

    Args:
        values: At least one.
        words: What it shows, for those who do not see it.
    """
    top = max(*values, 1e-9)
    last = max(1, len(values) - 1)
    points = " ".join(f"{100 * number / last:.2f},{30 - 28 * value / top:.2f}" for number, value in enumerate(values))
    return Markup(
        '<svg class="spark" viewBox="0 0 100 32" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<polyline points="{}"/></svg>'
    ).format(words, points)


class Curve(NamedTuple):
    """The cumulative effect, drawn: SVG, ticks of both axes, and where its last point stands."""

    svg: Markup
    ticks: list[Tick]
    last: float


def cumulative_curve(
    points: Sequence[float | None], intervals: Sequence[Bounds | None], always: Sequence[Bounds | None], words: str
) -> Curve | None:
    """The effect with all that was known up to each time, with its interval and the bound that allows looking at it.

    Args:
        points: Relative effects, oldest first; None where there was none yet.
        intervals: Their 95 % intervals.
        always: The intervals that stay valid however often one looks.
        words: The finding, for those who do not see it.

    Returns:
        None when fewer than two times have an effect.
    """
    known = [at for at, point in enumerate(points) if point is not None and intervals[at] is not None]
    if len(known) < 2:
        return None
    half = known[len(known) // 2 :]
    reach = [abs(end) for at in half for end in intervals[at] or () if end is not None]
    high = max([0.02, *(abs(points[at] or 0.0) for at in known[1:]), *reach]) * 1.15
    scale = Scale(-min(high, 2.0), min(high, 2.0))
    span = max(1, len(points) - 1)

    def place(at: int, value: float) -> str:
        return f"{100 * at / span:.2f},{100 - scale.at(value):.2f}"

    def ends(rows: Sequence[Bounds | None]) -> tuple[list[str], list[str]]:
        low, top = [], []
        for at in known:
            bounds = rows[at]
            if bounds is None:
                continue
            low.append(place(at, scale.low if bounds[0] is None else bounds[0]))
            top.append(place(at, scale.high if bounds[1] is None else bounds[1]))
        return low, top

    low, top = ends(intervals)
    always_low, always_top = ends(always)
    line = " ".join(place(at, points[at] or 0.0) for at in known)
    zero = 100 - scale.at(0.0)
    parts = [
        Markup('<polygon class="band" points="{}"/>').format(" ".join([*top, *reversed(low)])),
        Markup('<line class="zero" x1="0" x2="100" y1="{0}" y2="{0}"/>').format(zero),
        Markup('<polyline class="always" points="{}"/>').format(" ".join(always_low)),
        Markup('<polyline class="always" points="{}"/>').format(" ".join(always_top)),
        Markup('<polyline class="line" points="{}"/>').format(line),
    ]
    svg = Markup('<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>').format(
        words, Markup("").join(parts)
    )
    return Curve(svg, scale.ticks(6), 100 - scale.at(points[known[-1]] or 0.0))
