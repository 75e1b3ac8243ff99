"""The gates before promotion: what a new model must not be, on the same questions as popularity and the live model.

A model passes a gate that its log is too small to judge: a shop with fifty visits must be served, too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.evaluation.figures import Estimate, Z, clustered_mean, hits, quantiles, reciprocal_ranks
from thinslice.evaluation.replay import Replay

MIN_QUERIES = 200
"""With fewer questions nothing is withheld."""

MIN_SEGMENT = 50
"""A segment with fewer questions is not judged."""

COLLAPSED_SHARE = 0.2
"""A segment that is shown to have lost more than this share of its hit rate has collapsed."""

COVERAGE_SHARE = 0.5
"""A model that shows less than this share of the items that the live one shows has narrowed too much ..."""

NARROWEST_SHARE = 0.2
"""... unless it is shown to foresee more: then it may show less, down to this share. To guess widely is no merit."""

SLOWEST_MS = 20.0
"""A model that takes longer than this for one question in ten (milliseconds of CPU) is too slow to be asked."""

LENGTHS = ((1, 1), (2, 2), (3, 4), (5, 9), (10, None))
"""Clicks known when a question was asked, from … to."""


class Gate(NamedTuple):
    """One condition: whether a model meets it, and the figures that say so."""

    name: str
    passed: bool
    detail: str


def gates(
    new: Replay,
    *,
    popular: Replay | None,
    live: Replay | None,
    margin: float,
    head: NDArray[np.bool_] | None = None,
) -> list[Gate]:
    """Every gate that can be judged; all replays are of the same questions in the same order.

    Args:
        new: The model that wants to be promoted.
        popular: What everybody sees; None when the model is itself the same for everybody.
        live: The model that answers now, freshly learned from the same clicks; None when there is none.
        margin: Relative loss that is accepted, positive.
        head: Shape (queries,), whether the clicked item is one of the most clicked; None judges no such segment.
    """
    found = [latency(new)]
    if len(new.rank) < MIN_QUERIES:
        return found
    if popular is not None:
        found.append(better_than_popular(new, popular))
    if live is not None:
        found += [not_worse(new, live, margin), segments_hold(new, live, head), coverage(new, live)]
    return found


def failures(found: Sequence[Gate]) -> list[str]:
    """In words, the gates that were not met."""
    return [f"{gate.name}: {gate.detail}" for gate in found if not gate.passed]


def better_than_popular(new: Replay, popular: Replay) -> Gate:
    """Fails when hit rate or reciprocal rank is shown (paired, 95 %) to be below popularity's."""
    passed, words = True, []
    for name, worth in (("HR", hits), ("MRR", reciprocal_ranks)):
        difference = _paired(worth(new.rank) - worth(popular.rank), new.session)
        high = difference.interval()[1]
        passed = passed and not (high is not None and high < 0)
        words.append(f"{name} {worth(new.rank).mean():.3f} against {worth(popular.rank).mean():.3f}")
    return Gate("better than popular", passed, ", ".join(words))


def not_worse(new: Replay, live: Replay, margin: float) -> Gate:
    """Fails when the loss may be (paired, 95 %) larger than the margin.

    Where the questions are too few to tell a loss of the margin from none, the loss that is seen must be within it.
    """
    passed, words = True, []
    for name, worth in (("HR", hits), ("MRR", reciprocal_ranks)):
        difference = _paired(worth(new.rank) - worth(live.rank), new.session)
        before = float(worth(live.rank).mean())
        low, high = difference.interval()
        enough = difference.error is not None and Z * difference.error < margin * before
        worst = low if enough and low is not None else difference.value
        passed = passed and (difference.value >= 0 or worst > -margin * before)
        between = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
        words.append(f"{name} {before:.3f} {difference.value:+.3f}{between}")
    return Gate("not worse than live", passed, f"{', '.join(words)}, margin {margin:.0%}")


def segments_hold(new: Replay, live: Replay, head: NDArray[np.bool_] | None) -> Gate:
    """Fails when a segment is shown (paired, 95 %) to have lost more than `COLLAPSED_SHARE` of its hit rate."""
    kinds = []
    for low, high in LENGTHS:
        words = f"{low} or more clicks known" if high is None else f"{low} to {high} clicks known"
        kinds.append((words, (new.known >= low) & (new.known <= (high or np.iinfo(np.int32).max))))
    if head is not None:
        kinds += [("most clicked items", head), ("other items", ~head)]
    lost = []
    judged = 0
    for name, mask in kinds:
        if np.count_nonzero(mask) < MIN_SEGMENT:
            continue
        judged += 1
        before, after = hits(live.rank[mask]), hits(new.rank[mask])
        most = _paired(after - before, new.session[mask]).interval()[1]
        if most is not None and most < -COLLAPSED_SHARE * float(before.mean()):
            lost.append(f"{name} HR {before.mean():.3f} to {after.mean():.3f}")
    return Gate("no segment collapsed", not lost, "; ".join(lost) or f"{judged} segments hold")


def coverage(new: Replay, live: Replay) -> Gate:
    """Fails when far fewer different items are shown than by the live model; less is asked of one that hits more."""
    low = _paired(hits(new.rank) - hits(live.rank), new.session).interval()[0]
    share = NARROWEST_SHARE if low is not None and low > 0 else COVERAGE_SHARE
    return Gate(
        "coverage",
        new.shown >= share * live.shown,
        f"{new.shown:,} different items in the lists against {live.shown:,}",
    )


def latency(new: Replay) -> Gate:
    """Fails when one question in ten takes longer than the deadline of a page."""
    slow_ms = quantiles(new.cpu_us)["p90"] / 1000 if len(new.cpu_us) else 0.0
    return Gate("latency", slow_ms <= SLOWEST_MS, f"p90 at most {SLOWEST_MS:.0f} ms" + (
        "" if slow_ms <= SLOWEST_MS else f", it is {slow_ms:.0f} ms"))  # fmt: skip


def _paired(values: NDArray[np.float64], session: NDArray[np.int32]) -> Estimate:
    return Estimate(*clustered_mean(values, session))
