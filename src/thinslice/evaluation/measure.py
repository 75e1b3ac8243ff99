"""Measures one model: fits it on what came before, asks it about what came after, and says what that cost."""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.evaluation.figures import (
    clustered_mean,
    clustered_ratio,
    discounted_gains,
    hits,
    list_means,
    quantiles,
    reciprocal_ranks,
    surprise_bits,
)
from thinslice.evaluation.replay import Replay, replay
from thinslice.evaluation.segments import ItemKinds, segments, unseen_segment
from thinslice.evaluation.splits import Split
from thinslice.records import Interactions, Item, Model

Told = Callable[[str, int, int], None]
"""Called with a model's name, how many queries more are answered, and how many there are."""


class Measured(NamedTuple):
    """One row of the report, and the answers it comes from."""

    row: dict[str, Any]
    answers: Replay


class _Stage(NamedTuple):
    """What one fit of a model answered, with what the shown and the clicked items are worth."""

    answers: Replay
    head: NDArray[np.bool_]
    young: NDArray[np.bool_]
    bits: NDArray[np.float64]
    shown_clicks: NDArray[np.float64]
    target_clicks: NDArray[np.float64]
    shown: set[str]
    unseen_rank: NDArray[np.int32]


def measure(
    kind: Any,
    parts: Sequence[Split],
    k: int,
    items: Sequence[Item] | None,
    rng: int,
    settings: dict[str, Any],
    progress: Told | None = None,
) -> Measured:
    """Fits one model (anew for each part) and asks it everything.

    Args:
        kind: A class of models.
        parts: What it learns from and is asked about, in the order of time.
        k: Length of a list.
        items: The catalog.
        rng: Seed.
        settings: Of its `fit`.
        progress: Told while it runs.

    Raises:
        BadInput: It does not take these settings, or refuses this log.
        NotReady: It cannot learn from this log.
    """
    started = time.process_time()
    kind.warm()
    compile_cpu_s = time.process_time() - started
    queries = sum(part.query_count for part in parts)
    fit_cpu_s, model, found = 0.0, None, []
    if progress is not None:
        progress(kind.name, 0, queries)  # it learns now
    for part in parts:
        started = time.process_time()
        model = fitted(kind, part.train, catalog_at(items, part), rng, settings, previous=model)
        fit_cpu_s += time.process_time() - started
        found.append(
            _asked(model, part, k, None if progress is None else lambda more: progress(kind.name, more, queries))
        )
    answers = _joined([stage.answers for stage in found])
    assert model is not None
    size = sum(array.nbytes for array in model.arrays().values())
    names = {name for part in parts for name in part.train.item_ids}
    shown = set().union(*(stage.shown for stage in found))
    row: dict[str, Any] = {"name": kind.name, "n": queries}
    for metric, worth in (("hr", hits), ("mrr", reciprocal_ranks), ("ndcg", discounted_gains)):
        row[metric], row[f"{metric}_se"] = clustered_mean(worth(answers.rank), answers.session)
    row |= {
        "coverage": len(shown) / max(len(names), len(model.item_ids)),
        **_popularity(found, answers),
        "fit_cpu_s": round(fit_cpu_s, 4),
        "query_us": quantiles(answers.cpu_us),
        "queries_per_s": round(1e6 * queries / max(float(answers.cpu_us.sum()), 1e-9), 1),
        "bytes_per_event": round(size / len(parts[-1].train.item), 3),
        "peak_mb": round(_peak_mb(), 1),
        "query_wall_us": quantiles(answers.wall_us),
        "compile_cpu_s": round(compile_cpu_s, 2),
        "settings": settings,
        "segments": _segments(found, parts, answers),
    }
    return Measured(row, answers)


def fitted(
    kind: Any,
    train: Interactions,
    items: Sequence[Item] | None,
    rng: int,
    settings: dict[str, Any],
    *,
    previous: Model | None = None,
) -> Model:
    """A model of this kind; made from the previous one, if there is one that can be freshened.

    Raises:
        BadInput: It does not take these settings.
    """
    draw = np.random.default_rng(rng)
    if previous is not None and hasattr(previous, "refit"):
        fresh: Model = previous.refit(train, items, rng=draw)
        return fresh
    try:
        made: Model = kind.fit(train, items, rng=draw, **settings)
    except TypeError as error:
        if not settings:
            raise
        raise BadInput(f"{kind.name} does not take these settings: {error}.") from None
    return made


def catalog_at(items: Sequence[Item] | None, part: Split) -> Sequence[Item] | None:
    """The catalog without what was published after the model learned; the whole of it where time is only an order."""
    if items is None or part.train.order_only:
        return items
    return [item for item in items if item.published_at is None or item.published_at.timestamp() <= part.ended]


def _asked(model: Model, part: Split, k: int, progress: Callable[[int], None] | None) -> _Stage:
    answers = replay(model, part.sessions, k, users=part.users, first=part.first, progress=progress)
    kinds = ItemKinds(part.train)
    place = {name: code for code, name in enumerate(part.train.item_ids)}
    in_train = np.array([place.get(name, -1) for name in model.item_ids], dtype=np.int64)
    clicks = np.where(in_train >= 0, kinds.clicks[in_train], 0.0)  # by the model's codes
    asked = np.array(
        [place[name] for session, first in zip(part.sessions, part.first, strict=True) for name in session[first:]],
        dtype=np.int64,
    )
    unseen = _unseen(model, part, k)
    codes = np.unique(answers.lists)
    return _Stage(
        answers,
        kinds.head[asked],
        kinds.young[asked],
        list_means(answers.lists, surprise_bits(clicks)),
        list_means(answers.lists, clicks),
        kinds.clicks[asked],
        {model.item_ids[code] for code in codes[codes >= 0].tolist()},
        unseen,
    )


def _unseen(model: Model, part: Split, k: int) -> NDArray[np.int32]:
    """The rank of each item that nobody had clicked before; 0 where the model does not know it."""
    known = set(model.item_ids) - set(part.train.item_ids)
    ranks = np.zeros(len(part.unseen.sessions), dtype=np.int32)
    could = [number for number, session in enumerate(part.unseen.sessions) if session[-1] in known]
    if could:
        sessions = [part.unseen.sessions[number] for number in could]
        ranks[could] = replay(model, sessions, k, first=[len(session) - 1 for session in sessions]).rank
    return ranks


def _popularity(found: Sequence[_Stage], answers: Replay) -> dict[str, Any]:
    """Novelty in bits, and how much more popular the shown items are than the clicked ones (0 = as popular)."""
    bits, shown, clicked = (
        np.concatenate([getattr(stage, name) for stage in found]) for name in ("bits", "shown_clicks", "target_clicks")
    )
    there = ~np.isnan(bits)
    if not there.any():
        return {"novelty": None, "novelty_se": None, "popularity_lift": None, "popularity_lift_se": None}
    session = answers.session[there]
    novelty, novelty_se = clustered_mean(bits[there], session)
    ratio, ratio_se = clustered_ratio(shown[there], clicked[there], session)
    return {"novelty": novelty, "novelty_se": novelty_se, "popularity_lift": ratio - 1, "popularity_lift_se": ratio_se}


def _segments(found: Sequence[_Stage], parts: Sequence[Split], answers: Replay) -> list[dict[str, Any]]:
    rows = segments(
        answers.rank, answers.session, answers.known,
        np.concatenate([stage.head for stage in found]), np.concatenate([stage.young for stage in found]),
    )  # fmt: skip
    unseen = np.concatenate([stage.unseen_rank for stage in found])
    if len(unseen):
        owners, before = [], 0
        for part in parts:
            owners.append(part.unseen.owner + before)
            before += int(part.unseen.owner.max(initial=-1)) + 1
        rows.append(unseen_segment(unseen, np.concatenate(owners)))
    return rows


def _joined(answers: Sequence[Replay]) -> Replay:
    """The answers of all stages; session numbers run on, lists stay with their stage since codes differ."""
    if len(answers) == 1:
        return answers[0]
    owner, before = [], 0
    for each in answers:
        owner.append(each.session + np.int32(before))
        before += int(each.session.max(initial=-1)) + 1
    joined = {
        name: np.concatenate([getattr(each, name) for each in answers])
        for name in ("rank", "cpu_us", "wall_us", "known", "target")
    }
    lists = np.empty((len(joined["rank"]), 0), dtype=np.int32)
    shown = max(each.shown for each in answers)
    return Replay(session=np.concatenate(owner), shown=shown, lists=lists, **joined)


def _peak_mb() -> float:
    """The largest memory of this process so far; the system counts in kilobytes, on macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
