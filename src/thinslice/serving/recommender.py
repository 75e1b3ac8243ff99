"""The recommender: assign → live session → policy → slate → exposure → answer, in well under a millisecond."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from thinslice.collect import is_bot_agent
from thinslice.experiments import unit_id_of
from thinslice.recommend import Rung, Slate, climb
from thinslice.records import (
    Experiment,
    ExperimentExposure,
    Exposure,
    LiveSession,
    LiveStore,
    Model,
    Recommendation,
    RecommendationRequest,
    SlateItem,
)
from thinslice.records.session import SESSION_GAP_S
from thinslice.serving.catalog import CatalogView
from thinslice.serving.experiments import ExperimentFiles, exposure_of
from thinslice.serving.issued import RecommendationIds
from thinslice.serving.models import LIVE, Bundle, ModelHost, slot_of
from thinslice.sessions import live_keys, page_item
from thinslice.settings import BUILT_IN_POLICIES, Policy, Settings

_log = logging.getLogger("thinslice.serving")

FALLBACKS = ("popular", "newest")
"""Models that answer where the policy's own model has nothing."""

ALTERNATES = 1024
"""How many places' last good slates one worker remembers."""


class ExposureLog(Protocol):
    """Remembers what was served before the answer goes out."""

    def exposure(self, exposure: Exposure) -> None:
        """Writes one exposure so that it survives the end of this process."""
        ...


class Recommender:
    """Answers requests with slates; one in each worker.

    Args:
        settings: All tenants' settings.
        live: Live sessions and catalogs.
        models: The trained models; without them the catalog's order answers.
        experiments: The running experiments.
        ids: Issues recommendation ids.
        exposures: Where exposures are logged; None logs nothing (a command that only shows a slate).
    """

    def __init__(
        self,
        settings: Settings,
        live: LiveStore,
        models: ModelHost,
        experiments: ExperimentFiles,
        ids: RecommendationIds,
        exposures: ExposureLog | None,
    ) -> None:
        self._settings = settings
        self._live = live
        self._models = models
        self._experiments = experiments
        self._ids = ids
        self._exposures = exposures
        self._catalogs: dict[str, CatalogView] = {}
        self._last_good: dict[tuple[str, str, str], list[SlateItem]] = {}
        self.failures: Counter[str] = Counter()

    def recommend(
        self, tenant: str, request: RecommendationRequest, key_kind: str, now: datetime, *, user_agent: str = ""
    ) -> Recommendation:
        """One slate; its exposure is logged before this returns.

        Args:
            tenant: Follows from the key.
            request: The question.
            key_kind: `publishable`, `secret` or `admin`: decides the consent of a request that names none.
            now: Aware, UTC.
            user_agent: A browser's User-Agent, which may name a bot: its exposure is tagged.

        Returns:
            The slate: empty only for the policy `none`, and for a tenant that has neither a catalog nor a model.

        Raises:
            UnknownName: There is no such tenant.
        """
        began = time.perf_counter()
        at = now.timestamp()
        shop = self._settings.tenant(tenant)
        consent = request.consent or (shop.consent_publishable if key_kind == "publishable" else shop.consent_secret)
        catalog = self.catalog(tenant, at)
        session = self._session(tenant, request, consent, at)
        items = request.items if request.items is not None else session.items if session is not None else []
        if request.item_id is not None and (not items or items[-1] != request.item_id):
            items = [*items, request.item_id]
        policy_name, slot, exposed = self._choose(tenant, request, session, consent, at)
        policy = self.policy(tenant, policy_name)
        without = set(session.bought) if session is not None else set()
        here = page_item(items, request.item_id)
        if here is not None:
            without.add(here)
        shown = policy if policy.model != "none" else self.policy(tenant, self._stand_in(tenant))
        shown_name = policy_name if policy.model != "none" else self._stand_in(tenant)
        bundle = self._models.bundle(tenant, slot) or self._models.bundle(tenant)
        slate = self._slate(tenant, request, shown_name, shown, slot, bundle, catalog, items, without)
        if not slate.items:  # another worker may have been told of the first items a moment ago
            catalog.refresh(at, at_once=True)
            slate = self._slate(tenant, request, shown_name, shown, slot, bundle, catalog, items, without)
        answer = Recommendation(
            recommendation_id=self._ids.issue(tenant),
            policy=policy_name,
            model_version=bundle.version if bundle is not None else "untrained",
            items=slate.items if policy.model != "none" else [],
        )
        if consent != "none" and self._exposures is not None:
            self._exposures.exposure(
                Exposure(
                    recommendation_id=answer.recommendation_id,
                    tenant=tenant,
                    occurred_at=now,
                    placement=request.placement,
                    policy=policy_name,
                    model_version=answer.model_version,
                    visitor_id=request.visitor_id or (session.visitor_id or None if session is not None else None),
                    session_id=request.session_id or (session.session_id if session is not None else None),
                    user_id=request.user_id or (session.user_id if session is not None else None),
                    items=[item.item_id for item in slate.items],
                    sources=[item.source for item in slate.items],
                    scores=[item.score for item in slate.items],
                    slot_propensities=[1.0] * len(slate.items),
                    candidate_count=slate.candidate_count,
                    latency_ms=round((time.perf_counter() - began) * 1000.0, 4),
                    shadow=policy.model == "none",
                    is_bot=(session is not None and session.is_bot)
                    or (key_kind == "publishable" and is_bot_agent(user_agent)),
                    consent=consent,
                    experiments=[exposed] if exposed is not None else [],
                )
            )
        return answer

    def catalog(self, tenant: str, now: float) -> CatalogView:
        """A tenant's catalog, at most a quarter of a second old; `now` in unix seconds."""
        view = self._catalogs.get(tenant)
        if view is None:
            view = self._catalogs[tenant] = CatalogView(self._live, tenant)
        view.refresh(now)
        return view

    def policy(self, tenant: str, name: str) -> Policy:
        """A policy by name; an unknown name is answered by the popular items."""
        known = self._settings.tenant(tenant).policies.get(name) or BUILT_IN_POLICIES.get(name)
        return known or BUILT_IN_POLICIES["popular"]

    def waiting(self, now: float | None = None) -> str:
        """What a first slate waits for, in one sentence; empty when every tenant's can be served."""
        at = time.time() if now is None else now
        if not self._settings.tenants:
            return "there is no tenant yet."
        if not self._models.looked:
            return "the models have not been looked at yet."
        empty = [name for name in sorted(self._settings.tenants) if not self._servable(name, at)]
        if len(empty) == len(self._settings.tenants):
            return f"no items and no models yet (tenants: {', '.join(empty)})."
        return ""

    def _servable(self, tenant: str, now: float) -> bool:
        return self._models.bundle(tenant) is not None or bool(self.catalog(tenant, now).first(1))

    def _session(self, tenant: str, request: RecommendationRequest, consent: str, at: float) -> LiveSession | None:
        """The visitor's live session; only with the consent to personalize, and not after 30 minutes of silence."""
        if consent != "personalization":
            return None
        keys = live_keys(request.visitor_id, request.session_id, request.user_id)
        if not keys:
            return None
        for session in self._live.sessions([(tenant, key) for key in keys]):
            if session is None:
                continue
            if at - session.last_at > SESSION_GAP_S:
                return LiveSession(
                    visitor_id=session.visitor_id, session_id=request.session_id or "", started_at=at, last_at=at,
                    user_id=session.user_id, bought=session.bought, is_bot=session.is_bot,
                )  # fmt: skip
            return session
        return None

    def _choose(
        self,
        tenant: str,
        request: RecommendationRequest,
        session: LiveSession | None,
        consent: str,
        at: float,
    ) -> tuple[str, str, ExperimentExposure | None]:
        """Which policy answers, from which models, and under which experiment's variant.

        Without consent nothing is stored, so nothing is compared: such a request gets the placement's own policy. The
        first experiment that includes the unit decides.
        """
        if consent != "none":
            visitor_id = request.visitor_id or (session.visitor_id or None if session is not None else None)
            session_id = request.session_id or (session.session_id or None if session is not None else None)
            user_id = request.user_id or (session.user_id if session is not None else None)
            for experiment in self._experiments.running(tenant, at):
                if experiment.placement not in ("*", request.placement):
                    continue
                unit_id = unit_id_of(experiment, visitor_id=visitor_id, session_id=session_id, user_id=user_id)
                exposed = None if unit_id is None else exposure_of(experiment, unit_id)
                if exposed is not None:
                    return policy_of(experiment, exposed.variant), _slot(experiment, exposed.variant), exposed
        shop = self._settings.tenant(tenant)
        return shop.placements.get(request.placement, shop.default_policy), LIVE, None

    def _stand_in(self, tenant: str) -> str:
        """What the policy `none` would have shown: the tenant's default policy."""
        name = self._settings.tenant(tenant).default_policy
        return name if self.policy(tenant, name).model != "none" else "session-knn"

    def _slate(
        self,
        tenant: str,
        request: RecommendationRequest,
        policy_name: str,
        policy: Policy,
        slot: str,
        bundle: Bundle | None,
        catalog: CatalogView,
        items: Sequence[str],
        without: set[str],
    ) -> Slate:
        models = rung_models(bundle, policy_name, policy)
        place = (tenant, request.placement, f"{slot}/{policy_name}")

        def fill(without: set[str]) -> Slate:
            return climb(
                items,
                request.k,
                rungs=[Rung(model, catalog.availability(model)) for model in models],
                catalog=catalog.in_order(),
                last_good=(item for item in self._last_good.get(place, ()) if catalog.may_show(item.item_id)),
                without=without,
                title=catalog.title,
                failed=self._failed,
            )

        slate = fill(without)
        if not slate.items and without:
            slate = fill(set())  # a shop so small that all of it is bought or on this page: better that than nothing
        if slate.items and slate.items[0].source != "last-good":
            if len(self._last_good) >= ALTERNATES and place not in self._last_good:
                self._last_good.pop(next(iter(self._last_good)))
            self._last_good[place] = slate.items
        return slate

    def _failed(self, name: str, error: Exception) -> None:
        """A model broke at a request: it is counted and named in the log, and the next rung answers."""
        self.failures[name] += 1
        if self.failures[name] <= 10 or self.failures[name] % 1000 == 0:
            _log.error("model %s failed (%d times so far)", name, self.failures[name], exc_info=error)


def rung_models(bundle: Bundle | None, policy_name: str, policy: Policy) -> list[Model]:
    """The models that answer, in order: the policy's own, then popular, then newest."""
    if bundle is None:
        return []
    own = policy_name if policy_name in bundle.models else policy.model
    names = dict.fromkeys([own, *FALLBACKS])
    return [bundle.models[name] for name in names if name in bundle.models]


def policy_of(experiment: Experiment, variant: str) -> str:
    """The policy of a variant."""
    return next(each.policy for each in experiment.variants if each.name == variant)


def _slot(experiment: Experiment, variant: str) -> str:
    return slot_of(experiment.name, variant) if experiment.training == "isolated" else LIVE
