"""Many questions at once: p-values corrected for how many were asked."""

from collections.abc import Sequence


def holm(pvalues: Sequence[float | None]) -> list[float | None]:
    """Holm's correction: controls the chance of any false alarm; None stays None and is not counted.

    >>> holm([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    order = sorted((p, place) for place, p in enumerate(pvalues) if p is not None)
    adjusted: list[float | None] = [None] * len(pvalues)
    floor = 0.0
    for rank, (p, place) in enumerate(order):
        floor = max(floor, min(1.0, p * (len(order) - rank)))
        adjusted[place] = floor
    return adjusted


def benjamini_hochberg(pvalues: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg's correction: controls the share of false alarms among all alarms.

    For many segments or diagnostics, where a few false ones among the found are acceptable; None stays None and is not
    counted.

    Source: Benjamini and Hochberg, Controlling the false discovery rate (1995).

    >>> benjamini_hochberg([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    order = sorted(((p, place) for place, p in enumerate(pvalues) if p is not None), reverse=True)
    adjusted: list[float | None] = [None] * len(pvalues)
    ceiling = 1.0
    for rank, (p, place) in enumerate(order):
        ceiling = min(ceiling, p * (len(order) / (len(order) - rank)))
        adjusted[place] = ceiling
    return adjusted
