"""How long a full report takes, and what a new day costs: N rows of exposures with events and orders, from the lake.

    python -m benchmarks.report --rows 100_000_000

One experiment of two variants over 14 days: a visitor is shown three slates on a first visit and two on a second, up to
2.3 days later; clicks for 6 % of the slates, a view with each click, orders for 2 % of the visitors; the four default
metrics, a capped one and two segments. Days lie in the lake as the service writes them. Prints seconds, CPU seconds and
the largest memory of three processes: the report with nothing prepared, a further day brought in (rows / 14), and the
report with it. 10^8 rows need 12 GB of disk.
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
SLATES = 5
EXPERIMENT = Experiment(
    name="ranker", tenant="shop", started_at=START, ends_at=START + timedelta(days=2 * DAYS),
    segments=["device", "placement"],
    variants=[Variant(name="old", policy="popular", weight=0.5), Variant(name="new", policy="knn", weight=0.5)],
    metrics=[*DEFAULT_METRICS, Metric(name="capped_revenue", numerator="revenue_minor", cap_quantile=0.999)],
)  # fmt: skip
SLATES_SQL = """
COPY (SELECT *, least(date_diff('day', TIMESTAMPTZ '2026-03-01', occurred_at), {last}) AS day FROM (
    SELECT i, to_hex(hash(i)) AS visitor_id, slate, hash(i, slate) AS h, to_hex(hash(i, slate, 1)) AS recommendation_id,
        to_hex(hash(i, slate < 3)) AS session_id,
        TIMESTAMPTZ '{begin}' + to_microseconds((
            (hash(i, 2) % ({days} * 86400000000 - 100000)) + slate * 97000000 + hash(i, slate) % 60000000
            + CASE WHEN slate < 3 THEN 0 ELSE 3600000000 + hash(i, 4) % 195000000000 END)::BIGINT) AS occurred_at
    FROM range({low}, {high}) AS units(i), range({slates}) AS slates(slate)))
TO '{path}' (FORMAT parquet, COMPRESSION snappy, PARTITION_BY (day), OVERWRITE_OR_IGNORE)"""

EXPOSURES = """
SELECT recommendation_id, 'shop' AS tenant, occurred_at, visitor_id, session_id, 'home' AS placement, 'p' AS policy,
    'm' AS model_version, false AS is_bot, false AS shadow, 'personalization' AS consent,
    MAP {'device': CASE WHEN hash(i, 3) % 3 = 0 THEN 'phone' ELSE 'desk' END} AS segments,
    [{'experiment': 'ranker', 'variant': CASE WHEN hash(i) % 2 = 0 THEN 'old' ELSE 'new' END, 'unit': 'visitor',
      'unit_id': visitor_id, 'allocation_version': 1::BIGINT,
      'propensities': MAP {'old': 0.5::DOUBLE, 'new': 0.5::DOUBLE}, 'context_leaf': ''}] AS experiments
FROM read_parquet('{slates}')"""

EVENTS = """
SELECT 'shop' AS tenant, recommendation_id || name[1:1] AS event_id, name,
    occurred_at + INTERVAL 20 SECOND AS occurred_at, occurred_at + INTERVAL 21 SECOND AS received_at,
    visitor_id, session_id, 'a' AS item_id,
    CASE WHEN name = 'select_item' THEN recommendation_id END AS recommendation_id, false AS is_bot,
    false AS duplicate
FROM read_parquet('{slates}'), (VALUES ('select_item'), ('view_item')) AS names(name) WHERE h % 100 < 6"""

ORDERS = """
SELECT 'shop' AS tenant, recommendation_id AS order_id, occurred_at + INTERVAL 5 MINUTE AS occurred_at,
    occurred_at + INTERVAL 6 MINUTE AS received_at, visitor_id, session_id, 'EUR' AS currency,
    (100 * exp(3 + (h % 1000) / 500.0))::BIGINT AS total_minor
FROM read_parquet('{slates}') WHERE hash(h, 2) % 250 = 0"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="exposure rows of the first 14 days")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="a workspace that is kept, and used again when it is there")
    ask = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = ask.folder or Path(scratch) / "workspace"
        if not folder.exists():
            print(f"writing {ask.rows:,} exposures took {alone(write, folder, ask.rows, 0)[1]:.0f} s", flush=True)
        shutil.rmtree(folder / "lake" / ".journals", ignore_errors=True)
        day = START + timedelta(days=DAYS)
        say(f"full report of {ask.rows:,} exposures", *alone(full, folder, ask.threads, day))
        if not (folder / "more").exists():
            alone(write, folder, ask.rows, DAYS)
            (folder / "more").touch()
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


def write(folder: Path, rows: int, first: int) -> str:
    """Writes 14 days into the lake, or the day after them."""
    workspace = Workspace(folder)
    if not first:
        make_tenant(workspace, "shop")
        path = workspace.experiments / "shop" / "ranker.toml"
        path.parent.mkdir(parents=True)
        path.write_text(dump_experiment(EXPERIMENT), encoding="utf-8")
    lake, units = Lake(workspace.lake), max(rows // SLATES, 1)
    database = duckdb.connect(config={"memory_limit": "4GB"})
    database.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET preserve_insertion_order = false")
    # As many visitors enter on the further day as on each of the first; who came late counts on the last day.
    low, high = (units, units + units // DAYS) if first else (0, units)
    with tempfile.TemporaryDirectory(dir=folder) as raw:
        database.execute(
            SLATES_SQL.format(
                low=low, high=high, slates=SLATES, path=raw, begin=START + timedelta(days=first),
                days=1 if first else DAYS, last=first or DAYS - 1,
            )
        )  # fmt: skip
        for part in sorted(Path(raw).glob("day=*"), key=lambda path: int(path.name[4:])):
            for table, query in (("exposures", EXPOSURES), ("events", EVENTS), ("orders", ORDERS)):
                add_file(database, lake, table, query.replace("{slates}", f"{part}/*.parquet"), int(part.name[4:]))
    return ""


def add_file(database: duckdb.DuckDBPyConnection, lake: Lake, table: str, query: str, day: int) -> None:
    """Adds the rows of a query as one file of a table, as the compactor's joined files lie there."""
    rows = database.execute(f"{query} LIMIT 100").to_arrow_table()
    if lake.version(table) < 0:
        lake.append(table, rows.slice(0, 1))  # makes the table
    delta = DeltaTable(str(lake.root / table))
    date = (START + timedelta(days=day)).date().isoformat()
    name = f"{PARTITION}={date}/day-{day}.parquet"
    path = lake.root / table / name
    path.parent.mkdir(exist_ok=True)
    database.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
    added = AddAction(name, path.stat().st_size, {PARTITION: date}, int(time.time() * 1000), True, "{}")
    delta.create_write_transaction([added], "append", delta.schema(), partition_by=[PARTITION])


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
