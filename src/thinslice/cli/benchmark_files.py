"""The files of a benchmark: its head with the goals (TOML), its queries, log and catalog (Parquet), and its runs."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

import msgspec

from thinslice.errors import BadInput, Corrupt, UnknownName
from thinslice.settings import NAME_PATTERN, Workspace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from thinslice.evaluation.benchmark import Benchmark, Frozen
    from thinslice.records import Item

PARTS = ("queries", "log", "items")
"""What is frozen beside the head, one Parquet file each."""


def folder(workspace: Workspace, tenant: str) -> Path:
    """Where a tenant's benchmarks lie."""
    return workspace.root / "benchmarks" / tenant


def head_file(workspace: Workspace, tenant: str, name: str) -> Path:
    """The TOML file of a benchmark.

    Raises:
        BadInput: That cannot be its name.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise BadInput(f"{name!r} cannot name a benchmark.", hint="Use a-z, 0-9, _ and -, at most 64.")
    return folder(workspace, tenant) / f"{name}.toml"


def write(path: Path, head: Benchmark, frozen: Frozen, items: Sequence[Item]) -> Benchmark:
    """Writes a new benchmark, its head last, and returns the head with the checksums of its parts.

    Raises:
        BadInput: There is one of that name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from thinslice.records import Item
    from thinslice.store.schemas import to_table

    if path.exists():
        raise BadInput(
            f"there is a benchmark {head.name!r} already ({path}).", hint="Frozen is frozen: take another name."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    log = frozen.train
    owner = [number for number, length in enumerate((log.session_ptr[1:] - log.session_ptr[:-1]).tolist())
             for _ in range(length)]  # fmt: skip
    tables = {
        "queries": pa.Table.from_pylist([msgspec.to_builtins(query) for query in frozen.queries]),
        "log": pa.table(
            {
                "session": pa.array(owner, pa.int32()),
                "item_id": pa.array([log.item_ids[code] for code in log.item.tolist()], pa.string()),
                "ts": log.time,
                "action": [0] * len(owner) if log.action is None else log.action,
            }
        ),
        "items": to_table(Item, list(items)),
    }
    sums = {}
    for part, table in tables.items():
        file = path.with_suffix(f".{part}.parquet")
        pq.write_table(table, file, compression="zstd")
        sums[part] = _checksum(file)
    head = msgspec.structs.replace(head, sha256=sums)
    path.write_text(to_toml(head), encoding="utf-8")
    return head


def read(path: Path) -> tuple[Benchmark, Frozen, list[Item]]:
    """A benchmark as it was frozen, with the goals that stand in its head now.

    Raises:
        UnknownName: There is none.
        BadInput: Its head cannot be read.
        Corrupt: A part is not what was frozen.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from thinslice.evaluation.benchmark import Benchmark, Frozen, Query
    from thinslice.models import from_columns
    from thinslice.records import Item
    from thinslice.store.schemas import to_records

    if not path.is_file():
        there = ", ".join(sorted(each.stem for each in path.parent.glob("*.toml"))) or "none"
        raise UnknownName(f"there is no benchmark {path.stem!r} (there is: {there}).",
                          hint="`thinslice benchmark freeze` makes one.")  # fmt: skip
    try:
        head = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Benchmark)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}.", hint="Only the goals and the note are yours to change.") from None
    for part in PARTS:
        file = path.with_suffix(f".{part}.parquet")
        if not file.is_file() or _checksum(file) != head.sha256.get(part):
            raise Corrupt(f"{file} is not what was frozen.", hint="A benchmark that was changed is another one.")
    queries = [msgspec.convert(row, Query) for row in pq.read_table(path.with_suffix(".queries.parquet")).to_pylist()]
    log = pq.read_table(path.with_suffix(".log.parquet"))
    action = log["action"].to_numpy().astype(np.uint8)
    train = from_columns(log["session"].to_numpy(), log["item_id"].to_pylist(), log["ts"].to_numpy(),
                         order_only=head.order_only, actions=action if action.any() else None)  # fmt: skip
    items = to_records(Item, pq.read_table(path.with_suffix(".items.parquet")))
    return head, Frozen(queries, train, head.split), items


def runs(path: Path) -> list[dict[str, Any]]:
    """What was written of each run, the oldest first."""
    file = path.with_suffix(".runs.jsonl")
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def keep_run(path: Path, run: Mapping[str, Any]) -> None:
    """Adds one run."""
    with path.with_suffix(".runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(run, ensure_ascii=False, allow_nan=False) + "\n")


def to_toml(head: Benchmark) -> str:
    """The head as people read it: goals on top of what is frozen."""
    plain = msgspec.to_builtins(head, builtin_types=())
    lines = [
        "# Goals may be changed here; a change after the first run is said in every report.",
        *(f"{name} = {json.dumps(plain[name], ensure_ascii=False)}" for name in ("name", "tenant", "note")),
        f"frozen_at = {head.frozen_at.isoformat()}",
        *(f"{name} = {json.dumps(plain[name], ensure_ascii=False)}"
          for name in ("k", "queries", "source", "split", "order_only")),
        "",
        "[goals]",
        *(f"{name} = {float(goal)!r}" for name, goal in head.goals.items()),
        "",
        "[sha256]",
        *(f'{name} = "{value}"' for name, value in head.sha256.items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _checksum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
