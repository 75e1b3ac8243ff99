"""Which variant a visitor sees: the same answer for the same visitor, on every machine, without a database."""

import math
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from thinslice.experiments.switchback import block_of, block_variant
from thinslice.records import Experiment

FNV_OFFSET = 0x811C9DC5
FNV_PRIME = 0x01000193
GRAIN = 10_000
"""Buckets are counted in so many parts of one."""

_DAY_S = 86_400.0

GRAPHS = ("item-graph", "people-graph")
"""Values of `cluster` that stand for communities: of items seen together, or of people tied by edges."""

UNCHANGED = "unchanged"
"""The policy of a variant that leaves a placement as it is: what would be shown without the experiment."""

Lookup = Callable[[str], str | None]
"""A unit's label in a map that jobs made: its community, or the variant that it saw first."""


class Assignment(NamedTuple):
    """What one unit gets.

    Attributes:
        variant: The variant's name, or None when the unit is outside the experiment's coverage.
        bucket: Where the unit fell, 0..1 in steps of 0.0001; 0 for blocks of time, and outside of the layer's range.
        propensities: Variant name → probability of that variant for a unit inside the experiment; sums to one.
            Shared between calls, so do not change it.
        allocation_version: Which probabilities these are.
        leaf: Of which leaf they are, where results steer leaves apart; empty elsewhere.
    """

    variant: str | None
    bucket: float
    propensities: dict[str, float]
    allocation_version: int
    leaf: str = ""


def bucket(seed: str, value: str) -> float:
    """Where a value falls between 0 and 1, in steps of 0.0001: GrowthBook's hash, version 2.

    FNV-1a, 32 bit, over UTF-16 code units, taken twice: the second time over the decimal text of the first. Version 1
    is not offered: two experiments with it came out correlated.

    Args:
        seed: For an experiment `f"{tenant}:{experiment}"`.
        value: The unit's id.

    >>> bucket("seed", "a")
    0.0505
    """
    return _bucket_after(_state(seed), value)


def assign(
    experiment: Experiment, unit_id: str, at: float = 0.0, kept: Lookup | None = None, leaf: str = ""
) -> Assignment:
    """The variant of one unit; deterministic, a few microseconds, no state.

    Variant i owns [start_i, start_i + coverage * weight_i), where start_i is the sum of the weights before it. So a
    ramp (a larger coverage) only adds units: nobody changes sides. A change of weights moves units, and therefore makes
    a new `allocation_version`; those that had been served before are in `kept` and stay where they were. Experiments of
    one layer look at one hash of the unit, each at its own range, so that a unit is in one of them at most.

    Args:
        experiment: Which.
        unit_id: As `unit_id_of` gives it.
        at: Unix seconds; decides which period it is where units are drawn anew by period.
        kept: Key of a unit (`unit_key`) → `version:variant` of its first exposure, with `:leaf` behind it where it
            had one; None knows nobody.
        leaf: What is known of the unit (`leaf_of`), where results steer leaves apart.
    """
    names = tuple([variant.name for variant in experiment.variants])
    weights = tuple([variant.weight for variant in experiment.variants])
    if leaf and experiment.history:
        of = experiment.history[-1].leaves.get(leaf)
        if of is not None:
            weights = tuple([of.get(name, 0.0) for name in names])
    ranges, propensities = _ranges(names, weights, experiment.coverage)
    if experiment.unit == "block":
        on = block_variant(experiment, int(unit_id), bucket)
        return Assignment(on, 0.0, propensities, experiment.allocation_version)
    if experiment.layer:
        low, high = experiment.layer_range
        if not low <= _bucket_after(_state(layer_seed(experiment.tenant, experiment.layer)), unit_id) < high:
            return Assignment(None, 0.0, propensities, experiment.allocation_version)
    seed = seed_of(experiment.tenant, experiment.name)
    if experiment.rerandomize_days is not None:
        seed = f"{seed}:{period_of(experiment, at)}"
    where = _bucket_after(_state(seed), unit_id)
    first = kept(unit_key(experiment, unit_id, at)) if kept is not None else None
    if first is not None:
        version, _, rest = first.partition(":")
        stays, _, was = rest.partition(":")
        line = next((each for each in experiment.history if str(each.version) == version), None)
        drawn = None if line is None else line.leaves.get(was, line.weights)
        if drawn is not None and stays in drawn:
            return Assignment(stays, where, drawn, int(version), was)
    variant = next((name for name, low, high in ranges if low <= where < high), None)
    return Assignment(variant, where, propensities, experiment.allocation_version, leaf)


def leaf_of(experiment: Experiment, known: Mapping[str, str]) -> str:
    """The leaf of a unit: the values of the experiment's `leaves`, in their order; empty where it has none.

    Args:
        experiment: Which.
        known: Segment → value; what is missing is `unknown`.
    """
    return ",".join([f"{name}={known.get(name, 'unknown')}" for name in experiment.leaves])


def leaves_in_force(experiment: Experiment) -> dict[str, dict[str, float]]:
    """Leaf → weights now, of the leaves that have weights of their own."""
    return experiment.history[-1].leaves if experiment.history else {}


def is_pooled(experiment: Experiment, unit_id: str) -> bool:
    """Whether models that learned from everybody serve this unit: `pooled_share` of them, whatever their variant."""
    if not experiment.pooled_share:
        return False
    return bucket(f"{seed_of(experiment.tenant, experiment.name)}:pooled", unit_id) < experiment.pooled_share


def period_of(experiment: Experiment, at: float) -> int:
    """In which period of `rerandomize_days` since the start a moment (unix seconds) lies; 0 where units keep theirs."""
    if experiment.rerandomize_days is None:
        return 0
    start = 0.0 if experiment.started_at is None else experiment.started_at.timestamp()
    return math.floor((at - start) / (experiment.rerandomize_days * _DAY_S))


def unit_key(experiment: Experiment, unit_id: str, at: float) -> str:
    """What stands for one draw of a unit: its id, with its period where units are drawn anew."""
    return unit_id if experiment.rerandomize_days is None else f"{unit_id}\x1f{period_of(experiment, at)}"


def layer_seed(tenant: str, layer: str) -> str:
    """The seed of a layer's hash; no experiment has one like it."""
    return f"{tenant}::{layer}"


def seed_of(tenant: str, experiment: str) -> str:
    """The seed of an experiment's hash; the tenant is in it, so that two shops never share their buckets."""
    return f"{tenant}:{experiment}"


def unit_id_of(
    experiment: Experiment,
    *,
    visitor_id: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    item_id: str | None = None,
    context: Mapping[str, Any] | None = None,
    at: float = 0.0,
    communities: Lookup | None = None,
) -> str | None:
    """The id that this experiment randomizes, or None when the request does not carry it.

    Args:
        experiment: Which.
        visitor_id: The anonymous browser.
        session_id: Its session.
        user_id: The known person.
        item_id: The item of the page, which names the cluster under `item-graph`.
        context: The request's context, whose key `cluster` names the cluster.
        at: Unix seconds, for blocks of time.
        communities: Item or user id → community; who is in none is a cluster alone.
    """
    unit = experiment.unit
    if unit == "visitor":
        return visitor_id
    if unit == "user":
        return user_id
    if unit == "session":
        return session_id
    if unit == "block":
        return str(block_of(experiment, at))
    if experiment.cluster in GRAPHS:
        member = item_id if experiment.cluster == "item-graph" else user_id
        return None if member is None else (communities and communities(member)) or member
    value = context.get(experiment.cluster) if context else None
    return str(value)[:256] if isinstance(value, str | int | float) and value != "" else None


def seed_state(seed: str) -> int:
    """The hash after a seed, to go on from with many values."""
    return _state(seed)


@lru_cache(maxsize=1024)
def _state(seed: str) -> int:
    return _fnv(FNV_OFFSET, seed)


@lru_cache(maxsize=1024)
def _ranges(
    names: tuple[str, ...], weights: tuple[float, ...], coverage: float
) -> tuple[list[tuple[str, float, float]], dict[str, float]]:
    ranges = []
    start = 0.0
    for name, weight in zip(names, weights, strict=True):
        ranges.append((name, start, start + coverage * weight))
        start += weight
    return ranges, dict(zip(names, weights, strict=True))


def _bucket_after(state: int, value: str) -> float:
    return _fnv(FNV_OFFSET, str(_fnv(state, value))) % GRAIN / GRAIN


def _fnv(state: int, text: str) -> int:
    for unit in _code_units(text):
        state = (state ^ unit) * FNV_PRIME & 0xFFFFFFFF
    return state


def _code_units(text: str) -> bytes | memoryview:
    if text.isascii():
        return text.encode("ascii")
    return memoryview(text.encode(f"utf-16-{sys.byteorder[0]}e", "surrogatepass")).cast("H")
