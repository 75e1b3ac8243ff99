"""The lake in SQL: a DuckDB connection over a table's files, and the views that are made of others."""

import re
from collections.abc import Sequence
from pathlib import Path

import duckdb

ROWS = "memory.main"
"""Where the lake's own views are found when temporary ones of the same names cover them."""

EXPOSURES_BY_EXPERIMENT = """
SELECT recommendation_id, tenant, occurred_at, visitor_id, session_id, user_id, placement, policy, model_version,
       e.experiment AS experiment, e.variant AS variant, e.unit AS unit, e.unit_id AS unit_id,
       e.allocation_version AS allocation_version, e.propensities AS propensities, e.context_leaf AS context_leaf,
       is_bot, shadow, consent, segments
FROM (SELECT *, unnest(experiments) AS e FROM {exposures})
"""
EXPOSURE_VARIANTS = f"CREATE VIEW exposure_variants AS {EXPOSURES_BY_EXPERIMENT.format(exposures='exposures')}"

ASSIGNMENTS = """
CREATE OR REPLACE VIEW assignments AS
SELECT tenant, experiment, unit, unit_id, arg_min(variant, occurred_at) AS variant, allocation_version,
       min(occurred_at) AS first_exposure_at
FROM exposure_variants WHERE unit_id IS NOT NULL
GROUP BY tenant, experiment, unit, unit_id, allocation_version
"""


def open_duckdb(root: Path, *, threads: int, memory_mb: int) -> duckdb.DuckDBPyConnection:
    """A connection in UTC whose scratch files lie beside the tables."""
    connection = duckdb.connect(config={"threads": threads, "memory_limit": f"{memory_mb}MiB"})
    scratch = str(root / ".scratch").replace("'", "''")
    connection.execute(f"SET TimeZone = 'UTC'; SET temp_directory = '{scratch}'; SET enable_progress_bar = false")
    return connection


def files_sql(files: Sequence[str]) -> str:
    """Some files of a table as DuckDB reads them, whatever signs their names hold."""
    plain = (re.sub(r"([*?\[])", r"[\1]", name).replace("'", "''") for name in files)
    names = ", ".join(f"'{name}'" for name in plain)
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"
