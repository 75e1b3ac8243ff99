"""What a shop says of its users, as traits that many of them share: loyalty tier, place, attributes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.records import Arrays, Item, User

FEWEST = 5
"""A trait of fewer users than this says more about who they are than about what they like, and is left out."""

PRIOR_PEOPLE = 20.0
"""What people of a trait take is drawn towards what all take, as if so many more of them had done as all do."""

NOWHERE_KM = 30_000.0
"""How far an item is when nobody knows where it or the person is: further than anything on earth."""

EARTH_KM = 6371.0

LONG_TEXT = 60
"""Letters: an attribute longer than this is no trait."""


def traits_of(user: User) -> list[str]:
    """Names of a user's traits; the place is known to a degree of latitude and longitude, about 100 km.

    >>> from datetime import UTC, datetime
    >>> traits_of(User(tenant="shop", user_id="u", updated_at=datetime(2026, 1, 1, tzinfo=UTC), loyalty_tier="gold",
    ...                latitude=48.1, longitude=11.6, attributes={"student": True}))
    ['tier=gold', 'place=48,12', 'student=True']
    """
    found = []
    if user.loyalty_tier:
        found.append(f"tier={user.loyalty_tier}")
    if user.latitude is not None and user.longitude is not None:
        found.append(f"place={round(user.latitude)},{round(user.longitude)}")
    for name, value in user.attributes.items():
        found.extend(
            f"{name}={each}"
            for each in (value if isinstance(value, list) else [value])
            if isinstance(each, str | int | bool) and 0 < len(str(each)) <= LONG_TEXT
        )
    return list(dict.fromkeys(found))


def shared_traits(users: Sequence[User]) -> tuple[list[str], dict[str, list[int]]]:
    """The traits that enough users share but not all, and user id → codes of its traits; consent decides who counts."""
    each = {user.user_id: traits_of(user) for user in users if user.consent == "personalization"}
    count = Counter(name for names in each.values() for name in names)
    kept = sorted(name for name, times in count.items() if FEWEST <= times < len(each))
    code = {name: number for number, name in enumerate(kept)}
    return kept, {user: [code[name] for name in names if name in code] for user, names in each.items()}


class Traits:
    """What people of a trait like more than others do, and how far an item is from a person; empty without either."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = {name: np.asarray(arrays[name]) for name in _ARRAYS}
        self._of_ptr, self._of, self._lift, self._items_at, self._people_at = self._arrays.values()

    @classmethod
    def build(
        cls, users: Sequence[User], place: Mapping[str, int], item_ids: Sequence[str], items: Sequence[Item],
        who: NDArray[np.int64], what: NDArray[Any],
    ) -> Self:  # fmt: skip
        """Counts.

        Args:
            users: What the shop says of them; only who consented to personalization counts.
            place: User id → code of the person.
            item_ids: One id a code.
            items: The catalog.
            who: Shape (pairs,): a person's code …
            what: Shape (pairs,): … and the code of an item that this person took; each pair once.
        """
        names, of_user = shared_traits(users)
        held: list[list[int]] = [[] for _ in place]
        for user_id, codes in of_user.items():
            held[place[user_id]] = codes
        ptr = np.zeros(len(place) + 1, np.int64)
        np.cumsum([len(codes) for codes in held], out=ptr[1:])
        of = np.array([code for codes in held for code in codes], dtype=np.int32)
        lift = np.zeros((len(names), len(item_ids)), np.float32)
        active = np.zeros(len(place), np.bool_)
        active[who] = True
        usual = np.bincount(what, minlength=len(item_ids)) / max(int(active.sum()), 1)
        for trait in range(len(names)):
            mine = np.zeros(len(place), np.bool_)
            mine[np.repeat(np.arange(len(place)), np.diff(ptr))[of == trait]] = True
            took = np.bincount(what[mine[who]], minlength=len(item_ids))
            share = (took + PRIOR_PEOPLE * usual) / (int((mine & active).sum()) + PRIOR_PEOPLE)
            lift[trait] = np.log(np.where(usual > 0, share / np.maximum(usual, 1e-30), 1.0))
        known = {item.item_id: item for item in items if item.latitude is not None and item.longitude is not None}
        items_at = _places([known.get(item_id) for item_id in item_ids] if known else [])
        there = {user.user_id: user for user in users if user.consent == "personalization"}
        people_at = _places([there.get(name) for name in place] if known else [])
        return cls(dict(zip(_ARRAYS, (ptr, of, lift, items_at, people_at), strict=True)))

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The same from what `arrays` gave."""
        return cls(arrays)

    def arrays(self) -> Arrays:
        """Everything that it is."""
        return dict(self._arrays)

    def any_of(self) -> NDArray[np.bool_]:
        """Shape (people,): of whom a trait is known."""
        return np.asarray(np.diff(self._of_ptr) > 0)

    def has_any(self, person: int) -> bool:
        """Whether a trait of one person is known."""
        return bool(self._of_ptr[person + 1] > self._of_ptr[person])

    def lifts(self, person: int, codes: NDArray[np.int32]) -> NDArray[np.float32] | float:
        """The log of how much more often people of this person's traits take each item than others do, the mean."""
        mine = self._of[self._of_ptr[person] : self._of_ptr[person + 1]]
        if not len(mine):
            return 0.0
        mean: NDArray[np.float32] = self._lift[mine][:, codes].mean(axis=0)
        return mean

    def far_km(self, person: int, codes: NDArray[np.int32]) -> NDArray[np.float64] | float:
        """How far each item is from the person, along the earth (haversine); `NOWHERE_KM` where that is not known."""
        if not len(self._items_at) or not np.isfinite(self._people_at[person]).all():
            return NOWHERE_KM
        latitude, longitude = np.radians(self._people_at[person])
        to = np.radians(self._items_at[codes])
        half = np.sin((to[:, 0] - latitude) / 2) ** 2
        half += np.cos(latitude) * np.cos(to[:, 0]) * np.sin((to[:, 1] - longitude) / 2) ** 2
        km = 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))
        return np.where(np.isfinite(km), km, NOWHERE_KM)


_ARRAYS = ("trait_ptr", "trait", "lift", "items_at", "people_at")


def _places(known: Sequence[Item | User | None]) -> NDArray[np.float64]:
    """Latitude and longitude in degrees, NaN where unknown; shape (things, 2)."""
    nan = float("nan")
    rows = [
        (nan, nan) if one is None or one.latitude is None or one.longitude is None else (one.latitude, one.longitude)
        for one in known
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)
