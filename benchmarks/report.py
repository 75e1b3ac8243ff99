"""How long a full report takes, and what a new day costs: N rows of exposures with events and orders, from the lake.

    python -m benchmarks.report --rows 100_000_000

One experiment of two variants over 14 days: a visitor is shown three slates on a first visit and two on a second, up to
2.3 days later; clicks for 6 % of the slates, a view with each click, orders for 2 % of the visitors; the four default
metrics, a capped one and two segments. Days lie in the lake as the service writes them. Prints seconds, CPU seconds and
the largest memory of three processes: the report with nothing prepared, a further day brought in (rows / 14), and the
report with it. 10^8 rows need 6 GB of disk. With `--folder`
the lake is kept, and the next run begins with its 14 days.
"""

import argparse
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import duckdb
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from thinslice.cli.init import make_tenant
from thinslice.experiments import dump_experiment
from thinslice.experiments.analyze import report_json
from thinslice.jobs.measure import MEMORY_MB, declared, measure
from thinslice.jobs.measure_journal import Journal
from thinslice.metrics import DEFAULT_METRICS
from thinslice.records import Experiment, Metric, Variant
from thinslice.settings import Workspace
from thinslice.store.lake import Lake
from thinslice.store.schemas import PARTITION

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 14
DAY_S = 86_400
PER_UNIT = 5
EXPERIMENT = Experiment(
    name="ranker", tenant="shop", started_at=START, ends_at=START + timedelta(days=2 * DAYS),
    segments=["device", "placement"],
    variants=[Variant(name="old", policy="popular", weight=0.5), Variant(name="new", policy="knn", weight=0.5)],
    metrics=[*DEFAULT_METRICS, Metric(name="capped_revenue", numerator="revenue_minor", cap_quantile=0.999)],
)  # fmt: skip
SLATES_SQL = """
CREATE OR REPLACE TEMP TABLE slates AS SELECT i, slate, hash(i, slate) AS h, make_timestamptz(us::BIGINT) AS occurred_at
FROM (
    SELECT i, slate, came + slate * 97000000 + hash(i, slate) % 60000000 AS us
    FROM units, (VALUES (0), (1), (2)) AS slates(slate) WHERE came BETWEEN {begin} - 300000000 AND {end}
    UNION ALL
    SELECT i, slate, came + pause + slate * 97000000 + hash(i, slate) % 60000000
    FROM units, (VALUES (3), (4)) AS slates(slate) WHERE came + pause BETWEEN {begin} - 600000000 AND {end}
) WHERE us >= {begin} AND us < {end}"""
UNITS_SQL = """
CREATE OR REPLACE TEMP VIEW units AS SELECT i, 3600000000 + hash(i, 4) % 195000000000 AS pause,
    {start} + (i * {days} // {units}) * 86400000000 + hash(i, 2) % 86400000000 AS came
FROM range({low}, {high}) AS units(i)"""
IDS = """(
    SELECT *, to_hex(hash(i)) AS visitor_id, to_hex(hash(i, slate, 1)) AS recommendation_id,
    to_hex(hash(i, slate < 3)) AS session_id FROM slates WHERE {where})"""

EXPOSURES = f"""
SELECT recommendation_id, 'shop' AS tenant, occurred_at, visitor_id, session_id, 'home' AS placement, 'p' AS policy,
    'm' AS model_version, false AS is_bot, false AS shadow, 'personalization' AS consent,
    CASE WHEN hash(i, 3) % 3 = 0 THEN MAP {{'device': 'phone'}} ELSE MAP {{'device': 'desk'}} END AS segments,
    [{{'experiment': 'ranker', 'variant': CASE WHEN hash(i) % 2 = 0 THEN 'old' ELSE 'new' END, 'unit': 'visitor',
      'unit_id': visitor_id, 'allocation_version': 1::BIGINT,
      'propensities': MAP {{'old': 0.5::DOUBLE, 'new': 0.5::DOUBLE}}, 'context_leaf': ''}}] AS experiments
FROM {IDS.format(where="true")}"""

EVENTS = f"""
SELECT 'shop' AS tenant, recommendation_id || name[1:1] AS event_id, name,
    occurred_at + INTERVAL 20 SECOND AS occurred_at, occurred_at + INTERVAL 21 SECOND AS received_at,
    visitor_id, session_id, 'a' AS item_id,
    CASE WHEN name = 'select_item' THEN recommendation_id END AS recommendation_id, false AS is_bot,
    false AS duplicate
FROM {IDS.format(where="h % 100 < 6")}, (VALUES ('select_item'), ('view_item')) AS names(name)"""

ORDERS = f"""
SELECT 'shop' AS tenant, recommendation_id AS order_id, occurred_at + INTERVAL 5 MINUTE AS occurred_at,
    occurred_at + INTERVAL 6 MINUTE AS received_at, visitor_id, session_id, 'EUR' AS currency,
    (100 * exp(3 + (h % 1000) / 500.0))::BIGINT AS total_minor
FROM {IDS.format(where="hash(h, 2) % 250 = 0")}"""
TABLES = {"exposures": EXPOSURES, "events": EVENTS, "orders": ORDERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="exposure rows of the first 14 days")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="a workspace that is kept, and used again when it is there")
    ask = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = ask.folder or Path(scratch) / "workspace"
        if not folder.exists():
            print(
                f"writing {ask.rows:,} exposures took {alone(write, folder, ask.rows, 0, ask.threads)[1]:.0f} s",
                flush=True,
            )
        shutil.rmtree(folder / "lake" / ".journals", ignore_errors=True)
        forget_day(folder)
        day = START + timedelta(days=DAYS)
        say(f"full report of {ask.rows:,} exposures", *alone(full, folder, ask.threads, day))
        alone(write, folder, ask.rows, DAYS, ask.threads)
        say(f"a further day of {ask.rows // DAYS:,} exposures", *alone(increment, folder, ask.threads))
        say("report with it", *alone(full, folder, ask.threads, day + timedelta(days=1)))


def full(folder: Path, threads: int, now: datetime) -> str:
    """The report as `thinslice experiment report` makes it."""
    report = measure(Workspace(folder), "shop", "ranker", now, threads=threads)
    report_json(report)
    return f"{sum(report.units.values()):,} units, {len(report.segments)} segment rows: {report.decision.sentence}"


def increment(folder: Path, threads: int) -> str:
    """What is new in the lake comes into the journal."""
    lake = Lake(Workspace(folder).lake)
    with lake.connect(tenant="shop", threads=threads, memory_mb=MEMORY_MB) as database:
        state = Journal(lake, declared(EXPERIMENT)).update(database)
    rows = sum(chunk.rows for chunks in state.chunks.values() for chunk in chunks)
    return f"{rows:,} rows in the journal"


def write(folder: Path, rows: int, first: int, threads: int) -> str:
    """Writes 14 days into the lake, or the day after them."""
    workspace = Workspace(folder)
    lake, units = Lake(workspace.lake), max(rows // PER_UNIT, 1)
    if not first:
        make_tenant(workspace, "shop")
        path = workspace.experiments / "shop" / "ranker.toml"
        path.parent.mkdir(parents=True)
        path.write_text(dump_experiment(EXPERIMENT), encoding="utf-8")
        with connect(0, 10_000) as database:
            for table, query in TABLES.items():  # a first row makes the table
                lake.append(table, database.execute(f"{query} LIMIT 1").to_arrow_table())
    days = [first] if first else list(range(DAYS))
    with ProcessPoolExecutor(threads, mp_context=multiprocessing.get_context("spawn")) as pool:
        for day, sizes in zip(days, pool.map(partial(write_day, lake.root, units), days), strict=True):
            for table, (name, size) in sizes.items():
                delta = DeltaTable(str(lake.root / table))
                added = AddAction(name, size, {PARTITION: date_of(day)}, int(time.time() * 1000), True, "{}")
                delta.create_write_transaction([added], "append", delta.schema(), partition_by=[PARTITION])
    return ""


def write_day(root: Path, units: int, day: int) -> dict[str, tuple[str, int]]:
    """Writes a day as one file of each table, as the compactor's joined files lie there: table → name and size."""
    written = {}
    with connect(day, units) as database:
        for table, query in TABLES.items():
            name = f"{PARTITION}={date_of(day)}/day-{day}.parquet"
            path = root / table / name
            path.parent.mkdir(exist_ok=True)
            database.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)")
            written[table] = (name, path.stat().st_size)
    return written


def connect(day: int, units: int) -> duckdb.DuckDBPyConnection:
    """A database with the slates of one day: first visits of those who enter on it, second ones of the days before.

    As many visitors enter on the further day as on each of the first; who comes late counts on the last of those.
    """
    start, length = int(START.timestamp()) * 10**6, DAY_S * 10**6
    low = units if day == DAYS else max(day - 3, 0) * units // DAYS
    end = start + (day + 1) * length if day < DAYS - 1 else 2**60
    database = duckdb.connect(config={"memory_limit": "4GB", "threads": 1})
    database.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET preserve_insertion_order = false")
    high = (day + 1) * units // DAYS + 1 if day < DAYS - 1 else units * (day + 1) // DAYS
    database.execute(UNITS_SQL.format(start=start, days=DAYS, units=units, low=low, high=high))
    database.execute(SLATES_SQL.format(begin=start + day * length, end=end))
    return database


def forget_day(folder: Path) -> None:
    """A workspace that is used again holds the first 14 days, whatever further day an earlier run brought in."""
    for table in TABLES:
        delta = DeltaTable(str(folder / "lake" / table))
        if delta.version() > DAYS + 1:
            delta.restore(DAYS + 1)  # made, a first row, and a commit a day


def date_of(day: int) -> str:
    """The date of a day."""
    return (START + timedelta(days=day)).date().isoformat()


def alone(what: Callable[..., str], *given: object) -> tuple[str, float, float, float]:
    """Runs something in a process of its own: what it said, seconds, CPU seconds and largest memory in GB."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, what, given).result()


def _measured(what: Callable[..., str], given: tuple[object, ...]) -> tuple[str, float, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    said = what(*given)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)
    return said, time.perf_counter() - wall, time.process_time() - cpu, most


def say(what: str, said: str, wall: float, cpu: float, most: float) -> None:
    """One line."""
    print(f"{what}: {wall:.1f} s, {cpu:.1f} s of CPU, at most {most:.1f} GB; {said}", flush=True)


if __name__ == "__main__":
    main()
