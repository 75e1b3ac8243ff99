"""The nouns: event, item, user, edge, order, session, recommendation, exposure, experiment, and the Protocols."""

from thinslice.records.event import CONSENTS, EVENT_NAMES, Event
from thinslice.records.experiment import Allocation, Check, Decision, Experiment, Metric, MetricResult, Report, Variant
from thinslice.records.item import EDGE_KINDS, STATUSES, Edge, Item, User
from thinslice.records.order import Order, OrderLine
from thinslice.records.protocols import (
    ACTIONS,
    Arrays,
    Artifacts,
    IntakeLog,
    Interactions,
    LiveStore,
    Model,
    Reason,
    ScoredItems,
)
from thinslice.records.quarantine import Quarantined
from thinslice.records.recommendation import (
    ExperimentExposure,
    Exposure,
    Recommendation,
    RecommendationRequest,
    ShadowSlate,
    SlateItem,
)
from thinslice.records.session import LIVE_ITEMS, SESSION_GAP_S, LiveSession, Session

__all__ = [
    "ACTIONS", "CONSENTS", "EDGE_KINDS", "EVENT_NAMES", "LIVE_ITEMS", "SESSION_GAP_S", "STATUSES", "Allocation",
    "Arrays", "Artifacts", "Check", "Decision",
    "Edge", "Event", "Experiment", "ExperimentExposure", "Exposure", "IntakeLog", "Interactions", "Item",
    "LiveSession", "LiveStore", "Metric", "MetricResult", "Model", "Order", "OrderLine", "Quarantined", "Reason",
    "Recommendation", "RecommendationRequest", "Report", "ScoredItems", "Session", "ShadowSlate", "SlateItem", "User",
    "Variant",
]  # fmt: skip
