"""OpenFeature: a shop that reads flags reads an experiment's variant as one, and each reading is an exposure.

Needs the extra `openfeature`; nothing else of the service imports this page.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import uuid4

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagEvaluationDetails, FlagResolutionDetails, FlagValueType, Reason
from openfeature.hook import Hook, HookContext, HookHints
from openfeature.provider import AbstractProvider, Metadata
from openfeature.track import TrackingEventDetails

from thinslice.experiments import assign
from thinslice.experiments.assign import UNCHANGED
from thinslice.records import EVENT_NAMES, Event, Experiment, ExperimentExposure, Exposure
from thinslice.serving.experiments import ExperimentFiles, Visit, policy_of

UNIT_FIELDS = ("visitor_id", "user_id", "session_id", "item_id")
"""Attributes of the evaluation context that say who asks; the targeting key stands for the experiment's own unit."""


class ExposureLog(Protocol):
    """Remembers what was served."""

    def exposure(self, exposure: Exposure) -> None:
        """Writes one exposure."""
        ...


class ThinsliceProvider(AbstractProvider):
    """Resolves an experiment's name to the variant of the one who asks.

    A string flag is the variant's name, a boolean one whether it is a treatment, an object {"variant", "policy"}. Who
    is outside of the experiment, or held out of everything, gets the default. `flag_metadata` holds the bucket, the
    probability of the variant, the allocation version and the policy.

    Args:
        tenant: Whose experiments.
        experiments: The running ones.
        exposures: Where each evaluation is logged.
        events: Takes what `client.track` reports; None drops it.
        clock: The present, aware UTC.
        placement: Where exposures are said to have been.
    """

    def __init__(
        self,
        tenant: str,
        experiments: ExperimentFiles,
        exposures: ExposureLog,
        *,
        events: Callable[[Event], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        placement: str = "flag",
    ) -> None:
        super().__init__()
        self._tenant = tenant
        self._experiments = experiments
        self._exposures = exposures
        self._events = events
        self._clock = clock
        self._placement = placement
        self._hook = ExposureHook(self)

    def get_metadata(self) -> Metadata:
        """The provider's name."""
        return Metadata(name="thinslice")

    def get_provider_hooks(self) -> list[Hook]:
        """The hook that logs exposures; whoever uses the provider has it."""
        return [self._hook]

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """The variant's name."""
        return self._resolve(flag_key, default_value, evaluation_context, lambda _, variant: variant)

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Whether the variant is not the control."""
        return self._resolve(
            flag_key, default_value, evaluation_context, lambda of, variant: variant != of.control_name
        )

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """The variant and its policy."""
        return self._resolve(
            flag_key, default_value, evaluation_context,
            lambda of, variant: {"variant": variant, "policy": policy_of(of, variant)},
        )  # fmt: skip

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,  # noqa: ARG002
    ) -> FlagResolutionDetails[int]:
        """A variant is no number: the default, with an error."""
        return _mismatch(flag_key, default_value)

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,  # noqa: ARG002
    ) -> FlagResolutionDetails[float]:
        """A variant is no number: the default, with an error."""
        return _mismatch(flag_key, default_value)

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """What a visitor did, as an event of theirs; a name that is no event of ours is kept as `custom`."""
        if self._events is None:
            return
        now, who = self._clock(), _who(evaluation_context, "visitor")
        known = tracking_event_name in EVENT_NAMES
        details = dict(tracking_event_details.attributes) if tracking_event_details is not None else {}
        value = tracking_event_details.value if tracking_event_details is not None else None
        attributes = evaluation_context.attributes if evaluation_context is not None else {}
        self._events(
            Event(
                event_id=f"track.{uuid4().hex}",
                tenant=self._tenant,
                occurred_at=now,
                received_at=now,
                name=tracking_event_name if known else "custom",
                value=None if value is None else float(value),
                visitor_id=who["visitor_id"],
                user_id=who["user_id"],
                session_id=who["session_id"],
                item_id=who["item_id"],
                source="openfeature",
                consent=str(attributes.get("consent", "measurement")),
                context=details if known else {"name": tracking_event_name, **details},
            )
        )

    def log(self, flag_key: str, evaluation_context: EvaluationContext | None) -> None:
        """Logs one evaluation: under the experiment, and under the holdout where there is one."""
        now = self._clock()
        experiment = self._running(flag_key, now)
        if experiment is None:
            return
        exposed, _ = self._exposed(experiment, evaluation_context, now)
        if not exposed:
            return
        last = exposed[-1]
        of = self._running(last.experiment, now) or experiment
        who = _who(evaluation_context, experiment.unit)
        self._exposures.exposure(
            Exposure(
                recommendation_id=f"flag.{uuid4().hex}",
                tenant=self._tenant,
                occurred_at=now,
                placement=self._placement,
                policy=policy_of(of, last.variant),
                model_version="",
                visitor_id=who["visitor_id"],
                session_id=who["session_id"],
                user_id=who["user_id"],
                experiments=exposed,
            )
        )

    def _resolve(
        self, flag_key: str, default: Any, context: EvaluationContext | None, value_of: Callable[[Experiment, str], Any]
    ) -> FlagResolutionDetails[Any]:
        now = self._clock()
        experiment = self._running(flag_key, now)
        if experiment is None:
            return FlagResolutionDetails(
                default, error_code=ErrorCode.FLAG_NOT_FOUND, reason=Reason.ERROR,
                error_message=f"no experiment {flag_key!r} runs.",
            )  # fmt: skip
        if experiment.unit != "block" and (
            context is None or not (context.targeting_key or _named(context, experiment))
        ):
            return FlagResolutionDetails(
                default, error_code=ErrorCode.TARGETING_KEY_MISSING, reason=Reason.ERROR,
                error_message=f"the {experiment.unit}'s id is missing.",
            )  # fmt: skip
        exposed, held = self._exposed(experiment, context, now)
        one = exposed[-1] if exposed and exposed[-1].experiment == experiment.name else None
        if one is None:
            return FlagResolutionDetails(default, reason=Reason.DEFAULT, flag_metadata={"held_out": held})
        return FlagResolutionDetails(
            value_of(experiment, one.variant), variant=one.variant, reason=Reason.SPLIT,
            flag_metadata={
                "bucket": assign(experiment, one.unit_id, now.timestamp()).bucket,
                "propensity": one.propensities[one.variant], "allocation_version": one.allocation_version,
                "policy": policy_of(experiment, one.variant), "unit": one.unit, "unit_id": one.unit_id,
            },
        )  # fmt: skip

    def _running(self, name: str, now: datetime) -> Experiment | None:
        running = self._experiments.running(self._tenant, now.timestamp())
        return next((each for each in running if each.name == name), None)

    def _exposed(
        self, experiment: Experiment, context: EvaluationContext | None, now: datetime
    ) -> tuple[list[ExperimentExposure], bool]:
        """Under which variants an evaluation is logged, and whether who asks is held out of everything."""
        at = now.timestamp()
        attributes = dict(context.attributes) if context is not None else {}
        who = _who(context, experiment.unit)
        visit = Visit(
            self._placement, who["visitor_id"], who["session_id"], who["user_id"], who["item_id"], context=attributes
        )
        found = []
        for each in self._experiments.running(self._tenant, at):
            if each.kind != "holdout" and each is not experiment:
                continue
            one = self._experiments.exposure(each, at, visit)
            if one is None:
                continue
            found.append(one)
            if each.kind == "holdout" and policy_of(each, one.variant) != UNCHANGED:
                return found, True
        return found, False


class ExposureHook(Hook):
    """Logs each evaluation that was resolved.

    Args:
        provider: Whose evaluations.
    """

    def __init__(self, provider: ThinsliceProvider) -> None:
        self._provider = provider

    def after(
        self,
        hook_context: HookContext,
        details: FlagEvaluationDetails[FlagValueType],
        hints: HookHints,  # noqa: ARG002
    ) -> None:
        """Writes the exposure before the value reaches the caller."""
        self._provider.log(details.flag_key, hook_context.evaluation_context)


def _who(context: EvaluationContext | None, unit: str) -> dict[str, str | None]:
    """Who asks, by the attributes; the targeting key is the id of the experiment's own unit."""
    attributes = context.attributes if context is not None else {}
    who = {name: str(attributes[name]) if attributes.get(name) else None for name in UNIT_FIELDS}
    own = f"{unit}_id" if unit in ("visitor", "user", "session") else "visitor_id"
    if context is not None and context.targeting_key:
        who[own] = context.targeting_key
    return who


def _named(context: EvaluationContext, experiment: Experiment) -> bool:
    """Whether attributes name the unit where no targeting key does."""
    names = {f"{experiment.unit}_id", experiment.cluster, "item_id" if experiment.cluster == "item-graph" else ""}
    return any(context.attributes.get(name) for name in names if name)


def _mismatch(flag_key: str, default: Any) -> FlagResolutionDetails[Any]:
    return FlagResolutionDetails(
        default, error_code=ErrorCode.TYPE_MISMATCH, reason=Reason.ERROR,
        error_message=f"experiment {flag_key!r} has variants, and these are no numbers.",
    )  # fmt: skip
