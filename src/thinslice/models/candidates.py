"""The first stage of the session ranker: which items may follow this session, and what speaks for each of them.

Three sources propose: session kNN, the two-step walk over items that follow each other, and items that occur in the
same sessions (cosine). What each gives an item is divided by what it gives all, weighted and added: the blended score.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.models.ranking_features import FEATURES, item_facts
from thinslice.models.ranking_graphs import GRAPH_ARRAYS, graphs
from thinslice.models.session_knn import FADED, SessionKNN
from thinslice.records import Arrays, Interactions

MOST_CANDIDATES = 16_384
"""So many different items can be candidates of one question; later ones are passed over."""

SOURCES = ("knn", "walk", "cosine", "cosine_flat", "next", "walk_flat")
"""What is blended; the flat ones count every click of the session alike."""

DEFAULTS: dict[str, float] = {
    "knn_sample": 5000, "knn_neighbors": 500, "knn_look": 9, "knn_decay": 1.5, "knn_reach": 30, "knn_before": 2.0,
    "knn_after": 4.0, "knn_rare": 1.0, "knn_age": 1.5,
    "look": 40, "walk_decay": 1.5, "cosine_decay": 4.0, "next_decay": 1.0,
    "weight_knn": 1.0, "weight_walk": 1.0, "weight_cosine": 1.0, "weight_cosine_flat": 1.0, "weight_next": 0.5,
    "weight_walk_flat": 0.0,
}  # fmt: skip
"""Settings where nothing could be tuned: `knn_` those of session kNN, `_decay` in clicks, `weight_` of a source."""


class Questions(NamedTuple):
    """Beginnings of sessions and what was clicked next.

    Attributes:
        clicks: Shape (clicks,), int32, sessions one after the other.
        begin: Shape (questions,), int64: where a question's session begins in `clicks`.
        end: Shape (questions,), int64: one beyond the last click that the question shows; the answer stands there.
        answer: Shape (questions,), int32.
    """

    clicks: NDArray[np.int32]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    answer: NDArray[np.int32]

    def some(self, chosen: NDArray[Any]) -> "Questions":
        """Those of an index or a mask."""
        return Questions(self.clicks, *(array[chosen] for array in self[1:]))


class Lessons(NamedTuple):
    """What a ranker learns from.

    Attributes:
        rows: Shape (rows, features), float32.
        label: Shape (rows,), uint8: 1 for the item that was clicked next.
        sizes: Shape (questions with an answer among the candidates,), int32: rows of each.
        rank: Shape (questions,), int32: place of the answer by blended score from 0, -1 where it is no candidate.
        code: Shape (rows,), int32: the candidate of each row.
        question: Shape (rows,), int32: the question of each row.
    """

    rows: NDArray[np.float32]
    label: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    rank: NDArray[np.int32]
    code: NDArray[np.int32]
    question: NDArray[np.int32]


class Found(NamedTuple):
    """Some candidates of a session, best blended score first: codes, features and scores; and how many there are."""

    codes: NDArray[np.int32]
    rows: NDArray[np.float32]
    blended: NDArray[np.float32]
    candidates: int


class Candidates:
    """Proposes items with the evidence for each; threads may ask at the same time."""

    def __init__(self, knn: SessionKNN, arrays: Arrays) -> None:
        self.knn = knn
        self._arrays = {name: readable(array) for name, array in arrays.items()}
        self._graphs = tuple(self._arrays[name] for name in GRAPH_ARRAYS)
        self._facts, self._recency, self._blend, self._vectors, self._vector_step = (
            self._arrays[name] for name in _OWN
        )
        self._scratch = threading.local()

    @classmethod
    def build(cls, interactions: Interactions, settings: Mapping[str, float]) -> Self:
        """Builds index, graphs and facts.

        Args:
            interactions: The clicks.
            settings: Every name of `DEFAULTS`.
        """
        knn = SessionKNN.fit(interactions, **knn_settings(settings))
        built = {**graphs(interactions), "facts": item_facts(interactions)}
        return cls(knn, {**built, **_weights(settings)})

    def weighted(self, settings: Mapping[str, float]) -> Self:
        """The same index and graphs with other weights; sample and what the graphs are made of stay as they are."""
        knn = self.knn.reweighed(**{name: value for name, value in knn_settings(settings).items() if name != "sample"})
        return type(self)(knn, {**self._arrays, **_weights(settings)})

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The same from what `arrays` gave."""
        knn = {name.removeprefix("knn_"): array for name, array in arrays.items() if name.startswith("knn_")}
        words = {name: arrays[name] for name in ("id_letters", "id_ptr")}
        return cls(SessionKNN.from_arrays({**knn, **words}), {name: arrays[name] for name in (*GRAPH_ARRAYS, *_OWN)})

    def arrays(self) -> Arrays:
        """Everything that it is; the arrays of session kNN begin with `knn_`."""
        knn = self.knn.arrays()
        words = {name: knn.pop(name) for name in ("id_letters", "id_ptr")}
        return {**{f"knn_{name}": array for name, array in knn.items()}, **words, **self._arrays}

    def look(self, session: NDArray[np.int32], first: int, stop: int, more: NDArray[np.int32] | None = None) -> Found:
        """The candidates number `first` to `stop` by blended score.

        Args:
            session: Item codes, oldest first; negative ones are passed over.
            first: 0 for the best.
            stop: One beyond the last.
            more: Distinct items that join them, after them, where they are not among them.
        """
        joined = _NONE if more is None else readable(more, np.int32)
        room, asked = self._room(stop - first + len(joined)), readable(session, np.int32)
        count, candidates, heard, found = _features().look(
            asked, *self._asked(room), joined, first, stop, False, *room[1]
        )
        self._scratch.asked, self._scratch.found = asked.tobytes(), (heard, found)
        rows, codes, blended = (array[:count].copy() for array in room[1])
        return Found(codes, rows, blended, candidates)

    def lessons(
        self, questions: Questions, stop: int, keep: float, seed: int, more: Sequence[NDArray[np.int32]] | None = None
    ) -> Lessons:
        """What a ranker can learn from questions.

        Args:
            questions: Their sessions must not be among those that this was built from.
            stop: How many candidates a question.
            keep: Share (0..1) of the wrong candidates that are learned from; negative only finds the ranks.
            seed: Decides which ones.
            more: Of each question the items that join its candidates.
        """
        asked = len(questions.answer)
        more_ptr = np.zeros(asked + 1, np.int64)
        if more is not None:
            np.cumsum([len(each) for each in more], out=more_ptr[1:])
        joined = np.concatenate([_NONE, *(more or ())])
        wide = stop + int(np.diff(more_ptr).max(initial=0))
        most = int(asked * (1 + wide * min(1.0, 1.3 * keep + 0.05))) if keep >= 0 else 0
        rows, label = np.empty((most, len(FEATURES)), np.float32), np.empty(most, np.uint8)
        rank, written = np.empty(asked, np.int32), np.empty(asked, np.int32)
        code = np.empty(most, np.int32)
        room = self._room(wide)
        self._scratch.asked = None
        size = _features().foresee(
            *(readable(array) for array in questions), more_ptr, readable(joined), float(keep), seed,
            *self._asked(room), stop, rank, written, rows, label, code,
        )  # fmt: skip
        owner = np.repeat(np.arange(asked, dtype=np.int32), written)
        return Lessons(rows[:size], label[:size], written[written > 0], rank, code[:size], owner)

    def popular(self, count: int) -> NDArray[np.int32]:
        """The items that are clicked most in the newest part of the log."""
        return np.argsort(-self._facts[:, 1], kind="stable")[:count].astype(np.int32)

    def direction(self, items: NDArray[np.int32], worth: NDArray[np.float64]) -> NDArray[np.float32]:
        """Where some items point to together by their vectors: of length 1, or 0."""
        part = (worth * self._vector_step[items]).astype(np.float32)
        whole: NDArray[np.float32] = part @ self._vectors[items].astype(np.float32)
        return whole / np.float32(max(float(np.linalg.norm(whole)), 1e-30))

    def likeness(self, direction: NDArray[np.float32], codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """The cosine of each item's vector with a direction."""
        like: NDArray[np.float32] = (self._vectors[codes].astype(np.float32) @ direction) * self._vector_step[codes]
        return like

    def parts(self, session: NDArray[np.int32], codes: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """What each session item gave to the blended scores of some items.

        Returns:
            The session's distinct items, newest first; shares of shape (codes, items), float64, whose sum over the
            items is the blended score.
        """
        asked = readable(session, np.int32)
        if getattr(self._scratch, "asked", None) != asked.tobytes():  # mostly it was asked just before
            self.look(asked, 0, 1)
        total = self._scratch.room[0][3]
        known, shares = _features().split(
            asked, readable(codes, np.int32), self._graphs, self._recency, self._blend, len(self.knn.item_ids), total
        )
        votes = float(total[0, 0])
        if votes > 0 and self._blend[0] > 0:  # session kNN looks at fewer clicks, the newest: the first items are its
            heard, found = self._scratch.found
            given = self.knn.given(heard, found, codes)
            shares[:, :heard] += float(self._blend[0]) / votes * given
        return known, shares

    def _asked(self, room: Any) -> tuple[Any, ...]:
        """The arguments of the kernels between the session and what is wanted of it."""
        index, sample, neighbors, scratch = self.knn.inside()
        return (
            index, sample, neighbors, scratch, self._graphs, self._recency, self._blend, self._facts, self._vectors,
            self._vector_step, *room[0],
        )  # fmt: skip

    def _room(self, rows: int) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
        """This thread's scratch: 4 bytes an item and a megabyte; and where `look` writes."""
        room: tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]] | None = getattr(self._scratch, "room", None)
        if room is None or len(room[1][1]) < rows:
            most = min(MOST_CANDIDATES, max(1, len(self.knn.item_ids)))
            room = (
                (np.zeros(len(self.knn.item_ids), np.uint32), np.empty(most, np.int32), _lines(most),
                 np.zeros((16, 2), np.float32), np.empty(most, np.int32)),
                (np.empty((rows, len(FEATURES)), np.float32), np.empty(rows, np.int32), np.empty(rows, np.float32)),
            )  # fmt: skip
            self._scratch.room = room
        return room


def knn_settings(settings: Mapping[str, float]) -> dict[str, Any]:
    """Those of session kNN, by its own names."""
    whole = ("sample", "neighbors", "look", "reach")
    own = {name.removeprefix("knn_"): value for name, value in settings.items() if name.startswith("knn_")}
    return {name: int(value) if name in whole else float(value) for name, value in own.items()}


def questions_of(interactions: Interactions, first: int, known: NDArray[np.bool_]) -> Questions:
    """Every click but the first of each session from number `first` on, asked after the clicks before it.

    Args:
        interactions: The clicks.
        first: The sessions before it are not asked about.
        known: Shape (items,): clicks on other items are left out, as nobody could foresee them.
    """
    start = int(interactions.session_ptr[first])
    session = np.repeat(np.arange(len(interactions.session_ptr) - 1), np.diff(interactions.session_ptr))[start:]
    kept = known[interactions.item[start:]]
    clicks, owner = np.ascontiguousarray(interactions.item[start:][kept]), session[kept]
    begins = np.flatnonzero(np.diff(owner, prepend=-1) != 0)
    begin = np.repeat(begins, np.diff(np.append(begins, len(owner))))
    end = np.arange(len(clicks))
    asked = end > begin
    return Questions(clicks, begin[asked], end[asked], clicks[asked])


def readable(array: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
    """A plain read-only view, so that memory-mapped arrays and those in memory share one compiled kernel."""
    view = np.ascontiguousarray(np.asarray(array, dtype=dtype)).view()
    view.flags.writeable = False
    return view


_NONE = readable(np.empty(0, np.int32))
"""No item joins the candidates."""

_OWN = ("facts", "recency", "blend", "vectors", "vector_step")
"""Arrays beside index and graphs."""


def _lines(rows: int) -> NDArray[np.float32]:
    """A table of 16 columns, each row of which is one line of the cache."""
    room = np.empty(16 * (rows + 1), np.float32)
    first = -room.ctypes.data % 64 // 4
    return room[first : first + 16 * rows].reshape(rows, 16)


def _weights(settings: Mapping[str, float]) -> Arrays:
    steps = np.arange(int(settings["look"]))
    decays = (settings["walk_decay"], settings["cosine_decay"], settings["next_decay"])
    recency = np.exp(-steps / np.array(decays)[:, None])
    return {
        "recency": np.where(recency < FADED, 0, recency).astype(np.float32),
        "blend": np.array([settings[f"weight_{source}"] for source in SOURCES], dtype=np.float32),
    }


def _features() -> Any:
    """The compiled loops, imported late."""
    from thinslice.models import feature_kernel

    return feature_kernel
