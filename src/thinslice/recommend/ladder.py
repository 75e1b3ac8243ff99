"""The ladder: the session's model first, then what is popular, then what is new, so that no slate is ever empty."""

from collections.abc import Callable, Iterable, Sequence, Set
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.recommend.availability import Availability
from thinslice.records import Model, Reason, SlateItem

Title = Callable[[str], str]
"""Item id → its title."""

Failed = Callable[[str, Exception], None]
"""Called with a rung's name and what went wrong in it."""


class Rung(NamedTuple):
    """One source of a slate: a model and which of its items may be shown."""

    model: Model
    availability: Availability


class Slate(NamedTuple):
    """What is shown, best first, and out of how many candidates it was chosen."""

    items: list[SlateItem]
    candidate_count: int


def climb(
    session: Sequence[str],
    k: int,
    *,
    rungs: Sequence[Rung],
    catalog: Iterable[str] = (),
    last_good: Iterable[SlateItem] = (),
    without: Set[str] = frozenset(),
    title: Title = str,
    failed: Failed | None = None,
) -> Slate:
    """Fills `k` places from the first rung that has something, then from the next ones.

    Args:
        session: Item ids, oldest first.
        k: Places to fill.
        rungs: Models, the best first; each ranks only what may be shown.
        catalog: Available items in the catalog's order, for a shop without any model.
        last_good: The last good slate of this place, for when nothing else has anything.
        without: Items that must not be shown: the one of the page, and what was bought.
        title: For the reasons.
        failed: Told when a rung could not answer; the next rung answers then.

    Returns:
        The slate; it is shorter than `k` only when all sources together have fewer items.
    """
    chosen: list[SlateItem] = []
    taken = set(without)
    candidates = 0
    for rung in rungs:
        if len(chosen) >= k:
            break
        allowed = rung.availability.allowed(taken)
        try:
            ranked = rung.model.recommend(session, k - len(chosen), allowed=allowed)
            reasons = _reasons(rung.model, session, ranked.item_ids, title)
        except Exception as error:  # a broken model must not break the page: the next rung answers
            if failed is None:
                raise
            failed(rung.model.name, error)
            continue
        if ranked.item_ids:
            candidates = candidates or count(allowed)
        for item_id, score, reason in zip(ranked.item_ids, ranked.scores, reasons, strict=True):
            if item_id in taken:
                continue
            taken.add(item_id)
            chosen.append(SlateItem(item_id=item_id, score=float(score), source=ranked.source, reason=reason))
    if len(chosen) < k:
        for item_id in catalog:
            if item_id in taken:
                continue
            taken.add(item_id)
            chosen.append(SlateItem(item_id=item_id, score=0.0, source="catalog", reason="From the catalog"))
            if len(chosen) >= k:
                break
    if not chosen:
        chosen = [
            SlateItem(item_id=item.item_id, score=0.0, source="last-good", reason="Shown here before")
            for item in last_good
            if item.item_id not in taken
        ][:k]
    return Slate(chosen, max(candidates, len(chosen)))


def count(allowed: NDArray[np.bool_]) -> int:
    """How many items may be shown."""
    return int(np.count_nonzero(allowed))


def _reasons(model: Model, session: Sequence[str], item_ids: Sequence[str], title: Title) -> list[str]:
    """Why each item is shown, in words, from the terms that made its score."""
    if model.name == "popular":
        return ["Popular now"] * len(item_ids)
    if model.name == "newest":
        return ["New in the catalog"] * len(item_ids)
    causes = getattr(model, "causes", None)
    found: Iterable[str | None] = (
        causes(session, item_ids)
        if causes is not None
        else (strongest(model.explain(session, item_id)) for item_id in item_ids)
    )
    return [because(cause, title) for cause in found]


def strongest(reason: Reason) -> str | None:
    """The session item that gave the largest share of a score."""
    return max(reason.terms, key=reason.terms.__getitem__) if reason.terms else None


def because(item_id: str | None, title: Title) -> str:
    """A reason in words.

    >>> because("a", {"a": "Blue vase"}.__getitem__)
    'Because you viewed Blue vase'
    """
    return "Chosen for you" if item_id is None else f"Because you viewed {title(item_id)}"
