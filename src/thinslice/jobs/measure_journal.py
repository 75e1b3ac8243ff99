"""The journal of an experiment: what its units were shown and did, narrow and by unit; a day costs a day's rows.

It lies beside the lake's tables and can be deleted at any time: the next report makes it again. Ids are kept as 64-bit
hashes, which is enough to tell a billion units apart.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import duckdb
import msgspec

from thinslice.experiments.evidence import raw_columns
from thinslice.jobs.daily import DAYS_BEFORE, before_sql
from thinslice.jobs.measure_parts import Parts
from thinslice.jobs.watch import Some, hashed, one_in, some_units
from thinslice.metrics.columns import UNIT_COLUMNS
from thinslice.metrics.unit_table import UNIT_KEYS, VECTOR, identifier, segment_sql, served_sql, text
from thinslice.records import Experiment
from thinslice.store.arrivals import arrivals, commit_digest
from thinslice.store.lake import Lake
from thinslice.store.log import sync_directory
from thinslice.store.schemas import TABLES, arrow_schema, sql_type
from thinslice.store.views import EXPOSURE_VARIANTS, files_sql

FORMAT = 3
"""Grows whenever journals are written in another way; older ones are made again."""

CHUNK_ROWS = 8_000_000
"""So many rows of the lake are brought in at a time; bounds the memory."""

PART_ROWS = 4_000_000
"""A report is counted in parts of about so many slates."""

FEW = 8
"""So many new contexts of slates are looked up one by one."""

MOST_CHUNKS = 24
"""With more chunks than these the smaller half is joined into one."""

GRACE_S = 3_600.0
"""Chunks that were joined stay so long (seconds), for reports that still read them."""

IDLE = timedelta(days=7)
"""A journal that no report has brought up to date for so long is deleted."""

NAMED = ("select_item", "view_item_list", "view_item", "add_to_cart")
"""Events that columns other than sessions are made of."""


class Chunk(msgspec.Struct, frozen=True):
    """One file of a journal, its rows in the order of their units."""

    name: str
    rows: int


class Context(msgspec.Struct, frozen=True):
    """What many slates have in common: `propensities` is JSON text, `segments` are in the experiment's order."""

    variant: str
    propensities: str
    is_bot: bool
    segments: list[str | None]


class State(msgspec.Struct, kw_only=True):
    """What a journal holds: up to which version of each table, told by the digest of its commit.

    `contexts` are by the hash that stands in their slates' rows.
    """

    made_for: str
    versions: dict[str, int] = {}
    digests: dict[str, str] = {}
    chunks: dict[str, list[Chunk]] = {}
    contexts: dict[str, Context] = {}
    files: int = 0


def keeps_journal(experiment: Experiment) -> bool:
    """Whether an experiment's report is made from a journal: units one by one, and columns of the unit itself."""
    return (
        experiment.unit in UNIT_KEYS and experiment.started_at is not None
        and not experiment.pooled_share and set(raw_columns(experiment)) <= set(UNIT_COLUMNS)
    )  # fmt: skip


class Journal:
    """The journal of one experiment.

    Args:
        lake: Its tables `exposures` and `events` are what is kept.
        experiment: Whose metrics are named; `keeps_journal` holds.
    """

    def __init__(self, lake: Lake, experiment: Experiment) -> None:
        assert experiment.started_at is not None
        self._lake = lake
        self._experiment = experiment
        self._folder = lake.root / ".journals" / experiment.tenant / experiment.name
        self._key = UNIT_KEYS[experiment.unit]
        self._sessions = "sessions" in raw_columns(experiment)
        self._before = before_sql(experiment)
        days = max(experiment.covariate_days or 0.0, 0.0 if self._before is None else float(DAYS_BEFORE))
        self._since = experiment.started_at - timedelta(days=days)

    def update(self, database: duckdb.DuckDBPyConnection) -> State:
        """Brings in what is new in the lake, and joins small chunks; one process at a time.

        Killed at any moment, it goes on from what the last finished run noted. Where it cannot be told what is new,
        everything is read again.

        Args:
            database: Does the work.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            state = self._read()
            for table in ("exposures", "events"):
                self._bring(database, state, table)
            self._join(database, state)
            self._sweep(state)
        return state

    # Bringing rows in

    def _bring(self, database: duckdb.DuckDBPyConnection, state: State, table: str) -> None:
        until = self._lake.version(table)
        folder, since = self._lake.root / table, state.versions.get(table, -1)
        if until < 0 or until == since:
            return
        news = arrivals(folder, since, until) if since >= 0 else None
        if news is None:
            news = self._lake.changed_files(table, None, until)
            state.chunks[table] = []
            if table == "exposures":
                state.chunks["before"] = []
        written = [self._write(database, state, table, files) for files in _grouped(database, news)]
        state.chunks[table] = state.chunks.get(table, []) + [chunk for chunk in written if chunk is not None]
        state.versions[table] = until
        state.digests[table] = commit_digest(folder, until) or ""
        self._save(state)

    def _write(
        self, database: duckdb.DuckDBPyConnection, state: State, table: str, files: Sequence[str]
    ) -> Chunk | None:
        # Files of an older version may lack columns that were added since.
        schema = arrow_schema(TABLES[table].record)
        nothing = ", ".join(f"NULL::{sql_type(field.type)} AS {identifier(field.name)}" for field in schema)
        database.execute(
            f"CREATE OR REPLACE TEMP VIEW {table} AS SELECT * FROM {files_sql(files)} "
            f"UNION ALL BY NAME SELECT {nothing} WHERE false"
        )
        sql = self._slates_sql() if table == "exposures" else self._acts_sql()
        if table == "exposures":
            database.execute(EXPOSURE_VARIANTS.replace("CREATE VIEW", "CREATE OR REPLACE TEMP VIEW"))
        chunk = self._copy(database, state, sql)
        if table == "exposures" and chunk is not None:
            self._learn_contexts(database, state, chunk)
        if table == "exposures" and self._before is not None:
            before = self._copy(
                database, state,
                f"SELECT hash(unit_id) AS unit, occurred_at, hash(recommendation_id) AS slate FROM ({self._before}) "
                "ORDER BY unit",
            )  # fmt: skip
            state.chunks["before"] += [] if before is None else [before]
        return chunk

    def _slates_sql(self) -> str:
        experiment = self._experiment
        session = ", hash(session_id) AS session" if self._sessions and self._key != "session_id" else ""
        return (
            f"SELECT hash(unit_id) AS unit, occurred_at, hash(recommendation_id) AS slate, {self._context()} AS context"
            f"{session} FROM exposure_variants WHERE {served_sql(experiment, None)} ORDER BY unit"
        )

    def _context(self) -> str:
        """The hash of a slate's context, in SQL."""
        return f"hash({', '.join(['variant', 'propensities', 'is_bot', *self._segments()])})"

    def _segments(self) -> list[str]:
        return [segment_sql(name) for name in self._experiment.segments]

    def _acts_sql(self) -> str:
        names = ", ".join(text(name) for name in NAMED)
        kinds = "" if self._sessions else f" AND name IN ({names})"
        session = ""
        if self._sessions and self._key != "session_id":
            session = f", {hashed('session_id')} AS session"
        return (
            f"SELECT hash({self._key}) AS unit, occurred_at, name, {hashed('recommendation_id')} AS slate, is_bot, "
            f"duplicate{session} FROM events WHERE tenant = {text(self._experiment.tenant)} "
            f"AND {self._key} IS NOT NULL AND occurred_at >= TIMESTAMPTZ {text(self._since.isoformat())}{kinds} "
            "ORDER BY unit"
        )

    def _copy(self, database: duckdb.DuckDBPyConnection, state: State, sql: str) -> Chunk | None:
        """Writes the rows of a query as a chunk, on the disk before anything names it."""
        state.files += 1
        name = f"{state.files:06d}-{os.getpid()}.parquet"
        path = self._folder / name
        copied = database.execute(
            f"COPY ({sql}) TO {text(str(path))} (FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE 61440, "
            "DICTIONARY_SIZE_LIMIT 1000)"  # hashes hardly repeat: looking for a dictionary of them costs time only
        ).fetchall()
        rows = int(copied[0][0])
        if not rows:
            path.unlink()
            return None
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return Chunk(name, rows)

    def _learn_contexts(self, database: duckdb.DuckDBPyConnection, state: State, chunk: Chunk) -> None:
        """Notes what is behind each hash that is new."""
        found = database.execute(f"SELECT DISTINCT context FROM {self._files([chunk])}").fetchall()
        unknown = [context for (context,) in found if str(context) not in state.contexts]
        known = ["variant", VECTOR, "is_bot", *self._segments()]
        source = f"FROM exposure_variants WHERE {served_sql(self._experiment, None)}"
        if len(unknown) <= FEW:  # a row of each is found sooner than all rows are grouped
            rows = [
                row
                for context in unknown
                for row in database.execute(
                    f"SELECT {context}::UBIGINT, {', '.join(known)} {source} "
                    f"AND {self._context()} = {context}::UBIGINT LIMIT 1"
                ).fetchall()
            ]
        else:
            firsts = ", ".join(f"first({of})" for of in known)
            rows = database.execute(f"SELECT {self._context()} AS context, {firsts} {source} GROUP BY 1").fetchall()
        for context, variant, propensities, is_bot, *segments in rows:
            state.contexts[str(context)] = Context(variant, propensities, bool(is_bot), segments)

    # Keeping it small

    def _join(self, database: duckdb.DuckDBPyConnection, state: State) -> None:
        for table, chunks in state.chunks.items():
            if len(chunks) <= MOST_CHUNKS:
                continue
            small = sorted(chunks, key=lambda chunk: (chunk.rows, chunk.name))[: len(chunks) - MOST_CHUNKS // 2]
            joined = self._copy(database, state, f"SELECT * FROM {self._files(small)} ORDER BY unit")
            assert joined is not None
            state.chunks[table] = [chunk for chunk in chunks if chunk not in small] + [joined]
            self._save(state)

    def _sweep(self, state: State) -> None:
        """Deletes files that nothing names, once no report can be reading them."""
        named = {chunk.name for chunks in state.chunks.values() for chunk in chunks}
        for path in self._folder.glob("*.parquet"):
            if path.name not in named and time.time() - path.stat().st_mtime > GRACE_S:
                path.unlink(missing_ok=True)

    # What it holds

    def _read(self) -> State:
        """What was noted, if it still stands; an empty journal otherwise."""
        empty = State(made_for=self._made_for())
        try:
            state = msgspec.json.decode((self._folder / "journal.json").read_bytes(), type=State)
        except (FileNotFoundError, msgspec.DecodeError):
            return empty
        if state.made_for != empty.made_for:
            return State(made_for=empty.made_for, files=state.files)
        for table, version in state.versions.items():
            if commit_digest(self._lake.root / table, version) != state.digests[table]:
                return State(made_for=empty.made_for, files=state.files)
        if not all((self._folder / chunk.name).is_file() for of in state.chunks.values() for chunk in of):
            return State(made_for=empty.made_for, files=state.files)
        return state

    def _made_for(self) -> str:
        """A digest of all that decides what the journal holds: with a changed experiment file it is made again."""
        of = self._experiment
        known: list[Any] = [
            FORMAT, duckdb.__version__, of.tenant, of.name, of.unit, of.started_at, of.covariate_days, of.segments,
            self._sessions, self._before,
        ]  # fmt: skip
        return hashlib.sha256(msgspec.json.encode(known)).hexdigest()

    def _save(self, state: State) -> None:
        draft = self._folder / f"journal.{os.getpid()}.draft"
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._folder / "journal.json")
        sync_directory(self._folder)

    def _files(self, chunks: Sequence[Chunk]) -> str:
        return files_sql([str(self._folder / chunk.name) for chunk in chunks])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        guard = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield
        finally:
            os.close(guard)

    # How it is read

    def slates(self, state: State, where: str) -> str:
        """Its slates as rows of `exposure_variants`, in SQL."""
        experiment = self._experiment
        tenant = f"{text(experiment.tenant)} AS tenant, {text(experiment.name)} AS experiment"
        places = range(len(experiment.segments))
        place = next((f"s{at}" for at, name in enumerate(experiment.segments) if name == "placement"), "NULL::VARCHAR")
        known = ", ".join(f"{identifier(name)} := s{at}" for at, name in enumerate(experiment.segments))
        segments = f", struct_pack({known}) AS segments" if known else ""
        chunks = state.chunks.get("exposures", [])
        source = self._files(chunks) if chunks else (
            "(SELECT NULL::UBIGINT AS unit, NULL::TIMESTAMPTZ AS occurred_at, NULL::UBIGINT AS slate, NULL::UBIGINT AS "
            "context, NULL::UBIGINT AS session WHERE false)"
        )  # fmt: skip
        known_contexts = self.contexts(state)
        sides = sorted({of[0] for of in known_contexts})
        nothing = {"0": Context("", "", False, [None] * len(experiment.segments))}
        contexts = ", ".join(
            f"({context}::UBIGINT, {text(of.variant)}, {text(of.propensities)}, {of.is_bot}, "
            f"{known_contexts.index(_letters(of)) if known_contexts else 0}::BIGINT, "
            f"{sides.index(of.variant) if sides else 0}::INTEGER"
            + "".join(f", {'NULL' if value is None else text(value)}::VARCHAR" for value in of.segments)
            + ")"
            for context, of in sorted((state.contexts or nothing).items())
        )
        names = ", ".join(
            ["context", "variant", "propensities", "is_bot", "code", "side", *(f"s{at}" for at in places)]
        )
        return (
            f"SELECT {tenant}, unit AS unit_id, occurred_at, slate AS recommendation_id, {self._session()}, "
            f"c.variant AS variant, c.propensities AS propensities, {place} AS placement, c.is_bot AS is_bot, "
            f"false AS shadow, c.code AS context_code, c.side AS variant_code"
            f"{segments} FROM {source} AS j JOIN (VALUES {contexts}) AS c({names}) USING (context) "
            f"WHERE {where}"
        )

    def contexts(self, state: State) -> list[tuple[str, ...]]:
        """(variant, probabilities, segments…) of its slates in the order of letters."""
        return sorted({_letters(of) for of in state.contexts.values()})

    def acts(self, state: State, where: str) -> str:
        """Its events as rows of `events`, in SQL."""
        chunks = state.chunks.get("events", [])
        source = self._files(chunks) if chunks else (
            "(SELECT NULL::UBIGINT AS unit, NULL::TIMESTAMPTZ AS occurred_at, NULL::VARCHAR AS name, NULL::UBIGINT AS "
            "slate, false AS is_bot, false AS duplicate, NULL::UBIGINT AS session WHERE false)"
        )  # fmt: skip
        return (
            f"SELECT {text(self._experiment.tenant)} AS tenant, name, occurred_at, {self._keyed()}{self._session()}, "
            f"slate AS recommendation_id, is_bot, duplicate FROM {source} WHERE {where}"
        )

    def before(self, state: State, where: str) -> str:
        """Its slates before the start as rows of `slates_before`, in SQL."""
        chunks = state.chunks.get("before", [])
        source = self._files(chunks) if chunks else (
            "(SELECT NULL::UBIGINT AS unit, NULL::TIMESTAMPTZ AS occurred_at, NULL::UBIGINT AS slate WHERE false)"
        )  # fmt: skip
        return f"SELECT unit AS unit_id, slate AS recommendation_id, occurred_at FROM {source} WHERE {where}"

    def orders(self) -> str:
        """The tenant's orders by unit, in SQL over the lake's view: they are few, and a later one replaces an older."""
        return (
            f"SELECT hash({self._key}) AS unit, occurred_at, total_minor, {hashed('session_id')} AS session "
            f"FROM orders WHERE tenant = {text(self._experiment.tenant)} AND {self._key} IS NOT NULL "
            f"AND occurred_at >= TIMESTAMPTZ {text(self._since.isoformat())}"
        )

    def orders_of(self, where: str) -> str:
        """The same as rows of `orders`, from the table that holds them."""
        return (
            f"SELECT {text(self._experiment.tenant)} AS tenant, {self._keyed()}"
            f"{'' if self._key == 'session_id' else 'session AS session_id, '}total_minor, occurred_at "
            f"FROM journal_orders WHERE {where}"
        )

    def _keyed(self) -> str:
        return f"unit AS {self._key}, "

    def _session(self) -> str:
        if self._key == "session_id":
            return "unit AS session_id"
        return "session AS session_id" if self._sessions else "NULL::UBIGINT AS session_id"


def parts_of(
    lake: Lake, experiment: Experiment, others: Collection[Experiment], database: duckdb.DuckDBPyConnection
) -> Parts:
    """Brings the journals of an experiment and of those that it meets up to date, and says how to read them.

    Args:
        lake: Where everything lies.
        experiment: Whose report it is for.
        others: Experiments that may share units, each with a journal of its own.
        database: From `Lake.connect`, with the view `orders`; other views of it are replaced.
    """
    journal = Journal(lake, experiment)
    database.execute(f"CREATE OR REPLACE TEMP TABLE journal_orders AS {journal.orders()}")
    state = journal.update(database)
    beside = []
    for other in others:
        theirs = Journal(lake, other)
        beside.append((theirs, theirs.update(database)))
    rows = sum(chunk.rows for chunk in state.chunks.get("exposures", []))
    number = max(1, -(-rows // PART_ROWS))
    edges = [2**64 * at // number for at in range(number)] + [2**64]
    shows = []
    for low, high in pairwise(edges):
        where = f"unit >= {low}::UBIGINT AND unit <= {high - 1}::UBIGINT"
        columns = "tenant, experiment, unit_id, occurred_at, variant, propensities, is_bot, shadow"
        more = "".join(f" UNION ALL BY NAME SELECT {columns} FROM ({of.slates(at, where)})" for of, at in beside)
        slates = f"SELECT * FROM ({journal.slates(state, where)}){more}"
        shows.append(
            [
                f"CREATE OR REPLACE TEMP VIEW exposure_variants AS {slates}",
                f"CREATE OR REPLACE TEMP VIEW events AS {journal.acts(state, where)}",
                f"CREATE OR REPLACE TEMP VIEW orders AS {journal.orders_of(where)}",
            ]
        )
    each = one_in(rows)
    where = some_units("unit", each)
    views = {
        "exposure_variants": journal.slates(state, where), "events": journal.acts(state, where),
        "orders": journal.orders_of(where), "slates_before": journal.before(state, where),
    }  # fmt: skip
    some = [f"CREATE OR REPLACE TEMP VIEW {view} AS {sql}" for view, sql in views.items()]
    return Parts(shows, "propensities", journal.contexts(state), Some(some, each, "propensities"))


def drop_idle(lake: Lake, now: datetime) -> None:
    """Deletes the journals that no report reads any more.

    Args:
        lake: Beside whose tables they lie.
        now: Aware.
    """
    for path in (lake.root / ".journals").glob("*/*/journal.json"):
        if now.timestamp() - path.stat().st_mtime > IDLE.total_seconds():
            shutil.rmtree(path.parent)


def _letters(of: Context) -> tuple[str, ...]:
    """What of slates at the same moment comes first."""
    return (of.variant, of.propensities, *("unknown" if value is None else value for value in of.segments))


def _grouped(database: duckdb.DuckDBPyConnection, files: Sequence[str]) -> list[list[str]]:
    """Files in groups of about `CHUNK_ROWS` rows."""
    groups: list[list[str]] = []
    room = 0
    for name in files:
        (rows,) = database.execute(f"SELECT sum(num_rows) FROM parquet_file_metadata({text(name)})").fetchall()[0]
        if not groups or room < rows:
            groups.append([])
            room = CHUNK_ROWS
        groups[-1].append(name)
        room -= rows
    return groups
