"""Which variant a visitor sees: the same answer for the same visitor, on every machine, without a database."""

import sys
from functools import lru_cache
from typing import NamedTuple

from thinslice.records import Experiment

_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193
_GRAIN = 10_000


class Assignment(NamedTuple):
    """What one unit gets.

    Attributes:
        variant: The variant's name, or None when the unit is outside the experiment's coverage.
        bucket: Where the unit fell, 0..1 in steps of 0.0001.
        propensities: Variant name → probability of that variant for a unit inside the experiment; sums to one.
            Shared between calls, so do not change it.
        allocation_version: Which probabilities these are.
    """

    variant: str | None
    bucket: float
    propensities: dict[str, float]
    allocation_version: int


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


def assign(experiment: Experiment, unit_id: str) -> Assignment:
    """The variant of one unit; deterministic, a few microseconds, no state.

    Variant i owns [start_i, start_i + coverage * weight_i), where start_i is the sum of the weights before it. So a
    ramp (a larger coverage) only adds units: nobody changes sides. A change of weights moves units and therefore asks
    for a new `allocation_version`.
    """
    names = tuple([variant.name for variant in experiment.variants])
    weights = tuple([variant.weight for variant in experiment.variants])
    ranges, propensities = _ranges(names, weights, experiment.coverage)
    where = _bucket_after(_state(seed_of(experiment.tenant, experiment.name)), unit_id)
    variant = next((name for name, low, high in ranges if low <= where < high), None)
    return Assignment(variant, where, propensities, experiment.allocation_version)


def seed_of(tenant: str, experiment: str) -> str:
    """The seed of an experiment's hash; the tenant is in it, so that two shops never share their buckets."""
    return f"{tenant}:{experiment}"


def unit_id_of(
    experiment: Experiment, *, visitor_id: str | None = None, session_id: str | None = None, user_id: str | None = None
) -> str | None:
    """The id that this experiment randomizes, or None when the request does not carry it."""
    return {"visitor": visitor_id, "session": session_id, "user": user_id}.get(experiment.unit)


@lru_cache(maxsize=1024)
def _state(seed: str) -> int:
    return _fnv(_FNV_OFFSET, seed)


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
    return _fnv(_FNV_OFFSET, str(_fnv(state, value))) % _GRAIN / _GRAIN


def _fnv(state: int, text: str) -> int:
    for unit in _code_units(text):
        state = (state ^ unit) * _FNV_PRIME & 0xFFFFFFFF
    return state


def _code_units(text: str) -> bytes | memoryview:
    if text.isascii():
        return text.encode("ascii")
    return memoryview(text.encode(f"utf-16-{sys.byteorder[0]}e", "surrogatepass")).cast("H")
