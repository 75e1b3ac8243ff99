"""Compares recommenders on one log: same clicks to learn from, same questions, each with its price."""

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput, UnknownName
from thinslice.evaluation.figures import clustered_mean, hits, quantiles, reciprocal_ranks
from thinslice.evaluation.replay import Replay, replay
from thinslice.evaluation.splits import Split, split_log
from thinslice.models import MODELS
from thinslice.records import Interactions, Item

Told = Callable[[str, int, int], None]
"""Called with a model's name, how many queries more are answered, and how many there are."""


def evaluate(
    events: Mapping[str, NDArray[Any]],
    models: Sequence[str] | None = None,
    k: int = 20,
    *,
    items: Sequence[Item] | None = None,
    order_only: bool | None = None,
    rng: int = 0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Told | None = None,
) -> dict[str, Any]:
    """Fits each model on the earlier part of a log and asks it about the later part.

    Args:
        events: Columns `session_id`, `item_id`, `ts`, and if present `event` and `split`; shape (rows,) each.
        models: Names; None takes all.
        k: Length of a list, 1 to 1000.
        items: The catalog, for models that read it.
        order_only: Whether `ts` only tells the order; None finds out.
        rng: Seed for models that draw.
        settings: Model name → settings of its `fit`; what is not named stays at its default.
        progress: Told while it runs.

    Returns:
        `protocol`, one row a model under `models`, and `simplest`: the first model, from the simplest on, whose hit
        rate is not shown to be below the best one's (paired, clustered by session, 95 %).

    Raises:
        BadInput: The log cannot be cut, or k is out of its range.
        UnknownName: There is no such model.
    """
    chosen = list(MODELS) if models is None else list(dict.fromkeys(models))
    for name in chosen:
        if name not in MODELS:
            raise UnknownName(f"there is no model {name!r} (there is: {', '.join(MODELS)}).")
    if not chosen:
        raise BadInput("at least one model must be named.", hint=f"There is: {', '.join(MODELS)}.")
    if not 1 <= k <= 1000:
        raise BadInput(f"k must be between 1 and 1000, got {k}.")
    split = split_log(events, order_only=order_only)
    rows, replays = [], {}
    for name in sorted(chosen, key=list(MODELS).index):
        row, answers = _measure(name, split, k, items, rng, dict((settings or {}).get(name, {})), progress)
        rows.append(row)
        replays[name] = answers
    protocol = {
        **split.how,
        "k": k,
        "queries": split.query_count,
        "query": "every prefix of a test session, the next click is looked for; repeats count",
        "ranking": "all items, nothing filtered",
        "ties": "against the model",
        "standard_errors": "clustered by session",
        "query_us": "CPU time of the one thread that asks",
        "peak_mb": "the whole process so far",
        "rng": rng,
    }
    return {"protocol": protocol, "models": rows, "simplest": simplest(replays)}


def simplest(replays: Mapping[str, Replay]) -> str:
    """The first model whose hit rate is not shown to be below that of the best, by the paired difference per query.

    Args:
        replays: From the simplest model to the most elaborate, all of the same queries.
    """
    best = max(replays, key=lambda name: float(hits(replays[name].rank).mean()))
    for name, answers in replays.items():
        lost = hits(replays[best].rank) - hits(answers.rank)
        mean, error = clustered_mean(lost, answers.session)
        if name == best or (error is not None and mean <= 1.96 * error):
            return name
    return best


def _measure(
    name: str,
    split: Split,
    k: int,
    items: Sequence[Item] | None,
    rng: int,
    settings: dict[str, Any],
    progress: Told | None,
) -> tuple[dict[str, Any], Replay]:
    """One row of the report, and the answers it comes from."""
    kind = MODELS[name]
    started = time.process_time()
    kind.warm()
    compile_cpu_s = time.process_time() - started
    started = time.process_time()
    model = _fit(kind, split.train, items, rng, settings)
    fit_cpu_s = time.process_time() - started
    queries = split.query_count
    answers = replay(
        model, split.sessions, k,
        progress=None if progress is None else lambda more: progress(name, more, queries),
    )  # fmt: skip
    hr, hr_se = clustered_mean(hits(answers.rank), answers.session)
    mrr, mrr_se = clustered_mean(reciprocal_ranks(answers.rank), answers.session)
    size = sum(array.nbytes for array in model.arrays().values())
    row = {
        "name": name,
        "n": queries,
        "hr": hr,
        "hr_se": hr_se,
        "mrr": mrr,
        "mrr_se": mrr_se,
        "coverage": answers.shown / len(split.train.item_ids),
        "fit_cpu_s": round(fit_cpu_s, 4),
        "query_us": quantiles(answers.cpu_us),
        "queries_per_s": round(1e6 * queries / max(float(answers.cpu_us.sum()), 1e-9), 1),
        "bytes_per_event": round(size / len(split.train.item), 3),
        "peak_mb": round(_peak_mb(), 1),
        "query_wall_us": quantiles(answers.wall_us),
        "compile_cpu_s": round(compile_cpu_s, 2),
        "settings": settings,
    }
    return row, answers


def _fit(kind: Any, train: Interactions, items: Sequence[Item] | None, rng: int, settings: dict[str, Any]) -> Any:
    try:
        return kind.fit(train, items, rng=np.random.default_rng(rng), **settings)
    except TypeError as error:
        raise BadInput(f"{kind.name} does not take these settings: {error}.") from None


def _peak_mb() -> float:
    """The largest memory of this process so far; the system counts in kilobytes, on macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
