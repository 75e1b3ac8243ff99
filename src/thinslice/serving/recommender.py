"""The recommender: assign → live session → policy → slate → exposure → answer, in well under a millisecond."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from thinslice.collect import is_bot_agent
from thinslice.errors import BadRecord
from thinslice.recommend import Slate
from thinslice.recommend.rules import NOTHING_ASKED, RuleBook, asked_of
from thinslice.records import (
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
from thinslice.serving.experiments import LEAF, NO_EXPERIMENT, Choice, ExperimentFiles, Visit, segments_of
from thinslice.serving.issued import RecommendationIds
from thinslice.serving.models import ModelHost
from thinslice.serving.question import Look, Question
from thinslice.serving.shelves import RECIPES
from thinslice.serving.slates import Slates
from thinslice.sessions import live_keys, page_item, person_id
from thinslice.settings import BUILT_IN_POLICIES, AnyRule, Policy, Settings

DEADLINE_S = 0.02
"""Who has waited longer (seconds) for a worker is answered by a quick model: no page waits for the best slate."""

PAGE_ITEMS = 500
"""So many items are remembered that one page shows already."""


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

    Attributes:
        slates: Makes the slates, and counts what failed and what rules took out.
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
        self._unread: set[str] = set()
        self._books = {name: books_of(shop.rules) for name, shop in settings.tenants.items()}
        self.slates = Slates()
        self._afterwards: Callable[[Question, datetime, str], None] | None = None
        models.before_serving(self._prepare)

    def after_answering(self, note: Callable[[Question, datetime, str], None]) -> None:
        """What is told of each question that was answered to a person with consent (see `serving.shadow`)."""
        self._afterwards = note

    def recommend(
        self, tenant: str, request: RecommendationRequest, key_kind: str, now: datetime, *, user_agent: str = "",
        waited_s: float = 0.0,
    ) -> Recommendation:  # fmt: skip
        """One slate; its exposure is logged before this returns.

        Args:
            tenant: Follows from the key.
            request: The question.
            key_kind: `publishable`, `secret` or `admin`: decides the consent of a request that names none.
            now: Aware, UTC.
            user_agent: A browser's User-Agent, which may name a bot: its exposure is tagged.
            waited_s: How long the request waited for this worker, in seconds; beyond `DEADLINE_S` a quick model answers
                in place of a costly one, `source` and `note` say so, and the queue gets shorter.

        Returns:
            The slate: empty only for the policy `none`, and where nothing at all may be shown; `note` says so then.

        Raises:
            UnknownName: There is no such tenant.
        """
        began = time.perf_counter()
        question = self._question(tenant, request, key_kind, now, user_agent)
        if waited_s > DEADLINE_S:
            question = question._replace(late=True)
        slate, note = self.slates.answer(question)
        shadow = question.policy_name != question.shown_name
        answer = Recommendation(
            recommendation_id=question.recommendation_id,
            policy=question.policy_name,
            model_version=question.version,
            items=[] if shadow else slate.items,
            note="" if shadow else note,
        )
        if question.consent != "none":
            if question.page_key and answer.items:
                self._remember_page(question, answer.items)
            if self._exposures is not None:
                session = question.session
                is_bot = (session is not None and session.is_bot) or (
                    key_kind == "publishable" and is_bot_agent(user_agent)
                )
                latency_ms = round((time.perf_counter() - began) * 1000.0, 4)
                self._exposures.exposure(
                    _exposure(question, slate, now, latency_ms, shadow=shadow, is_bot=is_bot, user_agent=user_agent)
                )
                if self._afterwards is not None and not is_bot:
                    self._afterwards(question, now, user_agent)
        return answer

    def look(self, tenant: str, request: RecommendationRequest, key_kind: str, now: datetime) -> Look:
        """An answer with its making laid open: the terms of each score, and what each rule took out; logs nothing.

        Args:
            tenant: Whose.
            request: The question.
            key_kind: As in `recommend`.
            now: Aware, UTC.

        Raises:
            UnknownName: There is no such tenant.
        """
        return self.slates.look(self._question(tenant, request, key_kind, now))

    def catalog(self, tenant: str, now: float) -> CatalogView:
        """A tenant's catalog, at most a quarter of a second old; `now` in unix seconds."""
        view = self._catalogs.get(tenant)
        if view is None:
            shop = self._settings.tenant(tenant)
            view = self._catalogs[tenant] = CatalogView(self._live, tenant, shop.rules, shop.currency)
        view.refresh(now)
        return view

    def follow_catalogs(self, now: float) -> bool:
        """Brings every catalog that was asked for up to date, a few milliseconds' worth; whether more is to come.

        It also reads those whose models have come, so that it is not the first visitor who waits for that.
        """
        while self._unread:
            self.catalog(self._unread.pop(), now)
        return any(view.refresh(now) for view in list(self._catalogs.values()))

    def _prepare(self, tenant: str, model: Model, pause: Callable[[], object]) -> None:
        """The mask of a model that is about to serve, made in the thread that loaded it."""
        view = self._catalogs.get(tenant)
        if view is None:
            self._unread.add(tenant)
        else:
            view.prepare(model, pause)

    def policy(self, tenant: str, name: str) -> Policy:
        """A policy by name; an unknown name is answered by the popular items."""
        known = self._settings.tenant(tenant).policies.get(name) or BUILT_IN_POLICIES.get(name)
        return known or BUILT_IN_POLICIES["popular"]

    def own_source(self, tenant: str, policy_name: str) -> str:
        """The source that a policy's own model gives to its items; every other one is a fallback."""
        kind = self.policy(tenant, policy_name).model
        bundle = self._models.bundle(tenant)
        model = None if bundle is None or kind in RECIPES else bundle.models.get(policy_name)
        return kind if model is None else model.name

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

    def _session(
        self, tenant: str, request: RecommendationRequest, consent: str, at: float
    ) -> tuple[LiveSession | None, list[str]]:
        """The visitor's live session, and what the page shows already.

        The session only with the consent to personalize, and not after 30 minutes of silence.
        """
        if consent == "none":
            return None, []
        personal = consent == "personalization"
        keys = live_keys(request.visitor_id, request.session_id, request.user_id) if personal else []
        page_key = page_key_of(request)
        if page_key:
            keys.append(page_key)
        if not keys:
            return None, []
        found = self._live.sessions([(tenant, key) for key in keys])
        page = found.pop() if page_key else None
        repeats = page.items if page is not None else []
        for session in found:
            if session is None:
                continue
            if at - session.last_at > SESSION_GAP_S:
                session = LiveSession(
                    visitor_id=session.visitor_id, session_id=request.session_id or "", started_at=at, last_at=at,
                    user_id=session.user_id, bought=session.bought, is_bot=session.is_bot,
                )  # fmt: skip
            return session, repeats
        return None, repeats

    def _remember_page(self, question: Question, items: Sequence[SlateItem]) -> None:
        """Notes, for all workers, what a page shows, so that its next placement shows something else."""
        at, shown = question.at, [*question.repeats, *(item.item_id for item in items)]
        page = LiveSession(visitor_id="", session_id="", started_at=at, last_at=at, items=shown[-PAGE_ITEMS:])
        self._live.update({(question.tenant, question.page_key): page}, now=at)

    def _choose(
        self,
        tenant: str,
        request: RecommendationRequest,
        session: LiveSession | None,
        consent: str,
        at: float,
        *,
        trusted: bool,
        user_agent: str = "",
    ) -> tuple[str, Choice]:
        """Which policy answers, and what the experiments say of it.

        Without consent nothing is stored, so nothing is compared: such a request gets the placement's own policy. A
        request that names its policy stands outside of experiments.

        Raises:
            BadRecord: The request names a policy that there is not.
        """
        if request.policy is not None:
            self._known_policy(tenant, request.policy)
            return request.policy, NO_EXPERIMENT
        chosen = NO_EXPERIMENT
        if consent != "none":
            visit = Visit(
                placement=request.placement,
                visitor_id=request.visitor_id or (session.visitor_id or None if session is not None else None),
                session_id=request.session_id or (session.session_id or None if session is not None else None),
                user_id=request.user_id or (session.user_id if session is not None else None),
                item_id=request.item_id, context=request.context, trusted=trusted,
                user_agent=user_agent, began=None if session is None else session.started_at,
            )  # fmt: skip
            chosen = self._experiments.choose(tenant, at, visit)
        if chosen.policy is not None:
            return chosen.policy, chosen
        shop = self._settings.tenant(tenant)
        return shop.placements.get(request.placement, shop.default_policy), chosen

    def _known_policy(self, tenant: str, name: str) -> None:
        every = {**BUILT_IN_POLICIES, **self._settings.tenant(tenant).policies}
        if name not in every:
            raise BadRecord(
                "unknown_value", f"there is no policy {name[:64]!r}.", field="policy",
                hint=f"There is: {', '.join(sorted(every))}.",
            )  # fmt: skip

    def _stand_in(self, tenant: str) -> str:
        """What the policy `none` would have shown: the tenant's default policy."""
        name = self._settings.tenant(tenant).default_policy
        return name if self.policy(tenant, name).model != "none" else "session-knn"

    def _question(
        self, tenant: str, request: RecommendationRequest, key_kind: str, now: datetime, user_agent: str = ""
    ) -> Question:
        """Everything that is known about a request."""
        at = now.timestamp()
        shop = self._settings.tenant(tenant)
        consent = request.consent or (shop.consent_publishable if key_kind == "publishable" else shop.consent_secret)
        catalog = self.catalog(tenant, at)
        session, repeats = self._session(tenant, request, consent, at)
        items = request.items if request.items is not None else session.items if session is not None else []
        if request.item_id is not None and (not items or items[-1] != request.item_id):
            items = [*items, request.item_id]
        page = page_item(items, request.item_id)
        policy_name, chosen = self._choose(
            tenant, request, session, consent, at, trusted=key_kind != "publishable", user_agent=user_agent
        )
        slot = chosen.slot
        policy, shown_name = self.policy(tenant, policy_name), policy_name
        if policy.model == "none":
            shown_name = self._stand_in(tenant)
            policy = self.policy(tenant, shown_name)
        user_id = request.user_id or (session.user_id if session is not None else None)
        visitor_id = request.visitor_id or (session.visitor_id if session is not None else None)
        books = self._books[tenant]
        book = books.get(request.placement) or books["*"]
        asked = NOTHING_ASKED
        if book.filters:
            asked = asked_of(request.context, catalog.items.get(page or ""), shop.currency)
        bundle = self._models.bundle(tenant, slot) or self._models.bundle(tenant)
        return Question(
            tenant=tenant,
            request=request,
            recommendation_id=self._ids.issue(tenant),
            at=at,
            consent=consent,
            session=session,
            items=items,
            page=page,
            page_key=page_key_of(request) if consent != "none" else "",
            repeats=repeats,
            user_id=(person_id(user_id, visitor_id) or None) if consent == "personalization" else None,
            policy_name=policy_name,
            shown_name=shown_name,
            policy=policy,
            slot=slot,
            chosen=chosen,
            bundle=bundle,
            version=bundle.version if bundle is not None else "untrained",
            catalog=catalog,
            book=book,
            asked=asked,
        )


def books_of(rules: Sequence[AnyRule]) -> dict[str, RuleBook]:
    """Placement → its rules; `*` for every placement that no rule names."""
    return {placement: RuleBook(rules, placement) for placement in {"*", *(rule.placement for rule in rules)}}


def page_key_of(request: RecommendationRequest) -> str:
    """Under which key the live store holds what the request's page (`context.page_id`) shows; empty without one."""
    page_id = request.context.get("page_id") if request.context else None
    return f"\x1fpage:{page_id[:256]}" if isinstance(page_id, str) and page_id else ""


def _exposure(
    question: Question, slate: Slate, now: datetime, latency_ms: float, *, shadow: bool, is_bot: bool, user_agent: str
) -> Exposure:
    request, session, chosen = question.request, question.session, question.chosen
    segments: dict[str, str] = {}
    if chosen.segments:
        first_item = session.items[0] if session is not None and session.items else request.item_id
        segments = segments_of(chosen.segments, {**chosen.known, **request.context}, user_agent, first_item)
    if LEAF in chosen.known:
        segments[LEAF] = chosen.known[LEAF]
    if chosen.forced:
        segments["forced"] = chosen.forced
    return Exposure(
        recommendation_id=question.recommendation_id,
        tenant=question.tenant,
        occurred_at=now,
        placement=request.placement,
        policy=question.policy_name,
        model_version=question.version,
        visitor_id=request.visitor_id or (session.visitor_id or None if session is not None else None),
        session_id=request.session_id or (session.session_id if session is not None else None),
        user_id=request.user_id or (session.user_id if session is not None else None),
        items=[item.item_id for item in slate.items],
        sources=[item.source for item in slate.items],
        scores=[item.score for item in slate.items],
        slot_propensities=slate.propensities,
        objectives=dict(slate.objectives),
        candidate_count=slate.candidate_count,
        latency_ms=latency_ms,
        shadow=shadow,
        is_bot=is_bot,
        consent=question.consent,
        experiments=list(chosen.exposed),
        segments=segments,
    )
