"""A running switchback from the lake: blocks of time that are over, side against side."""

from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.experiments.assign import bucket
from thinslice.experiments.block_effects import BlockSums, Sums, block_evidence
from thinslice.experiments.counting import with_caps
from thinslice.experiments.evidence import Evidence, capped_columns, raw_columns, treatments
from thinslice.experiments.switchback import schedule
from thinslice.metrics import block_units_sql
from thinslice.metrics.statistics import Database, rows_of
from thinslice.metrics.unit_table import identifier, text
from thinslice.records import Experiment

DRAWS = 1_000
"""So often the assignment of the blocks is drawn again, by the design's own rule."""


def block_evidence_of(database: Database, experiment: Experiment, until: datetime) -> Evidence:
    """The evidence of a switchback; what was randomized is the block, so blocks are what is counted.

    A cap is of what one visitor does in one block, a quantile is over visitors in blocks, and a segment is what was
    known of a visitor at the first slate in the block.

    Args:
        database: With the views `exposure_variants`, `events` and `orders`.
        experiment: Whose `unit` is `block`.
        until: Only blocks that were over.

    Raises:
        BadInput: Exposures name a variant that the file does not.
    """
    database.execute(f"CREATE OR REPLACE TEMP TABLE block_units AS {block_units_sql(experiment, until)}")
    names = [variant.name for variant in experiment.variants]
    found = rows_of(
        database,
        "SELECT number, any_value(variant) AS variant, any_value(mixed) AS mixed FROM block_units GROUP BY number "
        "ORDER BY number",
    )
    strange = sorted({row["variant"] for row in found} - set(names))
    if strange:
        raise BadInput(
            f"exposures of {experiment.name!r} name a variant {strange[0]!r} (there is: {', '.join(names)})."
        )
    experiment = with_caps(
        database, experiment, "(SELECT number || '~' || visitor AS unit_id, * FROM block_units WHERE NOT mixed)"
    )
    of = read_blocks(database, experiment)
    drawn = redrawn(experiment, of.number.tolist()) if of.number.size else None
    return block_evidence(of, experiment, mixed=sum(row["mixed"] for row in found), redrawn=drawn)


def read_blocks(database: Database, experiment: Experiment) -> BlockSums:
    """What the table `block_units` holds of blocks that are in one variant.

    Args:
        database: With that table: number, variant, mixed, units, s0… (segments) and the columns of metrics.
        experiment: Whose caps are numbers.
    """
    kept = rows_of(
        database,
        "SELECT number, any_value(variant) AS variant FROM block_units WHERE NOT mixed GROUP BY number ORDER BY number",
    )
    number = np.array([row["number"] for row in kept], dtype=np.int64)
    segments = {}
    for at, name in enumerate(experiment.segments):
        values = rows_of(database, f"SELECT DISTINCT s{at} AS value FROM block_units WHERE NOT mixed ORDER BY value")
        segments[name] = {
            str(row["value"]): _sums(
                database, experiment, number, f"s{at} IS NOT DISTINCT FROM {_literal(row['value'])}"
            )
            for row in values
        }
    return BlockSums(
        number,
        np.array([row["variant"] for row in kept], dtype=str),
        _sums(database, experiment, number, "true"),
        segments=segments,
        values={
            metric.name: _values(database, metric.numerator, number)
            for metric in experiment.metrics
            if metric.quantile is not None
        },
    )


def _literal(value: object) -> str:
    return "NULL" if value is None else text(str(value))


def redrawn(experiment: Experiment, numbers: list[int]) -> NDArray[np.bool_] | None:
    """Other assignments that the design could have drawn, shape (draws, blocks); None with several treatments."""
    if len(treatments(experiment)) != 1:
        return None
    treated = treatments(experiment)[0].name
    seeds = [f"{experiment.tenant}:{experiment.name}:draw {draw}" for draw in range(DRAWS)]
    return np.array([[of == treated for of in schedule(experiment, numbers, bucket, seed)] for seed in seeds])


def _sums(database: Database, experiment: Experiment, number: NDArray[np.int64], where: str) -> Sums:
    """Sums of each block in the order of `number`; zero where nobody fits."""
    asked = {name: identifier(name) for name in dict.fromkeys(["units", *raw_columns(experiment)])}
    asked |= {name: f"least({identifier(raw)}, {cap!r})" for name, (raw, cap) in capped_columns(experiment).items()}
    totals = ", ".join(f"CAST(sum({sql}) AS DOUBLE) AS {identifier(name)}" for name, sql in asked.items())
    rows = database.execute(
        f"SELECT number, {totals} FROM block_units WHERE NOT mixed AND {where} GROUP BY number ORDER BY number"
    ).fetchnumpy()
    place = np.searchsorted(number, rows["number"])
    found = {}
    for name in asked:
        found[name] = np.zeros(number.size)
        found[name][place] = rows[name]
    return found


def _values(
    database: Database, column: str, number: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows = database.execute(
        f"SELECT number, CAST({identifier(column)} AS DOUBLE) AS value FROM block_units WHERE NOT mixed AND units > 0 "
        "ORDER BY number, value"
    ).fetchnumpy()
    return np.asarray(rows["value"], dtype=np.float64), np.searchsorted(number, rows["number"])
