"""What exploration learns from: batches of shown slates and their clicks become beliefs for the next slates."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models import Vocabulary
from thinslice.recommend.explore.clicks import (
    ClickCounts,
    Shown,
    add,
    attention,
    cascaded,
    check,
    fading,
    no_clicks,
    places,
    rates,
)
from thinslice.recommend.explore.thompson import EXPLORERS
from thinslice.records import Arrays, Item, Model

Prior = Callable[[Sequence[str], Mapping[str, float]], NDArray[np.float64]]
"""From item ids and the known click rates (item → rate) to a rate to expect of each, NaN where there is no telling."""

OUTER = 1 / 1024
"""What lies below this quantile is never drawn."""

DRAWS = 1024
"""So many draws of linear weights are kept."""

MAX_NEWCOMERS = 500
"""So many items that hardly anything is known of are kept in hand."""


def learn(
    explore: str,
    shown: Shown,
    *,
    before: Arrays | None = None,
    items: Sequence[Item] = (),
    prior: Prior | NDArray[np.float64] | None = None,
    features: int = 32,
    half_life_days: float = 30.0,
    pseudo_count: float = 50.0,
    until: float | None = None,
    rng: np.random.Generator | int | None = 0,
) -> Arrays:
    """Beliefs after one batch more: the arrays of an explorer, whose `from_arrays` makes slates of them.

    Args:
        explore: `position-thompson`, `cascade-thompson` or `linear-thompson`.
        shown: The batch: places of slates, and which were clicked.
        before: The arrays after the batches so far; None at the start.
        items: The catalog: items that were never shown are known by their features and their prior.
        prior: A click rate to expect of items that are hardly known: a function of their ids and of the rates known so
            far, or an array beside `items`; None or NaN: the rate of all together.
        features: Length of the feature vectors of `linear-thompson`.
        half_life_days: A show or click this old counts half.
        pseudo_count: The prior weighs as many looks.
        until: Unix seconds up to which slates were counted; None: the last one.
        rng: For the bank of linear draws.

    Raises:
        BadInput: There is no such explorer, the columns do not fit together, or `before` is of another kind.

    >>> from thinslice.recommend.explore import BetaThompson
    >>> row = Shown(np.array(["a", "b"]), np.array([0, 1]), np.array([True, False]), np.array([1, 1]), np.zeros(2))
    >>> BetaThompson.from_arrays(learn("position-thompson", row)).item_ids[:]
    ['a', 'b']
    """
    if explore not in EXPLORERS:
        raise BadInput(f"there is no {explore!r} that learns (there is: {', '.join(EXPLORERS)}).")
    check(shown)
    counts = add(
        no_clicks() if before is None else counts_of(before),
        cascaded(shown) if explore == "cascade-thompson" else shown,
        half_life_days=half_life_days,
    )
    catalog = {item.item_id: item for item in items}
    names = sorted(set(counts.item_ids) | catalog.keys())
    counts = widened(counts, names)
    seen = attention(counts)
    clicks, looks, mean = rates(counts, seen)
    expected = _expected(names, clicks, looks, mean, prior, catalog, pseudo_count)
    shape = np.empty((len(names) + 1, 2))
    shape[:-1, 0] = expected * pseudo_count + clicks
    shape[:-1, 1] = (1.0 - expected) * pseudo_count + looks - clicks
    shape[-1] = mean * pseudo_count, (1.0 - mean) * pseudo_count
    last = float(shown.time.max()) if len(shown.time) else counts.at
    arrays: Arrays = {
        **Vocabulary(names).arrays(),
        "shows": counts.shows,
        "clicks": counts.clicks,
        "attention": seen,
        "belief": shape,
        "newcomer": newcomers(names, looks, expected, catalog, pseudo_count),
        "counted": np.array([counts.batches, counts.rows], dtype=np.int64),
        "until": np.array([last if until is None else until, counts.at]),
    }
    if explore != "linear-thompson":
        return {**arrays, "quantile": quantiles(shape)}
    vectors = np.vstack([hashed(catalog.get(name), features) for name in [*names, ""]])
    return {**arrays, **_linear(shown, before, vectors, names, seen, mean, counts, half_life_days, rng)}


def counts_of(arrays: Arrays) -> ClickCounts:
    """What was counted, from an explorer's arrays."""
    batches, rows = (int(each) for each in arrays["counted"])
    return ClickCounts(
        list(Vocabulary.from_arrays(arrays)), np.asarray(arrays["shows"]), np.asarray(arrays["clicks"]),
        float(arrays["until"][1]), batches, rows,
    )  # fmt: skip


def widened(counts: ClickCounts, names: Sequence[str]) -> ClickCounts:
    """The same counts with rows of zeros for items that were never shown."""
    at = places(counts, names)
    there = at >= 0
    shape = (len(names), counts.shows.shape[1])
    shows, clicks = np.zeros(shape), np.zeros(shape)
    shows[there], clicks[there] = counts.shows[at[there]], counts.clicks[at[there]]
    return counts._replace(item_ids=list(names), shows=shows, clicks=clicks)


def _expected(
    names: Sequence[str],
    clicks: NDArray[np.float64],
    looks: NDArray[np.float64],
    mean: float,
    prior: Prior | NDArray[np.float64] | None,
    catalog: Mapping[str, Item],
    pseudo_count: float,
) -> NDArray[np.float64]:
    """The click rate that each item's belief starts from."""
    expected = np.full(len(names), mean)
    if prior is None:
        return expected
    given: NDArray[np.float64]
    if callable(prior):
        known = {names[at]: float((clicks[at] + mean * pseudo_count) / (looks[at] + pseudo_count))
                 for at in np.flatnonzero(looks > 0).tolist()}  # fmt: skip
        asked = np.flatnonzero(looks < pseudo_count)
        given = np.full(len(names), np.nan)
        given[asked] = prior([names[at] for at in asked.tolist()], known)
    else:
        if len(prior) != len(catalog):
            raise BadInput(f"the prior must have one rate an item of the catalog ({len(catalog)}), got {len(prior)}.")
        by_id = dict(zip(catalog, np.asarray(prior, dtype=np.float64).tolist(), strict=True))
        given = np.array([by_id.get(name, np.nan) for name in names])
    there = np.isfinite(given)
    expected[there] = np.clip(given[there], 1e-6, 1.0 - 1e-6)
    return expected


def similar_prior(model: Model, *, similar: int = 10, most: int = 2000) -> Prior:
    """A prior from a model of content: an item is expected to be clicked as often as those most like it.

    Args:
        model: Asked for each item alone; its answer is taken as the items most like it, their scores as likeness.
        similar: How many of them count.
        most: Only so many items are asked about in one training.
    """

    def prior(item_ids: Sequence[str], known: Mapping[str, float]) -> NDArray[np.float64]:
        found = np.full(len(item_ids), np.nan)
        if not known:
            return found
        shown = np.array([name in known for name in model.item_ids], dtype=np.bool_)
        for number, item_id in enumerate(item_ids[:most]):
            like = model.recommend([item_id], similar, allowed=shown)
            weight = np.array(like.scores)
            if len(weight) and weight.sum() > 0:
                found[number] = weight @ np.array([known[each] for each in like.item_ids]) / weight.sum()
        return found

    return prior


def newcomers(
    names: Sequence[str],
    looks: NDArray[np.float64],
    expected: NDArray[np.float64],
    catalog: Mapping[str, Item],
    pseudo_count: float,
) -> NDArray[np.int32]:
    """Codes of the catalog's items that were looked at less than the prior weighs, the most promising first."""
    new = np.flatnonzero((looks < pseudo_count) & np.array([name in catalog for name in names], dtype=np.bool_))
    if not len(new):
        return np.empty(0, dtype=np.int32)
    born = np.array([_published(catalog[names[at]]) for at in new.tolist()])
    order = np.lexsort((-born, -expected[new]))
    return new[order][:MAX_NEWCOMERS].astype(np.int32)


def _published(item: Item) -> float:
    return (item.published_at or item.updated_at).timestamp()


def quantiles(shape: NDArray[np.float64]) -> NDArray[np.float32]:
    """Each Beta as a table of its quantiles, shape (items, nodes); shapes are rounded to three digits.

    Args:
        shape: Shape (items, 2).
    """
    from scipy.special import betaincinv

    from thinslice.recommend.explore.kernel import CELLS, TAIL

    nodes = np.concatenate([np.arange(CELLS) / CELLS, 1.0 - 2.0 ** -(5 + 2 * np.arange(1.0, TAIL + 1))])
    nodes[0] = OUTER
    digits = 10.0 ** (np.floor(np.log10(np.maximum(shape, 1e-9))) - 2)
    rounded, back = np.unique(np.maximum(np.round(shape / digits) * digits, 1e-3), axis=0, return_inverse=True)
    table = betaincinv(rounded[:, :1], rounded[:, 1:], nodes)
    return np.asarray(table, dtype=np.float32)[back.ravel()]


def hashed(item: Item | None, features: int) -> NDArray[np.float64]:
    """An item as a vector: a constant, and its traits hashed to places with a sign; without traits the constant alone.

    Source: Weinberger et al., Feature hashing for large scale multitask learning (2009).

    Raises:
        BadInput: `features` is less than 2.
    """
    import hashlib

    if features < 2:
        raise BadInput(f"at least 2 features are needed, got {features}.")
    vector = np.zeros(features)
    if item is not None:
        for name, value in sorted(_traits(item)):
            digest = int.from_bytes(hashlib.blake2b(f"{name}={value}".encode(), digest_size=8).digest(), "little")
            vector[1 + digest % (features - 1)] += 1.0 if digest >> 63 else -1.0
        length = float(np.sqrt(vector @ vector))
        vector = vector / length if length else vector
    vector[0] = 1.0
    return vector


def _traits(item: Item) -> set[tuple[str, str]]:
    found = {("category", each) for each in item.categories}
    single = {"kind": item.kind, "brand": item.brand, "creator": item.creator_id}
    found.update((name, value) for name, value in single.items() if value)
    found.update((name, str(value)) for name, value in item.attributes.items() if isinstance(value, str | int | bool))
    if item.price_minor:
        found.add(("price", str(int(np.log2(item.price_minor)))))
    return found


def _linear(
    shown: Shown,
    before: Arrays | None,
    vectors: NDArray[np.float64],
    names: Sequence[str],
    seen: NDArray[np.float64],
    mean: float,
    counts: ClickCounts,
    half_life_days: float,
    rng: np.random.Generator | int | None,
) -> Arrays:
    """The belief in weights: a Gaussian around `every item is clicked like all together`, and draws from it."""
    features, slots = vectors.shape[1], counts.shows.shape[1]
    gram, moment = np.zeros((slots, features, features)), np.zeros((slots, features))
    if before is not None:
        if "gram" not in before or before["gram"].shape[1] != features:
            raise BadInput(
                f"the counts so far do not have {features} linear features.", hint="Start again: `before=None`."
            )
        faded = fading(float(before["until"][1]), counts.at, half_life_days)
        gram[: len(before["gram"])] = before["gram"] * faded
        moment[: len(before["moment"])] = before["moment"] * faded
    code = {name: number for number, name in enumerate(names)}
    row = np.array([code[name] for name in shown.item_id.tolist()], dtype=np.int64)
    weight = fading(shown.time, counts.at, half_life_days)
    slot = np.minimum(shown.slot, slots - 1)
    for place in np.unique(slot).tolist():
        here = slot == place
        x, w = vectors[row[here]], weight[here]
        gram[place] += (x * w[:, None]).T @ x
        moment[place] += x.T @ (w * shown.clicked[here])
    start = np.zeros(features)
    start[0] = mean
    ridge = (1.0 - mean) / mean  # a weight as large as the mean rate is nothing unusual
    precision = ridge * np.eye(features) + np.tensordot(seen**2, gram, axes=1)
    believed = np.linalg.solve(precision, ridge * start + seen @ moment)
    spread = np.sqrt(mean * (1.0 - mean))
    normal = np.random.default_rng(rng).standard_normal((DRAWS, features))
    lower = np.linalg.cholesky(precision)
    bank = believed + spread * np.linalg.solve(lower.T, normal.T).T
    return {
        "feature": vectors.astype(np.float32), "bank": bank.astype(np.float32), "mean": believed,
        "precision": precision, "gram": gram, "moment": moment,
    }  # fmt: skip
