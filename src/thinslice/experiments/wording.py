"""Numbers in words: changes in percent, intervals, time that is left."""

from datetime import timedelta

from thinslice.records import MetricResult


def percent(share: float, *, signed: bool = True) -> str:
    """A share as a percentage with two or three figures that matter.

    >>> percent(0.0423)
    '+4.2 %'
    """
    value = 100 * share
    digits = 1 if abs(value) < 100 else 0
    return f"{value:+,.{digits}f} %" if signed else f"{value:,.{digits}f} %"


def change_in_words(row: MetricResult) -> str:
    """One metric's change with its interval, as part of a sentence."""
    name = row.name
    if row.effect_size is None:
        return f"{name} cannot be compared" + (f" ({row.why})" if row.why else "")
    if row.rel_effect_size is None or row.rel_effect_size_ci is None:
        if row.effect_size_ci is None:
            return f"{name} does not vary"
        low, high = row.effect_size_ci
        return f"{name} changed by {row.effect_size:+.4g} (95 % interval {_end(low, '+.4g')} to {_end(high, '+.4g')})"
    return f"{name} changed by {percent(row.rel_effect_size)} ({interval_in_words(row.rel_effect_size_ci)})"


def interval_in_words(bounds: tuple[float | None, float | None] | None) -> str:
    """A relative interval as it stands in a sentence.

    >>> interval_in_words((0.01, None))
    '95 % interval +1.0 % to without bound'
    """
    if bounds is None:
        return "no interval"
    ends = [("without bound" if end is None else percent(end)) for end in bounds]
    return f"95 % interval {ends[0]} to {ends[1]}"


def times_in_words(time: timedelta) -> str:
    """A duration in the unit that fits.

    >>> times_in_words(timedelta(hours=60))
    '2.5 days'
    """
    seconds = time.total_seconds()
    for size, word in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = f"{seconds / size:.1f}".removesuffix(".0")
            return f"{count} {word}{'' if count == '1' else 's'}"
    return f"{seconds:.0f} seconds"


def _end(value: float | None, form: str) -> str:
    return "without bound" if value is None else format(value, form)
