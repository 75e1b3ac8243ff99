"""Maps that jobs make and workers read: who belongs to which community, and who saw which variant first."""

import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from thinslice.errors import Corrupt
from thinslice.experiments.unit_map import UnitMap

KEPT, GRAPH = "kept", "graph"
"""What a map is for: first variants of units that a change of weights would move; communities of a graph."""


def unit_map_file(folder: Path, name: str, kind: str) -> Path:
    """Where an experiment's map lies, beside its definition.

    Args:
        folder: The tenant's folder of experiments.
        name: The experiment's.
        kind: `kept` or `graph`.
    """
    return folder / f"{name}.{kind}.npz"


def read_unit_map(path: Path) -> UnitMap:
    """A map from its file.

    Raises:
        Corrupt: The file cannot be read, or its arrays do not belong together.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise Corrupt(f"{path.name} cannot be read: {error}.") from error
    return UnitMap.from_arrays(arrays)


def write_unit_map(path: Path, of: UnitMap) -> None:
    """Writes a map so that a reader sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    with draft.open("wb") as file:
        np.savez(file, allow_pickle=False, **of.arrays())
    draft.replace(path)
