"""A recommendation: the question, the slate, and the exposure that remembers exactly what was served and why."""

from datetime import datetime
from typing import Any

import msgspec


class RecommendationRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a page asks for. `items` are session items, oldest first, in place of the live session.

    `item_id` is the item of the page; `consent` absent means the default of the tenant and key; `context` may hold
    `page_id`, `age`, `latitude`, `longitude` and `cart`, which rules and shelves read; `policy` asks for one by name,
    outside of experiments; `exclude` are items that the page shows already.
    """

    placement: str = "default"
    k: int = 20
    visitor_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    item_id: str | None = None
    items: list[str] | None = None
    consent: str | None = None
    context: dict[str, Any] = {}
    policy: str | None = None
    exclude: list[str] = []


class SlateItem(msgspec.Struct, frozen=True, kw_only=True):
    """One place of a slate: what, how strongly, from which source, and why in words."""

    item_id: str
    score: float
    source: str
    reason: str


class Recommendation(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer to a `RecommendationRequest`; `note` is there only when the rules left too little, or it came late."""

    recommendation_id: str
    policy: str
    model_version: str
    items: list[SlateItem]
    note: str = ""


class ExperimentExposure(msgspec.Struct, frozen=True, kw_only=True):
    """Under which variant of one experiment a slate was served, and with which probabilities it could have been any."""

    experiment: str
    variant: str
    unit: str
    unit_id: str
    allocation_version: int
    propensities: dict[str, float]
    context_leaf: str = ""


class Exposure(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One recommendation that was served: one row, with everything needed to judge it later without us."""

    recommendation_id: str
    tenant: str
    occurred_at: datetime
    placement: str
    policy: str
    model_version: str
    visitor_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    items: list[str] = []
    sources: list[str] = []
    scores: list[float] = []
    slot_propensities: list[float] = []
    objectives: dict[str, float] = {}
    candidate_count: int = 0
    latency_ms: float = 0.0
    shadow: bool = False
    is_bot: bool = False
    consent: str = "personalization"
    experiments: list[ExperimentExposure] = []
    segments: dict[str, str] = {}


class ShadowSlate(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A slate that a policy would have shown before its launch: made and logged after the answer, never shown.

    `recommendation_id` is that of the slate that was shown, by `live_policy`; `fallbacks` counts places that the
    policy's own model did not fill, `failed` names models that broke; `waited_ms` is how long after the answer it was
    made, and `dropped` how many others were given up before it because the worker had better things to do.
    """

    recommendation_id: str
    tenant: str
    occurred_at: datetime
    experiment: str
    variant: str
    placement: str
    policy: str
    model_version: str
    live_policy: str
    visitor_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    items: list[str] = []
    sources: list[str] = []
    scores: list[float] = []
    slot_propensities: list[float] = []
    candidate_count: int = 0
    latency_ms: float = 0.0
    waited_ms: float = 0.0
    fallbacks: int = 0
    failed: list[str] = []
    dropped: int = 0
    consent: str = "personalization"
    segments: dict[str, str] = {}
