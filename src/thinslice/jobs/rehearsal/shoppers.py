"""Rehearses A/A tests and tests of a known effect: mean, ratio, CUPED, clusters, switchback, under a bandit."""

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.experiments.analyze import analyze, report
from thinslice.experiments.checks import check_all
from thinslice.experiments.evidence import WEIGHT, Evidence, Units
from thinslice.jobs.rehearsal.allocation import steered
from thinslice.jobs.rehearsal.crowd import (
    CLICK_THROUGH,
    NAMES,
    REVENUE,
    SIDES,
    assigned_pool,
    buckets,
    columns_of,
    end_of,
    some_of,
    two_variants,
)
from thinslice.jobs.rehearsal.trials import Play, Trial, trial_of
from thinslice.records import Experiment, Report
from thinslice.simulate.scenario import SameForAll
from thinslice.simulate.worlds import MEAN_CLICKS, MEAN_EXPOSURES, MEAN_REVENUE, shop
from thinslice.stats import moments, switchback_blocks

BLOCK_HOURS, BURN_IN_HOURS, MEMORY = 6, 1, 0.7
"""Blocks of a switchback, what is left out of each, and how much of an hour's mood is left in the next."""


def stage(scenario: SameForAll, rng: int) -> Callable[[int], Play]:
    """A/A, or an A/B test of a known effect, by the tests of the house."""
    experiment = two_variants(f"same-{rng}", scenario.days)
    by_clicks = msgspec.structs.replace(experiment, metrics=[CLICK_THROUGH])
    places = buckets(experiment, 4 * scenario.bandit_units) if "bandit" in scenario.designs else None
    pool = assigned_pool(experiment, 4 * scenario.units)
    revenue, clicks = MEAN_REVENUE * scenario.effect, MEAN_CLICKS / MEAN_EXPOSURES * scenario.effect
    now = end_of(scenario.days)

    def play(run: int) -> Play:
        found: dict[str, Trial] = {}
        draw = np.random.default_rng([rng, run])
        if {"mean", "ratio", "cuped"} & set(scenario.designs):
            code = some_of(pool, scenario.units, draw)
            shoppers = shop(draw, scenario.units, scenario.effect * (code == 1))
            units = Units(variant=NAMES[code], columns=columns_of(shoppers))
            if "mean" in scenario.designs:
                found["mean"] = trial_of(analyze(units, experiment, now), "mean", revenue)
            if "ratio" in scenario.designs:
                found["ratio"] = trial_of(analyze(units, by_clicks, now), "ratio", clicks)
            if "cuped" in scenario.designs:
                known = units._replace(covariate=shoppers.before)
                found["cuped"] = trial_of(analyze(known, experiment, now), "cuped", revenue)
        if "cluster" in scenario.designs:
            draw = np.random.default_rng([rng, run, 1])
            found["cluster"] = trial_of(_clusters(scenario, experiment, pool, draw), "cluster", revenue)
        if "switchback" in scenario.designs:
            draw = np.random.default_rng([rng, run, 2])
            found["switchback"] = trial_of(_switchback(scenario, experiment, draw), "switchback", revenue)
        if places is not None:
            draw = np.random.default_rng([rng, run, 3])
            found["bandit"] = trial_of(analyze(_bandit(scenario, places, draw), experiment, now), "bandit", revenue)
        return Play(MEAN_REVENUE, MEAN_REVENUE + revenue, [found[name] for name in scenario.designs])

    return play


def _clusters(
    scenario: SameForAll, experiment: Experiment, pool: NDArray[np.int64], draw: np.random.Generator
) -> Report:
    """The report of an experiment that randomized clusters of shoppers who resemble each other."""
    clusters = scenario.units // scenario.cluster_size
    code = some_of(pool, clusters, draw)
    everyone = np.repeat(code, scenario.cluster_size)
    shoppers = shop(draw, len(everyone), scenario.effect * (everyone == 1))
    mood = 1.0 + scenario.likeness * np.sqrt(3.0) * draw.uniform(-1.0, 1.0, size=clusters)
    spent = shoppers.revenue_minor.reshape(clusters, -1).sum(axis=1) * mood
    sums = {"revenue_minor": spent, WEIGHT: np.full(clusters, float(scenario.cluster_size))}
    evidence = Evidence(
        variants={
            name: moments({key: column[code == at] for key, column in sums.items()}) for at, name in enumerate(SIDES)
        },
        counts=np.bincount(code, minlength=2)[None, :].astype(np.float64),
        propensities=np.array([[0.5, 0.5]]),
        units={name: int((everyone == at).sum()) for at, name in enumerate(SIDES)},
        clusters=True,
    )
    return report(evidence, experiment, end_of(scenario.days), check_all(evidence, experiment))


def _switchback(scenario: SameForAll, experiment: Experiment, draw: np.random.Generator) -> Report:
    """The report of an experiment that switched all shoppers back and forth; an hour is like the one before."""
    hours = scenario.days * 24
    block = np.arange(hours) // BLOCK_HOURS
    half = (int(block[-1]) + 2) // 2
    treated = draw.permutation(np.arange(block[-1] + 1) < half)[block]
    noise = draw.standard_normal(hours) * np.sqrt(1.0 - MEMORY**2)
    mood = np.empty(hours)
    mood[0] = draw.standard_normal()
    for hour in range(1, hours):
        mood[hour] = MEMORY * mood[hour - 1] + noise[hour]
    per_hour = max(1, scenario.units // hours)
    shoppers = shop(draw, hours * per_hour, np.repeat(scenario.effect * treated, per_hour))
    spent = shoppers.revenue_minor.reshape(hours, -1).sum(axis=1) * (1.0 + 0.1 * mood)
    blocks = switchback_blocks(
        spent, block, treated, denominator=np.full(hours, float(per_hour)), burn_in=BURN_IN_HOURS
    )
    sizes = {"control": int((~treated).sum()) * per_hour, "treatment": int(treated.sum()) * per_hour}
    shares = np.array([[1.0 - half / (int(block[-1]) + 1), half / (int(block[-1]) + 1)]])
    counts = np.array([[int((~blocks.treated).sum()), int(blocks.treated.sum())]], dtype=np.float64)
    evidence = Evidence({}, counts, shares, sizes, blocks={REVENUE.name: {SIDES[1]: blocks}})
    return report(evidence, experiment, end_of(scenario.days), check_all(evidence, experiment))


def _bandit(scenario: SameForAll, places: NDArray[np.float64], draw: np.random.Generator) -> Units:
    """Shoppers whose share of treatment followed what had been spent so far."""
    n = scenario.bandit_units
    where = some_of(places, n, draw)
    plain, lifted = (shop(draw, n, lift).revenue_minor for lift in (0.0, scenario.effect))
    got = steered(where, np.stack([plain, lifted]), batches=20, floor=0.1, draw=draw)
    spent = np.where(got.code == 1, lifted, plain)
    return Units(
        variant=NAMES[got.code], columns={"revenue_minor": spent}, propensities=got.propensities, batch=got.batch
    )
