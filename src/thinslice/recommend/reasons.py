"""Reasons: why an item is shown, in words, from the terms that made its score."""

from collections.abc import Callable, Sequence
from typing import Any

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

VIEWED, AGAIN = "Because you viewed {}", "You viewed this before"
"""What is said of another item that was viewed, and of the item itself where it comes again."""

UNCAUSED = {"user-history": "Popular now"}
"""What is said where no single item is the cause, by source; the others say that it was chosen."""

BEFORE = {True: ("You bought this before", "Because you bought {}"),
          False: (AGAIN, "Because you viewed {} before")}  # fmt: skip
"""Whether the person bought the cause → what is said of the cause itself, and of another item."""


def reasons(
    model: Model, session: Sequence[str], item_ids: Sequence[str], title: Callable[[str], str], *, source: str = "",
    user_id: str | None = None,
) -> list[str]:  # fmt: skip
    """Why each item is shown.

    Args:
        model: Ranked the items.
        session: What it was asked, oldest first.
        item_ids: What is shown.
        title: Item id → its title.
        source: The name under which the items stand in the slate; empty: the model's.
        user_id: Who asked, where the model knows people: what they did before today may be the cause.
    """
    name = source or model.name
    if name in ALL:
        return [ALL[name]] * len(item_ids)
    if user_id is not None and hasattr(model, "bought"):
        return _personal(model, session, item_ids, title, user_id)
    causes = getattr(model, "causes", None)
    found: list[str | None] = (
        causes(session, item_ids)
        if causes is not None
        else [strongest(model.explain(session, item_id)) for item_id in item_ids]
    )
    words = CAUSED.get(name, VIEWED)
    said = {cause: because(cause, title, words) for cause in set(found)}
    if words is not VIEWED:
        return [said[cause] for cause in found]
    return [AGAIN if cause == item_id else said[cause] for item_id, cause in zip(item_ids, found, strict=True)]


def _personal(
    model: Any, session: Sequence[str], item_ids: Sequence[str], title: Callable[[str], str], user_id: str
) -> list[str]:
    """Reasons for somebody who is known: a cause that is not of today's session was bought, or viewed before."""
    causes: list[str | None] = model.causes(session, item_ids, user_id=user_id)
    words: dict[str | None, str] = {each: because(each, title) for each in dict.fromkeys(session) if each in causes}
    words[None] = UNCAUSED.get(model.name, because(None, title))
    if all(cause in words for cause in causes):
        return [AGAIN if cause == item_id else words[cause] for item_id, cause in zip(item_ids, causes, strict=True)]
    bought: frozenset[str] = model.bought(user_id, {cause for cause in causes if cause is not None})
    said = []
    for item_id, cause in zip(item_ids, causes, strict=True):
        if cause is None or cause in words:
            said.append(AGAIN if cause == item_id else words[cause])
            continue
        itself, other = BEFORE[cause in bought]
        said.append(itself if cause == item_id else because(cause, title, other))
    return said


def strongest(reason: Reason) -> str | None:
    """The term that gave the largest share of a score; None where no term raised it.

    >>> strongest(Reason("c", 0.1, {"a": 0.3, "b": -0.2})), strongest(Reason("c", -0.2, {"b": -0.2}))
    ('a', None)
    """
    best = max(reason.terms, key=reason.terms.__getitem__, default=None)
    return best if best is not None and reason.terms[best] > 0 else None


def because(item_id: str | None, title: Callable[[str], str], words: str = VIEWED) -> str:
    """A reason in words.

    >>> because("a", {"a": "Blue vase"}.__getitem__)
    'Because you viewed Blue vase'
    """
    return "Chosen for you" if item_id is None else words.format(title(item_id))
