"""Before a launch: how much of what a new policy would show was ever shown, and how much the past can tell of it."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from thinslice.errors import StatisticsError
from thinslice.experiments.wording import percent
from thinslice.stats import Quotient, moments, sample

LEAST_SEEN = 20
"""An item that was shown, or seen, so often has support: less tells next to nothing of it."""

MIN_SLATES = 100
"""So many slates have to be compared before anything is said."""

MIN_SHOWN = 1_000
"""And so many have to be logged before a launch is refused: a young shop knows little of any item."""

COLD_SHARE = 0.5
"""A policy of whose places a smaller share is known starts cold."""

THIN_SHARE = 0.9
"""With a smaller share shown before, the past tells little."""

EFFECTIVE_SHARE = 0.1
"""With an effective sample smaller than this share of the log, what was measured offline need not hold."""

COLD_ITEMS = 10
"""So many of the most wanted unknown items are named."""


class Compared(NamedTuple):
    """Slates that were shown, side by side with what the new policy would have shown in their place.

    Attributes:
        units: Who saw each; slates of one unit are not independent.
        shown: Item ids as they were shown, best first.
        chances: How likely each of them was at its place; 1 where nothing was left to chance.
        would: Item ids that the new policy would have shown.
        segments: Segment → value of each slate.
    """

    units: Sequence[str]
    shown: Sequence[Sequence[str]]
    chances: Sequence[Sequence[float]]
    would: Sequence[Sequence[str]]
    segments: Mapping[str, Sequence[str]] = {}


class Share(msgspec.Struct, frozen=True):
    """A share, 0..1, with its 95 % interval; None where there is nothing to count."""

    value: float | None
    ci: tuple[float, float] | None


class Support(msgspec.Struct, frozen=True, kw_only=True):
    """How far the log reaches to a new policy.

    `shown` is the share of its places (a place further down counts less, as in NDCG) whose item was shown there before
    at least `LEAST_SEEN` times, `known` the share whose item was shown or looked at anywhere as often. `effective` is
    the effective sample size of the importance weights, in places, `effective_share` that of all places. `source` says
    where the slates come from: `shadow`, `replay`, or empty when there are none. `verdict` is `ok`, `thin`, `cold`,
    `unknown`, or `untrained` where the policy has no model yet; `segments` are the same figures for each value.
    """

    variant: str
    policy: str
    source: str
    slates: int
    logged_slates: int
    shown: Share
    known: Share
    effective: float
    effective_share: float
    cold_items: list[str]
    segments: list[dict[str, object]]
    verdict: str
    sentence: str


def support(
    compared: Compared, shows: Mapping[str, int], views: Mapping[str, int], *, variant: str = "", policy: str = "",
    source: str = "replay", logged_slates: int | None = None,
) -> Support:  # fmt: skip
    """How far the log reaches to a new policy.

    Args:
        compared: Slates, and what would have been shown.
        shows: Item → how often it was shown in this place.
        views: Item → how often it was looked at, however people came to it.
        variant: Whose policy; for the sentence.
        policy: Its name.
        source: `shadow` or `replay`.
        logged_slates: How many slates `shows` were counted in; None: those compared.

    Source: effective sample size as in Kish (1965); support as in Sachdeva, Su and Joachims, Off-policy bandits with
    deficient support (2020).
    """
    whole = _figures(compared, shows, views, np.ones(len(compared.shown), dtype=np.bool_))
    segments: list[dict[str, object]] = []
    for name, values in compared.segments.items():
        of = np.asarray(values, dtype=str)
        for value in np.unique(of).tolist():
            part = _figures(compared, shows, views, of == value)
            segments.append(
                {"segment": name, "value": value, "slates": part.slates, "shown": msgspec.to_builtins(part.shown),
                 "known": msgspec.to_builtins(part.known), "effective_share": part.effective_share}
            )  # fmt: skip
    wanted: dict[str, float] = {}
    for would in compared.would:
        for place, item_id in enumerate(would):
            if shows.get(item_id, 0) + views.get(item_id, 0) < LEAST_SEEN:
                wanted[item_id] = wanted.get(item_id, 0.0) + _mass(place)
    cold_items = sorted(wanted, key=lambda item_id: (-wanted[item_id], item_id))[:COLD_ITEMS]
    logged = len(compared.shown) if logged_slates is None else logged_slates
    verdict = _verdict(whole, logged)
    return Support(
        variant=variant, policy=policy, source=source, slates=whole.slates, logged_slates=logged, shown=whole.shown,
        known=whole.known, effective=whole.effective, effective_share=whole.effective_share, cold_items=cold_items,
        segments=segments, verdict=verdict, sentence=_sentence(variant or policy, verdict, whole),
    )  # fmt: skip


def nothing_known(variant: str, policy: str, why: str) -> Support:
    """What is said of a policy that cannot be compared with what was shown."""
    none = Share(None, None)
    return Support(
        variant=variant, policy=policy, source="", slates=0, logged_slates=0, shown=none, known=none, effective=0.0,
        effective_share=0.0, cold_items=[], segments=[], verdict="unknown", sentence=f"{variant}: {why}",
    )  # fmt: skip


class _Figures(NamedTuple):
    slates: int
    shown: Share
    known: Share
    effective: float
    effective_share: float


def _figures(
    compared: Compared, shows: Mapping[str, int], views: Mapping[str, int], mask: NDArray[np.bool_]
) -> _Figures:
    sums: dict[str, list[float]] = {}
    weights: list[float] = []
    for at in np.flatnonzero(mask).tolist():
        row = sums.setdefault(compared.units[at], [0.0, 0.0, 0.0])
        would, shown, chances = compared.would[at], compared.shown[at], compared.chances[at]
        for place, item_id in enumerate(would):
            mass, seen = _mass(place), shows.get(item_id, 0)
            row[0] += mass * (seen >= LEAST_SEEN)
            row[1] += mass * (seen + views.get(item_id, 0) >= LEAST_SEEN)
            row[2] += mass
        for place, item_id in enumerate(shown):
            same = place < len(would) and would[place] == item_id
            weights.append(1.0 / chances[place] if same and place < len(chances) and chances[place] > 0 else 0.0)
    table = np.array(list(sums.values()), dtype=np.float64).reshape(-1, 3)
    weight = np.array(weights)
    squares = float((weight**2).sum())
    effective = float(weight.sum()) ** 2 / squares if squares > 0 else 0.0
    return _Figures(
        int(mask.sum()), share_of(table[:, 0], table[:, 2]), share_of(table[:, 1], table[:, 2]), effective,
        effective / len(weights) if weights else 0.0,
    )  # fmt: skip


def share_of(part: NDArray[np.float64], whole: NDArray[np.float64]) -> Share:
    """A ratio of sums over units, with its interval by the delta method."""
    if not whole.size or whole.sum() <= 0:
        return Share(None, None)
    value = float(part.sum() / whole.sum())
    try:
        found = sample(moments({"part": part, "whole": whole}), Quotient("part", "whole"))
    except StatisticsError:
        return Share(value, None)
    half = NormalDist().inv_cdf(0.975) * math.sqrt(max(found.var, 0.0) / found.n)
    return Share(value, (max(0.0, value - half), min(1.0, value + half)))


def _mass(place: int) -> float:
    return 1.0 / math.log2(2 + place)


def _verdict(of: _Figures, logged: int) -> str:
    if of.slates < MIN_SLATES or of.known.value is None or of.shown.value is None:
        return "unknown"
    if of.known.ci is not None and of.known.ci[1] < COLD_SHARE and logged >= MIN_SHOWN:
        return "cold"
    thin = of.shown.value < THIN_SHARE or of.effective_share < EFFECTIVE_SHARE or of.known.value < COLD_SHARE
    return "thin" if thin else "ok"


def _sentence(name: str, verdict: str, of: _Figures) -> str:
    if verdict == "unknown" and of.slates >= MIN_SLATES:
        return f"{name}: it would have shown nothing at all in {of.slates:,} slates."
    if verdict == "unknown":
        return f"{name}: {of.slates} slates can be compared, {MIN_SLATES} are needed to say how far the past reaches."
    shown, known = (percent(each.value or 0.0, signed=False) for each in (of.shown, of.known))
    told = (
        f"{name}: of what it would show {shown} was shown here before and {known} is known at all; {of.slates:,} "
        f"slates tell as much of it as {of.effective:,.0f} places ({percent(of.effective_share, signed=False)})"
    )
    if verdict == "cold":
        return f"{told}. It starts cold."
    if verdict == "thin":
        return f"{told}. What was measured offline need not hold."
    return f"{told}."
