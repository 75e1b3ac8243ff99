"""What visitors did with slates, counted so that batches add up: shows and clicks by item and place, fading."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput

DAY_S = 86_400.0

MAX_SLOTS = 50
"""Places below this are counted as this one."""

CURVE_CLICKS = 200.0
"""The usual falling curve of attention counts as so many clicks at each place.

With few, a ranking that settles early cannot tell a good item from a good place, and learns too slowly.
"""

ROUNDS = 30
"""The curve of attention and the click rates are fitted in turns; both settle long before."""


class Shown(NamedTuple):
    """Places of slates and what became of them, one row a place.

    Attributes:
        item_id: Shape (rows,), texts.
        slot: Shape (rows,), int64, from 0.
        clicked: Shape (rows,), bool.
        slate: Shape (rows,), int64: rows of one slate have one number.
        time: Shape (rows,), float64, unix seconds.
    """

    item_id: NDArray[Any]
    slot: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    slate: NDArray[np.int64]
    time: NDArray[np.float64]


class ClickCounts(NamedTuple):
    """Shows and clicks by item and place, as they weigh at one moment.

    Attributes:
        item_ids: Sorted.
        shows: Shape (items, slots), float64.
        clicks: Shape (items, slots), float64.
        at: Unix seconds of the moment: what happened then weighs 1.
        batches: How many were added: the version.
        rows: How many places of slates were counted in all, unweighed.
    """

    item_ids: list[str]
    shows: NDArray[np.float64]
    clicks: NDArray[np.float64]
    at: float = 0.0
    batches: int = 0
    rows: int = 0


def no_clicks() -> ClickCounts:
    """Nothing counted yet."""
    return ClickCounts([], np.zeros((0, 1)), np.zeros((0, 1)))


def add(counts: ClickCounts, shown: Shown, *, half_life_days: float) -> ClickCounts:
    """The counts with one batch more; batches in any order give what all rows at once would.

    Args:
        counts: So far.
        shown: The batch.
        half_life_days: A show or click this old counts half; infinity: all count alike.

    Raises:
        BadInput: The columns are not equally long, or a time is not a finite number.
    """
    check(shown)
    if not len(shown.slot):
        return counts
    at = max(counts.at, float(shown.time.max())) if counts.rows else float(shown.time.max())
    names = sorted(set(counts.item_ids).union(shown.item_id.tolist()))
    code = {name: number for number, name in enumerate(names)}
    slot = np.minimum(shown.slot, MAX_SLOTS - 1)
    slots = max(counts.shows.shape[1], int(slot.max()) + 1)
    shows, clicks = np.zeros((len(names), slots)), np.zeros((len(names), slots))
    faded = fading(counts.at, at, half_life_days)
    old = np.array([code[name] for name in counts.item_ids], dtype=np.int64)
    shows[old, : counts.shows.shape[1]] = counts.shows * faded
    clicks[old, : counts.clicks.shape[1]] = counts.clicks * faded
    item = np.array([code[name] for name in shown.item_id.tolist()], dtype=np.int64)
    weight = fading(shown.time, at, half_life_days)
    cell = item * slots + slot
    shows += np.bincount(cell, weights=weight, minlength=shows.size).reshape(shows.shape)
    clicks += np.bincount(cell, weights=weight * shown.clicked, minlength=shows.size).reshape(shows.shape)
    return ClickCounts(names, shows, clicks, at, counts.batches + 1, counts.rows + len(slot))


def check(shown: Shown) -> None:
    """Refuses columns that do not fit together."""
    lengths = [len(column) for column in shown]
    if len(set(lengths)) != 1:
        raise BadInput(f"item_id, slot, clicked, slate and time must be equally long, got {lengths}.")
    bad = int((~np.isfinite(shown.time)).sum())
    if bad:
        raise BadInput(f"{bad} of {lengths[0]} times are no finite numbers.")
    if lengths[0] and int(shown.slot.min()) < 0:
        raise BadInput(f"places count from 0, got {int(shown.slot.min())}.")


def fading(time: Any, at: float, half_life_days: float) -> Any:
    """How much what happened at `time` weighs at `at`: halved every half-life.

    >>> float(fading(0.0, 86_400.0, 1.0))
    0.5
    """
    return np.exp2((np.asarray(time) - at) / (half_life_days * DAY_S))


def cascaded(shown: Shown) -> Shown:
    """The rows that a visitor who reads from the top has seen: down to the first click, all as if in one place.

    Source: Craswell et al., An experimental comparison of click position-bias models (2008).
    """
    if not len(shown.slot):
        return shown
    _, slate = np.unique(shown.slate, return_inverse=True)
    first = np.full(int(slate.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, slate[shown.clicked], shown.slot[shown.clicked])
    seen = shown.slot <= first[slate]
    return Shown(
        shown.item_id[seen], np.zeros(int(seen.sum()), dtype=np.int64), shown.clicked[seen], shown.slate[seen],
        shown.time[seen],
    )  # fmt: skip


def usual_attention(slots: int) -> NDArray[np.float64]:
    """How likely each place is looked at where nothing is known yet: 1 / log2(place + 1), places from 1."""
    return np.asarray(1.0 / np.log2(np.arange(slots) + 2.0))


def attention(counts: ClickCounts) -> NDArray[np.float64]:
    """How likely each place is looked at, the best one 1: shape (slots,).

    Clicks at a place are taken as shows × the item's rate × the place's attention (the position-based model; for rates
    far below 1 its likelihood is that of Poisson counts), fitted in turns: each side given the other.

    Source: Richardson, Dominowska and Ragno, Predicting clicks (2007); Chuklin et al., Click models for web search
    (2015), chapter 3.
    """
    usual = usual_attention(counts.shows.shape[1])
    clicked, shown = float(counts.clicks.sum()), float((counts.shows * usual).sum())
    if counts.shows.shape[1] == 1 or clicked <= 0:
        return usual
    mean = clicked / shown
    found = usual
    for _ in range(ROUNDS):
        rate = (counts.clicks.sum(axis=1) + 1.0) / (counts.shows @ found + 1.0 / mean)
        expected = rate @ counts.shows
        found = (counts.clicks.sum(axis=0) + CURVE_CLICKS * usual) / (expected + CURVE_CLICKS)
        found = found / found.max()
    return np.maximum(found, 0.01)


def rates(counts: ClickCounts, seen: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Clicks and looks (shows × attention) of each item, and the rate of all together.

    Args:
        counts: Of n items.
        seen: Shape (slots,), `attention`.
    """
    clicks = counts.clicks.sum(axis=1)
    looks = np.maximum(counts.shows @ seen[: counts.shows.shape[1]], clicks)
    mean = (float(clicks.sum()) + 1.0) / (float(looks.sum()) + 50.0)  # 2 % where nothing is known
    return clicks, looks, mean


def places(counts: ClickCounts, item_ids: Sequence[str]) -> NDArray[np.int64]:
    """The row of each item in the counts; -1 where it was never shown."""
    code = {name: number for number, name in enumerate(counts.item_ids)}
    return np.array([code.get(name, -1) for name in item_ids], dtype=np.int64)
