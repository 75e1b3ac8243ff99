"""What weighing purchases, refunds or reports costs in clicks: one log, ranked by weighting after weighting."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput, UnknownName
from thinslice.evaluation.figures import clustered_mean
from thinslice.evaluation.measure import fitted
from thinslice.evaluation.splits import OTHER_NAMES, cut_log
from thinslice.models import MODELS, from_columns
from thinslice.recommend.diversity import relevance_of
from thinslice.recommend.objectives import CLICK, ActionRates, worth
from thinslice.records import ACTIONS, Item, Model

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""The points of the curve: how much of the weight lies on the objectives, the rest on the ranking as it is."""

CANDIDATES = 60
"""So many of the model's best are ranked anew."""

MAX_QUERIES = 5000
"""More questions are not asked; sessions are taken at random then."""


Refusals = Callable[[float], Mapping[str, Mapping[str, int]]]
"""Asked for what was sent back, reported or hidden until a moment (unix seconds): action → item → sessions."""


def trade_off(
    columns: Mapping[str, NDArray[Any]],
    name: str,
    objectives: Mapping[str, float],
    k: int = 20,
    *,
    items: Sequence[Item] = (),
    order_only: bool | None = None,
    test_days: float | None = None,
    max_queries: int = MAX_QUERIES,
    refusals: Refusals | None = None,
    rng: int = 0,
) -> dict[str, Any]:
    """The curve from the model's own ranking to that of the objectives alone.

    Model and chances learn from the sessions before the cut; the questions come from those after it. At each point the
    weight of a click and that of the objectives are mixed; the objectives are first divided by what a click of an
    average item is worth by them (the sum of |weight| × mean chance), so that half and half means just that.

    Args:
        columns: `session_id`, `item_id`, `ts` and `event` (or `action_code`), as for `evaluate`; (rows,).
        name: The model whose candidates are weighed.
        objectives: Action → weight.
        k: Length of a slate.
        items: The catalog.
        order_only: Whether `ts` only tells the order; None finds out.
        test_days: How many days at the end are asked; None: as for `evaluate`.
        max_queries: At most so many questions.
        refusals: Refunds, reports and hides that are not among the rows.
        rng: The seed.

    Returns:
        model, k, queries, sessions, mean (action → the shop's chance) and curve, one entry a point: share, objectives,
        hr and mrr of the next click with hr_se, predicted (action → chance when a place of the slate is clicked, the
        mean over places and slates) and observed (action → n, hr, hr_se: of the clicks that went on to this action,
        how many stood in the slate).

    Raises:
        BadInput: There is no objective, one is no action, or the log says of no action but views.
        UnknownName: There is no such model.
    """
    if name not in MODELS:
        raise UnknownName(f"there is no model {name!r} (there is: {', '.join(MODELS)}).")
    wrong = [each for each in objectives if each not in ACTIONS]
    if wrong or not objectives:
        named = f", got {wrong[0]!r}" if wrong else ""
        raise BadInput(f"objectives are actions with a weight{named}.", hint=f"There is: {', '.join(ACTIONS)}.")
    log = cut_log(columns, order_only, "session", test_days)
    train = from_columns(log.session[log.learn], log.item[log.learn], log.time[log.learn],
                         order_only=bool(log.how["order_only"]))  # fmt: skip
    told = refusals(float(log.time[log.learn].max())) if refusals is not None else None
    rates, did = _actions(columns, log.session[log.learn], log.session[log.ask], told)
    if not any(rates.mean[ACTIONS.index(each)] > 0 for each in objectives):
        raise BadInput(
            f"no session before the cut has any of: {', '.join(objectives)}.",
            hint="The column event must name them: view_item, purchase, refund …",
        )
    model = fitted(MODELS[name], train, items, rng, {})
    prefixes, wanted, owner, ids = _questions(log.session[log.ask], log.item[log.ask], log.time[log.ask], model,
                                              max_queries, rng)  # fmt: skip
    scale = sum(abs(weight) * float(rates.mean[ACTIONS.index(each)]) for each, weight in objectives.items())
    points = [mixed(objectives, share, scale) for share in SHARES]
    rank = np.zeros((len(points), len(wanted)), dtype=np.int64)
    predicted = np.zeros((len(points), len(objectives)))
    for number, prefix in enumerate(prefixes):
        ranked = model.recommend(prefix, max(CANDIDATES, k))
        relevance = relevance_of(ranked.scores, [0] * len(ranked.scores))
        chances = rates.chances(ranked.item_ids, list(objectives))
        for point, weights in enumerate(points):
            value = worth(ranked.item_ids, relevance, rates, weights).value
            order = np.argsort(-value, kind="stable")[:k]
            predicted[point] += chances[order].mean(axis=0) if len(order) else 0.0
            place = [at for at, code in enumerate(order.tolist()) if ranked.item_ids[code] == wanted[number]]
            rank[point, number] = place[0] + 1 if place else 0
    done = [did.get((ids[owner[number]], item_id), frozenset()) for number, item_id in enumerate(wanted)]
    curve = []
    for point, weights in enumerate(points):
        found = (rank[point] > 0).astype(np.float64)
        hr, hr_se = clustered_mean(found, owner)
        observed = {}
        for each in objectives:
            rows = np.array([each in actions for actions in done], dtype=np.bool_)
            hit = clustered_mean(found[rows], owner[rows]) if rows.any() else (None, None)
            observed[each] = {"n": int(rows.sum()), "hr": hit[0], "hr_se": hit[1]}
        mrr = float(np.divide(1.0, rank[point], out=np.zeros(len(found)), where=rank[point] > 0).mean())
        curve.append(
            {
                "share": SHARES[point], "objectives": weights, "hr": hr, "hr_se": hr_se, "mrr": mrr,
                "predicted": dict(zip(objectives, (predicted[point] / len(wanted)).tolist(), strict=True)),
                "observed": observed,
            }
        )  # fmt: skip
    mean = {each: float(rates.mean[ACTIONS.index(each)]) for each in objectives}
    return {"model": name, "k": k, "queries": len(wanted), "sessions": len(set(owner.tolist())), "mean": mean,
            "protocol": log.how, "curve": curve}  # fmt: skip


def mixed(objectives: Mapping[str, float], share: float, scale: float) -> dict[str, float]:
    """The weights at one point of the curve; without weight on clicks only the objectives stand.

    >>> mixed({"purchase": 1.0}, 0.5, 0.02)
    {'click': 0.5, 'purchase': 25.0}
    """
    found = {CLICK: 1.0 - share} if share < 1 else {}
    if share > 0:
        found.update({name: share * weight / scale for name, weight in objectives.items()})
    return found


def _actions(
    columns: Mapping[str, NDArray[Any]],
    learn: NDArray[Any],
    ask: NDArray[Any],
    refusals: Mapping[str, Mapping[str, int]] | None,
) -> tuple[ActionRates, dict[tuple[str, str], frozenset[str]]]:
    """The chances of actions from the sessions to learn from; and what those that are asked did with which item."""
    session, item = columns["session_id"], columns["item_id"]
    if "action_code" in columns:
        code = columns["action_code"].astype(np.uint8)
    elif "event" in columns:
        names, place = np.unique(columns["event"].astype(str), return_inverse=True)
        ours = [OTHER_NAMES.get(name, name) for name in names]
        known = np.array([ACTIONS.index(name) if name in ACTIONS else 255 for name in ours], dtype=np.uint8)
        code = known[place.ravel()]
    else:
        raise BadInput("objectives need the column event, to know what was bought or sent back.")
    rows = np.isin(session, learn) & (code < len(ACTIONS))
    train = from_columns(session[rows], item[rows], columns["ts"][rows], actions=code[rows])
    later = np.isin(session, ask) & (code < len(ACTIONS))
    did: dict[tuple[str, str], set[str]] = {}
    for who, what, action in zip(session[later].tolist(), item[later].tolist(), code[later].tolist(), strict=True):
        did.setdefault((str(who), str(what)), set()).add(ACTIONS[action])
    return ActionRates.fit(train, refusals=refusals), {pair: frozenset(actions) for pair, actions in did.items()}


def _questions(
    session: NDArray[Any], item: NDArray[Any], time: NDArray[np.float64], model: Model, most: int, rng: int
) -> tuple[list[list[str]], list[str], NDArray[np.int32], list[str]]:
    """Prefixes, the click that follows each, the number of its session, and the ids of the sessions."""
    names, place = np.unique(session.astype(str), return_inverse=True)
    known = set(model.item_ids)
    order = np.lexsort((time, place.ravel()))
    steps: list[list[str]] = [[] for _ in names]
    for at in order.tolist():
        item_id = str(item[at])
        if item_id in known:
            steps[place.ravel()[at]].append(item_id)
    turn = np.random.default_rng(rng).permutation(len(names)) if len(item) > most else np.arange(len(names))
    prefixes: list[list[str]] = []
    wanted: list[str] = []
    owner: list[int] = []
    for number in turn.tolist():
        clicks = steps[number]
        for step in range(1, len(clicks)):
            prefixes.append(clicks[:step])
            wanted.append(clicks[step])
            owner.append(number)
        if len(wanted) >= most:
            break
    if not wanted:
        raise BadInput("no test session has two items that a model could know.", hint="Ask with a longer log.")
    return prefixes, wanted, np.array(owner, dtype=np.int32), names.tolist()
