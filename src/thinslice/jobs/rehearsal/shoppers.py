"""Rehearses experiments in which nothing learns: shoppers are assigned, spend, and the report is read."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.experiments import assign
from thinslice.experiments.analyze import analyze, report
from thinslice.experiments.checks import check_all
from thinslice.experiments.evidence import WEIGHT, Evidence, Units
from thinslice.jobs.rehearsal.learning import STARTED_AT
from thinslice.jobs.rehearsal.trials import Play, Trial, trial_of
from thinslice.metrics import METRICS
from thinslice.records import Experiment, Report, Variant
from thinslice.simulate.scenarios import SameForAll
from thinslice.simulate.worlds import MEAN_CLICKS, MEAN_EXPOSURES, MEAN_REVENUE, Shoppers, shop
from thinslice.stats import moments

POOL = 60_000
"""So many visitors are assigned once; each run is a draw of some of them."""

REVENUE = msgspec.structs.replace(METRICS["revenue_per_visitor"], role="goal")
CLICK_THROUGH = msgspec.structs.replace(METRICS["click_through_rate"], role="goal")


def two_variants(name: str, days: int, **fields: Any) -> Experiment:
    """An experiment with two equal variants that has just ended."""
    variants = [Variant(name=each, policy=each, weight=0.5) for each in ("control", "treatment")]
    plan = {"metrics": [REVENUE], "started_at": STARTED_AT, "ends_at": STARTED_AT + timedelta(days=days), **fields}
    return msgspec.convert(
        {"name": name, "tenant": "rehearsal", "variants": variants, "days": days, **plan},
        Experiment,
        from_attributes=True,
    )


def assigned_pool(experiment: Experiment, size: int = POOL) -> NDArray[np.int64]:
    """The variant of many visitors by number, as production assigns them, shape (size,); -1 outside."""
    place = {variant.name: at for at, variant in enumerate(experiment.variants)}
    names = (assign(experiment, f"visitor-{number}").variant for number in range(size))
    return np.fromiter((-1 if name is None else place[name] for name in names), dtype=np.int64, count=size)


def columns_of(shoppers: Shoppers) -> dict[str, NDArray[np.float64]]:
    """The columns of the unit table that these shoppers fill."""
    return {name: getattr(shoppers, name) for name in ("exposures", "clicks", "converted", "revenue_minor")}


def stage_same_for_all(scenario: SameForAll, rng: int) -> Callable[[int], Play]:
    """A/A, or an A/B test of a known effect, by the ordinary tests of the house."""
    experiment = two_variants(f"same-{rng}", scenario.days)
    by_clicks = msgspec.structs.replace(experiment, metrics=[CLICK_THROUGH])
    names = np.array([variant.name for variant in experiment.variants])
    pool = assigned_pool(experiment)
    revenue, clicks = MEAN_REVENUE * scenario.effect, MEAN_CLICKS / MEAN_EXPOSURES * scenario.effect
    now = STARTED_AT + timedelta(days=scenario.days)

    def play(run: int) -> Play:
        draw = np.random.default_rng([rng, run])
        code = pool[draw.choice(len(pool), size=scenario.units, replace=False)]
        shoppers = shop(draw, scenario.units, scenario.effect * (code == 1))
        units = Units(variant=names[code], columns=columns_of(shoppers))
        found: dict[str, Trial] = {}
        if "mean" in scenario.designs:
            found["mean"] = trial_of(analyze(units, experiment, now), "mean", revenue)
        if "ratio" in scenario.designs:
            found["ratio"] = trial_of(analyze(units, by_clicks, now), "ratio", clicks)
        if "cuped" in scenario.designs:
            known = units._replace(covariate=shoppers.before)
            found["cuped"] = trial_of(analyze(known, experiment, now), "cuped", revenue)
        if "cluster" in scenario.designs:
            found["cluster"] = trial_of(_clusters(scenario, experiment, pool, draw), "cluster", revenue)
        return Play(MEAN_REVENUE, MEAN_REVENUE + revenue, [found[name] for name in scenario.designs if name in found])

    return play


def _clusters(
    scenario: SameForAll, experiment: Experiment, pool: NDArray[np.int64], draw: np.random.Generator
) -> Report:
    """The report of an experiment that randomized clusters of shoppers who resemble each other."""
    clusters = scenario.units // scenario.cluster_size
    code = pool[draw.choice(len(pool), size=clusters, replace=False)]
    everyone = np.repeat(code, scenario.cluster_size)
    shoppers = shop(draw, len(everyone), scenario.effect * (everyone == 1))
    mood = 1.0 + scenario.likeness * np.sqrt(3.0) * draw.uniform(-1.0, 1.0, size=clusters)
    spent = shoppers.revenue_minor.reshape(clusters, -1).sum(axis=1) * mood
    sums = {"revenue_minor": spent, WEIGHT: np.full(clusters, float(scenario.cluster_size))}
    names = [variant.name for variant in experiment.variants]
    evidence = Evidence(
        variants={
            name: moments({key: column[code == at] for key, column in sums.items()}) for at, name in enumerate(names)
        },
        counts=np.bincount(code, minlength=2)[None, :].astype(np.float64),
        propensities=np.array([[0.5, 0.5]]),
        units={name: int((everyone == at).sum()) for at, name in enumerate(names)},
        clusters=True,
    )
    return report(evidence, experiment, STARTED_AT + timedelta(days=scenario.days), check_all(evidence, experiment))
