"""Maps that jobs make and workers read: who belongs to which community, and who saw which variant first."""

import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import Corrupt
from thinslice.experiments.item_deal import KnownItems
from thinslice.experiments.unit_map import FirstSeen, UnitMap

KEPT, GRAPH, ITEMS = "kept", "graph", "items"
"""What a map is for: first variants of units that a change of weights would move; communities of a graph; the items
that were there when an experiment began that deals out new ones."""

VISITORS, SEEN, COUNTRY = "~", "seen", "country"
"""Maps of a tenant's visitors and users, for all experiments: when each was first seen, and where each lives."""


def unit_map_file(folder: Path, name: str, kind: str) -> Path:
    """Where an experiment's map lies, beside its definition.

    Args:
        folder: The tenant's folder of experiments.
        name: The experiment's, or `VISITORS`.
        kind: `kept`, `graph` or `items`; of visitors `seen` or `country`.
    """
    return folder / f"{name}.{kind}.npz"


def read_unit_map(path: Path) -> UnitMap:
    """A map from its file.

    Raises:
        Corrupt: The file cannot be read, or its arrays do not belong together.
    """
    return UnitMap.from_arrays(_arrays_in(path))


def read_known_items(path: Path) -> KnownItems:
    """The items that were there when an experiment began, from their file.

    Raises:
        Corrupt: The file cannot be read, or its array is another one.
    """
    return KnownItems.from_arrays(_arrays_in(path))


def read_first_seen(path: Path) -> FirstSeen:
    """When visitors were first seen, from their file.

    Raises:
        Corrupt: The file cannot be read, or its arrays do not belong together.
    """
    return FirstSeen.from_arrays(_arrays_in(path))


def _arrays_in(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise Corrupt(f"{path.name} cannot be read: {error}.") from error


def write_unit_map(path: Path, of: UnitMap | KnownItems | FirstSeen) -> None:
    """Writes a map so that a reader sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    with draft.open("wb") as file:
        np.savez(file, allow_pickle=False, **of.arrays())
    draft.replace(path)
