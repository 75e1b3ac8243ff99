"""Session kNN: what did those do next whose sessions looked like this one?

The newest `sample` sessions that share any item with this one are found exactly (as in VMIS-kNN, Kersbergen et al.,
SIGMOD 2022), the `neighbors` most similar of them vote for their items: a vote is worth similarity × its age ×
distance of the item from what both sessions share (as in STAN, Garg et al., SIGIR 2019).
"""

import threading
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.array_model import ArrayModel
from thinslice.models.vocabulary import Vocabulary
from thinslice.records import Arrays, Interactions, Item, Reason

LONGEST_LOOK = 10
"""A session's newest clicks that may count: neighbors are remembered with one bit for each."""


FADED = 0.01
"""A vote that its distance leaves less of is not counted, which bounds what a neighbor of many clicks costs."""


class SessionKNN(ArrayModel):
    """Session kNN over CSR arrays, about 10 bytes a click; see `fit` for the settings.

    Threads may ask at the same time: each has its own scratch, and the kernels hold no lock. Ask `ready()` before the
    first question: until `warm()` has compiled the kernels (or read them from the cache) a question waits for that.
    """

    name = "session-knn"
    _warm: ClassVar[bool] = False
    _warming: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._sample, self._neighbors = (int(limit) for limit in arrays["limits"])
        self._index = tuple(
            _readable(arrays[name])
            for name in (
                "session_ptr", "item", "posting_ptr", "posting", "age", "age_weight", "item_weight",
                "candidate_weight", "decay", "distance",
            )
        )  # fmt: skip
        self._scratch = threading.local()

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        sample: int = 5000,
        neighbors: int = 1500,
        look: int = 9,
        decay: float = 1.5,
        reach: int = 30,
        before: float = 2.0,
        after: float = 4.0,
        rare: float = 1.0,
        age: float = 1.5,
    ) -> Self:
        """Builds the index.

        Args:
            interactions: The clicks.
            items: Not needed: only clicked items are learned.
            rng: Not needed: nothing is random.
            sample: How many of the newest sessions that share an item are looked at (m).
            neighbors: How many of those, the most similar ones, vote (k).
            look: How many of the session's newest clicks count, 1 to 10.
            decay: Clicks after which a click of the session counts 1/e as much as the newest.
            reach: Clicks from the match beyond which a neighbor's items get no vote; nor do they where it would be
                worth less than a hundredth of a vote for the match.
            before: Clicks before the match after which a vote is worth 1/e.
            after: Clicks after the match after which a vote is worth 1/e.
            rare: Power of (1 + idf) that favors rare items among the candidates; 0 turns it off.
            age: A neighbor as old as the whole log counts exp(-age) as much as one of today; 0 turns it off.

        Raises:
            BadInput: A setting is out of its range, or there are more than 2**31 - 1 clicks.
        """
        del items, rng
        _check_settings(sample=sample, neighbors=neighbors, look=look, decay=decay, reach=reach, before=before,
                        after=after, rare=rare, age=age)  # fmt: skip
        if len(interactions.item) >= 2**31:
            raise BadInput(f"at most {2**31 - 1} clicks fit into one index, got {len(interactions.item)}.")
        session_ptr = _readable(interactions.session_ptr.astype(np.int32))
        item = _readable(interactions.item.astype(np.int32, copy=False))
        posting_ptr, posting, count = _kernel().build(session_ptr, item, len(interactions.item_ids), sample)
        idf = np.log1p((len(session_ptr) - 1) / np.maximum(count, 1))
        return cls(
            {
                "session_ptr": session_ptr,
                "item": item,
                "posting_ptr": posting_ptr,
                "posting": posting,
                "age": _ages(interactions),
                "item_weight": idf.astype(np.float32),
                **_weights(idf, look=look, decay=decay, reach=reach, before=before, after=after, rare=rare, age=age),
                "limits": np.array([sample, neighbors], dtype=np.int32),
                **Vocabulary(interactions.item_ids).arrays(),
            }
        )

    @classmethod
    def ready(cls) -> bool:
        """Whether a question is answered at once."""
        return cls._warm

    @classmethod
    def warm(cls) -> None:
        """Compiles the kernels, or reads them from the cache of an earlier run; may take seconds, once per process."""
        with cls._warming:
            if cls._warm:
                return
            from thinslice.models.interactions import from_columns

            world = from_columns(["s", "s", "t", "t"], ["a", "b", "b", "c"], [1.0, 2.0, 3.0, 4.0])
            model = cls.fit(world)
            codes, _ = model.recommend_codes(np.array([0, 1], dtype=np.int32), 2)
            model._terms(np.array([0, 1], dtype=np.int32), codes)
            SessionKNN._warm = True

    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """`recommend` without texts: item codes, oldest first, -1 for unknown; codes and scores, best first."""
        found: tuple[NDArray[np.int32], NDArray[np.float32]] = _kernel().rank(
            _readable(session, np.int32), *self._asked(k, allowed)
        )
        return found

    def recommend_codes_batch(
        self,
        clicks: NDArray[np.int32],
        begin: NDArray[np.int64],
        end: NDArray[np.int64],
        k: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """`recommend_codes` for many sessions in one call, which saves what a call costs.

        Args:
            clicks: Item codes of all sessions, oldest first; negative ones are passed over.
            begin: Shape (sessions,): where each session begins in `clicks`.
            end: Shape (sessions,): one beyond the newest click of each.
            k: Length of the lists.
            allowed: Mask over `item_ids`, shape (items,); None allows all.

        Returns:
            Codes, shape (sessions, k), -1 where a list is shorter; scores beside them, 0 there.

        Raises:
            BadInput: A session does not lie within `clicks`, or `allowed` has another length than the catalog.
        """
        starts, stops = _readable(begin, np.int64), _readable(end, np.int64)
        if starts.shape != stops.shape or starts.ndim != 1:
            raise BadInput(f"begin and end must be equally long, got {starts.shape} and {stops.shape}.")
        if len(starts) and (starts.min() < 0 or stops.max() > len(clicks) or (starts > stops).any()):
            raise BadInput(f"each session must lie within the {len(clicks)} clicks.")
        found: tuple[NDArray[np.int32], NDArray[np.float32]] = _kernel().rank_batch(
            _readable(clicks, np.int32), starts, stops, *self._asked(k, allowed)
        )
        return found

    def _asked(self, k: int, allowed: NDArray[np.bool_] | None) -> tuple[Any, ...]:
        """What the kernel needs beside sessions."""
        room, touched = self._room()
        if allowed is not None and len(allowed) != len(self._vocabulary):
            raise BadInput(f"allowed must have {len(self._vocabulary)} values, one an item, got {len(allowed)}.")
        mask_of_items = ALL_ALLOWED if allowed is None else _readable(allowed, np.bool_)
        wanted = max(0, min(k, len(self._vocabulary)))
        return (*self._index, self._sample, self._neighbors, *room, mask_of_items, touched, wanted)

    def explain_all(self, session: Sequence[str], item_ids: Sequence[str]) -> list[Reason]:
        """`explain` for a whole slate in one pass."""
        distinct = list(dict.fromkeys(item_id for item_id in item_ids if item_id in self._vocabulary.code))
        known, parts, total = self._terms(self._vocabulary.codes(session), self._vocabulary.codes(distinct))
        names = [self._vocabulary[code] for code in known.tolist()]
        reasons = {}
        for slot, item_id in enumerate(distinct):
            score = float(total[slot])
            whole = float(parts[slot].sum())
            shares = parts[slot] * (score / whole) if whole > 0 else parts[slot]
            terms = {name: part for name, part in zip(names, shares.tolist(), strict=True) if part > 0}
            reasons[item_id] = Reason(item_id, score, terms)
        return [reasons.get(item_id, Reason(item_id, 0.0, {})) for item_id in item_ids]

    def causes(self, session: Sequence[str], item_ids: Sequence[str]) -> list[str | None]:
        """The session item that gave most of each score: the strongest term of `explain`, without the other terms.

        Args:
            session: Item ids, oldest first.
            item_ids: Items of the vocabulary; others have no cause.

        Returns:
            One session item an item, None where no session item voted for it.
        """
        codes = self._vocabulary.codes(item_ids)
        inside = np.unique(codes[codes >= 0])
        known, parts, _ = self._terms(self._vocabulary.codes(session), inside)
        if not len(known) or not len(inside):
            return [None] * len(item_ids)
        names = [self._vocabulary[code] for code in known.tolist()]
        strongest = zip(inside.tolist(), parts.argmax(axis=1).tolist(), parts.max(axis=1).tolist(), strict=True)
        by_code = {code: names[at] if part > 0 else None for code, at, part in strongest}
        return [by_code.get(code) for code in codes.tolist()]

    def reweighed(
        self,
        *,
        neighbors: int,
        look: int,
        decay: float,
        reach: int,
        before: float,
        after: float,
        rare: float,
        age: float,
    ) -> Self:
        """The same index with other weights, see `fit`: no list of sessions is built anew."""
        _check_settings(sample=self._sample, neighbors=neighbors, look=look, decay=decay, reach=reach, before=before,
                        after=after, rare=rare, age=age)  # fmt: skip
        idf = np.asarray(self._arrays["item_weight"], dtype=np.float64)
        weights = _weights(idf, look=look, decay=decay, reach=reach, before=before, after=after, rare=rare, age=age)
        return type(self)({**self._arrays, **weights, "limits": np.array([self._sample, neighbors], dtype=np.int32)})

    def inside(self) -> tuple[tuple[NDArray[Any], ...], int, int, tuple[NDArray[Any], ...]]:
        """For the kernel of a model that asks it for neighbors: index, sample, neighbors, and this thread's scratch."""
        return self._index, self._sample, self._neighbors, self._room()[0][:-1]

    def given(self, items: int, found: int, codes: NDArray[np.int32]) -> NDArray[np.float64]:
        """What each session item gave to some scores, for who has just let a kernel look for neighbors in the scratch.

        Args:
            items: How many distinct session items were looked at.
            found: How many neighbors were found.
            codes: Distinct item codes.

        Returns:
            Shape (codes, items), the newest item first.
        """
        session_ptr, item, *_, candidate_weight, _, distance = self._index
        room, _ = self._room()
        parts: NDArray[np.float64] = _kernel().given(
            _readable(codes, np.int32), session_ptr, item, candidate_weight, distance, items, found, *room
        )[0]
        return parts

    def _terms(self, session: NDArray[np.int32], codes: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
        room, _ = self._room()
        found: tuple[NDArray[Any], ...] = _kernel().terms(
            _readable(session, np.int32), _readable(codes, np.int32), *self._index, self._sample, self._neighbors, *room
        )
        return found

    def _room(self) -> tuple[tuple[NDArray[Any], ...], NDArray[np.int32]]:
        """This thread's scratch, about 8 bytes an item and 16 a sampled session; and where `rank` notes candidates."""
        room: tuple[tuple[NDArray[Any], ...], NDArray[np.int32]] | None = getattr(self._scratch, "room", None)
        if room is None:
            look, items = len(self._arrays["decay"]), len(self._vocabulary)
            shared = (
                np.empty(look, np.int32), np.empty(look, np.float32), np.empty(1 << look, np.float32),
                *(np.empty(self._sample, kind) for kind in (np.int32, np.int32, np.int32, np.float32)),
                np.zeros(items, np.float32),
            )  # fmt: skip
            room = (shared, np.empty(items + 1, np.int32))
            self._scratch.room = room
        return room


def _kernel() -> Any:
    """The compiled loops; imported late, because the compiler takes half a second that `thinslice --help` has not."""
    from thinslice.models import knn_kernel

    return knn_kernel


def _check_settings(**settings: float) -> None:
    for name in ("sample", "neighbors", "reach", "look"):
        if settings[name] < 1 or settings[name] != int(settings[name]):
            raise BadInput(f"{name} must be a whole number of at least 1, got {settings[name]}.")
    if settings["look"] > LONGEST_LOOK:
        raise BadInput(f"look must be at most {LONGEST_LOOK}, got {settings['look']}.")
    for name in ("decay", "before", "after"):
        if not 0.1 <= settings[name] <= 1e6:
            raise BadInput(f"{name} must be between 0.1 and 1,000,000 clicks, got {settings[name]}.")
    for name in ("rare", "age"):
        if not 0 <= settings[name] <= 20:
            raise BadInput(f"{name} must be between 0 and 20, got {settings[name]}.")


def _weights(
    idf: NDArray[np.float64],
    *,
    look: int,
    decay: float,
    reach: int,
    before: float,
    after: float,
    rare: float,
    age: float,
) -> Arrays:
    """The arrays that hold nothing but weights; the settings are those of `SessionKNN.fit`."""
    steps = np.arange(-reach, reach + 1, dtype=np.float64)
    near = np.exp(np.where(steps < 0, steps / before, -steps / after))
    return {
        "age_weight": np.exp(-age * np.arange(256) / 255).astype(np.float32),
        "candidate_weight": ((1 + idf) ** rare).astype(np.float32),
        "decay": np.exp(-np.arange(look) / decay).astype(np.float32),
        "distance": np.where(near < FADED, 0, near).astype(np.float32),
    }


def _ages(interactions: Interactions) -> NDArray[np.uint8]:
    """Age of each session's last click within the log, 0 (newest) to 255 (oldest); by position if order only."""
    sessions = len(interactions.session_ptr) - 1
    ages = np.empty(sessions, dtype=np.uint8)
    if sessions == 0:
        return ages
    end = interactions.session_ptr[1:]
    newest, oldest = (float(interactions.time[end[at] - 1]) for at in (-1, 0))
    if interactions.order_only:
        newest, oldest = sessions - 1.0, 0.0
    span = max(newest - oldest, 1e-9)
    for start in range(0, sessions, 1 << 16):  # in pieces that stay in the cache
        stop = min(start + (1 << 16), sessions)
        ended = np.arange(start, stop) if interactions.order_only else interactions.time[end[start:stop] - 1]
        ages[start:stop] = np.rint((newest - ended) / span * 255)
    return ages


def _readable(array: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
    """A plain read-only view, so that memory-mapped arrays and those in memory share one compiled kernel."""
    view = np.ascontiguousarray(np.asarray(array, dtype=dtype)).view()
    view.flags.writeable = False
    return view


ALL_ALLOWED = _readable(np.empty(0, dtype=np.bool_))
"""An empty mask allows everything."""
