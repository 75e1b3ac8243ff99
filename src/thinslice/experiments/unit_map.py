"""A label for each of many units, as two arrays: a community, or the variant that a unit saw first."""

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import Corrupt


class UnitMap:
    """Unit → label in 12 bytes a unit; one look takes a few microseconds.

    Ids are kept as 64-bit hashes: two of a million ids share one with a chance of 3 in 10^8.

    Args:
        labels: Unit id → label.

    >>> UnitMap({"anna": "7", "ben": "7"}).get("anna")
    '7'
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        names = sorted(set(labels.values()))
        place = {name: code for code, name in enumerate(names)}
        keys = np.array([_hash(unit) for unit in labels], dtype=np.uint64)
        codes = np.array([place[label] for label in labels.values()], dtype=np.int32)
        order = np.argsort(keys, kind="stable")
        self._keys, self._codes, self._names = keys[order], codes[order], names

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, unit_id: str) -> str | None:
        """The label of a unit; None when it has none."""
        key = _hash(unit_id)
        at = int(self._keys.searchsorted(np.uint64(key)))
        if at >= len(self._keys) or int(self._keys[at]) != key:
            return None
        return self._names[int(self._codes[at])]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What is stored: `keys` (units,) uint64 ascending, `codes` (units,) int32, `names` (labels,) texts."""
        return {"keys": self._keys, "codes": self._codes, "names": np.array(self._names, dtype=np.str_)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "UnitMap":
        """The map of what `arrays` gave.

        Raises:
            Corrupt: The arrays do not belong together.
        """
        made = cls({})
        try:
            keys, codes, names = arrays["keys"], arrays["codes"], [str(name) for name in arrays["names"]]
            whole = keys.dtype == np.uint64 and codes.dtype == np.int32 and keys.shape == codes.shape
            if not whole or (len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < len(names)):
                raise Corrupt("the arrays of a unit map do not belong together.")
        except KeyError as error:
            raise Corrupt(f"a unit map has no array {error}.") from None
        made._keys, made._codes, made._names = keys.astype(np.uint64), codes.astype(np.int32), names
        return made


class FirstSeen:
    """When each visitor was first seen, in 12 bytes a visitor.

    Args:
        seen: Visitor id → unix seconds.

    >>> FirstSeen({"anna": 1_700_000_000.7}).at("anna")
    1700000000.0
    """

    def __init__(self, seen: Mapping[str, float]) -> None:
        keys = np.array([_hash(unit) for unit in seen], dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        self._keys, self._at = keys[order], np.array(list(seen.values()), dtype=np.float64).astype(np.uint32)[order]

    def __len__(self) -> int:
        return len(self._keys)

    def at(self, visitor_id: str) -> float | None:
        """Unix seconds, whole; None for who was never seen."""
        key = _hash(visitor_id)
        place = int(self._keys.searchsorted(np.uint64(key)))
        if place >= len(self._keys) or int(self._keys[place]) != key:
            return None
        return float(self._at[place])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What is stored: `keys` (visitors,) uint64 ascending, `at` (visitors,) uint32."""
        return {"keys": self._keys, "at": self._at}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "FirstSeen":
        """The map of what `arrays` gave.

        Raises:
            Corrupt: The arrays do not belong together.
        """
        keys, at = arrays.get("keys"), arrays.get("at")
        if keys is None or at is None or keys.dtype != np.uint64 or at.dtype != np.uint32 or keys.shape != at.shape:
            raise Corrupt("the arrays of first visits do not belong together.")
        made = cls({})
        made._keys, made._at = keys.astype(np.uint64), at.astype(np.uint32)
        return made


def _hash(unit_id: str) -> int:
    return int.from_bytes(blake2b(unit_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
