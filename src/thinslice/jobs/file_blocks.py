"""A file of a switchback: its blocks of time, each without its burn-in, side against side."""

from collections.abc import Mapping

import duckdb
import numpy as np

from thinslice.errors import BadInput, StatisticsError
from thinslice.experiments.block_effects import block_evidence
from thinslice.experiments.counting import with_caps
from thinslice.experiments.evidence import Evidence, raw_columns
from thinslice.jobs.file_question import Question
from thinslice.jobs.file_source import LINE
from thinslice.jobs.measure_blocks import read_blocks
from thinslice.metrics.statistics import rows_of
from thinslice.metrics.unit_table import identifier
from thinslice.records import Experiment
from thinslice.stats import switchback_blocks


def file_block_evidence(
    database: duckdb.DuckDBPyConnection, file: str, ask: Question, types: Mapping[str, str], experiment: Experiment
) -> Evidence:
    """The evidence of a switchback: what was randomized is the block, so blocks are what is counted and compared.

    A mean is over the units (distinct ids) of each time; a ratio is of sums. A cap is of what one unit does in one
    block, a quantile is over units in blocks, and a segment is what a unit's first row in the block says. A block that
    holds two variants is counted as a mixed assignment and left out.

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
    columns = raw_columns(experiment)
    sums = "".join(f", sum({name}) AS {name}" for name in columns)
    known = "".join(f", arg_min(s{at}, line) AS s{at}" for at in range(len(experiment.segments)))
    database.execute(
        f"CREATE TEMP TABLE moments AS SELECT {LINE} AS line, CAST({block} AS VARCHAR) AS block, {time} AS moment "
        "FROM source"
    )
    database.execute(
        "CREATE TEMP TABLE sides AS SELECT block, min(variant) AS variant, count(DISTINCT variant) > 1 AS mixed, "
        "min(moment) AS began FROM projected JOIN moments USING (line) GROUP BY block"
    )
    times = rows_of(
        database,
        "SELECT dense_rank() OVER (ORDER BY began, block) AS number, variant FROM "
        "(SELECT DISTINCT block, moment FROM moments) JOIN sides USING (block) WHERE NOT mixed ORDER BY moment, number",
    )
    try:
        if times:
            switchback_blocks(
                np.ones(len(times)), [row["number"] for row in times],
                [row["variant"] != experiment.control_name for row in times], burn_in=ask.burn_in,
            )  # fmt: skip
    except StatisticsError as error:
        raise BadInput(f"{file}: {str(error).removesuffix('.')}.") from None
    database.execute(
        "CREATE TEMP TABLE block_units AS SELECT number, any_value(variant) AS variant, any_value(mixed) AS mixed, "
        f"unit AS visitor, count(DISTINCT moment) AS units{known}{sums} FROM (SELECT p.* EXCLUDE (variant), moment, "
        "s.variant AS variant, mixed, dense_rank() OVER (ORDER BY began, block) AS number, "
        "dense_rank() OVER (PARTITION BY block ORDER BY moment) AS place "
        "FROM projected AS p JOIN moments USING (line) JOIN sides AS s USING (block)) "
        f"WHERE place > {ask.burn_in} GROUP BY number, unit"
    )
    experiment = with_caps(
        database, experiment, "(SELECT number || '~' || visitor AS unit_id, * FROM block_units WHERE NOT mixed)"
    )
    mixed = rows_of(database, "SELECT count(*) AS n FROM sides WHERE mixed")[0]["n"]
    return block_evidence(read_blocks(database, experiment), experiment, mixed=mixed)
