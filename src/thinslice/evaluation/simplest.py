"""Which model is enough: the simplest that is shown to be not worse than the best by more than a margin."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from thinslice.evaluation.figures import Estimate, clustered_mean, discounted_gains, hits, reciprocal_ranks
from thinslice.evaluation.replay import Replay

MARGIN = 0.02
"""Relative loss of hit rate or reciprocal rank that is still accepted for the sake of a simpler model."""

METRICS = {"hr": hits, "mrr": reciprocal_ranks, "ndcg": discounted_gains}
"""Name → what a rank is worth."""

DECIDING = ("hr", "mrr")
"""The metrics in which a model must not be worse."""


class Simplest(NamedTuple):
    """The answer and the reason.

    Attributes:
        name: The model.
        best: The model with the highest reciprocal rank.
        sentence: Why, for people.
    """

    name: str
    best: str
    sentence: str


def difference(one: Replay, other: Replay, metric: str) -> Estimate:
    """One model's metric minus another's, paired by query and clustered by session."""
    worth = METRICS[metric]
    return Estimate(*clustered_mean(worth(one.rank) - worth(other.rank), one.session))


def simplest(replays: Mapping[str, Replay], *, margin: float = MARGIN, k: int | None = None) -> Simplest:
    """The first model that is not worse than the best by more than the margin, in hit rate and in reciprocal rank.

    Not worse means shown: the whole 95 % interval of the paired difference from the best model of each metric lies
    above -margin times that best figure. Where that is shown of none, as in a small log, or where one model finds more
    and another ranks what it finds higher, the one stays that loses least in the metric in which it loses most.

    Args:
        replays: From the simplest model to the most elaborate, all of the same queries.
        margin: Relative and positive.
        k: The length of the lists, for the sentence.
    """
    best = {metric: best_of(replays, metric) for metric in METRICS}
    enough = (
        name
        for name, answers in replays.items()
        if all(_not_worse(answers, replays[best[metric]], metric, margin) for metric in DECIDING)
    )
    chosen = next(enough, None) or max(replays, key=lambda name: _least_share(replays, name, best))
    return Simplest(chosen, best["mrr"], _sentence(replays, chosen, best, margin, k))


def best_of(replays: Mapping[str, Replay], metric: str) -> str:
    """The model with the highest figure; of equal ones the simplest."""
    return max(replays, key=lambda name: float(METRICS[metric](replays[name].rank).mean()))


def differences(replays: Mapping[str, Replay], margin: float = MARGIN) -> list[dict[str, Any]]:
    """Each model against the last one, and the last one against the best of the others; paired, per metric.

    Returns:
        model, against, metric, difference, ci ([low, high], 95 %), and a reading: better, not_worse, worse, cannot_say.
    """
    names = list(replays)
    rows: list[dict[str, Any]] = []
    for name in names if len(names) > 1 else []:
        for metric in METRICS:
            others = {other: replays[other] for other in names if other != name}
            against = names[-1] if name != names[-1] else best_of(others, metric)
            found = difference(replays[name], replays[against], metric)
            low, high = found.interval()
            limit = -margin * float(METRICS[metric](replays[against].rank).mean())
            rows.append(
                {"model": name, "against": against, "metric": metric, "difference": found.value, "ci": [low, high],
                 "reading": _reading(low, high, limit)}
            )  # fmt: skip
    return rows


def _reading(low: float | None, high: float | None, limit: float) -> str:
    if low is None or high is None:
        return "cannot_say"
    if low > 0:
        return "better"
    if low > limit:
        return "not_worse"
    return "worse" if high < 0 else "cannot_say"


def _not_worse(answers: Replay, best: Replay, metric: str, margin: float) -> bool:
    found = difference(answers, best, metric)
    low, _ = found.interval()
    top = float(METRICS[metric](best.rank).mean())
    same = bool(np.array_equal(answers.rank, best.rank))
    return same or (low is not None and low > -margin * top)


def _least_share(replays: Mapping[str, Replay], name: str, best: Mapping[str, str]) -> float:
    """A model's figure as a share of the best one's, in the metric in which that is least."""
    means = {
        metric: [float(METRICS[metric](replays[each].rank).mean()) for each in (name, best[metric])]
        for metric in DECIDING
    }
    return min((own / top if top > 0 else 1.0) for own, top in means.values())


def _sentence(replays: Mapping[str, Replay], chosen: str, best: Mapping[str, str], margin: float, k: int | None) -> str:
    at = "" if k is None else f"@{k}"
    if len(replays) == 1:
        return f"{chosen} was not compared with anything."
    loss = ", ".join(
        f"{_loss(replays[chosen], replays[best[metric]], metric)} of {metric.upper()}{at}" for metric in DECIDING
    )
    if not all(_not_worse(replays[chosen], replays[best[metric]], metric, margin) for metric in DECIDING):
        both = " and ".join(f"{metric.upper()}{at}" for metric in DECIDING)
        return (
            f"{chosen} loses least: none is shown to be within {margin:.0%} of the best in both {both} ({loss}, 95 %)."
        )
    if chosen != best["mrr"]:
        enough = f"{chosen.capitalize()} is enough" if chosen in ("popular", "newest") else f"{chosen} is enough"
        return f"{enough}: it is not worse than {best['mrr']} by more than {margin:.0%} ({loss}, 95 %)."
    simpler = next(iter(replays))
    if simpler == chosen:
        return f"{chosen} is enough: it is the simplest, and nothing is better."
    shown = all(
        (high := difference(replays[name], replays[chosen], "mrr").interval()[1]) is not None and high < 0
        for name in list(replays)[: list(replays).index(chosen)]
    )
    if shown:
        return f"{chosen} is the simplest that will do: every simpler model is shown to be worse."
    return (
        f"{chosen} is the best of what was measured, but this log is too small to show that a simpler model is worse "
        f"than it, or that one is not worse by more than {margin:.0%}."
    )


def _loss(one: Replay, best: Replay, metric: str) -> str:
    low, high = difference(one, best, metric).interval()
    top = float(METRICS[metric](best.rank).mean())
    if low is None or high is None or top <= 0:
        return "unknown"
    return f"{low / top:+.1%} to {high / top:+.1%}"
