"""What is counted for a visitor, the metrics made of it, and the SQL that counts.

Request time imports this page for the names alone; `thinslice.metrics.statistics` is job time's.
"""

from thinslice.metrics.block_table import block_units_sql
from thinslice.metrics.built_in import DEFAULT_METRICS, METRICS, MONEY_COLUMN
from thinslice.metrics.columns import UNIT_COLUMNS
from thinslice.metrics.unit_table import acts_sql, past_sql, sightings_sql, unit_table_sql, units_sql

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "MONEY_COLUMN",
    "UNIT_COLUMNS",
    "acts_sql",
    "block_units_sql",
    "past_sql",
    "sightings_sql",
    "unit_table_sql",
    "units_sql",
]
