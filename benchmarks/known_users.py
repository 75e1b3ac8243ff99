"""Known users on MovieLens: user-cf and the session ranker against ALS of `implicit`, NDCG@10, two splits, intervals.

`python -m benchmarks.known_users [FOLDER OF DATA SETS] [--json]`. Ratings are taken as interest, whatever the number of
stars. Asked is each user who has ratings in both parts, once, at the moment of the first rating of the test part; what
the user rated before is left out of the ranking of both models, and relevant is what the user rated after. ALS knows
each user by a vector made of all earlier ratings; user-cf by the same ratings, of which those that lie less than 30
minutes apart from the question are the session; the session ranker likewise, learned from visits with gaps of 30
minutes, and without the user beside it; user-history, which answers before a first click, by the ratings alone. ALS is
tuned by a grid on the training part, cut once more in the same way; the others have the defaults that they are shipped
with.
"""

import json
import os
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.machine import describe
from thinslice.models import ImplicitALS, SessionRanker, UserCF, UserHistory, from_columns
from thinslice.records import Interactions

K = 10
GAP_S = 1800.0
GRID = {"embedding_size": (8, 16, 32, 64, 128), "reg": (0.1, 1.0, 10.0, 30.0), "alpha": (1.0, 5.0, 20.0)}
DRAWS = 10_000


class Log(NamedTuple):
    """Ratings in the order of time: user and item as texts, seconds."""

    user: NDArray[np.str_]
    item: NDArray[np.str_]
    time: NDArray[np.float64]

    def part(self, mask: NDArray[np.bool_]) -> "Log":
        """The rows of a mask."""
        return Log(self.user[mask], self.item[mask], self.time[mask])


class Question(NamedTuple):
    """What a user had rated, the end of it that is the open session, and what came after."""

    user: str
    before: list[str]
    session: list[str]
    after: set[str]


def main() -> None:
    """Prints both splits."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--json"]
    home = Path(__file__).parents[1] / ".." / "shared" / "data"
    found = compare(Path(arguments[0] if arguments else os.environ.get("THINSLICE_DATA", home)))
    if "--json" in sys.argv:
        print(json.dumps({"machine": describe(), **found}))
        return
    print(f"known users, ml_100k, NDCG@{K} ({describe()})")
    for name, row in found.items():
        low, high = row["difference_ci"]
        print(
            f"  {name}: user-cf {row['user_cf']:.4f}, ALS {row['als']:.4f} {row['als_settings']}, "
            f"difference {row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]; "
            f"session ranker {row['session_ranker']:.4f}, without the user {row['session_alone']:.4f}; "
            f"user-history {row['user_history']:.4f}; "
            f"{row['users']} users, {row['in_session']} of them in a session"
        )


def compare(data: Path, grid: dict[str, tuple[Any, ...]] | None = None) -> dict[str, dict[str, Any]]:
    """All models on both splits; split → figures."""
    log = read(data)
    return {name: measure(log, cut, grid or GRID) for name, cut in (("last 20 % of the time", by_time),
                                                                    ("last 20 % of each user", by_user))}  # fmt: skip


def read(data: Path) -> Log:
    """MovieLens 100K, oldest rating first."""
    table = pq.read_table(data / "ml_100k" / "events.parquet")
    time = table["ts"].to_numpy().astype(np.float64)
    order = np.argsort(time, kind="stable")
    user, item = (table[name].to_numpy().astype(np.str_)[order] for name in ("visitor_id", "item_id"))
    return Log(user, item, time[order])


def by_time(log: Log) -> NDArray[np.bool_]:
    """The training part: everything before the moment at which 80 % of the ratings were there."""
    return log.time < log.time[int(0.8 * len(log.time))]


def by_user(log: Log) -> NDArray[np.bool_]:
    """The training part: the first 80 % of each user's ratings."""
    kept = np.zeros(len(log.time), dtype=np.bool_)
    for user in np.unique(log.user):
        mine = np.flatnonzero(log.user == user)
        kept[mine[: int(0.8 * len(mine))]] = True
    return kept


def measure(log: Log, cut: Any, grid: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """One split: ALS tuned on the training part, all asked about the test part."""
    train, test = log.part(cut(log)), log.part(~cut(log))
    inner = cut(train)
    learn, ask = learned(train.part(inner)), list(questions(train.part(inner), train.part(~inner)))
    best: tuple[float, dict[str, Any]] = (-1.0, {})
    for values in product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        value = float(ndcg(ImplicitALS.fit(learn, rng=0, **settings), ask, whole=True).mean())
        best = max(best, (value, settings), key=lambda each: each[0])
    learn, ask = learned(train), list(questions(train, test))
    als = ndcg(ImplicitALS.fit(learn, rng=0, **best[1]), ask, whole=True)
    ours = ndcg(UserCF.fit(learn, rng=0), ask, whole=False)
    mean, low, high = paired(ours - als)
    ranker = SessionRanker.fit(visits(train), rng=0)
    history = UserHistory.fit(visits(train), rng=0)
    strangers = [question._replace(user="") for question in ask]
    return {
        "users": len(ask),
        "in_session": sum(bool(question.session) for question in ask),
        "user_cf": float(ours.mean()),
        "als": float(als.mean()),
        "als_settings": best[1],
        "session_ranker": float(ndcg(ranker, ask, whole=False).mean()),
        "session_alone": float(ndcg(ranker, strangers, whole=False).mean()),
        "user_history": float(ndcg(history, ask, whole=False).mean()),
        "known_people": ranker.evidence.get("known_people", {}),
        "difference": mean,
        "difference_ci": [low, high],
    }


def learned(log: Log) -> Interactions:
    """The shape that models learn from; all ratings of a user are one session."""
    return from_columns(log.user, log.item, log.time, users=log.user)


def visits(log: Log) -> Interactions:
    """The same, a session ending where a user is silent for 30 minutes."""
    order = np.lexsort((log.time, log.user))
    user, item, time = log.user[order], log.item[order], log.time[order]
    begins = np.append(True, (user[1:] != user[:-1]) | (np.diff(time) > GAP_S))
    return from_columns(np.cumsum(begins), item, time, users=user)


def questions(train: Log, test: Log) -> Iterator[Question]:
    """Users with ratings in both parts of which the later ones are on items that the training part knows."""
    known = set(train.item.tolist())
    for user in np.unique(test.user):
        mine, later = train.user == user, test.user == user
        before = train.item[mine].tolist()
        after = (set(test.item[later].tolist()) & known) - set(before)
        if before and after:
            times = np.append(train.time[mine], test.time[later].min())
            breaks = np.flatnonzero(np.diff(times) > GAP_S)
            yield Question(user, before, before[breaks[-1] + 1 if len(breaks) else 0 :], after)


def ndcg(model: Any, asked: list[Question], *, whole: bool) -> NDArray[np.float64]:
    """NDCG@10 of each question; `whole` gives all earlier ratings as the session, else the user stands for them."""
    discount = 1 / np.log2(np.arange(2, K + 2))
    place = {name: code for code, name in enumerate(model.item_ids)}
    found = np.empty(len(asked))
    for number, question in enumerate(asked):
        allowed = np.ones(len(place), dtype=np.bool_)
        allowed[[place[name] for name in question.before]] = False
        if whole:
            slate = model.recommend(question.before, K, allowed=allowed).item_ids
        else:
            slate = model.recommend(question.session, K, allowed=allowed, user_id=question.user).item_ids
        gain = sum(discount[rank] for rank, name in enumerate(slate) if name in question.after)
        found[number] = gain / discount[: min(K, len(question.after))].sum()
    return found


def paired(difference: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean difference over users and its 95 % interval, by drawing users again (percentiles of the bootstrap)."""
    draw = np.random.default_rng(0)
    means = [float(difference[draw.integers(0, len(difference), len(difference))].mean()) for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return float(difference.mean()), low, high


if __name__ == "__main__":
    main()
