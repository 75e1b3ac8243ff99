"""Item ids as two plain arrays: their letters in a row, and where each id starts."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import overload
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from thinslice.records import Arrays


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

        So the models of one generation, and of the next one when no item came or went, share one vocabulary.
        """
        letters = np.asarray(arrays["id_letters"], dtype=np.uint8).tobytes()
        places = np.ascontiguousarray(arrays["id_ptr"])
        digest = hashlib.blake2b(letters, digest_size=16)
        digest.update(places.astype(np.int64).tobytes())
        key = digest.digest()
        shared = _IN_USE.get(key)
        if shared is None:
            shared = _IN_USE[key] = cls([letters[start:end].decode() for start, end in pairwise(places.tolist())])
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


_IN_USE: WeakValueDictionary[bytes, Vocabulary] = WeakValueDictionary()
