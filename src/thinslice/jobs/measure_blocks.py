"""A running switchback from the lake: blocks of time that are over, side against side."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from thinslice.errors import BadInput
from thinslice.experiments.assign import bucket
from thinslice.experiments.evidence import Evidence, planned_shares, treatments
from thinslice.experiments.switchback import schedule
from thinslice.metrics import blocks_sql
from thinslice.metrics.statistics import Database, rows_of
from thinslice.records import Experiment, Metric
from thinslice.stats import Blocks

DRAWS = 1_000
"""So often the assignment of the blocks is drawn again, by the design's own rule."""


def block_evidence_of(database: Database, experiment: Experiment, until: datetime) -> Evidence:
    """The evidence of a switchback; what was randomized is the block, so blocks are what is counted.

    Args:
        database: With the views `exposure_variants`, `events` and `orders`.
        experiment: Whose `unit` is `block`.
        until: Only blocks that were over.

    Raises:
        BadInput: Exposures name a variant that the file does not.
    """
    names = [variant.name for variant in experiment.variants]
    rows = rows_of(database, blocks_sql(experiment, until))
    strange = sorted({row["variant"] for row in rows} - set(names))
    if strange:
        raise BadInput(
            f"exposures of {experiment.name!r} name a variant {strange[0]!r} (there is: {', '.join(names)})."
        )
    kept = [row for row in rows if not row["mixed"]]
    seen = np.array([[float(sum(row["variant"] == name for row in kept)) for name in names]])
    units = dict(zip(names, seen[0].astype(int).tolist(), strict=True))
    if not kept:
        return Evidence({}, seen, planned_shares(experiment), units, len(rows))
    blocks = {
        metric.name: {
            variant.name: _blocks(kept, metric, experiment, variant.name) for variant in treatments(experiment)
        }
        for metric in experiment.metrics
        if metric.kind != "quantile" and metric.cap is None and metric.cap_quantile is None
    }
    redrawn = None
    if len(treatments(experiment)) == 1:
        numbers, treated = [row["number"] for row in kept], treatments(experiment)[0].name
        seeds = [f"{experiment.tenant}:{experiment.name}:draw {draw}" for draw in range(DRAWS)]
        redrawn = np.array([[of == treated for of in schedule(experiment, numbers, bucket, seed)] for seed in seeds])
    return Evidence(
        {}, seen, planned_shares(experiment), units, len(rows) - len(kept), blocks=blocks, redrawn=redrawn
    )  # fmt: skip


def _blocks(rows: Sequence[dict[str, Any]], metric: Metric, experiment: Experiment, variant: str) -> Blocks:
    """A mean is over the visitors of a block; a ratio is of sums."""
    both = [row for row in rows if row["variant"] in (experiment.control_name, variant)]
    return Blocks(
        np.array([row["number"] for row in both], dtype=np.int64),
        np.array([row["variant"] == variant for row in both]),
        np.array([row[metric.numerator] for row in both], dtype=np.float64),
        np.array([row[metric.denominator or "units"] for row in both], dtype=np.float64),
    )
