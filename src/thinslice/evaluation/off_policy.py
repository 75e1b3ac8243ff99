"""What another policy would have earned on slates that were already shown, or why this log cannot tell.

A log of a policy that left something to chance, and knew with which probabilities, holds the answer for policies that
it never ran: what they would have done more often counts more. It holds it only as far as the log reaches, so every
estimate stands behind four gates; where one does not pass there are numbers and a sentence, but no estimate.

Sources: Horvitz and Thompson (1952); Swaminathan and Joachims, The self-normalized estimator (2015); Dudík et al.,
Doubly robust policy evaluation (2011); Ionides, Truncated importance sampling (2008); Li et al., Offline evaluation of
ranking policies with click models (2018), for slates by item and position; Maurer and Pontil, Empirical Bernstein
bounds (2009).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import BadInput, TooFewUnits
from thinslice.evaluation.off_policy_slates import cascade_dr, expected, prefixes, to_come

MEAN_WEIGHT_SE = 3.0
"""The mean weight must be 1 within so many of its standard errors."""

MIN_EFFECTIVE = 200
"""The effective sample size must reach this."""

MIN_EFFECTIVE_SHARE = 0.01
"""And this share of the decisions."""

MAX_WEIGHT_SHARE = 0.1
"""No single weight may be a larger share of their sum."""

MAX_UNSUPPORTED = 0.01
"""The target may put at most this share of its probability on what the logging policy could not have shown."""

FOLDS = 5
"""The reward model of a decision learned from the other folds only."""

PSEUDO_COUNT = 50.0
"""An action that was seldom shown is drawn towards the mean reward as by so many decisions."""

BAGS = 1000
"""Beyond so many units the bootstrap resamples bags of units: same variance, less time."""

ESTIMATORS = ("ips", "snips", "clipped", "dr", "rips", "cascade-dr")
"""Inverse propensity, the same self-normalized, with weights cut, doubly robust; and two in which a place depends on
what stands above it (`off_policy_slates`)."""

ABOVE = ("propensity_above", "target_above")
"""The columns that these two need."""

INTERVALS = ("bootstrap", "bernstein")


class Gate(NamedTuple):
    """One condition for an estimate: what it is, what it must be, and whether it holds."""

    name: str
    passed: bool
    value: float
    need: str
    detail: str


class _Log(NamedTuple):
    """The decisions, one row a slot, checked and in arrays; `unit`, `slate` and `position` are codes."""

    reward: NDArray[np.float64]
    weight: NDArray[np.float64]
    unit: NDArray[np.int64]
    slate: NDArray[np.int64]
    position: NDArray[np.int64]
    units: int
    slates: int
    positions: int


class _Terms(NamedTuple):
    """An estimator as a ratio of sums: value = Σ over columns of numerator / denominator, summed over units."""

    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]


def off_policy(
    columns: Mapping[str, ArrayLike],
    *,
    probabilities: ArrayLike | None = None,
    clip: float | None = None,
    alpha: float = 0.05,
    interval: str = "bootstrap",
    bootstraps: int = 1000,
    rng: np.random.Generator | int = 0,
) -> dict[str, Any]:
    """The value of a target policy from decisions that a logging policy took, with intervals, or a refusal.

    The value is the mean reward of a decision; with a column `slate` that of a slate: the sum over its positions, each
    weighed by its own item at its own position (a click on one place is taken not to depend on the other places);
    `rips` and `cascade-dr` weigh each position by all items from the first one down to it.

    Args:
        columns: One row a decision, each of shape (rows,). `reward`; `propensity`: the logged probability of the item
            that was shown (above 0, at most 1); `target`: that of the same item under the target policy (may be left
            out when `action` and `probabilities` are there). Optional: `unit` (visitor: rows of one unit are not
            independent), `slate`, `position`, `action` (whole numbers from 0), `unsupported` (share 0..1 of the
            target's probability on what the logging policy could not have shown), `propensity_above` and `target_above`
            (both probabilities given what stands above in the same slate: for `rips` and `cascade-dr`, whose weights,
            products down the slate, have gates of their own), and a reward model of your own,
            `q` (for what was shown) and `q_target` (its mean under the target), which must not have learned from the
            same rows.
        probabilities: The target's probabilities of all actions, shape (actions,), (positions, actions) in the order
            of the sorted positions, or (rows, actions); with `action` they make `dr` possible, and `cascade-dr` where
            those of what was shown are `target_above`.
        clip: Weights above are cut to this in the estimator `clipped`; None: √rows.
        alpha: 1 - the coverage of the intervals.
        interval: `bootstrap` (percentile, by unit) or `bernstein` (empirical Bernstein: holds for every sample size,
            needs bounded weights and rewards in 0..1, so only `clipped` has one).
        bootstraps: How many resamples.
        rng: For the resamples and the folds.

    Returns:
        n, units, logged_value, logged_value_ci, mean_weight, mean_weight_se, effective_sample_size, max_weight,
        max_weight_share, gates (name, passed, value, need, detail), refused, sentence, estimates (name, value, se,
        ci; an empty list when refused), missing (estimator → why it is not there), and of slates gates_above. All
        plain values.

    Raises:
        BadInput: A column is missing, of another length, no finite number, or a propensity is not in (0, 1].
        TooFewUnits: There are fewer than two units.

    >>> log = {"reward": [1, 0, 1, 0] * 100, "propensity": [0.5] * 400, "target": [0.8, 0.2, 0.8, 0.2] * 100}
    >>> result = off_policy(log)
    >>> result["refused"], round(result["estimates"][1]["value"], 3)
    (False, 0.8)
    """
    if interval not in INTERVALS:
        raise BadInput(f"interval must be one of {', '.join(INTERVALS)}, got {interval!r}.")
    if not 0 < alpha < 1:
        raise BadInput(f"alpha must be between 0 and 1, got {alpha}.")
    random = np.random.default_rng(rng)
    given = {name: np.asarray(column) for name, column in columns.items()}
    log, propensity, table = _read(given, probabilities)
    if log.units < 2:
        raise TooFewUnits(needed=2, got=log.units)
    cut = float(clip) if clip is not None else float(np.sqrt(len(log.reward)))
    if not cut > 0:
        raise BadInput(f"clip must be positive, got {clip}.")
    mean_weight, mean_weight_se = _mean_by_unit(log.weight, log.unit, log.units)
    total, squares = float(log.weight.sum()), float(np.square(log.weight).sum())
    effective = total**2 / squares if squares > 0 else 0.0
    largest = float(log.weight.max())
    gates = _gates(log, given, table, mean_weight, mean_weight_se, effective, largest)
    failed = [gate for gate in gates if not gate.passed]
    logged = _Terms((log.reward / log.slates)[:, None], np.full((len(log.reward), 1), 1 / len(log.reward)))
    logged_value, _, logged_ci = _bootstrap(logged, log, alpha, bootstraps, random)
    result: dict[str, Any] = {
        "n": log.slates,
        "rows": len(log.reward),
        "units": log.units,
        "logged_value": logged_value,
        "logged_value_ci": logged_ci,
        "smallest_propensity": float(propensity.min()),
        "mean_weight": mean_weight,
        "mean_weight_se": mean_weight_se,
        "effective_sample_size": effective,
        "max_weight": largest,
        "max_weight_share": largest / total if total > 0 else 0.0,
        "gates": [gate._asdict() for gate in gates],
        "refused": bool(failed),
        "estimates": [],
        "missing": {},
    }
    if failed:
        reasons = "; ".join(f"{gate.name} is {gate.value:.4g}, needed {gate.need}" for gate in failed)
        result["sentence"] = f"Refused: this log cannot tell what the target policy would have earned ({reasons})."
        return result
    terms, missing = _terms(log, given, table, cut, random)
    if "slate" in given and log.positions > 1:
        below, why, result["gates_above"] = _terms_below(log, given, table, random)
        terms, missing = {**terms, **below}, {**missing, **why}
    for name, each in terms.items():
        if interval == "bernstein":
            if name != "clipped":
                missing[name] = "its weights have no bound, so it has no Bernstein interval"
                continue
            value, se, ci = _bernstein(log, each, cut, alpha)
        else:
            value, se, ci = _bootstrap(each, log, alpha, bootstraps, random)
        result["estimates"].append({"name": name, "value": value, "se": se, "ci": ci})
    result["missing"] = missing
    result["clip"] = cut
    first = next((each for each in result["estimates"] if each["name"] == "snips"), result["estimates"][0])
    result["sentence"] = (
        f"The target policy would have earned {first['value']:.4g} a {'slate' if 'slate' in given else 'decision'} "
        f"({1 - alpha:.0%} interval {first['ci'][0]:.4g} to {first['ci'][1]:.4g}, {first['name']}); the logging "
        f"policy earned {logged_value:.4g}."
    )
    return result


def _read(
    given: Mapping[str, NDArray[Any]], probabilities: ArrayLike | None
) -> tuple[_Log, NDArray[np.float64], NDArray[np.float64] | None]:
    """The log, its propensities, and the target's probabilities as (rows, actions)."""
    for name in ("reward", "propensity"):
        if name not in given:
            raise BadInput(f"off-policy evaluation needs the column {name} (there is: {', '.join(given) or 'none'}).")
    rows = len(given["reward"])
    for name, column in given.items():
        if column.shape != (rows,):
            raise BadInput(f"the column {name} must have the shape ({rows},) of reward, got {column.shape}.")
        if column.dtype.kind in "fiub" and not np.isfinite(column.astype(np.float64)).all():
            bad = int((~np.isfinite(column.astype(np.float64))).sum())
            raise BadInput(f"{bad} of {rows} values of {name} are no finite numbers.")
    if rows == 0:
        raise TooFewUnits(needed=2, got=0, what="decisions")
    propensity = given["propensity"].astype(np.float64)
    bad = int(((propensity <= 0) | (propensity > 1)).sum())
    if bad:
        raise BadInput(
            f"{bad} of {rows} propensities are not above 0 and at most 1.",
            hint="What was shown had some probability; log it when it is drawn, not afterwards.",
        )
    position, positions = _codes(given.get("position"), rows)
    table = None if probabilities is None else _table(np.asarray(probabilities, dtype=np.float64), position, positions)
    if "target" in given:
        target = given["target"].astype(np.float64)
    elif table is not None and "action" in given:
        target = table[np.arange(rows), _actions(given["action"], table.shape[1])]
    else:
        raise BadInput("off-policy evaluation needs the column target, or action together with probabilities.")
    if ((target < 0) | (target > 1)).any():
        raise BadInput("the target's probabilities must be between 0 and 1.")
    slate, slates = _codes(given.get("slate"), rows, own=True)
    unit, units = _codes(given.get("unit", given.get("slate")), rows, own=True)
    reward = given["reward"].astype(np.float64)
    return _Log(reward, target / propensity, unit, slate, position, units, slates, positions), propensity, table


def _codes(column: NDArray[Any] | None, rows: int, *, own: bool = False) -> tuple[NDArray[np.int64], int]:
    """Codes of a column; without one, every row its own code (`own`) or all the same."""
    if column is None:
        return (np.arange(rows), rows) if own else (np.zeros(rows, dtype=np.int64), 1)
    distinct, code = np.unique(column.astype(np.str_) if column.dtype.kind == "O" else column, return_inverse=True)
    return code.astype(np.int64).ravel(), len(distinct)


def _table(probabilities: NDArray[np.float64], position: NDArray[np.int64], positions: int) -> NDArray[np.float64]:
    rows = len(position)
    if probabilities.ndim == 1:
        return np.broadcast_to(probabilities, (rows, len(probabilities)))
    if probabilities.ndim == 2 and len(probabilities) == rows:
        return probabilities
    if probabilities.ndim == 2 and len(probabilities) == positions:
        return probabilities[position]
    raise BadInput(
        f"probabilities must have the shape (actions,), ({positions}, actions) or ({rows}, actions), "
        f"got {probabilities.shape}."
    )


def _actions(column: NDArray[Any], count: int) -> NDArray[np.int64]:
    if column.dtype.kind not in "iu" or (len(column) and (column.min() < 0 or column.max() >= count)):
        raise BadInput(f"actions must be whole numbers from 0 to {count - 1}, the columns of probabilities.")
    return column.astype(np.int64)


def _mean_by_unit(values: NDArray[np.float64], unit: NDArray[np.int64], units: int) -> tuple[float, float]:
    """The mean over rows and its standard error by unit (linearized, units / (units - 1))."""
    mean = float(values.mean())
    residual = np.bincount(unit, weights=values - mean, minlength=units)
    return mean, float(np.sqrt(np.square(residual).sum() * units / (units - 1)) / len(values))


def _gates(
    log: _Log,
    given: Mapping[str, NDArray[Any]],
    table: NDArray[np.float64] | None,
    mean_weight: float,
    mean_weight_se: float,
    effective: float,
    largest: float,
) -> list[Gate]:
    rows = len(log.weight)
    near = abs(mean_weight - 1) <= MEAN_WEIGHT_SE * mean_weight_se + 1e-9
    needed = max(float(MIN_EFFECTIVE), MIN_EFFECTIVE_SHARE * rows)
    total = float(log.weight.sum())
    share = largest / total if total > 0 else 1.0
    unsupported = float(given["unsupported"].astype(np.float64).mean()) if "unsupported" in given else 0.0
    detail = "as logged" if "unsupported" in given else "not logged: taken as none"
    if table is not None and "action" in given:
        never = np.bincount(_actions(given["action"], table.shape[1]), minlength=table.shape[1]) == 0
        unseen = float(table[:, never].sum(axis=1).mean())
        detail += f"; {int(never.sum())} actions never shown, {unseen:.2%} of the target's probability"
    return [
        Gate("mean_weight", near, mean_weight, f"1 ± {MEAN_WEIGHT_SE * mean_weight_se:.3g}",
             "far from 1: the logged propensities are not those of the policy that ran, or its reach is too short"),
        Gate("effective_sample_size", effective >= needed, effective, f"at least {needed:.0f}",
             f"so many decisions of the target policy itself are the {rows} logged ones worth"),
        Gate("max_weight_share", share < MAX_WEIGHT_SHARE, share, f"below {MAX_WEIGHT_SHARE:g}",
             f"the largest weight is {largest:.4g}"),
        Gate("unsupported", unsupported <= MAX_UNSUPPORTED, unsupported, f"at most {MAX_UNSUPPORTED:g}", detail),
    ]  # fmt: skip


def _terms(
    log: _Log,
    given: Mapping[str, NDArray[Any]],
    table: NDArray[np.float64] | None,
    clip: float,
    random: np.random.Generator,
) -> tuple[dict[str, _Terms], dict[str, str]]:
    """Each estimator's terms by row, and which could not be made."""
    rows = len(log.reward)
    one = np.full((rows, 1), 1 / rows)  # its sum over units is 1: a mean over slates
    gained = log.weight * log.reward
    by_position = np.zeros((rows, log.positions))
    by_position[np.arange(rows), log.position] = 1.0
    if log.slates == rows:  # one slot a decision: positions are just a property of it
        by_position = np.ones((rows, 1))
    found = {
        "ips": _Terms((gained / log.slates)[:, None], one),
        "snips": _Terms(by_position * gained[:, None], by_position * log.weight[:, None]),
        "clipped": _Terms((np.minimum(log.weight, clip) * log.reward / log.slates)[:, None], one),
    }
    missing: dict[str, str] = {}
    if "q" in given and "q_target" in given:
        q, q_target = given["q"].astype(np.float64), given["q_target"].astype(np.float64)
    elif table is not None and "action" in given:
        q, q_target = _reward_model(log, _actions(given["action"], table.shape[1]), table, random)
    else:
        missing["dr"] = "it needs action and probabilities, or q and q_target"
        return found, missing
    found["dr"] = _Terms(((q_target + log.weight * (log.reward - q)) / log.slates)[:, None], one)
    return found, missing


def _terms_below(
    log: _Log, given: Mapping[str, NDArray[Any]], table: NDArray[np.float64] | None, random: np.random.Generator
) -> tuple[dict[str, _Terms], dict[str, str], list[dict[str, Any]]]:
    """The estimators in which a place depends on what stands above it; which could not be made; and their gates."""
    names = ("rips", "cascade-dr")
    if not all(name in given for name in ABOVE):
        return {}, dict.fromkeys(names, f"it needs {' and '.join(ABOVE)}"), []
    logged, target = (given[name].astype(np.float64) for name in ABOVE)
    if ((logged <= 0) | (logged > 1) | (target < 0) | (target > 1)).any():
        raise BadInput("propensity_above must be above 0 and at most 1, target_above between 0 and 1.")
    found = prefixes(target / logged, log.slate, log.position)
    whole, unit = found.weight[found.last], log.unit[found.last]
    total, squares = float(whole.sum()), float(np.square(whole).sum())
    gates = _gates(
        log._replace(weight=whole, unit=unit), {}, None, *_mean_by_unit(whole, unit, log.units),
        total**2 / squares if squares > 0 else 0.0, float(whole.max()),
    )[:-1]  # fmt: skip  # what is not supported was looked at already
    told = [gate._asdict() for gate in gates]
    failed = [f"{gate.name} is {gate.value:.4g}, needed {gate.need}" for gate in gates if not gate.passed]
    if failed:
        return {}, dict.fromkeys(names, f"refused: of whole slates {'; '.join(failed)}"), told
    rows = len(log.reward)
    by_position = np.zeros((rows, log.positions))
    by_position[np.arange(rows), log.position] = 1.0
    terms = {"rips": _Terms(by_position * (found.weight * log.reward)[:, None], by_position * found.weight[:, None])}
    if table is None or "action" not in given:
        return terms, {"cascade-dr": "it needs action and probabilities"}, told
    action = _actions(given["action"], table.shape[1])
    if not np.allclose(table[np.arange(rows), action], target, atol=1e-6):
        return terms, {"cascade-dr": "probabilities are not those given what stands above (target_above)"}, told
    come = to_come(log.reward, target / logged, log.slate, log.position)
    fold = random.permutation(log.units)[log.unit] % FOLDS
    q, q_target = expected(come, log.position, action, table, fold, PSEUDO_COUNT)
    each = cascade_dr(log.reward, found, q, q_target)
    terms["cascade-dr"] = _Terms((each / log.slates)[:, None], np.full((rows, 1), 1 / rows))
    return terms, {}, told


def _reward_model(
    log: _Log, action: NDArray[np.int64], table: NDArray[np.float64], random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean reward of each action, drawn towards the mean of all, times that of its position; learned crosswise.

    Returns:
        Shape (rows,): of what was shown; and its mean under the target policy.
    """
    fold = random.permutation(log.units)[log.unit] % FOLDS
    q, q_target = np.empty(len(action)), np.empty(len(action))
    for number in range(FOLDS):
        learn, ask = fold != number, fold == number
        if not ask.any():
            continue
        mean = float(log.reward[learn].mean()) if learn.any() else 0.0
        shown = np.bincount(action[learn], minlength=table.shape[1])
        gained = np.bincount(action[learn], weights=log.reward[learn], minlength=table.shape[1])
        by_action = (gained + PSEUDO_COUNT * mean) / (shown + PSEUDO_COUNT)
        at = np.bincount(log.position[learn], minlength=log.positions)
        earned = np.bincount(log.position[learn], weights=log.reward[learn], minlength=log.positions)
        there = (earned + PSEUDO_COUNT * mean) / (at + PSEUDO_COUNT)
        factor = there / mean if mean else np.ones(log.positions)
        q[ask] = by_action[action[ask]] * factor[log.position[ask]]
        q_target[ask] = (table[ask] @ by_action) * factor[log.position[ask]]
    return q, q_target


def _value(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Σ over columns of numerator / denominator; a column without weight adds nothing."""
    there = denominator > 0
    ratio: NDArray[np.float64] = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=there)
    return np.asarray(ratio.sum(axis=-1))


def _bootstrap(
    terms: _Terms, log: _Log, alpha: float, bootstraps: int, random: np.random.Generator
) -> tuple[float, float, list[float]]:
    """Value, standard error and percentile interval, units drawn with replacement (as Poisson counts)."""
    group, groups = log.unit, log.units
    if groups > BAGS:
        group, groups = random.permutation(groups)[log.unit] % BAGS, BAGS
    columns = terms.numerator.shape[1]
    sums = np.empty((groups, 2 * columns))
    for column in range(columns):
        sums[:, column] = np.bincount(group, weights=terms.numerator[:, column], minlength=groups)
        sums[:, columns + column] = np.bincount(group, weights=terms.denominator[:, column], minlength=groups)
    whole = sums.sum(axis=0)
    value = float(_value(whole[:columns], whole[columns:]))
    drawn = []
    for start in range(0, bootstraps, 100):
        counts = random.poisson(1.0, (min(100, bootstraps - start), groups)).astype(np.float64)
        resampled = counts @ sums
        drawn.append(_value(resampled[:, :columns], resampled[:, columns:]))
    spread = np.concatenate(drawn)
    low, high = np.quantile(spread, [alpha / 2, 1 - alpha / 2]).tolist()
    return value, float(spread.std(ddof=1)), [low, high]


def _bernstein(log: _Log, terms: _Terms, clip: float, alpha: float) -> tuple[float, float, list[float]]:
    """Value, standard error and the two-sided empirical Bernstein interval over units, for weights of at most `clip`.

    Raises:
        BadInput: A reward is not between 0 and 1.
    """
    if log.reward.min() < 0 or log.reward.max() > 1:
        raise BadInput(f"a Bernstein interval needs rewards in 0..1, got {log.reward.min()} to {log.reward.max()}.")
    by_unit = np.bincount(log.unit, weights=terms.numerator[:, 0], minlength=log.units) * log.units
    most = int(np.bincount(log.unit, minlength=log.units).max())
    reach = clip * most * log.units / log.slates  # no unit's term can be larger
    value, se = float(by_unit.mean()), float(by_unit.std(ddof=1) / np.sqrt(log.units))
    about = np.log(4 / alpha)
    half = se * np.sqrt(2 * about) + 7 * reach * about / (3 * (log.units - 1))
    return value, se, [max(0.0, value - half), value + half]
