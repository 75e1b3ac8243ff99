"""An experiment as its author writes it: one TOML file, and what a report says of it."""

from datetime import datetime
from typing import Any

import msgspec


class Variant(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One side of an experiment: a policy and its share of the units, 0..1.

    `forced` are ids of units (of testers) that always see this variant; what they see is logged and never analyzed.
    """

    name: str
    policy: str
    weight: float
    forced: list[str] = []


class Metric(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is compared. `role` is goal, driver, guardrail or diagnostic; `margin` is relative and positive.

    `numerator` and `denominator` name columns of the unit table (see `thinslice.metrics`); no denominator is a mean.
    With `quantile` (0..1) the metric is that quantile of the numerator over units. A unit's numerator counts at most
    `cap`, or at most the quantile `cap_quantile` of all variants' units together. `mde` is the smallest relative change
    that would matter; `thinslice experiment design` plans for it.
    """

    name: str
    numerator: str
    denominator: str | None = None
    role: str = "driver"
    direction: str = "up"
    margin: float | None = None
    quantile: float | None = None
    cap: float | None = None
    cap_quantile: float | None = None
    mde: float | None = None

    @property
    def kind(self) -> str:
        """What is computed over units: `mean`, `ratio` or `quantile`."""
        if self.quantile is not None:
            return "quantile"
        return "mean" if self.denominator is None else "ratio"


class Allocation(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Probabilities that were in force from `since` on: a line of an experiment's history, written by the commands.

    `leaves` are those of units about whom more is known: leaf (`device=phone`) → weights; others have `weights`.
    """

    version: int
    since: datetime
    coverage: float
    weights: dict[str, float]
    leaves: dict[str, dict[str, float]] = {}


class Experiment(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One experiment. The first variant is the control unless `control` names another.

    `started_at`, `stopped_at`, `history` (the allocations so far, oldest first) and `fingerprint` (field to hash, as of
    the start) are written by the commands; `ends_at` is the planned end: before it a report can only say `extend` or
    `invalid`. `training` is `isolated` (each variant learns from its own sessions) or `shared`; `pooled_share` of the
    units of an isolating experiment is served by models that learned from everybody, to see what that does. `kind` is
    `test`, `holdout` (who is spared what was shipped) or `backtest` (who gets the old policy back after `of` was
    decided).
    With `deal_items` (`new` or `all`) items are dealt out too, each to one variant, which alone shows it.
    With `leaves` (segments) results steer the weights of each combination of their values apart.
    From `shadow_at` until its start its policies answer `shadow_share` of the slates in shadow: logged, never shown.
    `planned_units`, what the always-valid intervals are narrowest at, is written at the start from the past.
    Lengths are in the units that their names say; `docs/reference/experiments.md` explains every field.
    """

    name: str
    tenant: str
    variants: list[Variant]
    metrics: list[Metric] = []
    hypothesis: str = ""
    kind: str = "test"
    of: str = ""
    control: str = ""
    unit: str = "visitor"
    cluster: str = ""
    block_minutes: float | None = None
    burn_in_minutes: float = 0.0
    rerandomize_days: float | None = None
    sticky: bool = True
    placement: str = "*"
    layer: str = ""
    layer_range: tuple[float, float] = (0.0, 1.0)
    training: str = "isolated"
    pooled_share: float = 0.0
    deal_items: str = "none"
    allocation: str = "fixed"
    allocation_floor: float = 0.1
    leaves: list[str] = []
    coverage: float = 1.0
    alpha: float = 0.05
    power: float = 0.8
    covariate_days: float | None = None
    segments: list[str] = []
    looks: int | list[datetime] | None = None
    allocation_version: int = 1
    days: float | None = None
    planned_units: int | None = None
    shadow_share: float = 0.1
    shadow_at: datetime | None = None
    started_at: datetime | None = None
    ends_at: datetime | None = None
    stopped_at: datetime | None = None
    history: list[Allocation] = []
    fingerprint: dict[str, str] = {}

    @property
    def control_name(self) -> str:
        """The name of the control variant."""
        return self.control or self.variants[0].name


class Check(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One health check of an experiment: what was found in words, and, where it failed, what to do (`advice`).

    `estimate` and `interval` (95 %) are there where the check measures something of its own; `detail` says what.
    """

    name: str
    passed: bool
    statistic: float | None
    pvalue: float | None
    detail: str
    advice: str = ""
    estimate: float | None = None
    interval: tuple[float | None, float | None] | None = None


class MetricResult(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one treatment against control; an interval bound is None where it is unbounded.

    `pvalue_adjusted` is Holm's over the treatments that share this control, `pvalue_bh` Benjamini and Hochberg's over
    all metrics and treatments; `reading` uses neither. `always_valid_rel_ci` is the relative interval that stays right
    however often one looks. `why` says in words why there is no effect, where there is none.
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
    pvalue_bh: float | None = None
    always_valid_rel_ci: tuple[float | None, float | None] | None = None
    why: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: `ship`, `keep` (keep control), `stop`, `extend` or `invalid`; one sentence, with reasons."""

    action: str
    variant: str | None
    sentence: str
    reasons: list[str] = []


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an experiment says at one moment; `cumulative` rows are effects up to a time.

    `heterogeneity` says per segment and metric whether effects differ; `looks` which of the planned looks this is
    and what its intervals need; `method` how effects were estimated; `placements` what a placement's own clicks gained
    and its neighbors lost. When `recorded_at` is set, `decision` is the
    one that was recorded at the planned end and stays.
    """

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
    heterogeneity: list[dict[str, Any]] = []
    looks: dict[str, Any] = {}
    method: str = ""
    placements: list[dict[str, Any]] = []
    recorded_at: datetime | None = None
