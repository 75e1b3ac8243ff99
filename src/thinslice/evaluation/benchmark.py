"""A benchmark: queries that are frozen, goals that are written down before the first run, and passed or failed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput, NotReady
from thinslice.evaluation.figures import Estimate, clustered_mean, reciprocal_ranks
from thinslice.evaluation.measure import fitted
from thinslice.evaluation.replay import replay
from thinslice.evaluation.splits import NothingAsked, cut_log
from thinslice.models import from_columns
from thinslice.records import Interactions, Item

GOALS = {
    "hr": "share of queries whose clicked item is in the list",
    "mrr": "mean of 1 / place of the clicked item",
    "ndcg": "gain of what was clicked (1) and bought in that session (3), discounted by place, of the best",
    "coverage": "share of the known items that stand in any list",
    "picks": "share of the hand-picked items that are in the list",
    "bad": "share of lists that show what this visitor hid or reported; at most the goal",
}
"""Metric → what it says. Of all but `bad` the goal is the least that passes."""

AT_MOST = frozenset({"bad"})

DEPTH = 100
"""How deep the lists are whose union is what could be reached."""

GOOD, BAD = frozenset({"purchase"}), frozenset({"hide", "report"})
"""What visitors do that says an item was right or wrong for them."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One frozen question.

    Attributes:
        query_id: `q0001`, …
        owner: The number of its session: queries of one session are not independent.
        session: What was known, item ids, oldest first.
        clicked: What was clicked next.
        good: What the visitor bought in that session.
        bad: What the visitor hid or reported in or after that session.
    """

    query_id: str
    owner: int
    session: list[str]
    clicked: str
    good: list[str] = []
    bad: list[str] = []


class Benchmark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The head of a benchmark, as its TOML file holds it; `sha256` are of the files beside it."""

    name: str
    tenant: str
    frozen_at: datetime
    k: int
    goals: dict[str, float]
    queries: int
    source: str
    split: str
    order_only: bool
    sha256: dict[str, str]
    note: str = ""


class Frozen(NamedTuple):
    """What a benchmark asks, and what a model may know before.

    Attributes:
        queries: The questions.
        train: The clicks before the cut.
        split: How it was cut, in words.
    """

    queries: list[Query]
    train: Interactions
    split: str


class Row(NamedTuple):
    """How something did: a model, hand-picked slates, or a ceiling.

    Attributes:
        name: Of it.
        kind: model, picked or ceiling.
        n: How many queries it answered.
        figures: Metric → estimate; what cannot be said is not there.
    """

    name: str
    kind: str
    n: int
    figures: dict[str, Estimate]


def check_goals(goals: Mapping[str, float]) -> None:
    """Refuses goals that no run could judge.

    Raises:
        BadInput: There is none, one is of an unknown metric, or not a share from 0 to 1.
    """
    if not goals:
        raise BadInput("a benchmark needs a goal before its first run.", hint="Write --goal hr=0.5 for instance.")
    for metric, goal in goals.items():
        if metric not in GOALS:
            raise BadInput(f"there is no metric {metric!r} (there is: {', '.join(GOALS)}).")
        if not 0 <= goal <= 1:
            raise BadInput(f"the goal of {metric} must be between 0 and 1, got {goal}.")


def freeze(
    columns: Mapping[str, NDArray[Any]],
    feedback: Iterable[tuple[str, str, str]] = (),
    *,
    count: int = 1000,
    rng: int = 0,
    order_only: bool | None = None,
    test_days: float | None = None,
) -> Frozen:
    """Draws queries from the later part of a log and keeps the earlier part for models to learn from.

    Nothing is removed from the queries: what nobody could know counts against everybody, and the ceiling says how much
    that is. No visitor and no user is kept, sessions are numbered.

    Args:
        columns: As of `split_log`.
        feedback: (session id, item id, event name) of what visitors did: purchase, hide, report; others do not count.
        count: How many queries, drawn at random; all if there are fewer.
        rng: Seed of the draw.
        order_only: As of `split_log`.
        test_days: As of `split_log`.

    Raises:
        BadInput: The log cannot be cut, or the later part has no session of two clicks.
    """
    if count < 1:
        raise BadInput(f"a benchmark needs at least 1 query, got {count}.")
    log = cut_log(columns, order_only, "session", test_days)
    only_order = bool(log.how["order_only"])
    train = from_columns(log.session[log.learn], log.item[log.learn], log.time[log.learn], order_only=only_order,
                         actions=None if log.action is None else log.action[log.learn])  # fmt: skip
    good: dict[str, list[str]] = {}
    bad: dict[str, list[str]] = {}
    for session, item, name in feedback:
        if name in GOOD or name in BAD:
            (good if name in GOOD else bad).setdefault(session, []).append(item)
    ids, items, times = log.session[log.ask], log.item[log.ask], log.time[log.ask]
    distinct, code = np.unique(ids.astype(str), return_inverse=True)
    order = np.lexsort((times, code))
    sessions: list[list[str]] = [[] for _ in distinct]
    for at in order.tolist():
        sessions[int(code[at])].append(str(items[at]))
    asked = [(number, step) for number, session in enumerate(sessions) for step in range(1, len(session))]
    if not asked:
        raise NothingAsked("no session of the later part has two clicks, so there is nothing to ask.")
    draw = np.random.default_rng(rng)
    chosen = np.sort(draw.permutation(len(asked))[:count])
    queries = []
    for place, at in enumerate(chosen.tolist(), start=1):
        number, step = asked[at]
        whole, name = sessions[number], str(distinct[number])
        queries.append(
            Query(
                query_id=f"q{place:04d}", owner=number, session=whole[:step], clicked=whole[step],
                good=sorted(set(good.get(name, []))), bad=sorted(set(bad.get(name, [])) - {whole[step]}),
            )
        )  # fmt: skip
    return Frozen(queries, train, str(log.how["split"]))


def judge(
    frozen: Frozen,
    models: Mapping[str, Any],
    k: int,
    *,
    items: Sequence[Item] | None = None,
    picks: Mapping[str, Sequence[str]] | None = None,
    rng: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[Row], list[dict[str, str]]]:
    """Asks each model every query, and puts hand-picked slates and the reachable ceiling beside them.

    Args:
        frozen: Queries and what may be learned from.
        models: Name → class, the simplest first.
        k: Length of a list.
        items: The catalog as of the freezing.
        picks: Query id → items that people picked by hand, best first.
        rng: Seed.
        progress: Told while it runs.

    Returns:
        The rows: models, `hand-picked` (only the queries that were labeled), `ceiling (candidates)` (the best
        order of what any of these models lists in its first 100), `ceiling (known items)`; and who refused, why.

    Raises:
        BadInput: No model could learn from this log.
    """
    picked = {name: list(chosen) for name, chosen in (picks or {}).items() if chosen}
    known = set(frozen.train.item_ids)
    reached: list[set[str]] = [set() for _ in frozen.queries]
    rows, skipped = [], []
    for name, kind in models.items():
        try:
            kind.warm()
            model = fitted(kind, frozen.train, items, rng, {})
        except (NotReady, BadInput) as error:
            skipped.append({"name": name, "reason": str(error)})
            continue
        answers = replay(
            model, [[*query.session, query.clicked] for query in frozen.queries], max(k, DEPTH),
            first=[len(query.session) for query in frozen.queries],
            progress=None if progress is None else _teller(progress, name, len(frozen.queries)),
        )  # fmt: skip
        names = list(model.item_ids)
        lists = [[names[code] for code in row if code >= 0] for row in answers.lists.tolist()]
        for place, shown in enumerate(lists):
            reached[place].update(shown[:DEPTH])
        known |= set(names)
        rank = np.where(answers.rank <= k, answers.rank, 0).astype(np.int32)
        shown_items = {item for shown in lists for item in shown[:k]}
        row = _row(name, "model", frozen.queries, [shown[:k] for shown in lists], rank, k, picked)
        row.figures["coverage"] = Estimate(len(shown_items) / max(len(names), 1), None)
        rows.append(row)
    if not rows:
        raise BadInput("no model can learn from this log. " + " ".join(row["reason"] for row in skipped))
    if picked:
        labeled = [query for query in frozen.queries if query.query_id in picked]
        slates = [picked[query.query_id][:k] for query in labeled]
        rows.append(_row("hand-picked", "picked", labeled, slates, _places(labeled, slates), k, {}))
    for title, there in (
        ("ceiling (candidates)", reached),
        ("ceiling (known items)", [known] * len(reached)),
    ):
        best = [
            (_ideal(query, reachable, picked.get(query.query_id, []), k, first=[query.clicked]),
             _ideal(query, reachable, [], k, first=query.good))
            for query, reachable in zip(frozen.queries, there, strict=True)
        ]  # fmt: skip
        slates = [slate for slate, _ in best]
        row = _row(title, "ceiling", frozen.queries, slates, _places(frozen.queries, slates), k, picked)
        row.figures["ndcg"] = _gain(frozen.queries, [slate for _, slate in best])
        rows.append(row)
    return rows, skipped


def verdicts(row: Row, goals: Mapping[str, float]) -> list[dict[str, Any]]:
    """Passed or failed for each goal; `sure` when the whole 95 % interval says so; passed is null without a figure."""
    found = []
    for metric, goal in goals.items():
        estimate = row.figures.get(metric)
        if estimate is None:
            found.append({"metric": metric, "goal": goal, "value": None, "ci": [None, None], "passed": None,
                          "sure": False})  # fmt: skip
            continue
        low, high = estimate.interval()
        passed = estimate.value <= goal if metric in AT_MOST else estimate.value >= goal
        sure = low is not None and high is not None and not low < goal < high
        found.append({"metric": metric, "goal": goal, "value": estimate.value, "ci": [low, high], "passed": passed,
                      "sure": sure})  # fmt: skip
    return found


def changed_goals(first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """In words, what was changed in the goals since the first run."""
    words = []
    for metric in dict.fromkeys([*first, *now]):
        if metric not in now:
            words.append(f"the goal of {metric}, {first[metric]:g}, was taken away")
        elif metric not in first:
            words.append(f"a goal of {metric}, {now[metric]:g}, was added")
        elif first[metric] != now[metric]:
            words.append(f"the goal of {metric} was {first[metric]:g} and is now {now[metric]:g}")
    return words


def gain_of_list(query: Query, shown: Sequence[str]) -> float:
    """NDCG of one list: 3 for what was bought in that session, 1 for what was clicked, of the best order.

    >>> query = Query(query_id="q", owner=0, session=["a"], clicked="b", good=["c"])
    >>> gain_of_list(query, ["c", "b"]), gain_of_list(query, ["x", "y"])
    (1.0, 0.0)
    """
    worth = {query.clicked: 1.0} | dict.fromkeys(query.good, 3.0)
    found = sum(worth.get(item, 0.0) / np.log2(place + 2) for place, item in enumerate(shown))
    best = sum(gain / np.log2(place + 2) for place, gain in enumerate(sorted(worth.values(), reverse=True)))
    return float(found / best)


def _row(
    name: str,
    kind: str,
    queries: Sequence[Query],
    slates: Sequence[Sequence[str]],
    rank: NDArray[np.int32],
    k: int,
    picked: Mapping[str, Sequence[str]],
) -> Row:
    owner = np.array([query.owner for query in queries], dtype=np.int32)
    pairs = list(zip(queries, slates, strict=True))
    figures = {
        "hr": Estimate(*clustered_mean((rank > 0).astype(np.float64), owner)),
        "mrr": Estimate(*clustered_mean(reciprocal_ranks(rank), owner)),
        "ndcg": _gain(queries, slates),
    }
    told = [(query, slate) for query, slate in pairs if query.bad]
    if told:
        shown = np.array([bool(set(query.bad) & set(slate)) for query, slate in told], dtype=np.float64)
        figures["bad"] = Estimate(*clustered_mean(shown, np.array([query.owner for query, _ in told], dtype=np.int32)))
    labeled = [(query, slate) for query, slate in pairs if query.query_id in picked]
    if labeled:
        found = np.array(
            [len(set(wanted := list(picked[query.query_id])[:k]) & set(slate)) / len(set(wanted))
             for query, slate in labeled]
        )  # fmt: skip
        figures["picks"] = Estimate(
            *clustered_mean(found, np.array([query.owner for query, _ in labeled], dtype=np.int32))
        )
    return Row(name, kind, len(queries), figures)


def _gain(queries: Sequence[Query], slates: Sequence[Sequence[str]]) -> Estimate:
    gains = np.array([gain_of_list(query, slate) for query, slate in zip(queries, slates, strict=True)])
    return Estimate(*clustered_mean(gains, np.array([query.owner for query in queries], dtype=np.int32)))


def _ideal(query: Query, reachable: set[str], picked: Sequence[str], k: int, *, first: Sequence[str]) -> list[str]:
    """The best order of what could be reached; which item is to come first depends on the metric."""
    wanted = dict.fromkeys([*first, query.clicked, *query.good, *picked])
    return [item for item in wanted if item in reachable and item not in query.bad][:k]


def _places(queries: Sequence[Query], slates: Sequence[Sequence[str]]) -> NDArray[np.int32]:
    """The place of the clicked item in each slate from 1; 0 where it is not."""
    return np.array(
        [slate.index(query.clicked) + 1 if query.clicked in slate else 0
         for query, slate in zip(queries, map(list, slates), strict=True)],
        dtype=np.int32,
    )  # fmt: skip


def _teller(progress: Callable[[str, int, int], None], name: str, queries: int) -> Callable[[int], None]:
    return lambda more: progress(name, more, queries)
