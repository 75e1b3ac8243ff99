"""The visitors of rehearsals, as production assigns them, and the experiments that they are in."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.experiments import assign
from thinslice.metrics import METRICS
from thinslice.records import Experiment, Variant
from thinslice.simulate.worlds import Shoppers

STARTED_AT = datetime(2026, 1, 5, tzinfo=UTC)
"""When every rehearsed experiment starts: a Monday."""

REVENUE = msgspec.structs.replace(METRICS["revenue_per_visitor"], role="goal")
CLICK_THROUGH = msgspec.structs.replace(METRICS["click_through_rate"], role="goal")
CONVERSION = msgspec.structs.replace(METRICS["conversion_rate"], role="goal")

SIDES = ("control", "treatment")
"""The variants of a rehearsed experiment, by code."""

NAMES = np.array(SIDES)


def two_variants(name: str, days: int, **fields: Any) -> Experiment:
    """An experiment with two equal variants."""
    variants = [Variant(name=each, policy=each, weight=0.5) for each in SIDES]
    plan = {"metrics": [REVENUE], "started_at": STARTED_AT, "ends_at": end_of(days), **fields}
    return Experiment(name=name, tenant="rehearsal", variants=variants, days=days, **plan)


def end_of(days: float) -> datetime:
    """When an experiment ends that runs so long."""
    return STARTED_AT + timedelta(days=days)


def buckets(experiment: Experiment, size: int) -> NDArray[np.float64]:
    """Where production's hash puts many visitors, shape (size,), 0..1."""
    return np.fromiter((assign(experiment, f"visitor-{number}").bucket for number in range(size)), np.float64, size)


def assigned_pool(experiment: Experiment, size: int) -> NDArray[np.int64]:
    """The variant of many visitors by number, as production assigns them, shape (size,); -1 outside."""
    place = {variant.name: at for at, variant in enumerate(experiment.variants)}
    names = (assign(experiment, f"visitor-{number}").variant for number in range(size))
    return np.fromiter((-1 if name is None else place[name] for name in names), np.int64, size)


def some_of(pool: NDArray[Any], size: int, draw: np.random.Generator) -> NDArray[Any]:
    """So many visitors of the pool, each at most once: the pool is hashed once, and each run draws others from it."""
    return np.asarray(pool[draw.choice(len(pool), size=size, replace=False)])


def columns_of(shoppers: Shoppers) -> dict[str, NDArray[np.float64]]:
    """The columns of the unit table that these shoppers fill."""
    return {name: getattr(shoppers, name) for name in ("exposures", "clicks", "converted", "revenue_minor")}
