"""Numbers as people read them: percent with a true minus, money, counts with thin spaces, times with their zone."""

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

MINUS, THIN = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}"


def count(value: float) -> str:
    """A count with thin spaces.

    >>> count(412908).replace("\N{NARROW NO-BREAK SPACE}", "_")
    '412_908'
    """
    return f"{value:,.0f}".replace(",", THIN).replace("-", MINUS)


def change(share: float | None) -> str:
    """A relative change in percent, signed, with one decimal; a dash when there is none.

    >>> change(-0.021).replace("\N{MINUS SIGN}", "-")
    '-2.1 %'
    """
    if share is None:
        return "–"
    digits = 1 if abs(share) < 10 else 0
    return f"{100 * share:+.{digits}f} %".replace("-", MINUS)


def interval(bounds: tuple[float | None, float | None] | None) -> str:
    """Both bounds of a relative interval; a bound that is open is said to be.

    >>> interval((0.005, None))
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
    """A share 0..1 in percent, unsigned."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def milliseconds(value: float | None) -> str:
    """A latency."""
    return "–" if value is None else f"{value:g} ms"


def moment(value: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return "–" if value is None else f"{value:%-d %b %Y, %H:%M} UTC"


def title(name: str) -> str:
    """A metric's or check's name as words.

    >>> title("revenue_per_visitor")
    'Revenue per visitor'
    """
    return name.replace("_", " ").replace("-", " ").capitalize()
