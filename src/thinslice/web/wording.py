"""Numbers as people read them: percent with a true minus, money, counts with thin spaces, times with their zone."""

import re
from collections.abc import Iterable
from datetime import datetime

READINGS = {
    "better": "Better",
    "worse": "Worse",
    "not_worse": "Not worse, better not shown",
    "cannot_say": "Cannot say yet",
}
"""What a reading is called on a page."""

ACTIONS = {
    "ship": "Ship",
    "keep": "Keep control",
    "stop": "Stop",
    "extend": "Extend, do not ship yet",
    "invalid": "Invalid",
}
"""What a decision is called on a page."""

SHORT = {**ACTIONS, "extend": "Extend"}
"""The same where there is little room."""

CHECKS = {
    "sample_ratio": "The split came out as planned",
    "sample_ratio_over_time": "The split held all the time",
    "sample_ratio_by_day": "The split held on each day",
    "sample_ratio_by_segment": "The split held in each segment",
    "mixed_assignment": "Nobody was seen in two variants",
    "isolated_training": "Each variant learns from its own visitors",
    "contamination": "No model learned from the other variant",
    "covariate_balance": "Variants were alike before the start",
    "missing_exposures": "As many slates are seen as are served",
    "log_loss_by_segment": "They are seen as often in each segment",
    "duplicate_exposures": "Each slate was logged once",
    "bots_by_variant": "Bots do not favor a variant",
    "unknown_segments": "Each segment was sent with its slates",
    "rare_outcomes": "Enough units of each variant did something",
    "cannibalization": "It takes no clicks from its neighbors",
    "spillover": "Neighbors do not pass the effect on",
    "effect_over_time": "The effect stays the same over time",
    "control_over_ramp": "Control stays the same while shares change",
    "own_against_pooled": "Own and shared models say the same",
    "segments_before_exposure": "Segments were known beforehand",
    "missing_days": "There are data of every day",
    "outcomes_before_exposure": "Nothing counted before a first slate",
}
"""What a check asks, as the answer that one hopes for; others go by their names."""

ROLES = {
    "goal": "Goal: what is decided by",
    "driver": "Drivers: how it comes about",
    "guardrail": "Guardrails: must not get worse than accepted",
    "diagnostic": "Beside them: decide nothing",
}
"""What a role is called on a page."""

TRAININGS = {
    "isolated": "each variant learns from its own visitors only",
    "shared": "variants learn from each other's visitors",
}
"""How the models of an experiment learn, in words."""

KINDS = {"test": "", "holdout": "holdout", "backtest": "backtest"}
"""What is said of an experiment that is no ordinary test."""

MANY_RUNS = 200
"""From so many runs on a rehearsal tells shares to some points."""

MINUS, THIN, FIXED = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}", "\N{NO-BREAK SPACE}"


def count(value: float) -> str:
    """A count with thin spaces.

    >>> count(412908).replace("\N{NARROW NO-BREAK SPACE}", "_")
    '412_908'
    """
    return f"{value:,.0f}".replace(",", THIN).replace("-", MINUS)


def change(share: float | None) -> str:
    """A relative change in percent, signed, with one decimal; a dash when there is none.

    >>> change(-0.021).replace("\N{MINUS SIGN}", "-").replace("\N{NO-BREAK SPACE}", " ")
    '-2.1 %'
    """
    if share is None:
        return "–"
    digits = 1 if abs(share) < 10 else 0
    shown = round(100 * share, digits)
    text = f"{shown:+.{digits}f}" if shown else f"{0:.{digits}f}"
    return f"{text}{FIXED}%".replace("-", MINUS)


def interval(bounds: tuple[float | None, float | None] | None) -> str:
    """Both bounds of a relative interval; a bound that is open is said to be.

    >>> interval((0.005, None)).replace("\N{NO-BREAK SPACE}", " ")
    '+0.5 % to no bound'
    """
    if bounds is None:
        return "no interval yet"
    low, high = ("no bound" if bound is None else change(bound) for bound in bounds)
    return f"{low} to {high}"


def level(value: float | None, unit: str, currency: str) -> str:
    """A metric's level by its unit (see `thinslice.metrics.built_in.unit_of`), with three figures that matter.

    >>> level(1090.26, "money", "EUR")
    '€10.90'
    """
    if value is None:
        return "–"
    if unit == "money":
        sign = {"EUR": "€", "USD": "$", "GBP": "£"}.get(currency, f"{currency} ")
        return f"{sign}{value / 100:,.2f}".replace("-", MINUS)
    if unit == "share":
        return share(value)
    return f"{value:.3g}" if abs(value) < 1000 else count(value)


def share(value: float | None, digits: int = 1) -> str:
    """A share 0..1 in percent, unsigned.

    >>> share(-0.0001).replace("\N{NO-BREAK SPACE}", " ")
    '0.0 %'
    """
    return "–" if value is None else f"{round(100 * value, digits) + 0.0:.{digits}f}{FIXED}%".replace("-", MINUS)


def milliseconds(value: float | None) -> str:
    """A latency."""
    return "–" if value is None else f"{value:g} ms"


def moment(value: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return "–" if value is None else f"{value:%-d %b %Y, %H:%M} UTC"


def few(runs: int) -> str:
    """What so few runs of a rehearsal cannot tell; empty where there are many.

    A share that was never seen in n runs is, with 95 % confidence, at most 1 - .025^(1/n) (Clopper and Pearson).

    >>> few(20)
    '20 runs tell little of rare things: what did not happen in them may happen in up to 17 % of all.'
    """
    if runs >= MANY_RUNS:
        return ""
    most, seen = 100 * (1 - 0.025 ** (1 / runs)), "it" if runs == 1 else "them"
    told = "1 run tells" if runs == 1 else f"{runs} runs tell"
    return f"{told} little of rare things: what did not happen in {seen} may happen in up to {most:.0f} % of all."


def chance(pvalue: float | None) -> str:
    """A p-value with two figures that matter; empty where there is none.

    >>> chance(0.00000012)
    'p < 0.0001'
    """
    if pvalue is None:
        return ""
    return "p < 0.0001" if pvalue < 0.0001 else f"p = {pvalue:.2g}"


def check(name: str) -> str:
    """A check as the answer that one hopes for.

    >>> check("sample_ratio")
    'The split came out as planned'
    """
    return CHECKS.get(name) or title(name)


def spoken(text: str, names: Iterable[str]) -> str:
    """A sentence in which names of metrics are words, and minus signs are true ones.

    >>> spoken("Ship b: revenue_per_visitor changed by -2.", ["revenue_per_visitor"]).replace("\N{MINUS SIGN}", "-")
    'Ship b: revenue per visitor changed by -2.'
    """
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, name.replace("_", " "))
    return re.sub(r"(?<![\w.])-(?=\d)", MINUS, text).replace(" %", f"{FIXED}%")


def until(label: str) -> str:
    """Up to when, as a report's curve says it: a moment, a day, or what stands in a file instead of one.

    >>> until("2026-03-01T09:00:00+00:00"), until("2026-03-01"), until("7"), until("week 2")
    ('1 Mar 2026, 09:00 UTC', '1 Mar 2026', 'day 7', 'week 2')
    """
    if label.lstrip("-").isdigit():
        return f"day {label}"
    try:
        at = datetime.fromisoformat(label)
    except ValueError:
        return label
    if at.tzinfo is None:
        return day(at)
    return f"{at:%-d %b %Y, %H:%M:%S} UTC" if at.second else moment(at)


def day(value: datetime | None) -> str:
    """A day in UTC."""
    return "–" if value is None else f"{value:%-d %b %Y}"


def title(name: str) -> str:
    """A metric's or check's name as words.

    >>> title("revenue_per_visitor")
    'Revenue per visitor'
    """
    return name.replace("_", " ").replace("-", " ").capitalize()


def sentence(text: str) -> str:
    """Words that begin a sentence.

    >>> sentence("the test of a mean")
    'The test of a mean'
    """
    return text[:1].upper() + text[1:]
