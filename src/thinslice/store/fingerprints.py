"""Fingerprints: sorted hashes of each file's keys, so that looking whether a row is known reads hardly any file."""

import os
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from thinslice.store.views import files_sql


class Fingerprints:
    """The hashes of every file of a lake, beside its tables.

    Args:
        root: The lake's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[str, dict[str, NDArray[np.uint64]]] = {}

    def candidates(
        self, connection: duckdb.DuckDBPyConnection, table: str, key: Sequence[str], files: Sequence[str]
    ) -> list[str]:
        """The files that may hold a key of the view `wanted`: told by the sorted hashes of each file's keys.

        Hashes are kept beside the tables, 8 bytes a row, so that looking for 50,000 keys among millions reads no
        Parquet; what they say is looked up exactly afterwards.
        """
        digest = f"hash({', '.join(key)})"
        needles = np.unique(connection.sql(f"SELECT {digest} AS h FROM wanted").fetchnumpy()["h"])
        cached = self._read.setdefault(table, {})
        for name in set(cached).difference(files):
            del cached[name]
        found = []
        for name in files:
            if name not in cached:
                cached[name] = self._of_file(connection, table, digest, name)
            hashes = cached[name]
            if hashes.size:
                at = np.minimum(np.searchsorted(hashes, needles), hashes.size - 1)
                if np.any(hashes[at] == needles):
                    found.append(name)
        return found

    def _of_file(self, connection: duckdb.DuckDBPyConnection, table: str, digest: str, name: str) -> NDArray[np.uint64]:
        """The sorted hashes of one file's keys, from the disk or made now."""
        folder = self.folder(table)
        path = folder / f"{Path(name).name}.npy"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            hashes = np.sort(connection.sql(f"SELECT {digest} AS h FROM {files_sql([name])}").fetchnumpy()["h"])
            draft = path.with_suffix(f".draft-{os.getpid()}")
            with draft.open("wb") as file:
                np.save(file, hashes.astype(np.uint64), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        made: NDArray[np.uint64] = np.load(path, mmap_mode="r", allow_pickle=False)
        return made

    def folder(self, table: str) -> Path:
        """Where the hashes of a table lie."""
        # Another version of DuckDB may hash in another way.
        return self._root / ".fingerprints" / f"duckdb-{duckdb.__version__}" / table
