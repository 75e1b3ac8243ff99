"""What people did in all their visits before today, and what people like them took: for the session ranker.

A person is a user, or a visitor who comes back. Of each the newest items are remembered: in how many visits, how many
visits ago, how often bought. Items that the same people take, though not in one visit, are near each other; what is
near a person's items is proposed. All of it is bounded: a history, however long, costs and counts as much as any other.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.models.item_graph import cosine
from thinslice.models.user_traits import Traits
from thinslice.models.vocabulary import Vocabulary
from thinslice.records import ACTIONS, Arrays, Interactions, Item, User

HISTORY = 200
"""So many of a person's items, the newest, are remembered."""

TAUGHT = 100
"""So many of them say which items go together."""

NEAR = 60
"""So many items near each item are kept."""

LEADS = 50
"""So many of a person's newest items propose others."""

OWN, ALIKE = 30, 30
"""So many of a person's own items, the newest, and so many like them join the candidates."""

NEVER = 99.0
"""Visits, and days, since a person last took an item that this person never took."""

FEATURES = (
    "own_visits", "own_share", "own_since", "own_days", "own_bought", "alike", "alike_of_best", "alike_vector",
    "traits", "far_km", "visits", "returns", "items", "purchases",
)  # fmt: skip
"""What is said of a candidate for a known person, beside `ranking_features.FEATURES`."""

TERM = "history"
"""The name of their term in an explanation, for what no single item of the person explains."""

OWN_FEATURES, ALIKE_FEATURES = slice(0, 5), slice(5, 7)
"""Those that speak of the item itself, and those that other items of the person made."""

KINDS = {"traits": "traits", "far_km": "distance"}
"""Those with a term of their own."""

_FACTS = ("visits", "since", "days", "bought")
PURCHASE = ACTIONS.index("purchase")


class Memory(NamedTuple):
    """One person: the items of the newest visits first, and the person as a whole.

    Attributes:
        code: Of the person.
        item: Shape (items,), int32.
        facts: Shape (items, 4), float32: what the properties give one by one.
        person: Visits, share of the clicks after the first that came back to something, distinct items, purchases.
        lead: The items that propose others, the first ones.
        worth: Of the leads: what each counts.
    """

    code: int
    item: NDArray[np.int32]
    facts: NDArray[np.float32]
    person: NDArray[np.float32]
    lead: NDArray[np.int32]
    worth: NDArray[np.float64]

    @classmethod
    def of(
        cls, code: int, item: NDArray[np.int32], facts: NDArray[np.float32], person: NDArray[np.float32]
    ) -> "Memory":
        """With its leads."""
        return cls(code, item, facts, person, np.ascontiguousarray(item[:LEADS]), strength(facts[:LEADS]))

    @property
    def visits(self) -> NDArray[np.float32]:
        """Of each item: in how many visits."""
        return self.facts[:, 0]

    @property
    def since(self) -> NDArray[np.float32]:
        """Of each item: visits ago, 1 for the last one."""
        return self.facts[:, 1]

    @property
    def days(self) -> NDArray[np.float32]:
        """Of each item: between the last time and the person's last click."""
        return self.facts[:, 2]

    @property
    def bought(self) -> NDArray[np.float32]:
        """Of each item: how often."""
        return self.facts[:, 3]

    def without(self, session: NDArray[np.int32]) -> "Memory":
        """The same before today, where the last visit that is remembered is the session that goes on.

        Models learn each minute, so the session's first clicks may be among what was learned: then all items of the
        last visit are in the session. Without this the visit would speak for itself.
        """
        latest = self.since == 1
        newest = self.item[latest]
        if not len(newest) or newest[0] not in session or not np.isin(newest, session).all():
            return self
        kept = ~latest | (self.visits > 1)
        person = self.person - np.array([1, 0, np.count_nonzero(~kept), 0], np.float32)
        facts = self.facts.copy()
        facts[:, 0] -= latest
        facts[:, 1] = np.maximum(facts[:, 1] - 1, 1)
        return Memory.of(self.code, self.item[kept], facts[kept], person)

    def leads(self) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """The items that propose others, and what each counts."""
        return self.lead, self.worth


def strength(facts: NDArray[np.float32]) -> NDArray[np.float64]:
    """What each item of a person counts: one of more visits more, an older one less."""
    worth: NDArray[np.float64] = np.log1p(facts[:, 0].astype(np.float64)) / np.sqrt(1.0 + facts[:, 1])
    return worth


class People:
    """Remembers people by their ids; threads may ask at the same time.

    Attributes:
        near: What the same people take on other days: rows of items, as a table of `linear_kernel`.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._names = Vocabulary.from_arrays({"id_letters": arrays["letters"], "id_ptr": arrays["letter_ptr"]})
        self._ptr = np.asarray(arrays["ptr"])
        self._item, self._facts = np.asarray(arrays["item"]), np.asarray(arrays["facts"])
        self._person = np.asarray(arrays["person"])
        self.near = tuple(_plain(arrays[f"near_{part}"]) for part in ("ptr", "item", "weight"))
        self._traits = Traits.from_arrays(arrays)

    @classmethod
    def build(cls, interactions: Interactions, items: Sequence[Item] | None = None, users: Sequence[User] = ()) -> Self:
        """Learns from the sessions that belong to somebody.

        Args:
            interactions: The clicks.
            items: The catalog: where items are.
            users: What the shop says of its users: loyalty tier, place, attributes.
        """
        count = len(interactions.item_ids)
        names = sorted({*interactions.user_ids, *(user.user_id for user in users if user.consent == "personalization")})
        place = {name: code for code, name in enumerate(names)}
        own = np.array([place[name] for name in interactions.user_ids], dtype=np.int64)
        user = np.full(len(interactions.session_ptr) - 1, -1, np.int64)
        if interactions.user is not None:
            user[:] = np.where(interactions.user >= 0, np.append(own, -1)[interactions.user], -1)
        taken, person = _taken(interactions, user, len(names))
        rank = np.arange(len(taken["who"])) - np.searchsorted(taken["who"], taken["who"])
        taught, kept = rank < TAUGHT, rank < HISTORY
        near = cosine(
            _ptr(taken["who"][taught], len(names)), taken["item"][taught], count, top=NEAR, own=False, longest=TAUGHT
        )
        words = Vocabulary(names).arrays()
        return cls(
            {
                "letters": words["id_letters"],
                "letter_ptr": words["id_ptr"],
                "ptr": _ptr(taken["who"][kept], len(names)),
                "item": taken["item"][kept],
                "facts": np.column_stack([taken[name][kept] for name in _FACTS]),
                "person": person,
                **{f"near_{part}": array for part, array in zip(("ptr", "item", "weight"), near, strict=True)},
                **Traits.build(users, place, interactions.item_ids, items or (), taken["who"], taken["item"]).arrays(),
            }
        )

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The same from what `arrays` gave."""
        return cls(arrays)

    def arrays(self) -> Arrays:
        """Everything that it is: about 20 bytes an item remembered, and 60 a person."""
        return dict(self._arrays)

    def memory(self, person: str | None) -> Memory | None:
        """What is known of somebody; None when that is nothing."""
        code = -1 if person is None else self._names.code.get(person, -1)
        if code < 0 or not (self._ptr[code + 1] > self._ptr[code] or self._traits.has_any(code)):
            return None
        return self.memory_of(code)

    def bought(self, person: str | None, items: Vocabulary, among: Iterable[str] | None = None) -> frozenset[str]:
        """What somebody bought, as far as it is remembered.

        Args:
            person: Who.
            items: The ids of all items.
            among: Only these are asked about; None: all.
        """
        memory = self.memory(person)
        if memory is None:
            return frozenset()
        codes = memory.item[memory.bought > 0].tolist()
        if among is None:
            return frozenset(items[code] for code in codes)
        find, own = items.code.get, set(codes)
        return frozenset(name for name in among if find(name) in own)

    def memory_of(self, code: int) -> Memory:
        """What is known of the person with a code: the place of the id among the sorted ids."""
        inside = slice(int(self._ptr[code]), int(self._ptr[code + 1]))
        return Memory.of(code, self._item[inside], self._facts[inside], self._person[code])

    def codes(self, people: Sequence[str]) -> NDArray[np.int64]:
        """The codes of some people, -1 for those of whom nothing is known."""
        find = self._names.code.get
        found = np.array([find(name, -1) for name in people], dtype=np.int64)
        told = np.append((np.diff(self._ptr) > 0) | self._traits.any_of(), False)
        return np.where(told[found], found, -1)

    def proposals(self, memory: Memory, scratch: tuple[NDArray[Any], NDArray[Any]]) -> NDArray[np.int32]:
        """A person's own newest items, then what is nearest to them, each once.

        Args:
            memory: Of the person.
            scratch: Zeros of shape (items,), float64, left as they were; and room for as many codes, int32.
        """
        near, _ = _kernel().rank_rows(*memory.leads(), *self.near, *scratch, ALIKE, _ALL)
        own = memory.item[:OWN]
        return np.concatenate([own, near[~(near[:, None] == own).any(axis=1)]])

    def terms(
        self, memory: Memory, codes: NDArray[np.int32], gave: NDArray[np.float64]
    ) -> tuple[NDArray[np.int32], NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        """What made the scores of some items for a person: items of the person, and the rest by kind.

        An own item speaks for itself; what is like others is split among those that are near it.

        Args:
            memory: Of the person.
            codes: The items.
            gave: Shape (codes, features): what each of `FEATURES` gave to each score.

        Returns:
            Items, one may stand there twice; what each gave, shape (codes, items); kind → shape (codes,).
        """
        near, mine, own, left = self.parts(memory, codes, gave)
        kinds = {TERM: left}
        for name, column in zip(FEATURES[ALIKE_FEATURES.stop :], gave[:, ALIKE_FEATURES.stop :].T, strict=True):
            kind = KINDS.get(name, TERM)
            kinds[kind] = kinds.get(kind, 0.0) + column
        itself = np.diag(own)[:, mine]
        return np.concatenate([memory.lead, codes[mine]]), np.concatenate([near, itself], axis=1), kinds

    def parts(
        self, memory: Memory, codes: NDArray[np.int32], gave: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
        """What the person's items gave to the scores of some items; the arguments as of `terms`.

        Returns:
            What each item that leads gave, shape (codes, leads); which codes are the person's own, and what each of
            them gave to itself (0 to others); and what was given of all this that no item explains.
        """
        near, whole = _kernel().row_terms(*memory.leads(), *self.near, codes)
        own, alike = gave[:, OWN_FEATURES].sum(axis=1), gave[:, ALIKE_FEATURES].sum(axis=1)
        mine, proposed = (codes[:, None] == memory.item).any(axis=1), whole > 0
        near *= np.where(proposed, alike / np.where(proposed, whole, 1.0), 0.0)[:, None]
        left: NDArray[np.float64] = np.where(mine, 0.0, own) + np.where(proposed, 0.0, alike)
        return near, mine, np.where(mine, own, 0.0), left

    def describe(self, memory: Memory, codes: NDArray[np.int32], likeness: NDArray[Any]) -> NDArray[np.float32]:
        """The features of some candidates for a person: shape (codes, features), in the order of `FEATURES`.

        Args:
            memory: Of the person.
            codes: Distinct items.
            likeness: Shape (codes,): how like each is to the person's items by their vectors.
        """
        rows = np.zeros((len(codes), len(FEATURES)), np.float32)
        if not len(memory.item):
            rows[:, 2:4] = NEVER
        else:
            order = np.argsort(memory.item)
            at = order[np.minimum(np.searchsorted(memory.item, codes, sorter=order), len(order) - 1)]
            at = np.where(memory.item[at] == codes, at, len(order))
            own = np.zeros((len(order) + 1, 5), np.float32)
            own[-1, 2:4] = NEVER
            own[:-1, 1:] = memory.facts
            own[:-1, 0] = memory.facts[:, 0]
            own[:-1, 1] /= max(float(memory.person[0]), 1.0)
            rows[:, :5] = own[at]
            alike = _kernel().sum_rows(*memory.leads(), *self.near, len(self.near[0]) - 1)[codes]
            rows[:, 5] = alike
            rows[:, 6] = alike / max(float(alike.max(initial=0.0)), 1e-30)
        rows[:, 7] = likeness
        rows[:, 8], rows[:, 9] = self._traits.lifts(memory.code, codes), self._traits.far_km(memory.code, codes)
        rows[:, 10:] = memory.person
        return rows


_ALL = np.zeros(0, np.bool_)


def _taken(
    interactions: Interactions, user: NDArray[np.int64], people: int
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """What each person took, one row a person (`who`) and item, the newest first; and each person as a whole."""
    count = max(len(interactions.item_ids), 1)
    owner = np.repeat(user, np.diff(interactions.session_ptr))
    rows = np.flatnonzero(owner >= 0)
    owner, item, time = owner[rows], interactions.item[rows].astype(np.int64), interactions.time[rows]
    visit = np.repeat(_visits(user, people), np.diff(interactions.session_ptr))[rows]
    visits = np.bincount(user[user >= 0], minlength=people)
    bought = np.zeros(len(rows))
    if interactions.action is not None:
        bought[:] = interactions.action[rows] == PURCHASE
    pair, place = np.unique(owner * count + item, return_inverse=True)
    who, what = np.divmod(pair, count)
    order = np.lexsort((visit, place))
    first = _changes(place[order]) | _changes(visit[order])  # the first click of a visit on an item
    times = np.bincount(place[order][first], minlength=len(pair))
    last, newest, when = (np.zeros(len(pair), np.int64), np.zeros(len(pair), np.int64), np.full(len(pair), -np.inf))
    np.maximum.at(last, place, visit)
    np.maximum.at(newest, place, np.arange(len(place)))  # sessions are in the order of time, and so are rows
    np.maximum.at(when, place, time)
    ended = np.full(people, -np.inf)
    np.maximum.at(ended, owner, time)
    days = np.zeros(len(pair)) if interactions.order_only else (ended[who] - when) / 86_400
    often = np.bincount(place, weights=bought, minlength=len(pair))
    by = np.lexsort((-newest, who))
    taken = {
        "who": who[by], "item": what[by].astype(np.int32), "visits": times[by].astype(np.float32),
        "since": (visits[who] - last)[by].astype(np.float32), "days": days[by].astype(np.float32),
        "bought": often[by].astype(np.float32),
    }  # fmt: skip
    distinct, all_times = (np.bincount(who, weights=each, minlength=people) for each in (None, times))
    purchases = np.bincount(who, weights=often, minlength=people)
    back = (all_times - distinct) / np.maximum(all_times - 1, 1)
    return taken, np.column_stack([visits, back, distinct, purchases]).astype(np.float32)


def _visits(user: NDArray[np.int64], people: int) -> NDArray[np.int64]:
    """Shape (sessions,): the how manieth of its person each session is, from 0."""
    order = np.argsort(user, kind="stable")
    begin = np.searchsorted(user[order], np.arange(-1, people))
    number = np.empty(len(user), np.int64)
    number[order] = np.arange(len(user)) - begin[user[order] + 1]
    return number


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value differs from the one before; the first does."""
    return np.append(np.ones(min(len(values), 1), np.bool_), values[1:] != values[:-1])


def _ptr(owner: NDArray[np.int64], people: int) -> NDArray[np.int64]:
    ptr = np.zeros(people + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=people), out=ptr[1:])
    return ptr


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view, so that memory-mapped arrays and those in memory share one compiled kernel."""
    view = np.ascontiguousarray(np.asarray(array)).view()
    view.flags.writeable = False
    return view


def _kernel() -> Any:
    """The compiled loops, imported late."""
    from thinslice.models import linear_kernel

    return linear_kernel
