"""Rehearses an experiment on two rankers that learn while it runs: assign, recommend, expose, train, analyze.

Every night each ranker learns from the visits so far, all of them or those that `training_filter` leaves it; by day it
ranks what is on the shelf. Truth is what each ranker does with all visitors, in the same world with the same luck.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.experiments import assign
from thinslice.experiments.analyze import analyze
from thinslice.experiments.evidence import Units
from thinslice.experiments.isolation import training_filter
from thinslice.jobs.rehearsal.trials import Play, Trial, trial_of
from thinslice.models import Vocabulary
from thinslice.recommend.explore import BetaThompson, Shown, learn
from thinslice.records import Arrays, Experiment, Item, Metric, Variant
from thinslice.simulate.scenarios import Learning
from thinslice.simulate.worlds import Shelf, Visits, clicked, fill_shelf, make_visits

STARTED_AT = datetime(2026, 1, 5, tzinfo=UTC)
"""When every rehearsed experiment starts: a Monday."""

CLICK_THROUGH = Metric(name="click_through_rate", numerator="clicks", denominator="exposures", role="goal")
"""What the rankers are judged by."""

Slates = NDArray[np.int64]
Ranker = Callable[[Arrays, list[str], int, int, int], Slates]
"""From what is believed, the items on the shelf, places, visits and a seed to slates: places of items in that list."""


class World(NamedTuple):
    """What does not depend on who recommends: the shelf, the visits, and the catalog as the rankers see it."""

    shelf: Shelf
    visits: Visits
    items: list[Item]


class Ranking(NamedTuple):
    """A ranker and what it expects of an item that it does not know."""

    kind: str
    expects: float


class Lived(NamedTuple):
    """What happened: shape (visits, places) each; a visit that was never shown anything has items of -1."""

    item: Slates
    clicked: NDArray[np.bool_]


def greedy(arrays: Arrays, item_ids: list[str], places: int, visits: int, seed: int) -> Slates:
    """One slate for all: what is believed to be clicked most, equal ones in random order."""
    belief = arrays["belief"][: len(item_ids)]
    mean = belief[:, 0] / belief.sum(axis=1)
    chance = np.random.default_rng(seed).random(len(mean))
    return np.broadcast_to(np.lexsort((chance, -mean))[:places], (visits, min(places, len(mean))))


def thompson(arrays: Arrays, item_ids: list[str], places: int, visits: int, seed: int) -> Slates:
    """A slate of its own for each visit: each item as often on top as it is believed to be the best."""
    explorer = BetaThompson.from_arrays(arrays)
    return explorer.rankings(item_ids, np.ones(len(item_ids)), places, rng=seed, rankings=visits)


RANKERS: dict[str, Ranker] = {"greedy": greedy, "thompson": thompson}
"""Rankers by the name that a scenario gives."""


def stage(scenario: Learning, rng: int) -> Callable[[int], Play]:
    """Prepares a rehearsal; each call with the number of a run plays it."""
    rankings = {
        "control": Ranking(scenario.control, scenario.control_expects),
        "treatment": Ranking(scenario.treatment, scenario.treatment_expects),
    }

    def play(run: int) -> Play:
        world = _world(scenario, rng, run)
        visitors = scenario.visitors
        names = [f"visitor-{number}" for number in range(visitors)]
        alone = {}
        for name in rankings:
            everybody = np.full(visitors, name)
            lived = live_through(world, scenario, rankings, everybody, _experiment(run, "shared", scenario), rng, run)
            alone[name] = float(lived.clicked.any(axis=1).mean())
        truth = alone["treatment"] - alone["control"]
        trials: list[Trial] = []
        variant = np.array([assign(_experiment(run, "isolated", scenario), name).variant for name in names])
        for design in scenario.designs:
            experiment = _experiment(run, "isolated" if design == "isolated" else "shared", scenario)
            lived = live_through(world, scenario, rankings, variant, experiment, rng, run)
            now = STARTED_AT + timedelta(days=scenario.days)
            trials.append(trial_of(analyze(_units(world, lived, variant), experiment, now), design, truth))
        return Play(alone["control"], alone["treatment"], trials)

    BetaThompson.warm()
    return play


def live_through(
    world: World, scenario: Learning, rankings: dict[str, Ranking], variant: NDArray[np.str_],
    experiment: Experiment, rng: int, run: int,
) -> Lived:  # fmt: skip
    """All days of a world: by night rankers learn, by day visits are shown slates.

    Args:
        world: Where.
        scenario: Its numbers.
        rankings: Variant → its ranker.
        variant: Shape (visitors,): who gets what.
        experiment: Says whether variants learn apart.
        rng: The seed of all chance.
        run: Which run.
    """
    shelf, visits = world.shelf, world.visits
    shape = (len(visits.day), scenario.places)
    item, hit = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
    labels = variant[visits.visitor]
    first = np.searchsorted(visits.day, np.arange(scenario.days + 1))
    start = STARTED_AT.timestamp()
    for day in range(scenario.days):
        live = shelf.live(day)
        catalog = [world.items[code] for code in live.tolist()]
        ids = [each.item_id for each in catalog]
        past = slice(0, int(first[day]))
        for number, (name, ranking) in enumerate(rankings.items()):
            rows = np.flatnonzero(labels[first[day] : first[day + 1]] == name) + first[day]
            if not len(rows):
                continue
            seed = _seed(rng, run, number, day)
            if experiment.training == "isolated":
                draw = np.random.default_rng([rng, run, 3, number, day])
                own = training_filter(experiment, name, labels[past], start + visits.time_s[past], rng=draw)
            else:
                own = np.ones(past.stop, dtype=np.bool_)
            counts = count(item[past][own], hit[past][own], live, len(world.items), start + 86_400.0 * day)
            arrays = learn(
                "position-thompson", NOTHING, before={**Vocabulary(ids).arrays(), **counts}, items=catalog,
                prior=np.full(len(live), ranking.expects), pseudo_count=scenario.pseudo_count,
                half_life_days=float("inf"),
            )  # fmt: skip
            slates = RANKERS[ranking.kind](arrays, ids, scenario.places, len(rows), seed)
            item[rows] = live[slates]
        today = slice(int(first[day]), int(first[day + 1]))
        hit[today] = clicked(shelf.rate[item[today]], visits.luck[today])
    return Lived(item, hit)


NOTHING = Shown(
    np.empty(0, dtype=np.str_), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_), np.empty(0, dtype=np.int64),
    np.empty(0),
)  # fmt: skip
"""No slate more: what was counted is all there is."""


def count(item: Slates, hit: NDArray[np.bool_], live: Slates, items: int, at: float) -> Arrays:
    """Shows and clicks by item and place as an explorer keeps them, of the items that are still there.

    Args:
        item: Shape (slates, places), codes.
        hit: Shape (slates, places): what was clicked.
        live: Codes of the items that are still there.
        items: How many codes there are.
        at: Unix seconds.
    """
    places = item.shape[1]
    cell = (item * places + np.arange(places)).ravel()
    shows = np.bincount(cell, minlength=items * places).reshape(items, places)[live]
    clicks = np.bincount(cell, weights=hit.ravel(), minlength=items * places).reshape(items, places)[live]
    return {
        "shows": shows.astype(np.float64), "clicks": clicks,
        "counted": np.array([1, item.size], dtype=np.int64), "until": np.array([at, at]),
    }  # fmt: skip


def _units(world: World, lived: Lived, variant: NDArray[np.str_]) -> Units:
    """One row a visitor who came."""
    visitor = world.visits.visitor
    exposures = np.bincount(visitor, minlength=len(variant)).astype(np.float64)
    clicks = np.bincount(visitor, weights=lived.clicked.any(axis=1), minlength=len(variant))
    came = exposures > 0
    return Units(variant=variant[came], columns={"exposures": exposures[came], "clicks": clicks[came]})


def _world(scenario: Learning, rng: int, run: int) -> World:
    shelf = fill_shelf(
        np.random.default_rng([rng, run, 0]), days=scenario.days, at_start=scenario.items_at_start,
        new_per_day=scenario.new_items_per_day, life_days=scenario.item_life_days, click_rate=scenario.click_rate,
        evenness=scenario.evenness,
    )  # fmt: skip
    visits = make_visits(
        np.random.default_rng([rng, run, 1]), days=scenario.days, per_day=scenario.visits_per_day,
        visitors=scenario.visitors, places=scenario.places,
    )  # fmt: skip
    published = [STARTED_AT + timedelta(days=day) for day in shelf.born.tolist()]
    items = [
        Item(tenant="rehearsal", item_id=f"item-{code:06d}", published_at=at, updated_at=at)
        for code, at in enumerate(published)
    ]
    return World(shelf, visits, items)


def _experiment(run: int, training: str, scenario: Learning) -> Experiment:
    variants = [Variant(name=name, policy=name, weight=0.5) for name in ("control", "treatment")]
    return Experiment(
        name=f"run-{run}", tenant="rehearsal", variants=variants, metrics=[CLICK_THROUGH], training=training,
        days=scenario.days, started_at=STARTED_AT, ends_at=STARTED_AT + timedelta(days=scenario.days),
    )  # fmt: skip


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence([*numbers, 2]).generate_state(1, np.uint64)[0])
