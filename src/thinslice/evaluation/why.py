"""Why a model is as good as it is: less data, fewer features, a smaller model, over several seeds, with intervals."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from thinslice.errors import BadInput
from thinslice.evaluation.figures import Z, clustered_mean
from thinslice.evaluation.measure import catalog_at, fitted
from thinslice.evaluation.replay import replay
from thinslice.evaluation.simplest import METRICS
from thinslice.evaluation.splits import Split
from thinslice.models import ranking_features
from thinslice.records import Interactions, Item

SHARES = (0.125, 0.25, 0.5)
"""Shares of the sessions that a model learns from beside all of them; each half as many as the next."""

GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "popular": {"the age of clicks": {"half_life_days": 1e6, "half_life_share": 1e6}},
    "trending": {"the own past of each item": {"shrinkage": 1e6}},
    "content": {"attributes": {"attributes": 0.0}, "text": {"text": 0.0}, "vectors": {"vectors": 0.0}},
    "ease": {"repeats": {"repeats": 0.0}},
    "session-knn": {
        "the age of neighbors": {"age": 0.0},
        "the rarity of items": {"rare": 0.0},
        "the order of the session": {"decay": 1e6},
        "the distance to the match": {"before": 1e6, "after": 1e6},
        "all clicks but the last": {"look": 1},
    },
    "session-ranker": {
        "what is learned from the log (tuning and trees)": {"least_questions": 2**31 - 1},
        **{f"the features of {group}": {"without": group} for group in ranking_features.GROUPS},
    },
}
"""Model → a group of features → the settings without it; a class may bring its own as the attribute `groups`."""

SMALLER: dict[str, dict[str, Any]] = {
    "markov": {"top": 20},
    "implicit-cosine": {"neighbors": 20},
    "implicit-tfidf": {"neighbors": 20},
    "ease": {"top": 30},
    "implicit-als": {"embedding_size": 32},
    "implicit-bpr": {"embedding_size": 32},
    "session-transformer": {"embedding_size": 32},
    "session-knn": {"sample": 500, "neighbors": 100},
    "session-ranker": {"trees": 20, "leaves": 8, "candidates": 40},
}
"""Model → the settings of a much smaller one; a class may bring its own as the attribute `smaller`."""

FULL, DATA, FEATURES, SIZE = "full", "data", "features", "size"
"""What was changed in a trial."""


class Trial(NamedTuple):
    """One fit and its figures.

    Attributes:
        change: `full`, `data`, `features` or `size`.
        what: Which share, group or size.
        share: Of the sessions learned from.
        seed: Of the draw of sessions and of the model.
        settings: Of the model.
        ranks: Shape (queries,).
        fit_cpu_s: CPU seconds.
    """

    change: str
    what: str
    share: float
    seed: int
    settings: dict[str, Any]
    ranks: NDArray[np.int32]
    fit_cpu_s: float


class Change(NamedTuple):
    """By how much a metric changes, over seeds and queries; `ci` is [low, high] at 95 %."""

    value: float
    ci: list[float | None]


def why(
    kind: Any,
    split: Split,
    k: int = 20,
    *,
    items: Sequence[Item] | None = None,
    settings: Mapping[str, Any] | None = None,
    seeds: int = 5,
    metric: str = "mrr",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Learns from less data, with fewer features and with a smaller model, and says which of the three matters most.

    The data is made smaller by leaving out sessions at random; items that are lost with them count as missed. All
    differences are paired by query. An interval holds both what other queries would have shown (clustered by session)
    and what other seeds would have (Student's t over the seeds).

    Args:
        kind: A class of models.
        split: What it learns from and is asked about.
        k: Length of a list.
        items: The catalog.
        settings: Of the model; what is taken away is taken from these.
        seeds: How often everything is repeated, at least 2.
        metric: hr, mrr or ndcg.
        progress: Told how many fits are done, and of how many.

    Returns:
        `model`, `metric`, `seeds`, `full` (figure and interval), `curve` (a point per share of the data), `features`
        and `size` (losses), `doubled` (what twice the data would bring if the metric goes on to grow with the
        logarithm of the data as it did from a quarter to all), `next_point`, `sentence` and `trials`, one row a fit.

    Raises:
        BadInput: There are too few seeds or sessions, or no such metric.
    """
    if seeds < 2:
        raise BadInput(f"an interval needs at least 2 seeds, got {seeds}.")
    if metric not in METRICS:
        raise BadInput(f"there is no metric {metric!r} (there is: {', '.join(METRICS)}).")
    if len(split.train.session_ptr) - 1 < 16:
        raise BadInput(f"an eighth of {len(split.train.session_ptr) - 1} sessions is too little to learn from.")
    own = dict(settings or {})
    plan = _plan(kind, own)
    trials: list[Trial] = []
    kind.warm()
    for number, (change, what, share, changed) in enumerate(plan):
        for seed in range(seeds):
            same = [trial for trial in trials if (trial.change, trial.what) == (change, what)]
            if share == 1 and len(same) >= 2 and all(np.array_equal(same[0].ranks, it.ranks) for it in same[1:]):
                trials.append(same[0]._replace(seed=seed, fit_cpu_s=0.0))  # nothing random: it would be the same again
            else:
                trials.append(_tried(kind, split, k, items, change, what, share, seed, changed))
            if progress is not None:
                progress(number * seeds + seed + 1, len(plan) * seeds)
    return _report(kind.name, trials, _sessions(split), metric, k, seeds)


def less(train: Interactions, share: float, seed: int) -> Interactions:
    """A random share of the sessions, in their order; items that only the others had are gone.

    >>> from thinslice.models import from_columns
    >>> log = from_columns(list("aabbccdd"), list("wxwxyzyz"), range(8))
    >>> half = less(log, 0.5, 0)
    >>> len(half.session_ptr) - 1, len(half.item)
    (2, 4)
    """
    sessions = len(train.session_ptr) - 1
    draw = np.random.default_rng([seed, round(share * 1e6)])
    kept = np.sort(draw.permutation(sessions)[: max(1, round(share * sessions))])
    length = np.diff(train.session_ptr)[kept]
    ptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    at = np.repeat(train.session_ptr[kept] - ptr[:-1], length) + np.arange(ptr[-1])
    there, item = np.unique(train.item[at], return_inverse=True)
    return train._replace(
        session_ptr=ptr,
        item=item.astype(np.int32),
        time=train.time[at],
        item_ids=[train.item_ids[code] for code in there.tolist()],
        action=None if train.action is None else train.action[at],
        user=None if train.user is None else train.user[kept],
    )


def _plan(kind: Any, own: dict[str, Any]) -> list[tuple[str, str, float, dict[str, Any]]]:
    """What is tried: change, what, share of the data, settings."""
    groups = getattr(kind, "groups", None) or GROUPS.get(kind.name, {})
    smaller = getattr(kind, "smaller", None) or SMALLER.get(kind.name)
    plan = [(FULL, "everything", 1.0, own)]
    plan += [(DATA, f"{share:g} of the sessions", share, own) for share in reversed(SHARES)]
    plan += [(FEATURES, name, 1.0, {**own, **without}) for name, without in groups.items()]
    if smaller is not None:
        words = ", ".join(f"{name} {value}" for name, value in smaller.items())
        plan.append((SIZE, words, 1.0, {**own, **smaller}))
    return plan


def _tried(
    kind: Any, split: Split, k: int, items: Sequence[Item] | None, change: str, what: str, share: float, seed: int,
    settings: dict[str, Any],
) -> Trial:  # fmt: skip
    train = split.train if share == 1 else less(split.train, share, seed)
    started = time.process_time()
    model = fitted(kind, train, catalog_at(items, split), seed, settings)
    spent = time.process_time() - started
    answers = replay(model, split.sessions, k, users=split.users, first=split.first)
    return Trial(change, what, share, seed, settings, answers.rank, spent)


def _sessions(split: Split) -> NDArray[np.int32]:
    """Shape (queries,): the session of each query."""
    asked = [len(session) - first for session, first in zip(split.sessions, split.first, strict=True)]
    return np.repeat(np.arange(len(asked), dtype=np.int32), asked)


def changed(values: NDArray[np.float64], session: NDArray[np.int32]) -> Change:
    """The mean over seeds and queries, with the uncertainty of both.

    Args:
        values: Shape (seeds, queries).
        session: Shape (queries,).
    """
    seeds = len(values)
    value, error = clustered_mean(values.mean(axis=0), session)
    spread = float(values.mean(axis=1).std(ddof=1)) / np.sqrt(seeds)
    if error is None:
        return Change(value, [None, None])
    half = float(np.hypot(Z * error, float(stdtrit(seeds - 1, 0.975)) * spread))
    return Change(value, [value - half, value + half])


def _report(
    name: str, trials: Sequence[Trial], session: NDArray[np.int32], metric: str, k: int, seeds: int
) -> dict[str, Any]:
    worth = METRICS[metric]
    by: dict[tuple[str, str], NDArray[np.float64]] = {}
    share: dict[str, float] = {}
    for trial in trials:
        key = (trial.change, trial.what)
        if key not in by:
            by[key] = np.stack([worth(it.ranks) for it in trials if (it.change, it.what) == key])
            share[trial.what] = trial.share
    full = by[FULL, "everything"]
    curve: list[dict[str, Any]] = []
    losses: list[dict[str, Any]] = []
    for (change, what), values in by.items():
        loss = changed(full - values, session)
        if change in (FULL, DATA):
            point = changed(values, session)
            curve.append({"share": share[what], metric: point.value, "ci": point.ci})
        if change != FULL:
            losses.append({"change": change, "what": what, "loss": loss.value, "ci": loss.ci})
    doubled = changed(_slope([by[DATA, it] for it in share if share[it] in (0.25, 0.5)] + [full],
                             [share[it] for it in share if share[it] in (0.25, 0.5)] + [1.0]), session)  # fmt: skip
    halved = next(row for row in losses if share[row["what"]] == 0.5)
    levers = {DATA: halved}
    for change in (FEATURES, SIZE):
        rows = [row for row in losses if row["change"] == change]
        if rows:
            levers[change] = max(rows, key=lambda row: float(row["loss"]))
    shown = {change: row for change, row in levers.items() if row["ci"][0] is not None and row["ci"][0] > 0}
    best = max(shown, key=lambda change: float(shown[change]["loss"])) if shown else None
    whole = changed(full, session)
    return {
        "model": name,
        "metric": metric,
        "k": k,
        "seeds": seeds,
        "queries": len(session),
        "full": {metric: whole.value, "ci": whole.ci},
        "curve": sorted(curve, key=lambda row: float(row["share"])),
        "features": [_loss(row) for row in losses if row["change"] == FEATURES],
        "size": [_loss(row) for row in losses if row["change"] == SIZE],
        "halved": _loss(halved),
        "doubled": {"gain": doubled.value, "ci": doubled.ci},
        "next_point": best,
        "sentence": _sentence(name, metric, k, levers, best, doubled),
        "trials": [_row(trial, session) for trial in trials],
    }


def _slope(values: Sequence[NDArray[np.float64]], shares: Sequence[float]) -> NDArray[np.float64]:
    """Shape (seeds, queries): the least-squares growth of each query's worth with each doubling of the data."""
    x = np.log2(np.array(shares))
    x -= x.mean()
    return np.asarray(np.tensordot(x / np.square(x).sum(), np.stack(values), axes=1), dtype=np.float64)


def _loss(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"what": row["what"], "loss": row["loss"], "ci": row["ci"]}


def _row(trial: Trial, session: NDArray[np.int32]) -> dict[str, Any]:
    """A trial in plain values."""
    figures: dict[str, Any] = {}
    for metric, worth in METRICS.items():
        figures[metric], figures[f"{metric}_se"] = clustered_mean(worth(trial.ranks), session)
    return {
        "change": trial.change, "what": trial.what, "share": trial.share, "seed": trial.seed,
        "settings": trial.settings, "n": len(trial.ranks), **figures, "fit_cpu_s": round(trial.fit_cpu_s, 4),
    }  # fmt: skip


def _sentence(
    name: str, metric: str, k: int, levers: Mapping[str, Mapping[str, Any]], best: str | None, doubled: Change
) -> str:
    words = {
        DATA: "half the data",
        FEATURES: f"leaving out {levers.get(FEATURES, {}).get('what', '')}",
        SIZE: f"a smaller model ({levers.get(SIZE, {}).get('what', '')})",
    }
    costs = "; ".join(
        f"{words[change]} {_points(-row['loss'], row['ci'], flip=True)}" for change, row in levers.items()
    )
    verdict = {
        DATA: f"More data buys the next point of {name}",
        FEATURES: f"Features buy the next point of {name}",
        SIZE: f"A larger model buys the next point of {name}",
        None: f"Nothing that was taken from {name} is shown to matter",
    }[best]
    return (
        f"{verdict}: in points of {metric.upper()}@{k}, {costs}. Twice the data would bring "
        f"{_points(doubled.value, doubled.ci)}, if it goes on as from a quarter to all."
    )


def _points(value: float, ci: Sequence[float | None], *, flip: bool = False) -> str:
    low, high = ci
    if low is None or high is None:
        return f"{100 * value:+.2f}"
    if flip:
        low, high = -high, -low
    return f"{100 * value:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
