"""Compares recommenders on one log: same clicks to learn from, same questions, each with its price."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from thinslice.errors import BadInput, NotReady, UnknownName
from thinslice.evaluation.gates import MIN_QUERIES
from thinslice.evaluation.measure import Measured, Told, measure
from thinslice.evaluation.simplest import MARGIN, differences, simplest
from thinslice.evaluation.splits import Split, split_log, stages
from thinslice.models import MODELS
from thinslice.records import Item

MOST_COMPARISONS = 500_000_000
"""Queries × items above which a model that compares all of them runs only when it is named."""


def evaluate(
    events: Mapping[str, NDArray[Any]],
    models: Sequence[str] | None = None,
    k: int = 20,
    *,
    items: Sequence[Item] | None = None,
    order_only: bool | None = None,
    rng: int = 0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    margin: float = MARGIN,
    cut: str = "session",
    test_days: float | None = None,
    refit_hours: float | None = None,
    progress: Told | None = None,
) -> dict[str, Any]:
    """Fits each model on the earlier part of a log and asks it about the later part.

    Args:
        events: Columns `session_id`, `item_id`, `ts`, and if present `event`, `split`, `user_id`; shape (rows,) each.
        models: Names; None takes all.
        k: Length of a list, 1 to 1000.
        items: The catalog, for models that read it; what was published after a model learned is kept from it.
        order_only: Whether `ts` only tells the order; None finds out.
        rng: Seed for models that draw.
        settings: Model name → settings of its `fit`; what is not named stays at its default.
        margin: Relative loss of hit rate or reciprocal rank that a simpler model may have and still be enough.
        cut: `session` or `moment`; see `split_log`.
        test_days: How many days at the end are the test; None: 1 of a short log, else 7.
        refit_hours: Models learn anew this often while the test goes on, as they would when they serve; None: once.
        progress: Told while it runs.

    Returns:
        `protocol`; one row a model under `models`; `skipped`, the models that refused this log and why;
        `differences`, paired, each model against the default pipeline (the last) and that one against the best of the
        others; `simplest`, the name of the first model that is not worse than the best by more than the margin, and
        `sentence`, why.

    Raises:
        BadInput: The log cannot be cut, a value is out of its range, or no model can learn from this log.
        UnknownName: There is no such model.
    """
    chosen = named_models(models)
    if not 1 <= k <= 1000:
        raise BadInput(f"k must be between 1 and 1000, got {k}.")
    if not 0 <= margin < 1:
        raise BadInput(f"the margin must be a share from 0 to below 1, got {margin}.")
    if refit_hours is None:
        parts = [split_log(events, order_only=order_only, cut=cut, test_days=test_days)]
    elif cut == "session":
        parts = stages(events, refit_hours, order_only=order_only, test_days=test_days)
    else:
        raise BadInput("models that learn anew every few hours are asked session by session; leave the cut as it is.")
    measured: dict[str, Measured] = {}
    skipped: list[dict[str, str]] = []
    for name in chosen:
        own = dict((settings or {}).get(name, {}))
        if models is None and (why := too_long(name, parts) or needless(name, parts)):
            skipped.append({"name": name, "reason": why})
            continue
        try:
            measured[name] = measure(MODELS[name], parts, k, items, rng, own, progress)
        except (NotReady, BadInput) as error:
            if own or len(chosen) == 1:
                raise
            skipped.append({"name": name, "reason": str(error)})
    if not measured:
        reasons = " ".join(f"{row['name']}: {row['reason']}" for row in skipped)
        raise BadInput(f"no model can learn from this log. {reasons}")
    replays = {name: found.answers for name, found in measured.items()}
    enough = simplest(replays, margin=margin, k=k)
    asked = len(next(iter(replays.values())).rank)
    few = ""
    if len(replays) > 1 and asked < MIN_QUERIES:
        few = f" `train` chooses by {MIN_QUERIES} queries or more, these are {asked}."
    return {
        "protocol": protocol(parts, k, rng, margin, refit_hours, items),
        "models": [found.row for found in measured.values()],
        "skipped": skipped,
        "differences": differences(replays, margin),
        "simplest": enough.name,
        "sentence": enough.sentence + few,
    }


def too_long(name: str, parts: Sequence[Split]) -> str:
    """Why a model is left out unless it is named: it compares every query with every item; empty when it may run."""
    if not getattr(MODELS[name], "compares_all", False):
        return ""
    items = max(len(part.train.item_ids) for part in parts)
    queries = sum(part.query_count for part in parts)
    if items * queries <= MOST_COMPARISONS:
        return ""
    return f"{queries:,} queries × {items:,} items take it many minutes; it runs when it is named with --models."


def needless(name: str, parts: Sequence[Split]) -> str:
    """Why a model is left out unless it is named: in a log without users it is another one to the last digit."""
    other = str(getattr(MODELS[name], "without_users", ""))
    if not other or any(user is not None for part in parts for user in part.users):
        return ""
    return f"nobody who asks is known in this log, and without users it is {other}."


def named_models(models: Sequence[str] | None) -> list[str]:
    """The chosen models, from the simplest on; None takes all but shelves and those of an extra or on request.

    Raises:
        UnknownName: There is no such model.
        BadInput: None is named.
    """
    left_out = ("shelf", "extra", "on_request")
    every = [name for name, kind in MODELS.items() if not any(getattr(kind, each, False) for each in left_out)]
    chosen = every if models is None else list(dict.fromkeys(models))
    for name in chosen:
        if name not in MODELS:
            raise UnknownName(f"there is no model {name!r} (there is: {', '.join(MODELS)}).")
    if not chosen:
        raise BadInput("at least one model must be named.", hint=f"There is: {', '.join(MODELS)}.")
    return sorted(chosen, key=list(MODELS).index)


def protocol(
    parts: Sequence[Split],
    k: int,
    rng: int,
    margin: float,
    refit_hours: float | None,
    items: Sequence[Item] | None,
) -> dict[str, Any]:
    """How the figures were made, in plain values."""
    how = dict(parts[0].how)
    for name in ("test_sessions", "test_clicks_unknown_removed"):
        how[name] = sum(part.how[name] for part in parts)
    return {
        **how,
        "k": k,
        "queries": sum(part.query_count for part in parts),
        "queries_of_unseen_items": sum(len(part.unseen.sessions) for part in parts),
        "query": "every prefix of a test session, the next click is looked for; repeats count",
        "ranking": "all items, nothing filtered",
        "ties": "against the model",
        "standard_errors": "clustered by session",
        "query_us": "CPU time of the one thread that asks, item codes in and out",
        "peak_mb": "the whole process so far",
        "learned": "once, at the cut" if refit_hours is None else f"every {refit_hours:g} hours, {len(parts)} times",
        "known_users": sum(user is not None for part in parts for user in part.users),
        "catalog_items": len(items or ()),
        "margin": margin,
        "rng": rng,
    }
