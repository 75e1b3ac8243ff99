"""A file of a switchback: its blocks of time, each without its burn-in, side against side."""

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np

from thinslice.errors import BadInput, StatisticsError
from thinslice.experiments.evidence import Evidence, planned_shares, treatments
from thinslice.jobs.file_question import Question
from thinslice.jobs.file_source import LINE
from thinslice.metrics.statistics import rows_of
from thinslice.metrics.unit_table import identifier
from thinslice.records import Experiment
from thinslice.stats import Blocks, switchback_blocks


def block_evidence(
    database: duckdb.DuckDBPyConnection, file: str, ask: Question, types: Mapping[str, str], experiment: Experiment
) -> Evidence:
    """The evidence of a switchback: what was randomized is the block, so blocks are what is counted and compared.

    A mean is over the units (distinct ids) of each time; a ratio is of sums. A block that holds two variants is counted
    as a mixed assignment and left out.

    Args:
        database: With the tables `source` and `projected`.
        file: The file's name, for messages.
        ask: With `block`, `day` and `burn_in`.
        types: Column → type.
        experiment: Made of the question.

    Raises:
        BadInput: Blocks that overlap in time, a time column that is text, or a burn-in that leaves nothing.
    """
    time, block = identifier(str(ask.day)), identifier(str(ask.block))
    if types[str(ask.day)] == "VARCHAR":
        raise BadInput(
            f"column {ask.day!r} of {file} is text; --block needs dates, times or numbers to order blocks by."
        )
    columns = [name for metric in experiment.metrics for name in (metric.numerator, metric.denominator) if name]
    sums = "".join(f", sum({name}) AS {name}" for name in dict.fromkeys(columns))
    database.execute(
        "CREATE TEMP TABLE times AS SELECT block, moment, min(variant) AS variant, "
        f"count(DISTINCT unit) AS units{sums} "
        f"FROM projected JOIN (SELECT {LINE} AS line, CAST({block} AS VARCHAR) AS block, {time} AS moment FROM source) "
        "USING (line) GROUP BY block, moment"
    )
    torn = (
        f"SELECT CAST({block} AS VARCHAR) AS block FROM source GROUP BY ALL "
        f"HAVING count(DISTINCT {identifier(ask.variant)}) > 1"
    )
    mixed = rows_of(database, f"SELECT count(*) AS n FROM ({torn})")[0]["n"]
    rows = rows_of(
        database,
        "SELECT dense_rank() OVER (ORDER BY began, block) AS number, t.* EXCLUDE (moment) FROM times AS t JOIN "
        f"(SELECT block, min(moment) AS began FROM times WHERE block NOT IN ({torn}) GROUP BY block) USING (block) "
        "ORDER BY moment, number",
    )
    names = [variant.name for variant in experiment.variants]
    sides = {row["number"]: row["variant"] for row in rows}
    seen = np.array([[float(sum(side == name for side in sides.values())) for name in names]])
    try:
        blocks = {
            metric.name: {
                variant.name: _blocks(rows, metric.numerator, metric.denominator, experiment, variant.name, ask.burn_in)
                for variant in treatments(experiment)
            }
            for metric in experiment.metrics
        }
    except StatisticsError as error:
        raise BadInput(f"{file}: {str(error).removesuffix('.')}.") from None
    return Evidence(
        {}, seen, planned_shares(experiment), dict(zip(names, seen[0].astype(int).tolist(), strict=True)), mixed,
        blocks=blocks,
    )  # fmt: skip


def _blocks(
    rows: Sequence[dict[str, Any]], numerator: str, denominator: str | None, experiment: Experiment, variant: str,
    burn_in: int,
) -> Blocks:  # fmt: skip
    both = [row for row in rows if row["variant"] in (experiment.control_name, variant)]
    return switchback_blocks(
        [row[numerator] for row in both],
        [row["number"] for row in both],
        [row["variant"] == variant for row in both],
        denominator=[row["units" if denominator is None else denominator] for row in both],
        burn_in=burn_in,
    )
