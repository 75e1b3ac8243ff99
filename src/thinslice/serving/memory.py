"""How much memory trained models may take: the tenants that are asked stay whole, the others answer what is popular."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from thinslice.recommend.explore import Explorer
from thinslice.recommend.objectives import ActionRates
from thinslice.records import Arrays, Model

BYTES_PER_ID = 160
"""What one item id costs beside its letters once it is read: a text, a place in a list and one in a dictionary."""

SMALL = 512
"""So many of the most popular items a tenant keeps whose models had to give way."""

SETTLED_TURNS = 60
"""A tenant that was asked within so many looks (half a minute) does not give way to another."""


class Bundle(NamedTuple):
    """One trained generation: its models by name, and what it was made from; `whole` is False when most gave way.

    `explorers` are what policies that explore have learned, by the policy's name; `rates` the chances of actions.
    """

    version: str
    models: dict[str, Model]
    manifest: dict[str, Any]
    whole: bool = True
    explorers: Mapping[str, Explorer] = {}
    rates: ActionRates | None = None


class Budget:
    """Decides which tenants' models are held as a whole, the one that was not asked for longest giving way first.

    Args:
        bytes_allowed: For all of them together.
    """

    def __init__(self, bytes_allowed: float) -> None:
        self._allowed = bytes_allowed
        self._held: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._turn = 0

    def next_turn(self) -> None:
        """A look at the registry begins."""
        self._turn += 1

    def ask(self, tenant: str) -> None:
        """A visitor of this tenant is answered now; costs one assignment."""
        self._asked[tenant] = self._turn

    def wanted(self, tenant: str) -> bool:
        """Whether it was asked in this turn or the one before."""
        return self._asked.get(tenant, -2) >= self._turn - 1

    def held(self, tenant: str) -> bool:
        """Whether its models are held as a whole."""
        return tenant in self._held

    def give_way(self, tenant: str, size: int) -> list[str] | None:
        """Who gives way so that a tenant with `size` bytes of models fits; None when nobody may and it does not.

        A tenant larger than all that is allowed never fits. Nobody gives way to one that was not asked later.
        """
        if size > self._allowed:
            return None
        free = self._allowed - sum(held for name, held in self._held.items() if name != tenant)
        mine = self._asked.get(tenant, -1)
        leaving: list[str] = []
        for name in sorted(self._held, key=lambda each: self._asked.get(each, -1)):
            if free >= size:
                break
            last = self._asked.get(name, -1)
            if name != tenant and last < mine and last < self._turn - SETTLED_TURNS:
                leaving.append(name)
                free += self._held[name]
        return leaving if free >= size else None

    def hold(self, tenant: str, size: int) -> None:
        """Its models are held from now on."""
        self._held[tenant] = size

    def let_go(self, tenant: str) -> None:
        """They are not any more."""
        self._held.pop(tenant, None)


def bytes_of(models: Mapping[str, Arrays]) -> int:
    """What the models of a bundle take once they serve: their arrays, and each vocabulary once.

    Vocabularies of as many ids and letters are taken as one: models of one bundle share theirs.
    """
    size = 0
    vocabularies: dict[tuple[int, int], int] = {}
    for arrays in models.values():
        size += sum(array.nbytes for name, array in arrays.items() if name not in ("id_letters", "id_ptr"))
        if "id_ptr" in arrays:
            ids, letters = len(arrays["id_ptr"]) - 1, len(arrays["id_letters"])
            vocabularies[ids, letters] = BYTES_PER_ID * ids + 2 * letters
    return size + sum(vocabularies.values())


def small_popular(arrays: Arrays, most: int = SMALL) -> Arrays:
    """The head of a `popular` model as a model of its own: so many items, in a few kilobytes.

    Args:
        arrays: Of the whole model; only the head is read from the disk.
        most: Items to keep.
    """
    head = np.asarray(arrays["order"][:most])
    start, end = np.asarray(arrays["id_ptr"][head]), np.asarray(arrays["id_ptr"][head + 1])
    letters = [np.asarray(arrays["id_letters"][a:b]) for a, b in zip(start.tolist(), end.tolist(), strict=True)]
    ptr = np.zeros(len(head) + 1, dtype=np.int32)
    np.cumsum(end - start, out=ptr[1:])
    return {
        "order": np.arange(len(head), dtype=np.int32),
        "score": np.asarray(arrays["score"])[head],
        "id_letters": np.concatenate([np.empty(0, dtype=np.uint8), *letters]),
        "id_ptr": ptr,
    }
