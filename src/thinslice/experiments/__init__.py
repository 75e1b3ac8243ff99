"""Experiments: who gets which variant, is the test healthy, did it help, what to do.

Request time imports this page, so it stays light; `thinslice.experiments.analyze` is job time's.
"""

from thinslice.experiments.assign import Assignment, assign, bucket, seed_of, unit_id_of
from thinslice.experiments.definition import (
    check_experiment,
    dump_experiment,
    is_running,
    is_shadowed,
    look_times,
    parse_experiment,
    with_allocation,
    with_shadow,
    with_start,
)

__all__ = [
    "Assignment", "assign", "bucket", "check_experiment", "dump_experiment", "is_running", "is_shadowed",
    "look_times", "parse_experiment", "seed_of", "unit_id_of", "with_allocation", "with_shadow", "with_start",
]  # fmt: skip
