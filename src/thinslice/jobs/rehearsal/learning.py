"""Two rankers that learn while an experiment runs: who is assigned what, what is shown, clicked and learned.

Every night each ranker learns from the visits so far, all of them or those that `training_filter` leaves it; by day it
ranks what is on the shelf. Truth is what each ranker does with all visitors, in the same world with the same luck.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.experiments import assign, bucket
from thinslice.experiments.assign import is_pooled
from thinslice.experiments.evidence import Units
from thinslice.experiments.isolation import training_filter
from thinslice.experiments.lineage import lineage
from thinslice.jobs.rehearsal.crowd import SIDES, STARTED_AT, two_variants
from thinslice.models import Vocabulary
from thinslice.recommend.explore import BetaThompson, Shown, learn
from thinslice.records import Arrays, Experiment, Item
from thinslice.simulate.scenario import Learning
from thinslice.simulate.worlds import Shelf, Visits, clicked, fill_shelf, make_visits

POOLED_SHARE = 0.5
"""Share of each variant's visitors that rankers serve which learned from everybody, where both are compared."""

RAMP_FROM = 0.2
"""Share of the visitors that take part in the first half of an experiment that is ramped; then all do."""

POOLED_MARK = " pooled"
"""Behind a variant's name: its ranker learned from everybody."""

Slates = NDArray[np.int64]
Ranker = Callable[[Arrays, list[str], int, int, int], Slates]
"""From what is believed, the items on the shelf, places, visits and a seed to slates: places of items in that list."""


class World(NamedTuple):
    """What does not depend on who recommends.

    Attributes:
        shelf: The items and their truth.
        visits: Who comes when.
        items: The catalog as the rankers see it.
        hint: Shape (items,): the click rate that the content of an item lets one expect.
    """

    shelf: Shelf
    visits: Visits
    items: list[Item]
    hint: NDArray[np.float64]


class Teaching(NamedTuple):
    """Who may learn from what, and who takes part from when on.

    Attributes:
        training: `isolated` or `shared`, as in an experiment's file.
        cold: Treatment's ranker has not seen what was clicked before the experiment.
        cells: Half of each variant's visitors are served by rankers that learn from everybody.
        ramp: Only `RAMP_FROM` of the visitors take part in the first half of the experiment.
    """

    training: str
    cold: bool = False
    cells: bool = False
    ramp: bool = False


class Lived(NamedTuple):
    """What happened.

    Attributes:
        server: Shape (visits,): the variant, with `POOLED_MARK` behind it where a ranker served that learns from all.
        inside: Shape (visits,): whether the visitor takes part in the experiment by then.
        item: Shape (visits, places), codes.
        clicked: Shape (visits, places).
        contamination: Variant → share of what taught its last model that another variant caused.
        arrays: Variant → what its ranker believed on the last day.
    """

    server: NDArray[np.str_]
    inside: NDArray[np.bool_]
    item: Slates
    clicked: NDArray[np.bool_]
    contamination: dict[str, float]
    arrays: dict[str, Arrays]


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


def assigned(scenario: Learning, run: int) -> NDArray[np.str_]:
    """The variant of every visitor, as production assigns them."""
    experiment = two_variants(f"run-{run}", scenario.days)
    return np.array([assign(experiment, f"visitor-{number}").variant for number in range(scenario.visitors)])


def lived_alone(world: World, scenario: Learning, variant: str, rng: int, run: int) -> Lived:
    """One ranker serves everybody and learns from everybody: the truth of that ranker."""
    everybody = np.full(scenario.visitors, variant)
    experiment = two_variants(f"run-{run}", scenario.days, training="shared")
    return live_through(world, scenario, everybody, experiment, Teaching("shared"), rng, run)


def teaching_of(design: str) -> Teaching:
    """Who learns from what in a design."""
    return Teaching(
        "shared" if design.startswith("pooled") else "isolated", cold=design in ("cold", "late"),
        cells=design == "cells", ramp=design.endswith("ramp"),
    )  # fmt: skip


def rate_of(world: World, scenario: Learning, lived: Lived) -> float:
    """The click-through rate of the days of the experiment."""
    during = world.visits.day >= scenario.days_before
    return float(lived.clicked[during].any(axis=1).mean())


def live_through(
    world: World, scenario: Learning, variant: NDArray[np.str_], experiment: Experiment, teaching: Teaching, rng: int,
    run: int,
) -> Lived:  # fmt: skip
    """All days of a world: by night rankers learn, by day visits are shown slates.

    Args:
        world: Where; before the experiment, control's ranker serves everybody.
        scenario: Its numbers.
        variant: Shape (visitors,): who gets what from the start of the experiment on.
        experiment: Names the variants for the filter of training rows.
        teaching: Who learns from what.
        rng: The seed of all chance.
        run: Which run.
    """
    shelf, visits = world.shelf, world.visits
    shape = (len(visits.day), scenario.places)
    item, hit = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
    before = visits.day < scenario.days_before
    inside = ~before & takes_part(world, scenario, experiment, teaching)
    pooled = pooled_of(scenario, experiment)[visits.visitor]
    server = np.where(inside, variant[visits.visitor], SIDES[0]).astype("<U32")
    own_only = inside & ~pooled if teaching.training == "isolated" else np.zeros(len(inside), dtype=np.bool_)
    server[~own_only & ~before] = np.char.add(server[~own_only & ~before], POOLED_MARK)
    labels = np.where(inside & ~(pooled & (teaching.training == "isolated")), variant[visits.visitor], "")
    time = STARTED_AT.timestamp() + visits.time_s - 86_400.0 * scenario.days_before
    last = scenario.days_before + scenario.days
    first = np.searchsorted(visits.day, np.arange(last + 1))
    rankers = {
        SIDES[0]: (scenario.control, np.full(len(world.items), scenario.control_expects)),
        SIDES[1]: (scenario.treatment, scenario.treatment_expects + scenario.treatment_knows * world.hint),
    }
    servers = [(number, name, mark) for mark in ("", POOLED_MARK) for number, name in enumerate(SIDES)]
    contamination: dict[str, float] = {}
    believed: dict[str, Arrays] = {}
    for day in range(last):
        live = shelf.live(day)
        catalog = [world.items[code] for code in live.tolist()]
        ids = [each.item_id for each in catalog]
        past, today = slice(0, int(first[day])), slice(int(first[day]), int(first[day + 1]))
        for number, name, mark in servers:
            ranker, expects = rankers[name]
            rows = np.flatnonzero(server[today] == name + mark) + today.start
            if not len(rows):
                continue
            own = np.ones(past.stop, dtype=np.bool_)
            if not mark:
                draw = np.random.default_rng([rng, run, 3, number, day])
                own = training_filter(experiment, name, labels[past], time[past], rng=draw)
            if teaching.cold and name == SIDES[1]:
                own &= ~before[past]
            counts = count(item[past][own], hit[past][own], live, len(world.items), float(time[today.start]))
            arrays = learn(
                "position-thompson", NOTHING, before={**Vocabulary(ids).arrays(), **counts}, items=catalog,
                prior=expects[live], pseudo_count=scenario.pseudo_count, half_life_days=float("inf"),
            )  # fmt: skip
            slates = RANKERS[ranker](arrays, ids, scenario.places, len(rows), _seed(rng, run, number, day))
            item[rows] = live[slates]
            if day == last - 1 and name not in contamination:
                ones = np.ones(past.stop)
                traced = lineage(experiment, name, labels[past], time[past], ones, own)
                contamination[name], believed[name] = traced.contamination, arrays
        hit[today] = clicked(shelf.rate[item[today]], visits.luck[today])
    return Lived(server, inside, item, hit, contamination, believed)


def takes_part(world: World, scenario: Learning, experiment: Experiment, teaching: Teaching) -> NDArray[np.bool_]:
    """Shape (visits,): whether the visitor is inside of the coverage by then; a ramp only adds visitors."""
    if not teaching.ramp:
        return np.ones(len(world.visits.day), dtype=np.bool_)
    seed = f"{experiment.name}:coverage"
    where = np.array([bucket(seed, f"visitor-{number}") for number in range(scenario.visitors)])
    late = world.visits.day >= scenario.days_before + ramp_day(scenario)
    return np.asarray(late | (where < RAMP_FROM)[world.visits.visitor])


def ramp_day(scenario: Learning) -> int:
    """The day of the experiment on which a ramped one takes in everybody."""
    return scenario.days // 2


def pooled_of(scenario: Learning, experiment: Experiment) -> NDArray[np.bool_]:
    """Shape (visitors,): who is served by rankers that learned from everybody, as production deals them out."""
    return np.array([is_pooled(experiment, f"visitor-{number}") for number in range(scenario.visitors)])


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


def units_of(
    world: World, scenario: Learning, lived: Lived, variant: NDArray[np.str_], rows: NDArray[np.bool_] | None = None
) -> Units:
    """One row a visitor of some visits, given as a mask of shape (visits,); None: all of the experiment."""
    rows = lived.inside if rows is None else rows
    visitor = world.visits.visitor[rows]
    exposures = np.bincount(visitor, minlength=len(variant)).astype(np.float64)
    clicks = np.bincount(visitor, weights=lived.clicked[rows].any(axis=1), minlength=len(variant))
    came = exposures > 0
    kinds = dict(zip(SIDES, (scenario.control, scenario.treatment), strict=True))
    return Units(
        variant=variant[came],
        columns={"exposures": exposures[came], "clicks": clicks[came]},
        contamination=lived.contamination,
        explorers=frozenset(name for name, kind in kinds.items() if kind == "thompson"),
    )


def make_world(scenario: Learning, rng: int, run: int) -> World:
    """The world of one run; whoever recommends in it meets the same items, visits and luck."""
    days = scenario.days_before + scenario.days
    shelf = fill_shelf(
        np.random.default_rng([rng, run, 0]), days=days, at_start=scenario.items_at_start,
        new_per_day=scenario.new_items_per_day, life_days=scenario.item_life_days, click_rate=scenario.click_rate,
        evenness=scenario.evenness,
    )  # fmt: skip
    visits = make_visits(
        np.random.default_rng([rng, run, 1]), days=days, per_day=scenario.visits_per_day, visitors=scenario.visitors,
        places=scenario.places,
    )  # fmt: skip
    published = [STARTED_AT + timedelta(days=day - scenario.days_before) for day in shelf.born.tolist()]
    items = [
        Item(tenant="rehearsal", item_id=f"item-{code:06d}", published_at=at, updated_at=at)
        for code, at in enumerate(published)
    ]
    return World(shelf, visits, items, shelf.rate - scenario.click_rate)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence([*numbers, 2]).generate_state(1, np.uint64)[0])
