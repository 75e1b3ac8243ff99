"""Item ids as two plain arrays: their letters in a row, and where each id starts."""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from thinslice.records import Arrays

SLICE = 2048
"""So many ids are read or let go in one turn: about 0.2 ms. Then other threads may go on: one of them answers pages."""

PAUSE_S = 50e-6
"""A pause this long (seconds) gives a waiting thread its turn; with 0 it mostly would not wake in time."""


class Vocabulary(Sequence[str]):
    """The item ids of a model, one a code.

    >>> words = Vocabulary(["chair", "sofa"])
    >>> words.code["sofa"], Vocabulary.from_arrays(words.arrays())[0], words.codes(["lamp", "sofa"]).tolist()
    (1, 'chair', [-1, 1])
    """

    def __init__(self, item_ids: Sequence[str]) -> None:
        self._names = list(item_ids)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "Vocabulary":
        """Reads what `arrays` wrote; the same content gives the same object as long as somebody uses it.

        So the models of one generation, and of the next one when no item came or went, share one vocabulary. A new one
        is read in slices, with pauses in which other threads go on.
        """
        letters = np.ascontiguousarray(arrays["id_letters"], dtype=np.uint8)
        places = np.ascontiguousarray(arrays["id_ptr"], dtype=np.int64)
        digest = hashlib.blake2b(letters.data, digest_size=16)
        digest.update(places.data)
        key = digest.digest()
        shared = _IN_USE.get(key)
        if shared is None:
            shared = cls(())
            code: dict[str, int] = {}
            for names in _read(letters, places):
                code.update(zip(names, range(len(shared._names), len(shared._names) + len(names)), strict=True))
                shared._names += names
                time.sleep(PAUSE_S)
            shared.__dict__["code"] = code  # what the cached property would make at once
            _IN_USE[key] = shared
        return shared

    def arrays(self) -> Arrays:
        """`id_letters` (UTF-8, uint8) and `id_ptr` (items + 1)."""
        encoded = [name.encode() for name in self._names]
        ptr = np.zeros(len(encoded) + 1, dtype=np.int32)
        np.cumsum([len(text) for text in encoded], out=ptr[1:])
        return {"id_letters": np.frombuffer(b"".join(encoded), dtype=np.uint8), "id_ptr": ptr}

    @cached_property
    def code(self) -> dict[str, int]:
        """Item id → code."""
        return {name: number for number, name in enumerate(self._names)}

    def codes(self, session: Sequence[str]) -> NDArray[np.int32]:
        """The codes of a session's items; -1 where an item is unknown."""
        find = self.code.get
        return np.array([find(item_id, -1) for item_id in session], dtype=np.int32)

    @overload
    def __getitem__(self, code: int) -> str: ...
    @overload
    def __getitem__(self, code: slice) -> list[str]: ...
    def __getitem__(self, code: int | slice) -> str | list[str]:
        return self._names[code]

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __del__(self) -> None:
        """Lets a large vocabulary go in slices when that happens beside the thread that answers."""
        if len(self._names) <= SLICE or threading.current_thread() is threading.main_thread():
            return
        code = self.__dict__.pop("code", {})
        while code:
            for _ in range(min(SLICE, len(code))):
                code.popitem()
            time.sleep(PAUSE_S)
        while self._names:
            del self._names[-SLICE:]
            time.sleep(PAUSE_S)


def _read(letters: NDArray[np.uint8], places: NDArray[np.int64]) -> Iterator[list[str]]:
    """The ids, a slice at a time; by one call a slice where no id holds the letter that is put between them."""
    plain = not (letters == 0).any()
    for first in range(0, len(places) - 1, SLICE):
        ends = places[first + 1 : first + SLICE + 1] - places[first]
        piece = letters[places[first] : places[first] + ends[-1]]
        if plain:
            spaced = np.zeros(len(piece) + len(ends), dtype=np.uint8)
            inside = np.ones(len(spaced), dtype=np.bool_)
            inside[ends + np.arange(len(ends))] = False
            spaced[inside] = piece
            yield spaced.tobytes().decode().split("\0")[:-1]
        else:
            starts = [0, *ends[:-1].tolist()]
            yield [piece[start:end].tobytes().decode() for start, end in zip(starts, ends.tolist(), strict=True)]


_IN_USE: WeakValueDictionary[bytes, Vocabulary] = WeakValueDictionary()
