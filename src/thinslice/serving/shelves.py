"""Shelves: which models answer for a policy, in which order, and what each of them is asked."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.records import Arrays, LiveSession, Model, Reason, RecommendationRequest, ScoredItems
from thinslice.serving.memory import Bundle
from thinslice.serving.models import model_kind

PERSONAL = ("session-knn", "implicit-cosine", "content", "user-history")
"""Models that answer where the policy's own has nothing: neighbors, item to item, content, then who is known."""

FALLBACKS = ("popular", "newest")
"""Models that answer where none knows anything of the session."""

COSTLY = frozenset(
    {"session-ranker", "neural-ranker", "session-transformer", "user-cf", "ease", "implicit-als", "implicit-bpr"}
)
"""Models of a hundred microseconds and more: who has waited too long is answered by the others."""

IMPERSONAL = frozenset({"popular", "newest", "trending"})
"""Models that give everyone the same: behind them stand only `FALLBACKS`, so that a baseline stays one."""


class Recipe(NamedTuple):
    """How a slate with a name of its own is made.

    Attributes:
        model: Which model answers.
        ask: What it is asked: the `session`, the `page`'s item alone, or what is in the `cart`.
        in_category: Only items of the categories of the session.
        alone: When it has anything, no other source fills what is left: a shelf of viewed items holds viewed items.
        bought_too: What was bought is not left out.
    """

    model: str
    ask: str = "session"
    in_category: bool = False
    alone: bool = False
    bought_too: bool = False


RECIPES = {
    "similar": Recipe("implicit-cosine", ask="page"),
    "bought-together": Recipe("bought-together", ask="page"),
    "complete-cart": Recipe("bought-together", ask="cart"),
    "trending-in-category": Recipe("trending", in_category=True),
    "recently-viewed": Recipe("recently-viewed", alone=True),
    "buy-again": Recipe("buy-again", alone=True, bought_too=True),
}
"""Slates that a policy may name as its model; each is also a policy that need not be written down."""


def rung_names(bundle: Bundle, policy_name: str, policy_model: str) -> list[str]:
    """The names in the bundle of the models that answer: the policy's own, those of the session, popular, newest.

    Args:
        bundle: What was trained.
        policy_name: A model of this name in the bundle is the policy's own.
        policy_model: Else the first one of this kind is.
    """
    kinds: dict[str, str] = {}
    for name in bundle.models:
        kinds.setdefault(model_kind(name, bundle.manifest), name)
    kinds.update({name: name for name in bundle.models if name in kinds})
    own = policy_name if policy_name in bundle.models else kinds.get(policy_model)
    behind = FALLBACKS if policy_model in IMPERSONAL else (*PERSONAL, *FALLBACKS)
    found = [own, *(kinds.get(name) for name in behind)]
    return list(dict.fromkeys(name for name in found if name is not None))


def cart_of(request: RecommendationRequest, session: LiveSession | None, items: Sequence[str]) -> list[str]:
    """What lies in the cart: `context.cart` of the request, else of the live session, else the session's items."""
    told = request.context.get("cart")
    if isinstance(told, list):
        return [each for each in told if isinstance(each, str)]
    if session is None or request.items is not None:
        return list(items)
    return [each for each, name in zip(session.items, session.names, strict=False) if name == "add_to_cart"]


class Viewed:
    """The visitor's own trail as a model: what they looked at, the newest first.

    Args:
        session: Item ids, oldest first.
    """

    name = "recently-viewed"

    def __init__(self, session: Sequence[str]) -> None:
        self.item_ids: Sequence[str] = list(dict.fromkeys(reversed(session)))

    def recommend(self, session: Sequence[str], k: int, *, allowed: NDArray[np.bool_] | None = None) -> ScoredItems:
        """The newest `k` allowed items; a score is 1 for the newest and falls with each step back."""
        del session
        kept = [each for place, each in enumerate(self.item_ids) if allowed is None or allowed[place]][: max(k, 0)]
        return ScoredItems(kept, [1.0 / (1 + self.item_ids.index(each)) for each in kept], self.name)

    def explain(self, session: Sequence[str], item_id: str) -> Reason:
        """Its one term is the item itself."""
        del session
        if item_id not in self.item_ids:
            return Reason(item_id, 0.0, {})
        score = 1.0 / (1 + self.item_ids.index(item_id))
        return Reason(item_id, score, {item_id: score})

    def arrays(self) -> Arrays:
        """Nothing is trained."""
        return {}


def as_terms(model: Model | None, session: Sequence[str], item_id: str, user_id: str | None) -> Mapping[str, float]:
    """The terms of one score, from the model that made it."""
    if model is None:
        return {}
    if user_id is not None and getattr(model, "knows_users", False):
        knowing: Any = model
        reason: Reason = knowing.explain(session, item_id, user_id=user_id)
        return reason.terms
    return model.explain(session, item_id).terms
