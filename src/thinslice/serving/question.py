"""A question as the recommender understands it: who asks, what they did, which policy answers and which rules hold."""

from collections.abc import Mapping
from typing import NamedTuple

from thinslice.recommend.rules import Asked, RuleBook
from thinslice.records import LiveSession, Recommendation, RecommendationRequest, SlateItem
from thinslice.serving.catalog import CatalogView
from thinslice.serving.experiments import Choice
from thinslice.serving.memory import Bundle
from thinslice.settings import Policy


class Question(NamedTuple):
    """One request with everything that is known about it.

    Attributes:
        tenant: Follows from the key.
        request: As it came.
        recommendation_id: Under which the answer goes out.
        at: Unix seconds.
        consent: Of the request, else the tenant's default.
        session: The visitor's live session; None without one, or without the consent to personalize.
        items: What the visitor looked at, oldest first, the page's item last.
        page: The item that they look at now.
        page_key: Under which the live store holds what the page shows; empty when the request names no page.
        repeats: What the page shows already.
        user_id: Who they are to models that know people (`sessions.person_id`), when that may be used.
        policy_name: What the answer is called.
        shown_name: What makes the slate: the same, or what the policy `none` would have shown.
        policy: What makes the slate.
        slot: From which models.
        chosen: What the running experiments say of it: under which variants it is logged.
        bundle: The models.
        version: Of the models; `untrained` without any.
        catalog: The items.
        book: The rules.
        asked: What the rules want to know of the request.
        late: Whether it waited so long already that a quick model answers in place of a costly one.
    """

    tenant: str
    request: RecommendationRequest
    recommendation_id: str
    at: float
    consent: str
    session: LiveSession | None
    items: list[str]
    page: str | None
    page_key: str
    repeats: list[str]
    user_id: str | None
    policy_name: str
    shown_name: str
    policy: Policy
    slot: str
    chosen: Choice
    bundle: Bundle | None
    version: str
    catalog: CatalogView
    book: RuleBook
    asked: Asked
    late: bool = False


class Look(NamedTuple):
    """An answer with its making laid open; nothing of it was logged.

    Attributes:
        answer: As the service would give it.
        terms: Of each of its items: what made the score.
        boosts: Of each of its items: rule → the factor that multiplied the score.
        before: What the models alone would show, by no rule at all.
        removed: Rule → how many items it took out by itself; filters count in the whole catalog of the first model,
            quotas among the candidates, the others the visitor's own items.
        blocked: Item of `before` → the rule that keeps it out of the slate.
        spread: How unlike the items are, 0..1, before and after.
    """

    answer: Recommendation
    terms: list[Mapping[str, float]]
    boosts: list[Mapping[str, float]]
    before: list[SlateItem]
    removed: Mapping[str, int]
    blocked: Mapping[str, str]
    spread: tuple[float, float]
