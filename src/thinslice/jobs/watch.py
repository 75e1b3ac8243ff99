"""Watches for what variants share, on the lake: the goal day by day, and what neighbors do to control."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from thinslice.experiments.evidence import Daily, Spillover
from thinslice.jobs.daily import count_days
from thinslice.jobs.neighbors import spillovers
from thinslice.metrics.statistics import rows_of
from thinslice.records import Experiment
from thinslice.store.lake import Lake

MOST_ROWS = 10_000_000
"""A lake with more slates is not read a second time for this: these checks are then absent from its reports."""

MEMORY_MB = 2_048


class Watched(NamedTuple):
    """What was seen; empty where there is nothing to compare.

    Attributes:
        daily: The goal day by day.
        spillovers: What neighbors do to control.
    """

    daily: Sequence[Daily] = ()
    spillovers: Sequence[Spillover] = ()


NOTHING = Watched()
"""Nobody looked."""


def watch(lake: Lake, experiment: Experiment, until: datetime) -> Watched:
    """What a report's checks of shared training, ramps, cold starts and neighbors need.

    Args:
        lake: The tenant's.
        experiment: With the metrics that it is judged by.
        until: Only what happened before.
    """
    if experiment.started_at is None or experiment.unit == "block":
        return NOTHING
    database = lake.connect(tenant=experiment.tenant, memory_mb=MEMORY_MB)
    try:
        if rows_of(database, "SELECT count(*) AS n FROM exposures")[0]["n"] > MOST_ROWS:
            return NOTHING
        counted = count_days(database, experiment, until)
        steady = len({each.weights.get(experiment.control_name) for each in experiment.history}) <= 1
        found = spillovers(database, experiment) if counted.days and steady and not counted.sampled else []
        return Watched(counted.days, found)
    finally:
        database.close()
