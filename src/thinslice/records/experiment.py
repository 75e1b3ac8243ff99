"""An experiment as its author writes it: one TOML file, and what a report says of it."""

from datetime import datetime
from typing import Any

import msgspec


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One side of an experiment: a policy and its share of the units, 0..1."""

    name: str
    policy: str
    weight: float


class Metric(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is compared. `role` is goal, driver, guardrail or diagnostic; `margin` is relative and positive.

    `numerator` and `denominator` name columns of the unit table (see `thinslice.metrics`); no denominator is a mean.
    """

    name: str
    numerator: str
    denominator: str | None = None
    role: str = "driver"
    direction: str = "up"
    margin: float | None = None


class Experiment(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One experiment. The first variant is the control unless `control` names another.

    `started_at` and `stopped_at` are written by the commands; `ends_at` is the planned end: before it a report can
    only say `extend` or `invalid`. `training` is `isolated` (each variant learns from its own sessions) or `shared`.
    """

    name: str
    tenant: str
    variants: list[Variant]
    metrics: list[Metric] = []
    hypothesis: str = ""
    control: str = ""
    unit: str = "visitor"
    placement: str = "*"
    training: str = "isolated"
    coverage: float = 1.0
    alpha: float = 0.05
    allocation_version: int = 1
    days: float | None = None
    started_at: datetime | None = None
    ends_at: datetime | None = None
    stopped_at: datetime | None = None

    @property
    def control_name(self) -> str:
        """The name of the control variant."""
        return self.control or self.variants[0].name


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One health check of an experiment."""

    name: str
    passed: bool
    statistic: float | None
    pvalue: float | None
    detail: str


class MetricResult(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one treatment against control; an interval bound is None where it is unbounded.

    `pvalue_adjusted` is Holm's over the treatments that share this control; `reading` does not use it. `why` says in
    words why there is no effect, where there is none.
    """

    name: str
    role: str
    variant: str
    n_control: int
    n_treatment: int
    mean_control: float | None
    mean_treatment: float | None
    effect_size: float | None
    effect_size_ci: tuple[float | None, float | None] | None
    rel_effect_size: float | None
    rel_effect_size_ci: tuple[float | None, float | None] | None
    pvalue: float | None
    always_valid_ci: tuple[float | None, float | None] | None = None
    margin: float | None = None
    reading: str = "cannot_say"
    direction: str = "up"
    pvalue_adjusted: float | None = None
    why: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: `ship`, `keep` (keep control), `stop`, `extend` or `invalid`; one sentence, with reasons."""

    action: str
    variant: str | None
    sentence: str
    reasons: list[str] = []


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an experiment says at one moment; `cumulative` rows are effects up to a time."""

    experiment: str
    control: str
    decision: Decision
    checks: list[Check]
    metrics: list[MetricResult]
    segments: list[dict[str, Any]] = []
    novelty: dict[str, Any] = {}
    cumulative: list[dict[str, Any]] = []
    as_of: datetime | None = None
    started_at: datetime | None = None
    ends_at: datetime | None = None
    units: dict[str, int] = {}
