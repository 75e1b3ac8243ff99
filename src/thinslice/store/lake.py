"""The lake: everything that was ever received, in open tables that any analytics tool reads without us."""

import errno
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as fs
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, WriterProperties
from deltalake import write_deltalake as write_delta
from deltalake.exceptions import DeltaError

from thinslice.errors import BadInput, UnknownName
from thinslice.settings import NAME_PATTERN
from thinslice.store.fingerprints import Fingerprints
from thinslice.store.log import sync_directory
from thinslice.store.schemas import (
    PARTITION,
    TABLES,
    Table,
    arrow_schema,
    sql_type,
    to_records,
    to_table,
    with_partition,
)
from thinslice.store.views import ASSIGNMENTS, EXPOSURE_VARIANTS, files_sql, open_duckdb

RETENTION_HOURS = 24
"""Files that no newer version needs stay this long, for readers that still look at an older one."""

LOG_RETENTION_DAYS = 30
"""How long versions can be read again, longer when a model names them."""

_CONFIGURATION = {
    "delta.dataSkippingNumIndexedCols": "5",
    "delta.deletedFileRetentionDuration": f"interval {RETENTION_HOURS} hours",
    "delta.logRetentionDuration": f"interval {LOG_RETENTION_DAYS} days",
    "delta.enableExpiredLogCleanup": "false",
}
_SMALL_FILE_BYTES = 64 * 1024 * 1024


class Refused(NamedTuple):
    """A row that cannot stand in its table, and why."""

    row: msgspec.Struct
    reason: str


class Added(NamedTuple):
    """What became of some rows.

    Attributes:
        kept: Rows that were stored.
        dropped: Rows that were not, since their key is known.
        marked: Of the kept, those stored with `duplicate = true`.
        refused: Rows that no table can hold.
        version: The table's version afterwards; -1 when there is still no table.
    """

    kept: int
    dropped: int
    marked: int
    refused: list[Refused]
    version: int


class Lake:
    """The tables of one workspace, one folder each.

    Reading never waits for writing. Several processes may append at once; `add`, which first looks whether a row is
    news, lets one in at a time.

    Args:
        root: The folder; made with the first row.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._open: dict[str, DeltaTable] = {}
        self._fingerprints = Fingerprints(self.root)

    # Writing

    def append(
        self,
        table: str,
        rows: Sequence[msgspec.Struct] | pa.Table,
        *,
        log_id: str | None = None,
        log_version: int | None = None,
        covered: Mapping[str, int] | None = None,
    ) -> int:
        """Appends rows as they are in one commit that survives a power loss.

        Args:
            table: A name in `TABLES`.
            rows: Its records, or a table with its columns (missing ones are null).
            log_id: A source that must not be read twice; `covered_by` gives `log_version` back.
            log_version: How far that source is covered by this commit.
            covered: The same for several sources.

        Returns:
            The table's version.

        Raises:
            UnknownName: There is no such table.
        OSError: The disk is full, for instance.
        """
        spec = _spec(table)
        data = rows if isinstance(rows, pa.Table) else to_table(spec.record, rows)
        data = _shaped(data, spec)
        marks = dict(covered or {})
        if log_id is not None:
            marks[log_id] = int(log_version or 0)
        if data.num_rows == 0 and not marks:
            return self.version(table)
        data = data.sort_by([("tenant", "ascending"), (spec.time, "ascending")])
        path = self.root / table
        if self._table(table) is None:
            self._make(table, spec)
        delta = self._table(table)
        assert delta is not None
        before = delta.version()
        try:
            write_delta(
                delta,
                with_partition(data, spec.time) if spec.partitioned else data,
                mode="append",
                schema_mode="merge",
                writer_properties=WriterProperties(compression="ZSTD"),
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(name, version) for name, version in sorted(marks.items())],
                    max_commit_retries=100,
                ),
                post_commithook_properties=PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False),
            )
        except DeltaError as error:
            if "No space left" not in str(error):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        delta.update_incremental()
        for version in range(before + 1, delta.version() + 1):
            _sync_commit(path, version)
        return int(delta.version())

    def add(
        self,
        table: str,
        rows: Sequence[msgspec.Struct],
        *,
        window: timedelta | None = None,
        covered: Mapping[str, int] | None = None,
        on_refused: Callable[[list[Refused]], object] | None = None,
    ) -> Added:
        """Appends the rows that are news, each key once.

        Args:
            table: A name in `TABLES`.
            rows: Its records; among equal keys the first is kept. In tables that show the newest row of a key
                (`Table.newest`) a row with a known key is news unless it is the same row; see there.
            window: A known key within this time before a row's `received_at` drops the row; an older one lets it in
                with `duplicate = true`. None: no window, every known key drops. For events only.
            covered: Sources and how far this commit covers them.
            on_refused: Called with rows that no table can hold, before the others are committed; may `append`.

        Raises:
            UnknownName: There is no such table.
        """
        spec = _spec(table)
        with self.alone():
            if spec.newest:
                fresh, dropped = self._changed(table, spec, rows)
                marked: set[int] = set()
            else:
                fresh, dropped, marked = self._unknown(table, spec, rows, window)
            kept = [
                msgspec.structs.replace(row, duplicate=True) if number in marked else row
                for number, row in enumerate(fresh)
            ]
            data, refused = _tabled(spec, kept)
            if refused and on_refused is not None:
                on_refused(refused)
            version = self.append(table, data, covered=covered) if data.num_rows else self.version(table)
        return Added(data.num_rows, dropped, len(marked), refused, version)

    def remove(self, table: str, *, tenant: str, source: str, received_at: datetime) -> int:
        """Takes the rows away that one source of a tenant brought at one moment; older versions still have them.

        Returns:
            How many there were.

        Raises:
            UnknownName: There is no such table.
        """
        _spec(table)
        with self.alone():
            delta = self._table(table)
            if delta is None:
                return 0
            before = delta.version()
            at = received_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            gone = delta.delete(f"tenant = '{tenant}' AND source = '{source}' AND received_at = '{at}'")
            delta.update_incremental()
            for version in range(before + 1, delta.version() + 1):
                _sync_commit(self.root / table, version)
        return int(gone["num_deleted_rows"])

    def covered_by(self, table: str, log_id: str, *, refresh: bool = True) -> int:
        """How far a source is in a table already; 0 when not at all.

        Args:
            table: A name in `TABLES`.
            log_id: The source.
            refresh: Whether to look for commits of other processes first.
        """
        _spec(table)
        delta = self._table(table) if refresh or table not in self._open else self._open[table]
        version = delta.transaction_version(log_id) if delta is not None else None
        return int(version) if version is not None else 0

    # Reading

    def version(self, table: str) -> int:
        """A table's newest version; -1 when nothing was ever written to it."""
        _spec(table)
        delta = self._table(table)
        return int(delta.version()) if delta is not None else -1

    def versions(self) -> dict[str, int]:
        """The newest version of each table that has one."""
        found = {table: self.version(table) for table in TABLES}
        return {table: version for table, version in found.items() if version >= 0}

    def scan(
        self,
        table: str,
        version: int | None = None,
        *,
        tenant: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """The rows of a table as they were written, in no particular order.

        Args:
            table: A name in `TABLES`.
            version: An older version; None is the newest.
            tenant: Only this tenant's rows.
            columns: Only these columns; None is all of the record.

        Raises:
            UnknownName: There is no such table, or no such version of it.
        """
        spec = _spec(table)
        schema = arrow_schema(spec.record)
        wanted = list(columns) if columns is not None else schema.names
        delta = self._table(table) if version is None else self._at(table, version)
        if delta is None:
            return schema.empty_table().select(wanted)
        there = {field.name for field in delta.schema().fields}
        # Read by Arrow's own file system: threads of deltalake's may outlive the interpreter, which then aborts.
        files = fs.SubTreeFileSystem(str(self.root / table), fs.LocalFileSystem())
        data = delta.to_pyarrow_dataset(filesystem=files).to_table(
            columns=[name for name in wanted if name in there],
            filter=pc.field("tenant") == tenant if tenant is not None else None,
        )
        return _shaped(data, spec, wanted)

    def changed_files(self, table: str, since: int | None, until: int) -> list[str]:
        """The files that a version of a table has and an older one has not.

        They hold every row that was added in between; and, where files were joined meanwhile, older ones too.

        Args:
            table: A name in `TABLES`.
            since: The older version; None, or one that cannot be read any more, is before everything.
            until: The newer version.

        Raises:
            UnknownName: There is no such table, or no such version of it.
        """
        _spec(table)
        files = self._files(table, self._at(table, until))
        if since is None or not self._readable(table, since):
            return files
        older = set(self._files(table, self._at(table, since)))
        return [name for name in files if name not in older]

    def connect(
        self,
        *,
        tenant: str | None = None,
        versions: Mapping[str, int] | None = None,
        threads: int = 1,
        memory_mb: int = 1024,
    ) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection in UTC with one view a table, and the views `exposure_variants` and `assignments`.

        Views of tables that show the newest row (items, orders, …) show it alone. Fetch times as Arrow
        (`to_arrow_table`), which keeps them aware.

        Args:
            tenant: Only this tenant's rows; None is all.
            versions: Tables as they were at these versions.
            threads: How many threads it may use.
            memory_mb: How much memory it may use, MiB; more goes to a temporary folder of the lake.

        Raises:
            BadInput: The tenant's name is none.
            UnknownName: There is no such version.
        """
        if tenant is not None and not re.fullmatch(NAME_PATTERN, tenant):
            raise BadInput(f"{tenant!r} cannot name a tenant.")
        connection = open_duckdb(self.root, threads=threads, memory_mb=memory_mb)
        for table, spec in TABLES.items():
            pinned = (versions or {}).get(table)
            connection.execute(f"CREATE VIEW {table} AS {self._view(table, spec, tenant, pinned)}")
        connection.execute(EXPOSURE_VARIANTS)
        if self._table("assignments") is None:
            connection.execute(ASSIGNMENTS)
        return connection

    # Housekeeping

    def maintain(
        self, *, keep_versions: Iterable[int] | Mapping[str, Iterable[int]] = (), now: datetime | None = None
    ) -> None:
        """Joins small files, writes checkpoints, and deletes files that nobody can need any more.

        Args:
            keep_versions: Versions that models, decisions or backups name, by table; a plain list is of `events`.
            now: Aware; the clock when None.
        """
        kept = keep_versions if isinstance(keep_versions, Mapping) else {"events": keep_versions}
        for table in TABLES:
            if self._table(table) is not None:
                self._maintain(table, sorted(set(kept.get(table, ()))), now or datetime.now(UTC))

    def _maintain(self, table: str, kept: list[int], now: datetime) -> None:
        with self.alone():
            delta = self._table(table)
            assert delta is not None
            kept = [version for version in kept if 0 <= version <= delta.version()]
            if _small_files(delta) > 1:
                delta.optimize.compact(
                    target_size=_SMALL_FILE_BYTES, max_concurrent_tasks=1,
                    writer_properties=WriterProperties(compression="ZSTD"),
                )  # fmt: skip
                delta.update_incremental()
            delta.vacuum(
                retention_hours=RETENTION_HOURS, dry_run=False, full=True,
                keep_versions=[version for version in kept if self._readable(table, version)],
            )  # fmt: skip
            delta.update_incremental()
            delta.create_checkpoint()
            current = {f"{Path(name).name}.npy" for name in delta.file_uris()}
            for path in self._fingerprints.folder(table).glob("*"):
                if path.name not in current:
                    path.unlink(missing_ok=True)
            if not any(self._born(table, version) < now - timedelta(days=LOG_RETENTION_DAYS) for version in kept):
                delta.cleanup_metadata()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Only one process at a time may be in here; not to be nested."""
        self.root.mkdir(parents=True, exist_ok=True)
        guard = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield
        finally:
            os.close(guard)

    # Inside

    def _table(self, table: str) -> DeltaTable | None:
        delta = self._open.get(table)
        path = self.root / table
        if delta is not None:
            delta.update_incremental()
            return delta
        if not (path / "_delta_log").is_dir() or not DeltaTable.is_deltatable(str(path)):
            return None
        self._open[table] = DeltaTable(str(path))
        return self._open[table]

    def _at(self, table: str, version: int) -> DeltaTable:
        newest = self.version(table)
        if not 0 <= version <= newest:
            raise UnknownName(f"table {table!r} has no version {version} (the newest is {newest}).")
        return DeltaTable(str(self.root / table), version=version)

    def _make(self, table: str, spec: Table) -> None:
        path = self.root / table
        path.mkdir(parents=True, exist_ok=True)
        schema = arrow_schema(spec.record)
        if spec.partitioned:
            schema = schema.append(pa.field(PARTITION, pa.date32()))
        DeltaTable.create(
            str(path), schema, mode="ignore", configuration=_CONFIGURATION,
            partition_by=[PARTITION] if spec.partitioned else None, name=table, description=spec.record.__doc__,
        )  # fmt: skip
        _sync_commit(path, 0)
        sync_directory(self.root)

    def _readable(self, table: str, version: int) -> bool:
        return (self.root / table / "_delta_log" / f"{version:020d}.json").is_file()

    def _born(self, table: str, version: int) -> datetime:
        path = self.root / table / "_delta_log" / f"{version:020d}.json"
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.is_file() else datetime.now(UTC)

    def _view(self, table: str, spec: Table, tenant: str | None, version: int | None) -> str:
        delta = self._table(table) if version is None else self._at(table, version)
        schema = arrow_schema(spec.record)
        files = self._files(table, delta) if delta is not None else []
        if delta is None or not files:
            nothing = ", ".join(f'NULL::{sql_type(field.type)} AS "{field.name}"' for field in schema)
            return f"SELECT {nothing} WHERE false"
        there = {field.name for field in delta.schema().fields}
        columns = ", ".join(
            f'"{field.name}"' if field.name in there else f'NULL::{sql_type(field.type)} AS "{field.name}"'
            for field in schema
        )
        text = f"SELECT {columns} FROM {files_sql(files)}"
        if tenant is not None:
            text += f" WHERE tenant = '{tenant}'"
        if spec.newest:
            key = ", ".join(spec.key)
            text += f" QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {spec.order}) = 1"
        return text

    def _files(self, table: str, delta: DeltaTable) -> list[str]:
        """The table's files as paths of this machine (its own list has them as addresses: `my%20shop`)."""
        folder = self.root / table
        return [str(folder / address.rpartition(f"/{table}/")[2]) for address in delta.file_uris()]

    def _unknown(
        self, table: str, spec: Table, rows: Sequence[msgspec.Struct], window: timedelta | None
    ) -> tuple[list[msgspec.Struct], int, set[int]]:
        """Rows whose key the table has not, how many were dropped, and which of the rest are to be marked."""
        first: dict[tuple[Any, ...], msgspec.Struct] = {}
        for row in rows:
            first.setdefault(tuple(getattr(row, name) for name in spec.key), row)
        known = self._last_seen(table, spec, list(first))
        fresh: list[msgspec.Struct] = []
        marked: set[int] = set()
        for key, row in first.items():
            seen = known.get(key)
            if seen is None:
                fresh.append(row)
            elif window is not None and seen < getattr(row, spec.time) - window:
                marked.add(len(fresh))
                fresh.append(row)
        return fresh, len(rows) - len(fresh), marked

    def _changed(self, table: str, spec: Table, rows: Sequence[msgspec.Struct]) -> tuple[list[msgspec.Struct], int]:
        """Rows that differ from the newest row of their key in more than `received_at`, and how many were dropped."""
        newest: dict[tuple[Any, ...], msgspec.Struct] = {}
        for row in rows:
            key = tuple(getattr(row, name) for name in spec.key)
            if key not in newest or getattr(newest[key], spec.time) <= getattr(row, spec.time):
                newest[key] = row
        known = self._last_rows(table, spec, list(newest))
        fresh = []
        for key, row in newest.items():
            old = known.get(key)
            if old is None or (getattr(old, spec.time) <= getattr(row, spec.time) and not _same(old, row)):
                fresh.append(row)
        return fresh, len(rows) - len(fresh)

    def _last_seen(self, table: str, spec: Table, keys: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], datetime]:
        names = ", ".join(spec.key)
        found = self._matching(table, spec, keys, f"SELECT {names}, max({spec.time}) FROM found GROUP BY ALL")
        columns = [column.to_pylist() for column in found.columns]
        return {tuple(row[:-1]): row[-1] for row in zip(*columns, strict=True)}

    def _last_rows(self, table: str, spec: Table, keys: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], msgspec.Struct]:
        names = ", ".join(spec.key)
        found = self._matching(
            table, spec, keys,
            f"SELECT * FROM found QUALIFY row_number() OVER (PARTITION BY {names} ORDER BY {spec.order}) = 1",
        )  # fmt: skip
        return {tuple(getattr(row, name) for name in spec.key): row for row in to_records(spec.record, found)}

    def _matching(self, table: str, spec: Table, keys: list[tuple[Any, ...]], query: str) -> pa.Table:
        """Runs a query over the view `found`: the table's rows that have one of the keys."""
        schema = arrow_schema(spec.record)
        delta = self._table(table)
        files = self._files(table, delta) if delta is not None and keys else []
        connection = open_duckdb(self.root, threads=1, memory_mb=512)
        try:
            if not files:
                nothing = ", ".join(f'NULL::{sql_type(field.type)} AS "{field.name}"' for field in schema)
                connection.execute(f"CREATE VIEW found AS SELECT {nothing} WHERE false")
                return connection.sql(query).to_arrow_table()
            types = [schema.field(name).type for name in spec.key]
            columns = zip(*keys, strict=True)
            wanted = pa.Table.from_arrays(
                [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names=list(spec.key)
            )
            connection.register("wanted", wanted)
            files = self._fingerprints.candidates(connection, table, spec.key, files)
            if not files:
                return self._matching(table, spec, [], query)
            there = {field.name for field in delta.schema().fields} if delta is not None else set()
            picked = ", ".join(f'"{name}"' for name in schema.names if name in there)
            tenants = ", ".join(f"'{name}'" for name in sorted({key[0] for key in keys}) if "'" not in name)
            connection.execute(
                f"CREATE VIEW found AS SELECT {picked} FROM {files_sql(files)} "
                f"SEMI JOIN wanted USING ({', '.join(spec.key)})" + (f" WHERE tenant IN ({tenants})" if tenants else "")
            )
            return connection.sql(query).to_arrow_table()
        finally:
            connection.close()


def _spec(table: str) -> Table:
    if table not in TABLES:
        raise UnknownName(f"the lake has no table {table!r} (there is: {', '.join(TABLES)}).")
    return TABLES[table]


def _shaped(data: pa.Table, spec: Table, wanted: Sequence[str] | None = None) -> pa.Table:
    """The table with exactly the record's columns, in their order and of their types; missing ones are null."""
    schema = arrow_schema(spec.record)
    fields = [schema.field(name) for name in (wanted if wanted is not None else schema.names)]
    strange = set(data.column_names) - set(schema.names) - {PARTITION}
    if strange:
        raise BadInput(f"{', '.join(sorted(strange))} is no column of {spec.record.__name__}.")
    columns = [
        data.column(field.name).cast(field.type)
        if field.name in data.column_names
        else pa.chunked_array([pa.nulls(data.num_rows, field.type)])
        for field in fields
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _tabled(spec: Table, rows: list[msgspec.Struct]) -> tuple[pa.Table, list[Refused]]:
    """Rows as a table, without those that do not fit; found by halving, so that the good ones are kept."""
    try:
        return to_table(spec.record, rows), []
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
        if len(rows) == 1:
            return arrow_schema(spec.record).empty_table(), [Refused(rows[0], str(error))]
    half = len(rows) // 2
    left, wrong = _tabled(spec, rows[:half])
    right, more = _tabled(spec, rows[half:])
    return pa.concat_tables([left, right]), wrong + more


def _same(old: msgspec.Struct, new: msgspec.Struct) -> bool:
    """Whether two rows say the same, whenever they were received."""
    if "received_at" in old.__struct_fields__:
        new = msgspec.structs.replace(new, received_at=old.received_at)  # type: ignore[attr-defined]
    return bool(old == new)


def _small_files(delta: DeltaTable) -> int:
    """The most files under the target size that one partition has."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    small = actions.filter(pc.less(actions.column("size_bytes"), _SMALL_FILE_BYTES // 2))
    name = f"partition.{PARTITION}"
    if name not in small.column_names:
        return int(small.num_rows)
    counts = small.group_by(name).aggregate([("size_bytes", "count")]).column("size_bytes_count").to_pylist()
    return max(counts, default=0)


def _sync_commit(path: Path, version: int) -> None:
    """Makes one commit survive a power loss: its files, their folders, then the commit itself."""
    commit = path / "_delta_log" / f"{version:020d}.json"
    folders = {path}
    with commit.open("rb") as file:
        for line in file:
            added = json.loads(line).get("add")
            if added is not None:
                data = path / added["path"]
                _sync_file(data)
                folders.add(data.parent)
        os.fsync(file.fileno())
    for folder in sorted(folders):
        sync_directory(folder)
    sync_directory(commit.parent)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
