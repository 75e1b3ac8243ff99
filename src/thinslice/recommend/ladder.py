"""The ladder: the session's model first, then what is popular, then what is new, so that no slate is ever empty.

A slate is made in four steps: **candidates** (each rung ranks only what its filter lets through), then what the rules
say of lists (`admit`: quotas), then an **arrangement** (objectives, exploration, diversity: a function that the caller
hands in), then the **slate** (pins, the cut at `k`, and a reason for each item that is shown).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from thinslice.recommend.reasons import reasons
from thinslice.records import Model, ScoredItems, SlateItem

Title = Callable[[str], str]
"""Item id → its title."""

Failed = Callable[[str, Exception], None]
"""Called with a rung's name and what went wrong in it."""


class Filter(Protocol):
    """Which of a model's items may be shown to this visitor now."""

    def allowed(self, without: Iterable[str]) -> NDArray[np.bool_]:
        """A mask over the model's items, shape (items,), without some more items; nobody writes to it or keeps it."""
        ...

    def count(self, without: Iterable[str]) -> int:
        """How many items `allowed` lets through."""
        ...


class Rung(NamedTuple):
    """One source of a slate: a model, which of its items may be shown, and what it is asked.

    Attributes:
        model: Ranks.
        availability: Which of its items may be shown.
        session: What this model is asked instead of the session (the page's item, the cart); None: the session.
        source: The name that the slate gives to its items; empty: the model's own.
        alone: When it has anything, no further rung is asked.
    """

    model: Model
    availability: Filter
    session: Sequence[str] | None = None
    source: str = ""
    alone: bool = False


class Candidates(NamedTuple):
    """What a slate is chosen from, best first.

    Attributes:
        item_ids: Each once.
        scores: Side by side with them; comparable only within a rung.
        sources: Who ranked each.
        rungs: The number of the rung that each came from, never falling; `len(rungs)` of the ladder and above: the
            catalog or the last good slate.
        total: Out of how many items the first rung chose.
    """

    item_ids: list[str]
    scores: list[float]
    sources: list[str]
    rungs: list[int]
    total: int


class Arrangement(NamedTuple):
    """The order in which candidates are shown.

    Attributes:
        order: Indices of candidates, the first place first.
        propensities: Probability of each shown candidate at its place; None: 1, nothing was left to chance.
        objectives: What was weighed, for the exposure.
        scores: Of all candidates, where weighing made other ones; None: those of the models.
    """

    order: Sequence[int]
    propensities: Sequence[float] | None = None
    objectives: Mapping[str, float] = {}
    scores: Sequence[float] | None = None


AS_RANKED = Arrangement(())
"""Nobody arranges: the candidates stand as they came."""

Arrange = Callable[[Candidates, int], Arrangement]
"""From candidates and a number of places to an order; it may leave out candidates, and names none twice."""


class Slate(NamedTuple):
    """What is shown, best first, and out of how many candidates it was chosen.

    Attributes:
        items: At most k.
        candidate_count: Items that could have been shown.
        propensities: Of each item at its place.
        objectives: What was weighed.
        removed: Rule → how many items it took out.
    """

    items: list[SlateItem]
    candidate_count: int
    propensities: list[float] = []  # noqa: RUF012 (a NamedTuple's default, never written to)
    objectives: Mapping[str, float] = {}
    removed: Mapping[str, int] = {}


def climb(
    session: Sequence[str],
    k: int,
    *,
    rungs: Sequence[Rung],
    catalog: Iterable[str] = (),
    last_good: Iterable[SlateItem] = (),
    without: Set[str] = frozenset(),
    title: Title = str,
    failed: Failed | None = None,
    depth: int = 0,
    admit: Callable[[str], bool] | None = None,
    arrange: Arrange | None = None,
    pins: Mapping[int, str] | None = None,
    boost: Callable[[str], float] | None = None,
    user_id: str | None = None,
    fresh: Iterable[str] = (),
    most_fresh: int = 0,
) -> Slate:
    """Fills `k` places from the first rung that has something, then from the next ones.

    Args:
        session: Item ids, oldest first.
        k: Places to fill.
        rungs: Models, the best first; each ranks only what may be shown.
        catalog: Available items in the catalog's order, for a shop without any model.
        last_good: The last good slate of this place, for when nothing else has anything.
        without: Items that must not be shown: the one of the page, and what was bought.
        title: For the reasons.
        failed: Told when a rung could not answer; the next rung answers then.
        depth: How many candidates the first rung may give, when what follows needs more than `k`.
        admit: Asked for each candidate in turn whether the slate may hold it beside those that came before.
        arrange: Orders the candidates; None: as they came.
        pins: Position → item that stands there whatever its score; the caller knows that it may be shown.
        boost: Item → factor of its score.
        user_id: For models that know users.
        fresh: Candidates beside those of the models, of which hardly anything is known; `arrange` decides on them.
        most_fresh: How many of them join those of the models.

    Returns:
        The slate; it is shorter than `k` only when all sources together have fewer items.
    """
    pinned = {place: item_id for place, item_id in sorted(pins.items()) if place < k} if pins else {}
    taken = {*without, *pinned.values()}
    for item_id in pinned.values():
        if admit is not None:
            admit(item_id)
    places = k - len(pinned)
    found = gather(
        session, places, rungs=rungs, catalog=catalog, last_good=last_good if not pinned else (), taken=taken,
        failed=failed, depth=depth, admit=admit, boost=boost, user_id=user_id, fresh=fresh,
        most_fresh=most_fresh,
    )  # fmt: skip
    order: Sequence[int]
    if arrange is not None and found.item_ids:
        arrangement = arrange(found, places)
        order = [each for each in arrangement.order if each < len(found.item_ids)][:places]
        if arrangement.scores is not None:
            found = found._replace(scores=list(arrangement.scores))
    else:
        arrangement, order = AS_RANKED, range(min(places, len(found.item_ids)))
    items = _shown(order, found, session, rungs, title, failed, user_id)
    chances = [1.0] * len(items) if arrangement.propensities is None else list(arrangement.propensities[: len(items)])
    for place, item_id in pinned.items():
        at = min(place, len(items))
        items.insert(at, SlateItem(item_id=item_id, score=0.0, source="pin", reason="Chosen by the shop"))
        chances.insert(at, 1.0)
    return Slate(items, max(found.total, len(items)), chances, arrangement.objectives)


def gather(
    session: Sequence[str],
    places: int,
    *,
    rungs: Sequence[Rung],
    catalog: Iterable[str] = (),
    last_good: Iterable[SlateItem] = (),
    taken: Set[str] = frozenset(),
    failed: Failed | None = None,
    depth: int = 0,
    admit: Callable[[str], bool] | None = None,
    boost: Callable[[str], float] | None = None,
    user_id: str | None = None,
    fresh: Iterable[str] = (),
    most_fresh: int = 0,
) -> Candidates:
    """Candidates for so many places: the arguments of `climb`; further rungs are asked only while places are left."""
    pool = _Pool({*taken}, admit)
    total = 0
    for number, rung in enumerate(rungs):
        missing = places - len(pool.item_ids)
        if missing <= 0:
            break
        allowed = rung.availability.allowed(pool.used)
        try:
            ranked = _ranked(rung, session, max(missing, depth), allowed, user_id)
        except Exception as error:  # a broken model must not break the page: the next rung answers
            if failed is None:
                raise
            failed(rung.model.name, error)
            continue
        if not ranked.item_ids:
            continue
        total = total or rung.availability.count(pool.used)
        if boost is not None:
            ranked = boosted(ranked, boost)
        source = rung.source or ranked.source
        pool.add_all(ranked, source, number)
        if rung.alone and pool.item_ids:
            places = 0
    if len(pool.item_ids) < places:
        for item_id in catalog:
            pool.add(item_id, 0.0, "catalog", len(rungs))
            if len(pool.item_ids) >= places:
                break
    full = len(pool.item_ids) + most_fresh
    for item_id in fresh:
        if len(pool.item_ids) >= full:
            break
        pool.add(item_id, 0.0, "newcomer", len(rungs))
    if not pool.item_ids:
        for item in last_good:
            pool.add(item.item_id, 0.0, "last-good", len(rungs))
            if len(pool.item_ids) >= places:
                break
    return Candidates(pool.item_ids, pool.scores, pool.sources, pool.rungs, max(total, len(pool.item_ids)))


class _Pool:
    """Candidates as they come in, each once."""

    def __init__(self, used: set[str], admit: Callable[[str], bool] | None) -> None:
        self.used = used
        self.item_ids: list[str] = []
        self.scores: list[float] = []
        self.sources: list[str] = []
        self.rungs: list[int] = []
        self._admit = admit

    def add_all(self, ranked: ScoredItems, source: str, rung: int) -> None:
        """A rung's ranking; where nothing is in the way yet, as it is: its filter let nothing through that is used."""
        distinct = set(ranked.item_ids)
        if (
            self.item_ids or self._admit is not None or len(distinct) < len(ranked.item_ids)
            or not self.used.isdisjoint(distinct)
        ):  # fmt: skip
            for item_id, score in zip(ranked.item_ids, ranked.scores, strict=True):
                self.add(item_id, score, source, rung)
            return
        self.used |= distinct
        self.item_ids = list(ranked.item_ids)
        self.scores = list(map(float, ranked.scores))
        self.sources = [source] * len(self.item_ids)
        self.rungs = [rung] * len(self.item_ids)

    def add(self, item_id: str, score: float, source: str, rung: int) -> None:
        if item_id in self.used or (self._admit is not None and not self._admit(item_id)):
            return
        self.used.add(item_id)
        self.item_ids.append(item_id)
        self.scores.append(float(score))
        self.sources.append(source)
        self.rungs.append(rung)


def boosted(ranked: ScoredItems, boost: Callable[[str], float]) -> ScoredItems:
    """A ranking after its scores were multiplied; a negative score is divided, so that a factor over 1 always lifts.

    >>> boosted(ScoredItems(["a", "b"], [3.0, 2.0], "m"), {"a": 1.0, "b": 2.0}.__getitem__)
    ScoredItems(item_ids=['b', 'a'], scores=[4.0, 3.0], source='m')
    """
    scores = [
        score * factor if score >= 0 else score / factor
        for score, factor in ((score, boost(item_id)) for item_id, score in zip(ranked[0], ranked[1], strict=True))
    ]
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return ScoredItems([ranked.item_ids[at] for at in order], [scores[at] for at in order], ranked.source)


def _ranked(rung: Rung, session: Sequence[str], k: int, allowed: NDArray[np.bool_], user_id: str | None) -> ScoredItems:
    asked = session if rung.session is None else rung.session
    if user_id is not None and getattr(rung.model, "knows_users", False):
        model: Any = rung.model
        ranked: ScoredItems = model.recommend(asked, k, allowed=allowed, user_id=user_id)
        return ranked
    return rung.model.recommend(asked, k, allowed=allowed)


def _shown(
    order: Sequence[int],
    found: Candidates,
    session: Sequence[str],
    rungs: Sequence[Rung],
    title: Title,
    failed: Failed | None,
    user_id: str | None,
) -> list[SlateItem]:
    """The chosen candidates with their reasons, which only shown items need."""
    if not order:
        return []
    item_ids, sources = [found.item_ids[at] for at in order], [found.sources[at] for at in order]
    scores = [found.scores[at] for at in order]
    numbers = [found.rungs[at] for at in order]
    first = numbers[0]
    if numbers.count(first) == len(numbers):  # most slates come from one rung
        words = _words(first, item_ids, sources, session, rungs, title, failed, user_id)
    else:
        words = [""] * len(order)
        for number in set(numbers):
            places = [place for place, each in enumerate(numbers) if each == number]
            said = _words(
                number, [item_ids[at] for at in places], [sources[at] for at in places], session, rungs, title, failed,
                user_id,
            )  # fmt: skip
            for place, each in zip(places, said, strict=True):
                words[place] = each
    return [
        SlateItem(item_id=item_id, score=score, source=source, reason=reason)
        for item_id, score, source, reason in zip(item_ids, scores, sources, words, strict=True)
    ]


PLAIN = {"catalog": "From the catalog", "newcomer": "New in the catalog", "last-good": "Shown here before"}
"""What is said of items that no rung ranked, by source."""


def _words(
    number: int,
    item_ids: list[str],
    sources: list[str],
    session: Sequence[str],
    rungs: Sequence[Rung],
    title: Title,
    failed: Failed | None,
    user_id: str | None,
) -> list[str]:
    """The reasons of some items of one rung."""
    if number >= len(rungs):
        return [PLAIN[source] for source in sources]
    rung = rungs[number]
    asked = session if rung.session is None else rung.session
    try:
        return reasons(rung.model, asked, item_ids, title, source=rung.source, user_id=user_id)
    except Exception as error:  # a model that cannot say why must not break the page
        if failed is None:
            raise
        failed(rung.model.name, error)
        return ["Chosen for you"] * len(item_ids)
