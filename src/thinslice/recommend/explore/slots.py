"""Exploring in the last places only: the rest of the slate stays as it is, and every probability is known exactly."""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator | int
"""Where chance comes from: a generator, or the seed of one slate."""


class Explored(NamedTuple):
    """A slate that was left to chance.

    Attributes:
        order: Shape (places,), int32: numbers of candidates, the first place first.
        propensities: Shape (places,), float64: the probability of each at its place, in (0, 1].
    """

    order: NDArray[np.int32]
    propensities: NDArray[np.float64]


def seed_of(recommendation_id: str) -> int:
    """The seed of a slate, so that it can be drawn again from the id in its exposure.

    >>> seed_of("r1") == seed_of("r1"), seed_of("r1") == seed_of("r2")
    (True, False)
    """
    return int.from_bytes(hashlib.blake2b(recommendation_id.encode(), digest_size=8).digest(), "little")


def seeded(rng: Rng) -> int:
    """A seed below 2 ** 64 from either kind of `Rng`."""
    return rng if isinstance(rng, int) else int(rng.integers(0, 2**64, dtype=np.uint64))


def epsilon_slots(candidates: int, k: int, *, slots: int = 1, epsilon: float = 1.0, rng: Rng) -> Explored:
    """The ranking as it is, but its last places are drawn uniformly from all candidates that do not stand above.

    One throw decides for the slate: with probability `epsilon` its last `slots` places are drawn without replacement
    from the E candidates below the others, else they stay. So a candidate that stays stands at its place with
    probability 1 - epsilon + epsilon / E, and any other of the E with epsilon / E.

    Args:
        candidates: How many there are, best first.
        k: Places.
        slots: How many of the last places explore; at most all.
        epsilon: 0..1.
        rng: A generator or a seed.

    >>> epsilon_slots(100, 3, slots=1, rng=7).propensities.round(4).tolist()
    [1.0, 1.0, 0.0102]
    """
    k = min(k, candidates)
    slots = min(slots, k)
    fixed = k - slots
    order = np.arange(k, dtype=np.int32)
    eligible = candidates - fixed
    chance = np.ones(k)
    if slots == 0 or epsilon <= 0:
        return Explored(order, chance)
    random = np.random.Generator(np.random.SFC64(rng)) if isinstance(rng, int) else rng
    if random.random() < epsilon:
        order[fixed:] = fixed + random.permutation(eligible)[:slots]
    stays = order[fixed:] == np.arange(fixed, k)
    chance[fixed:] = np.where(stays, 1.0 - epsilon, 0.0) + epsilon / eligible
    return Explored(order, chance)
