"""Reasons: why an item is shown, in words, from the terms that made its score."""

from collections.abc import Callable, Sequence

from thinslice.records import Model, Reason

ALL = {
    "popular": "Popular now",
    "newest": "New in the catalog",
    "trending": "Trending now",
    "trending-in-category": "Trending in a category that you looked at",
    "recently-viewed": "You viewed this before",
    "buy-again": "You bought this before",
}
"""Sources whose items all have the same reason."""

CAUSED = {
    "bought-together": "Often bought with {}",
    "complete-cart": "Often bought with {}",
    "similar": "Similar to {}",
    "content": "Similar to {}",
}
"""How a reason names its cause, by source; the others say that it was viewed."""


def reasons(
    model: Model, session: Sequence[str], item_ids: Sequence[str], title: Callable[[str], str], *, source: str = ""
) -> list[str]:
    """Why each item is shown.

    Args:
        model: Ranked the items.
        session: What it was asked, oldest first.
        item_ids: What is shown.
        title: Item id → its title.
        source: The name under which the items stand in the slate; empty: the model's.
    """
    name = source or model.name
    if name in ALL:
        return [ALL[name]] * len(item_ids)
    causes = getattr(model, "causes", None)
    found: list[str | None] = (
        causes(session, item_ids)
        if causes is not None
        else [strongest(model.explain(session, item_id)) for item_id in item_ids]
    )
    words = CAUSED.get(name, "Because you viewed {}")
    said = {cause: because(cause, title, words) for cause in set(found)}
    return [said[cause] for cause in found]


def strongest(reason: Reason) -> str | None:
    """The session item that gave the largest share of a score."""
    return max(reason.terms, key=reason.terms.__getitem__) if reason.terms else None


def because(item_id: str | None, title: Callable[[str], str], words: str = "Because you viewed {}") -> str:
    """A reason in words.

    >>> because("a", {"a": "Blue vase"}.__getitem__)
    'Because you viewed Blue vase'
    """
    return "Chosen for you" if item_id is None else words.format(title(item_id))
