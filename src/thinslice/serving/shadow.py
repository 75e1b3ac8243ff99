"""Shadow serving: before its launch a policy answers some live questions too, after the answer and shown to nobody."""

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, Protocol

from thinslice.experiments.assign import UNCHANGED
from thinslice.records import Experiment, ShadowSlate
from thinslice.serving.experiments import NO_EXPERIMENT, ExperimentFiles, Visit, segments_of
from thinslice.serving.models import LIVE, ModelHost
from thinslice.serving.question import Question
from thinslice.serving.slates import Slates
from thinslice.settings import Policy
from thinslice.store.codec import encode
from thinslice.store.log import LogKind

MOST_WAITING = 16
"""So many questions wait in a worker; it answers them about four times a second, and what comes beyond is dropped."""

STALE_S = 2.0
"""A question that waited longer (seconds) is dropped: its worker has no time for it."""

BUSY_SHARE = 0.6
"""A worker that spent more of the last moments computing drops what waits: shadows are the first to go."""

MEASURED_S = 0.2
"""How long (seconds) those moments are at least."""

_GRAIN = 2.0**32


class ShadowLog(Protocol):
    """Remembers what would have been shown."""

    def shadow(self, slate: ShadowSlate) -> None:
        """Writes one slate that nobody saw."""
        ...


class Answers(Protocol):
    """What a shadow needs of the recommender: policies by name, and which source is a policy's own."""

    def policy(self, tenant: str, name: str) -> Policy:
        """A policy by name."""
        ...

    def own_source(self, tenant: str, policy_name: str) -> str:
        """The source that a policy's own model gives to its items."""
        ...


class _Waiting(NamedTuple):
    question: Question
    experiment: Experiment
    variant: str
    policy: str
    now: datetime
    noted: float
    user_agent: str


class Shadows:
    """Lets the policies of experiments that have not started answer a share of the live questions; one in each worker.

    A question is only noted while its visitor waits (about a microsecond); its shadow slate is made when the answer has
    gone out, by models, caches and rules of its own count, and goes into the table `shadows`, which nothing takes for
    shown. Of several variants one answers each question. Nothing is noted of bots and without consent.

    Args:
        experiments: Which experiments are in shadow.
        models: The trained models.
        answers: The recommender.
        log: Where shadow slates go.
        clock: Seconds that only go forward.
        cpu: Seconds that this process has computed.

    Attributes:
        dropped: How many were noted and never answered, since the last one that was.
    """

    def __init__(
        self, experiments: ExperimentFiles, models: ModelHost, answers: Answers, log: ShadowLog, *,
        clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.process_time,
    ) -> None:  # fmt: skip
        self._experiments, self._models, self._answers, self._log = experiments, models, answers, log
        self._clock, self._cpu = clock, cpu
        self._slates = Slates()
        self._queue: deque[_Waiting] = deque()
        self._measured = (clock(), cpu())
        self._busy = False
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """How many questions wait."""
        return len(self._queue)

    def note(self, question: Question, now: datetime, user_agent: str = "") -> None:
        """Notes a question that was just answered, when it is one of the share; costs next to nothing.

        Args:
            question: As the recommender understood it.
            now: Of the answer, aware.
            user_agent: For the segment `device`.
        """
        found = self._experiments.shadowed(question.tenant)
        if not found:
            return
        drawn = int(question.recommendation_id[:8], 16) / _GRAIN
        for experiment in found:
            if drawn >= experiment.shadow_share or experiment.placement not in ("*", question.request.placement):
                continue
            others = [
                each for each in experiment.variants
                if each.weight > 0 and each.policy not in (UNCHANGED, "none", question.shown_name)
            ]  # fmt: skip
            if not others:
                continue
            if len(self._queue) >= MOST_WAITING:
                self.dropped += 1
                return
            one = others[int(question.recommendation_id[8:12], 16) % len(others)]
            self._queue.append(
                _Waiting(question, experiment, one.name, one.policy, now, self._clock(), user_agent)
            )  # fmt: skip
            return

    def step(self) -> bool:
        """Answers one question that waits; whether another one does. Called after answers have gone out.

        A worker that is busy, or was too busy to come here in time, drops what waits instead.
        """
        at = self._clock()
        if at - self._measured[0] >= MEASURED_S:
            spent = self._cpu()
            self._busy = (spent - self._measured[1]) / (at - self._measured[0]) > BUSY_SHARE
            self._measured = (at, spent)
        if not self._queue:
            return False
        if self._busy or at - self._queue[0].noted > STALE_S:
            self.dropped += len(self._queue)
            self._queue.clear()
            return False
        self._answer(self._queue.popleft(), at)
        return bool(self._queue)

    def _answer(self, one: _Waiting, at: float) -> None:
        question = one.question
        policy = self._answers.policy(question.tenant, one.policy)
        bundle = self._models.bundle(question.tenant)
        asked = question._replace(
            policy_name=one.policy, shown_name=one.policy, policy=policy, slot=LIVE, bundle=bundle,
            chosen=NO_EXPERIMENT,
            version=bundle.version if bundle is not None else "untrained",
        )  # fmt: skip
        broken = self._slates.failures.copy()
        began = time.perf_counter()
        try:
            slate, _ = self._slates.answer(asked)
        except Exception as error:  # whatever it is: no visitor met it, and the report counts and names it
            slate, failed = None, [f"slate: {type(error).__name__}"]
        else:
            failed = sorted(self._slates.failures - broken)
        latency_ms = round((time.perf_counter() - began) * 1000.0, 4)
        items = [] if slate is None else slate.items
        own = self._answers.own_source(question.tenant, one.policy)
        request, session = question.request, question.session
        who = Visit(
            request.placement,
            visitor_id=request.visitor_id or (session.visitor_id or None if session is not None else None),
            user_id=request.user_id or (session.user_id if session is not None else None),
            began=None if session is None else session.started_at,
        )
        names = one.experiment.segments
        known = self._experiments.known(question.tenant, names, who, question.at)
        first_item = session.items[0] if session is not None and session.items else request.item_id
        self._log.shadow(
            ShadowSlate(
                recommendation_id=question.recommendation_id, tenant=question.tenant, occurred_at=one.now,
                experiment=one.experiment.name, variant=one.variant, placement=request.placement, policy=one.policy,
                model_version=asked.version, live_policy=question.policy_name,
                visitor_id=who.visitor_id,
                session_id=request.session_id or (session.session_id if session is not None else None),
                user_id=who.user_id,
                items=[item.item_id for item in items], sources=[item.source for item in items],
                scores=[item.score for item in items],
                slot_propensities=[] if slate is None else slate.propensities,
                candidate_count=0 if slate is None else slate.candidate_count, latency_ms=latency_ms,
                waited_ms=round((at - one.noted) * 1000.0, 2), failed=failed, dropped=self.dropped,
                fallbacks=sum(item.source not in (own, "pin") for item in items), consent=question.consent,
                segments=segments_of(names, {**known, **request.context}, one.user_agent, first_item),
            )
        )  # fmt: skip
        self.dropped = 0


class Writes(Protocol):
    """A log that takes frames nobody waits for."""

    def write(self, kind: int, payload: bytes) -> object:
        """Writes now; durable soon."""
        ...


class LogShadows:
    """Writes shadow slates into the worker's log.

    Args:
        commit: The worker's log.
    """

    def __init__(self, commit: Writes) -> None:
        self._commit = commit

    def shadow(self, slate: ShadowSlate) -> None:
        """Writes one slate that nobody saw."""
        self._commit.write(LogKind.SHADOWS, encode(LogKind.SHADOWS, [slate]))
