"""Rehearses an experiment's file: its unit, weights, metrics and days, on as many simulated shoppers as will come."""

from collections.abc import Callable
from datetime import timedelta

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.experiments import assign, parse_experiment
from thinslice.experiments.analyze import analyze
from thinslice.experiments.evidence import Units
from thinslice.jobs.rehearsal.crowd import STARTED_AT, end_of
from thinslice.jobs.rehearsal.trials import Play, trial_of
from thinslice.metrics import DEFAULT_METRICS
from thinslice.records import Experiment, Metric
from thinslice.settings import Workspace, read_settings
from thinslice.simulate.scenario import Scenario
from thinslice.simulate.worlds import shop
from thinslice.store.lake import Lake

USUAL_TRAFFIC, USUAL_DAYS = 1_000.0, 14.0
"""Units a day where nobody knows how many come, and how long an experiment runs that does not say."""

MOST_UNITS = 1_000_000
"""More units are not played in one run."""

PLAIN_UNITS = ("visitor", "user", "session")
"""Units that a rehearsal of a file can randomize."""

LIFTED = frozenset({"clicks", "views", "carts", "orders", "converted", "revenue_minor"})
"""Columns of the unit table that a treatment lifts; slates and visits stay as many as they are."""

BASE_UNITS = 400_000
"""So many shoppers without any treatment tell the mean of a metric."""


class Own(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One's own experiment.

    Attributes:
        experiment: As its file says, with a start and an end.
        traffic: Units a day.
        effect: The relative effect that it is played with.
    """

    experiment: Experiment
    traffic: float
    effect: float


def own_experiment(
    workspace: Workspace, tenant: str | None, text: bytes, where: str, *, traffic: float | None, effect: float
) -> tuple[str, Own]:
    """The rehearsal of an experiment's file.

    Args:
        workspace: Its lake says how many come a day, when nobody else does.
        tenant: Whose; None: the only tenant of the workspace, or nobody's.
        text: The file's content.
        where: Its name, for messages.
        traffic: Units a day.
        effect: The relative effect that it is played with.

    Raises:
        BadInput: It randomizes clusters or blocks of time, or so many units would come that no run ends.
    """
    whose = tenant or _only_tenant(workspace)
    experiment = parse_experiment(text, whose or "rehearsal", where)
    if experiment.unit not in PLAIN_UNITS:
        raise BadInput(
            f"{where} randomizes {experiment.unit}; a rehearsal of a file knows {', '.join(PLAIN_UNITS)}.",
            hint="The scenarios interference and aa rehearse clusters and blocks of time.",
        )
    days = experiment.days
    if days is None:
        start, end = experiment.started_at, experiment.ends_at
        days = USUAL_DAYS if start is None or end is None else (end - start) / timedelta(days=1)
    a_day = traffic or (_traffic_of(workspace, whose) if whose else None) or USUAL_TRAFFIC
    units = a_day * days
    if units > MOST_UNITS:
        raise BadInput(
            f"{a_day:,.0f} units a day for {days:g} days are {units:,.0f}; a run plays {MOST_UNITS:,} at most."
        )
    fields = {"started_at": STARTED_AT, "ends_at": end_of(days), "stopped_at": None, "days": days, "looks": None}
    experiment = msgspec.structs.replace(experiment, metrics=experiment.metrics or list(DEFAULT_METRICS), **fields)
    designs = {"nothing": "your experiment without an effect", "effect": f"your experiment with {100 * effect:+g} %"}
    says = f"{a_day:,.0f} units a day for {days:g} days, as {where} says."
    return experiment.name, Own(
        says=says, designs=designs, days=max(1, round(days)), experiment=experiment, traffic=a_day, effect=effect
    )


def stage(scenario: Own, rng: int) -> Callable[[int], Play]:
    """The experiment with and without an effect on all of its treatments."""
    experiment = scenario.experiment
    goal = next(metric for metric in experiment.metrics if metric.role == "goal")
    units = max(20, round(scenario.traffic * (experiment.days or USUAL_DAYS)))
    base = _mean(goal, columns(np.random.default_rng([rng, 0, 9]), np.zeros(BASE_UNITS)))
    moves = goal.numerator in LIFTED and goal.denominator not in LIFTED
    now = end_of(experiment.days or USUAL_DAYS)

    def play(run: int) -> Play:
        names = [assign(experiment, f"rehearsal-{rng}-{run}-{number}").variant or "" for number in range(units)]
        variant = np.array(names)
        inside = variant != ""
        trials = []
        for design, effect in (("nothing", 0.0), ("effect", scenario.effect)):
            draw = np.random.default_rng([rng, run])
            lift = np.where(variant == experiment.control_name, 0.0, effect)[inside]
            found = analyze(Units(variant=variant[inside], columns=columns(draw, lift)), experiment, now)
            trials.append(trial_of(found, design, base * effect * moves, alpha=experiment.alpha))
        return Play(base, base * (1.0 + scenario.effect * moves), trials)

    return play


def columns(draw: np.random.Generator, lift: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The unit table of simulated shoppers: with a lift they click, view and buy that much more often.

    Args:
        draw: Randomness.
        lift: Shape (units,), relative.
    """
    shoppers = shop(draw, len(lift))
    more = 1.0 + lift
    clicks = draw.binomial(shoppers.exposures.astype(np.int64), np.minimum(0.05 * (1.0 + shoppers.loyalty) * more, 1.0))
    views, carts = draw.poisson(5.0 * shoppers.loyalty * more), draw.poisson(0.3 * shoppers.loyalty * more)
    converted = (draw.random(len(lift)) < np.minimum(0.1 * shoppers.loyalty * more, 1.0)).astype(np.float64)
    paid = 4_000.0 * np.exp(0.8 * draw.standard_normal(len(lift)))
    return {
        "exposures": shoppers.exposures, "impressions": shoppers.exposures, "clicks": clicks.astype(np.float64),
        "views": views.astype(np.float64), "carts": carts.astype(np.float64), "orders": converted,
        "converted": converted, "revenue_minor": converted * paid,
        "sessions": (1 + draw.poisson(shoppers.loyalty)).astype(np.float64),
    }  # fmt: skip


def _mean(metric: Metric, table: dict[str, NDArray[np.float64]]) -> float:
    below = 1.0 if metric.denominator is None else float(table[metric.denominator].mean())
    return float(table[metric.numerator].mean()) / below


def _only_tenant(workspace: Workspace) -> str | None:
    if not workspace.settings_file.is_file():
        return None
    tenants = list(read_settings(workspace).tenants)
    return tenants[0] if len(tenants) == 1 else None


def _traffic_of(workspace: Workspace, tenant: str) -> float | None:
    """Different visitors a day over all days that the lake knows; None when it knows none."""
    if not workspace.lake.exists():
        return None
    connection = Lake(workspace.lake).connect(tenant=tenant)
    try:
        rows = connection.execute(
            """
            SELECT count(DISTINCT coalesce(visitor_id, session_id, user_id)), count(DISTINCT occurred_at::DATE)
            FROM events WHERE NOT is_bot AND NOT duplicate
            """
        ).fetchall()
    finally:
        connection.close()
    visitors, days = rows[0]
    return max(1.0, visitors / days) if visitors else None
