"""Switchbacks: one variant is on for everybody for a while, then another; hours and weekdays are dealt out fairly.

For goods that run out, and wherever one visitor's slate changes what the next one can have, visitors cannot be compared
with each other; blocks of time can.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from thinslice.errors import BadInput
from thinslice.records import Experiment

Bucket = Callable[[str, str], float]
"""A hash of (seed, value) to 0..1."""

_DAY_MINUTES = 1_440
_WEEK_DAYS = 7
_FORTNIGHT_DAYS = 14.0


def block_of(experiment: Experiment, at: float) -> int:
    """The number of the block that a moment (unix seconds) lies in; blocks begin at midnight UTC, 1970-01-01.

    Raises:
        BadInput: The experiment's unit is no block.
    """
    return int(at // _width(experiment))


def block_start(experiment: Experiment, block: int) -> datetime:
    """When a block begins, UTC."""
    return datetime.fromtimestamp(block * _width(experiment), UTC)


def block_variant(experiment: Experiment, block: int, bucket: Bucket, seed: str | None = None) -> str:
    """The variant that is on in one block.

    Equal shares are dealt out in turns: the same hour of successive days (of the same weekday in successive weeks when
    at least a fortnight is planned) gets each of the K variants once in K turns, in a random order. So no variant has
    more of the evenings. Unequal shares, or blocks that do not fill a day, are drawn block by block.

    Args:
        experiment: A switchback.
        block: As `block_of` numbers it.
        bucket: The hash.
        seed: Another draw of the same design, for inference by re-randomization; None is the draw that is served.

    Source: Bojinov, Simchi-Levi and Zhao, Design and analysis of switchback experiments (arXiv 2009.00148).
    """
    seed = f"{experiment.tenant}:{experiment.name}" if seed is None else seed
    shares = [(variant.name, variant.weight) for variant in experiment.variants if variant.weight > 0]
    minutes = experiment.block_minutes or 0.0
    equal = max(share for _, share in shares) - min(share for _, share in shares) < 1e-9
    if not equal or _DAY_MINUTES % minutes:
        where, start = bucket(seed, str(block)), 0.0
        for name, share in shares:
            start += share
            if where < start:
                return name
        return shares[-1][0]
    a_day = int(_DAY_MINUTES / minutes)
    first = 0 if experiment.started_at is None else block_of(experiment, experiment.started_at.timestamp())
    day, slot = divmod(block - first, a_day)
    cycle, stratum = day, str(slot)
    if _planned_days(experiment) >= _FORTNIGHT_DAYS:
        cycle, weekday = divmod(day, _WEEK_DAYS)
        stratum = f"{weekday}.{slot}"
    turn, place = divmod(cycle, len(shares))
    order = sorted(shares, key=lambda each: bucket(seed, f"{stratum}.{turn}.{each[0]}"))
    return order[place][0]


def schedule(experiment: Experiment, blocks: Sequence[int], bucket: Bucket, seed: str | None = None) -> list[str]:
    """The variant of each block; with another `seed` another draw of the same design."""
    return [block_variant(experiment, block, bucket, seed) for block in blocks]


def _width(experiment: Experiment) -> float:
    if experiment.block_minutes is None:
        raise BadInput(f"experiment {experiment.name!r} randomizes {experiment.unit}s, not blocks of time.")
    return experiment.block_minutes * 60


def _planned_days(experiment: Experiment) -> float:
    if experiment.started_at is not None and experiment.ends_at is not None:
        return (experiment.ends_at - experiment.started_at).total_seconds() / 86_400
    return experiment.days or 0.0
