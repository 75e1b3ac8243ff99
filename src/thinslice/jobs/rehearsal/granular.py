"""Rehearses effects that are not the same for all: some only while they are new, some harmful for a segment."""

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.experiments.analyze import report
from thinslice.experiments.checks import check_all
from thinslice.experiments.evidence import Ages, Evidence, Units, gather, planned_shares
from thinslice.experiments.segments import harmed_segments
from thinslice.jobs.rehearsal.crowd import (
    CLICK_THROUGH,
    NAMES,
    SIDES,
    assigned_pool,
    columns_of,
    end_of,
    some_of,
    two_variants,
)
from thinslice.jobs.rehearsal.trials import Play, Trial, trial_of
from thinslice.records import Metric
from thinslice.simulate.scenario import Fading, Harming
from thinslice.simulate.worlds import MEAN_CLICKS, MEAN_EXPOSURES, shop
from thinslice.stats import EARLY_DAYS, LATE_FROM, Moments, moments

VIEWS = Metric(name="views_per_visitor", numerator="views", role="goal")

DAILY_VIEWS = 5.0
"""What a visitor views in a day on average, where a standard deviation is 1."""


def stage_fading(scenario: Fading, rng: int) -> Callable[[int], Play]:
    """An effect that wears off: all days together, and the days after the first week; truth is the latter."""
    experiment = two_variants(f"fading-{rng}", scenario.days, metrics=[VIEWS])
    pool = assigned_pool(experiment, 4 * scenario.units)
    age = np.log1p(np.arange(scenario.days))
    early, late = age[:EARLY_DAYS].mean(), age[LATE_FROM:].mean()
    effect = scenario.steady + scenario.decay * (late - age) / (late - early)
    truth = scenario.steady
    now = end_of(scenario.days)

    def play(run: int) -> Play:
        draw = np.random.default_rng([rng, run])
        code = some_of(pool, scenario.units, draw)
        views = draw.standard_normal((scenario.units, scenario.days)) * np.sqrt(1.0 - scenario.likeness)
        views += DAILY_VIEWS + np.sqrt(scenario.likeness) * draw.standard_normal(scenario.units)[:, None]
        views += effect * (code == 1)[:, None]
        mean = views.mean(axis=1)
        evidence = Evidence(
            variants=_by_side({"views": mean}, code),
            counts=np.bincount(code, minlength=2)[None, :].astype(np.float64),
            propensities=planned_shares(experiment),
            units={name: int((code == at).sum()) for at, name in enumerate(SIDES)},
            ages=ages_of(views, code),
        )
        found = report(evidence, experiment, now, check_all(evidence, experiment))
        whole = trial_of(found, "whole", truth)._replace(warnings=(), action="")
        row = found.novelty["variants"][0]
        steady = row["steady"]
        trials = {
            "whole": whole,
            "steady": Trial(
                "steady", truth, steady["effect_size"], steady["effect_size_ci"], steady["pvalue"] < experiment.alpha,
                () if row["stable"] else ("novelty",), found.decision.action,
            ),
        }  # fmt: skip
        return Play(DAILY_VIEWS, DAILY_VIEWS + truth, [trials[name] for name in scenario.designs])

    return play


def ages_of(views: NDArray[np.float64], code: NDArray[np.int64]) -> Ages:
    """Outcomes of visitors who all came on the first day, shape (visitors, days), as the report takes them."""
    days = views.shape[1]
    since = np.log1p(np.arange(days))
    since -= since.mean()
    change = _by_side(
        {
            "early views": views[:, :EARLY_DAYS].mean(axis=1),
            "late views": views[:, LATE_FROM:].mean(axis=1),
            "tilt views": views @ since,
            "tilt scale": np.full(len(views), float(since @ since)),
        },
        code,
    )
    by_age = [(day, _by_side({"views": views[:, day]}, code)) for day in range(days)]
    return Ages(by_age, change, [(0, change)])


def stage_harming(scenario: Harming, rng: int) -> Callable[[int], Play]:
    """A treatment that wins over all and loses in one segment: read as a whole, and by segment."""
    experiment = two_variants(f"harming-{rng}", scenario.days, metrics=[CLICK_THROUGH])
    experiment = msgspec.structs.replace(experiment, segments=["country"])
    pool = assigned_pool(experiment, 4 * scenario.units)
    rate = MEAN_CLICKS / MEAN_EXPOSURES
    lift = scenario.effect * (1.0 - scenario.harmed_share) + scenario.harm * scenario.harmed_share
    rest = 1.0 - scenario.harmed_share
    places = np.array(["home", "neighbor", "abroad"])
    now = end_of(scenario.days)

    def play(run: int) -> Play:
        draw = np.random.default_rng([rng, run])
        code = some_of(pool, scenario.units, draw)
        country = np.searchsorted([0.6 * rest, rest], draw.random(scenario.units), side="right")
        shoppers = shop(draw, scenario.units, np.where(country == 2, scenario.harm, scenario.effect) * (code == 1))
        units = Units(variant=NAMES[code], columns=columns_of(shoppers), segments={"country": places[country]})
        evidence = gather(units, experiment)
        found = report(evidence, experiment, now, check_all(evidence, experiment))
        read = trial_of(found, "segments", rate * lift)
        harmed = ("harmed_segment",) if harmed_segments(found.segments, experiment) else ()
        trials = {
            "overall": read._replace(design="overall", warnings=(), action=""),
            "segments": read._replace(warnings=(*read.warnings, *harmed)),
        }
        return Play(rate, rate * (1.0 + lift), [trials[name] for name in scenario.designs])

    return play


def _by_side(columns: dict[str, NDArray[np.float64]], code: NDArray[np.int64]) -> dict[str, Moments]:
    return {
        name: moments({key: column[code == at] for key, column in columns.items()}) for at, name in enumerate(SIDES)
    }
