"""What is counted for a visitor, and the metrics made of it."""

from thinslice.metrics.built_in import DEFAULT_METRICS, METRICS, MONEY_COLUMN
from thinslice.metrics.columns import UNIT_COLUMNS

__all__ = ["DEFAULT_METRICS", "METRICS", "MONEY_COLUMN", "UNIT_COLUMNS"]
