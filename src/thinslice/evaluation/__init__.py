"""Before release: what a model would have foreseen in a log that is already there, and at what price."""

from thinslice.evaluation.compare import evaluate, simplest
from thinslice.evaluation.figures import clustered_mean, hits, quantiles, reciprocal_ranks
from thinslice.evaluation.replay import Replay, rank_against_ties, replay
from thinslice.evaluation.splits import Split, split_log

__all__ = [
    "Replay", "Split", "clustered_mean", "evaluate", "hits", "quantiles", "rank_against_ties", "reciprocal_ranks",
    "replay", "simplest", "split_log",
]  # fmt: skip
