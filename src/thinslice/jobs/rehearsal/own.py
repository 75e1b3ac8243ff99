"""Rehearses an experiment's file as it is: unit, weights, metrics, segments, looks and days, on simulated shoppers."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
import numpy as np

from thinslice.errors import BadInput
from thinslice.experiments import parse_experiment
from thinslice.experiments.assign import GRAPHS
from thinslice.experiments.definition import look_times
from thinslice.experiments.evidence import Look
from thinslice.experiments.placements import EVERYWHERE, judged_by_page
from thinslice.experiments.wording import times_in_words
from thinslice.jobs.conduct import check_policies
from thinslice.jobs.rehearsal.crowd import STARTED_AT, end_of
from thinslice.jobs.rehearsal.kept import whose
from thinslice.jobs.rehearsal.own_blocks import block_world
from thinslice.jobs.rehearsal.own_shoppers import BASE_UNITS, LIFTED, PLACEMENTS, columns, level_of, with_caps
from thinslice.jobs.rehearsal.own_units import unit_world
from thinslice.jobs.rehearsal.trials import Play, Trial, trial_of
from thinslice.metrics import DEFAULT_METRICS
from thinslice.metrics.unit_table import identifier
from thinslice.metrics.unit_table import text as literal
from thinslice.records import Experiment, Report
from thinslice.settings import Workspace
from thinslice.simulate.scenario import Scenario
from thinslice.store.lake import Lake

USUAL_TRAFFIC, USUAL_DAYS = 1_000.0, 14.0
"""Units a day where nobody knows how many come, and how long an experiment runs that does not say."""

MOST_UNITS = 1_000_000
"""More units are not played in one run."""

LEAST_BLOCKS = 8
"""Fewer blocks of time cannot be dealt out in enough ways."""

CLUSTER_UNITS, LEAST_CLUSTERS, MOST_CLUSTERS = 50, 20, 5_000
"""Visitors of a cluster where nobody knows how many it has; clusters of a rehearsal at least and at most."""


class Own(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One's own experiment.

    Attributes:
        experiment: As its file says, with a start and an end.
        traffic: Units a day.
        effect: The relative effect that it is played with.
        cluster_shares: How shoppers are spread over clusters; empty where none are randomized.
    """

    experiment: Experiment
    traffic: float
    effect: float
    cluster_shares: tuple[float, ...] = ()


def own_experiment(
    workspace: Workspace, tenant: str | None, text: bytes, where: str, *, traffic: float | None, effect: float
) -> tuple[str, Own]:
    """The rehearsal of an experiment's file.

    Args:
        workspace: Its lake says how many come a day, and in which clusters, when nobody else does.
        tenant: Whose; None: the only tenant of the workspace, or nobody's.
        text: The file's content.
        where: Its name, for messages.
        traffic: Units a day.
        effect: The relative effect that it is played with.

    Raises:
        BadInput: So many units would come that no run ends, blocks that are too few to compare, or clusters that
            results are to steer.
    """
    owner = tenant or whose(workspace, None)
    experiment = parse_experiment(text, owner or "rehearsal", where)
    if owner is not None:
        check_policies(workspace, experiment, where)
    days = experiment.days
    start, end = experiment.started_at, experiment.ends_at
    if days is None:
        days = USUAL_DAYS if start is None or end is None else (end - start) / timedelta(days=1)
    a_day = traffic or (_traffic_of(workspace, owner) if owner else None) or USUAL_TRAFFIC
    units = a_day * days
    if units > MOST_UNITS:
        raise BadInput(
            f"{a_day:,.0f} units a day for {days:g} days are {units:,.0f}; a run plays {MOST_UNITS:,} at most."
        )
    if experiment.unit == "cluster" and experiment.allocation == "thompson":
        raise BadInput(f"{where} lets results steer clusters, of which a rehearsal has too few to steer by.")
    blocks = days * 1_440 / (experiment.block_minutes or days * 1_440)
    if experiment.unit == "block" and blocks < LEAST_BLOCKS:
        raise BadInput(f"{where} has {blocks:g} blocks of time in {days:g} days; it takes {LEAST_BLOCKS} to compare.")
    experiment = msgspec.structs.replace(
        experiment, metrics=experiment.metrics or list(DEFAULT_METRICS), started_at=STARTED_AT, ends_at=end_of(days),
        stopped_at=None, days=days, looks=_looks(experiment), history=[], fingerprint={},
    )  # fmt: skip
    experiment = judged_by_page(experiment)
    shares = _cluster_shares(workspace, owner, experiment, units) if experiment.unit == "cluster" else ()
    designs = {"nothing": "your experiment without an effect (there the truth is 0)"}
    if experiment.placement != EVERYWHERE:
        designs["steals"] = f"{experiment.placement} only takes {100 * abs(effect):g} % from its neighbors"
    where_to = "" if experiment.placement == EVERYWHERE else f" at {experiment.placement}"
    designs["effect"] = f"your experiment with {100 * effect:+g} %{where_to}"
    people = "visitors" if experiment.unit in ("cluster", "block") else f"{experiment.unit}s"
    says = f"{a_day:,.0f} {people} a day for {days:g} days{_how(experiment, shares, blocks)}, as {where} says."
    return experiment.name, Own(
        says=says, designs=designs, days=max(1, round(days)), experiment=experiment, traffic=a_day, effect=effect,
        cluster_shares=shares,
    )  # fmt: skip


def stage(scenario: Own, rng: int) -> Callable[[int], Play]:
    """The experiment with and without an effect on all of its treatments."""
    experiment, effect = scenario.experiment, scenario.effect
    goal = next(at for at, metric in enumerate(experiment.metrics) if metric.role == "goal")
    units = max(20, round(scenario.traffic * (experiment.days or USUAL_DAYS)))
    world = (
        block_world(experiment, units)
        if experiment.unit == "block"
        else unit_world(experiment, units, scenario.cluster_shares)
    )
    base, lifted = _truth(experiment, goal, effect, rng)
    looks = _look_shares(experiment)

    def play(run: int) -> Play:
        trials = []
        for design in scenario.designs:
            lift = 0.0 if design == "nothing" else effect
            at = world(lift, design == "steals", np.random.default_rng([rng, run]), f"{rng}-{run}")
            truth = (lifted - base) * (design == "effect")
            trials.append(_told(at, looks, experiment)._replace(design=design, truth=truth))
        return Play(base, lifted, trials)

    return play


def _told(at: Callable[[float, Look | None], Report], looks: Sequence[float], experiment: Experiment) -> Trial:
    """What the last report says; a difference was seen when any planned look saw one, by its own alpha."""
    if not looks:
        return trial_of(at(1.0, None), "", 0.0, alpha=experiment.alpha)
    seen = False
    warned: list[str] = []
    for number, share in enumerate(looks, 1):
        found = at(share, Look(number, len(looks)))
        trial = trial_of(found, "", 0.0, alpha=float(found.looks["alpha"]))
        seen, warned = seen or trial.rejected, [*warned, *trial.warnings]
    return trial._replace(rejected=seen, warnings=tuple(dict.fromkeys(warned)))


def _truth(experiment: Experiment, goal: int, effect: float, rng: int) -> tuple[float, float]:
    """The goal with nobody and with everybody in treatment."""
    nobody = columns(np.random.default_rng([rng, 0, 9]), np.zeros(BASE_UNITS))
    metric = with_caps(experiment, nobody).metrics[goal]
    base = level_of(metric, nobody)
    if metric.quantile is None and metric.cap is None:
        moves = metric.numerator in LIFTED and metric.denominator not in LIFTED
        if metric.numerator == "page_clicks":
            return base, base * (1.0 + effect / PLACEMENTS)
        return base, base * (1.0 + effect * moves)
    return base, level_of(metric, columns(np.random.default_rng([rng, 0, 9]), np.full(BASE_UNITS, effect)))


def _look_shares(experiment: Experiment) -> list[float]:
    """When it is looked, as shares of the time."""
    start, end = experiment.started_at, experiment.ends_at
    if start is None or end is None:
        return []
    return [(at - start) / (end - start) for at in look_times(experiment)]


def _looks(experiment: Experiment) -> int | list[datetime] | None:
    """Looks at times are as long after the rehearsal's start; where the file names no start, they are spread evenly."""
    looks, start = experiment.looks, experiment.started_at
    if not isinstance(looks, list):
        return looks
    return len(looks) if start is None else [STARTED_AT + (at - start) for at in looks]


def _how(experiment: Experiment, shares: Sequence[float], blocks: float) -> str:
    """What else the file asks for, in words."""
    parts = []
    if shares:
        parts.append(f"in {len(shares):,} clusters")
    if experiment.unit == "block":
        width = times_in_words(timedelta(minutes=experiment.block_minutes or 0.0))
        parts.append(f"in {blocks:,.0f} blocks of {width}")
    if experiment.allocation == "thompson":
        parts.append("steered by results once a day")
    looks = len(_look_shares(experiment))
    if looks:
        parts.append(f"with {looks} planned look{'' if looks == 1 else 's'}")
    return "".join(f", {part}" for part in parts)


def _cluster_shares(
    workspace: Workspace, tenant: str | None, experiment: Experiment, units: float
) -> tuple[float, ...]:
    """How visitors are spread over the clusters: as the tenant's events say, else evenly."""
    if tenant is not None and experiment.cluster not in GRAPHS and workspace.lake.exists():
        path = literal("$." + identifier(experiment.cluster))
        connection = Lake(workspace.lake).connect(tenant=tenant)
        try:
            rows = connection.execute(
                f"SELECT json_extract_string(context, {path}) AS label, count(DISTINCT visitor_id) AS n FROM events "
                "WHERE NOT is_bot AND NOT duplicate GROUP BY label HAVING label IS NOT NULL AND n > 0 "
                f"ORDER BY n DESC, label LIMIT {MOST_CLUSTERS}"
            ).fetchall()
        finally:
            connection.close()
        if len(rows) >= LEAST_CLUSTERS:
            total = sum(n for _, n in rows)
            return tuple(n / total for _, n in rows)
    size = min(max(round(units / CLUSTER_UNITS), LEAST_CLUSTERS), MOST_CLUSTERS)
    return (1 / size,) * size


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
