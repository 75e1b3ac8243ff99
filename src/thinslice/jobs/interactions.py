"""Counts the units that are in two experiments at once, for the check that neither disturbs the other."""

from collections.abc import Iterable
from datetime import datetime

from thinslice.experiments.counting import UNITS
from thinslice.experiments.evidence import raw_columns
from thinslice.experiments.interactions import interaction_check
from thinslice.metrics import units_sql
from thinslice.metrics.statistics import Database, moments_by
from thinslice.metrics.unit_table import identifier
from thinslice.records import Check, Experiment


def interactions(
    database: Database, experiment: Experiment, others: Iterable[Experiment], until: datetime
) -> list[Check]:
    """One check for each other experiment that ran at the same time on the same kind of unit and shares enough of them.

    Args:
        database: With the tables `unit_totals` and `experiment_units`, and the view `exposure_variants`.
        experiment: Whose units were counted.
        others: The other experiments of the tenant.
        until: Only what happened before.
    """
    columns = raw_columns(experiment)
    names = ", ".join(f"t.{identifier(name)} AS {identifier(name)}" for name in columns)
    checks = []
    for other in others:
        if other.name == experiment.name or not _meet(experiment, other):
            continue
        rows = (
            f"(SELECT t.variant AS variant, o.variant AS other, {names} FROM unit_totals AS t "
            f"JOIN (SELECT unit_id, name FROM {UNITS}) AS n ON n.unit_id = t.unit_id "
            f"JOIN ({units_sql(other, until)}) AS o ON n.name = o.unit_id WHERE NOT o.mixed AND NOT o.is_bot)"
        )
        cells = {str(key[0]): of for key, of in moments_by(database, rows, columns, ("other",)).items()}
        check = interaction_check(experiment, other, cells)
        if check is not None:
            checks.append(check)
    return checks


def _meet(one: Experiment, other: Experiment) -> bool:
    """Whether two experiments could have had a unit in both."""
    if one.unit != other.unit or one.unit in ("block", "cluster") or "test" not in (one.kind, other.kind):
        return False
    if one.started_at is None or other.started_at is None:
        return False
    over = [at for at in (one.stopped_at, other.stopped_at) if at is not None]
    return not over or max(one.started_at, other.started_at) < min(over)
