"""Counts the units that are in two experiments at once, for the check that neither disturbs the other."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from thinslice.experiments.evidence import column_of
from thinslice.experiments.interactions import goal_of, interaction_check
from thinslice.experiments.tallies import Tally, exact_counts, moments_of, quoted
from thinslice.metrics import units_sql
from thinslice.metrics.statistics import Database
from thinslice.metrics.unit_table import identifier
from thinslice.records import Check, Experiment
from thinslice.stats import Moments


def meeting(experiment: Experiment, others: Iterable[Experiment]) -> list[Experiment]:
    """The other experiments that ran at the same time on the same kind of unit."""
    return [other for other in others if other.name != experiment.name and _meet(experiment, other)]


def count_meeting(
    database: Database, tally: Tally, experiment: Experiment, other: Experiment, until: datetime, vector: str,
    cells: Mapping[int, tuple[str, tuple[float, ...]]],
) -> None:  # fmt: skip
    """Adds the units that are in both experiments to a tally, as `meets NAME`: by variant of this one and of the other.

    Args:
        database: With the table `unit_totals` and the view `exposure_variants`.
        tally: What is added to.
        experiment: Whose units were counted.
        other: The other experiment.
        until: Only what happened before.
        vector: The logged probabilities of an exposure as text, in SQL.
        cells: Cell of `unit_totals` → variant and probabilities.
    """
    columns = _goal_columns(experiment)
    units = units_sql(msgspec.structs.replace(other, segments=[]), until, vector)
    names = "".join(f", t.{identifier(of)} AS {identifier(name)}" for name, of in columns.items())
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE unit_meetings AS SELECT t.cell AS cell, o.variant AS other{names} "
        f"FROM unit_totals AS t JOIN ({units}) AS o ON t.unit_id = o.unit_id "
        "WHERE NOT o.mixed AND NOT o.is_bot"
    )
    rows = exact_counts(database, "unit_meetings", quoted(columns), ["cell", "other"])
    tally.add(f"meets {other.name}", [((cells[cell][0], other), counts) for (cell, other), counts in rows])


def interaction_checks(tally: Tally, experiment: Experiment, others: Iterable[Experiment]) -> list[Check]:
    """One check for each other experiment that shares enough units."""
    checks = []
    for other in others:
        cells: dict[str, dict[str, Moments]] = {}
        for (variant, of), counts in tally.of(f"meets {other.name}").items():
            cells.setdefault(str(of), {})[variant] = moments_of(list(_goal_columns(experiment)), counts)
        check = interaction_check(experiment, other, cells)
        if check is not None:
            checks.append(check)
    return checks


def _goal_columns(experiment: Experiment) -> dict[str, str]:
    """The goal's columns by what they are made of: a capped sum stands for its numerator."""
    goal = goal_of(experiment)
    if goal is None:
        return {}
    return {goal.numerator: column_of(goal)} | (
        {} if goal.denominator is None else {goal.denominator: goal.denominator}
    )


def _meet(one: Experiment, other: Experiment) -> bool:
    """Whether two experiments could have had a unit in both."""
    if one.unit != other.unit or one.unit in ("block", "cluster") or "test" not in (one.kind, other.kind):
        return False
    if one.started_at is None or other.started_at is None:
        return False
    if one.rerandomize_days is not None or other.rerandomize_days is not None:
        return False  # their units are periods of a unit, not the same ones
    over = [at for at in (one.stopped_at, other.stopped_at) if at is not None]
    return not over or max(one.started_at, other.started_at) < min(over)
