"""Before release: what a model would have foreseen in a log that is already there, and at what price."""

from thinslice.evaluation.compare import evaluate, named_models
from thinslice.evaluation.figures import (
    Estimate,
    clustered_mean,
    clustered_ratio,
    discounted_gains,
    hits,
    list_means,
    quantiles,
    reciprocal_ranks,
    surprise_bits,
)
from thinslice.evaluation.measure import Measured, fitted, measure
from thinslice.evaluation.replay import Replay, rank_against_ties, replay
from thinslice.evaluation.segments import segments
from thinslice.evaluation.simplest import MARGIN, METRICS, Simplest, difference, differences, simplest
from thinslice.evaluation.splits import Split, split_log, stages

__all__ = [
    "MARGIN", "METRICS", "Estimate", "Measured", "Replay", "Simplest", "Split", "clustered_mean", "clustered_ratio",
    "difference", "differences", "discounted_gains", "evaluate", "fitted", "hits", "list_means", "measure",
    "named_models", "quantiles", "rank_against_ties", "reciprocal_ranks", "replay", "segments", "simplest", "split_log",
    "stages", "surprise_bits",
]  # fmt: skip
