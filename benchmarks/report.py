"""How long a full report takes: N rows of exposures with their events and orders, from Parquet to the decision.

    python benchmarks/report.py --rows 10_000_000

One experiment of two variants over 14 days, five exposures a unit; clicks for 6 % of the slates, views with each click,
orders for 2 % of the units; the four default metrics, a capped one and two segments. Prints the seconds by step and the
largest memory of the process.
"""

import argparse
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from thinslice.experiments.analyze import report_json
from thinslice.jobs.measure import measure_in
from thinslice.metrics import DEFAULT_METRICS
from thinslice.records import Experiment, Metric, Variant
from thinslice.store.views import EXPOSURE_VARIANTS

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 14
EXPERIMENT = Experiment(
    name="ranker", tenant="shop", started_at=START, ends_at=START + timedelta(days=DAYS),
    segments=["device", "placement"],
    variants=[Variant(name="old", policy="popular", weight=0.5), Variant(name="new", policy="knn", weight=0.5)],
    metrics=[*DEFAULT_METRICS, Metric(name="capped_revenue", numerator="revenue_minor", cap_quantile=0.999)],
)  # fmt: skip

EXPOSURES = """
COPY (SELECT 'r' || i AS recommendation_id, 'shop' AS tenant,
    first + to_seconds(((i * 7919) % {spread})::BIGINT) AS occurred_at, unit AS visitor_id,
    unit || '-' || (i % 2) AS session_id, NULL::VARCHAR AS user_id, 'home' AS placement,
    'p' AS policy, 'm' AS model_version, false AS is_bot, false AS shadow, 'personalization' AS consent,
    MAP {{'device': CASE WHEN hash(unit, 3) % 3 = 0 THEN 'phone' ELSE 'desk' END}} AS segments,
    [{{'experiment': 'ranker', 'variant': CASE WHEN hash(unit) % 2 = 0 THEN 'old' ELSE 'new' END, 'unit': 'visitor',
       'unit_id': unit, 'allocation_version': 1, 'propensities': MAP {{'old': 0.5, 'new': 0.5}}, 'context_leaf': ''}}]
       AS experiments
  FROM (SELECT i, 'visitor-' || (i % {units}) AS unit,
               TIMESTAMPTZ '2026-03-01' + to_seconds((hash(i % {units}) % 1000000)::BIGINT) AS first
        FROM range({low}, {high}) AS t(i))
  ORDER BY occurred_at) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"""

EVENTS = """
COPY (SELECT 'shop' AS tenant, name, occurred_at + INTERVAL 20 SECOND AS occurred_at, visitor_id, session_id,
    NULL::VARCHAR AS user_id, CASE WHEN name = 'select_item' THEN recommendation_id END AS recommendation_id,
    false AS is_bot, false AS duplicate
  FROM read_parquet('{exposures}'), (VALUES ('select_item'), ('view_item')) AS names(name)
  WHERE hash(recommendation_id) % 100 < 6) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"""

ORDERS = """
COPY (SELECT 'shop' AS tenant, recommendation_id AS order_id, occurred_at + INTERVAL 5 MINUTE AS occurred_at,
    visitor_id, session_id, NULL::VARCHAR AS user_id,
    (100 * exp(3 + (hash(recommendation_id, 1) % 1000) / 500.0))::BIGINT AS total_minor
  FROM read_parquet('{exposures}') WHERE hash(recommendation_id, 2) % 250 = 0)
  TO '{path}' (FORMAT parquet, COMPRESSION zstd)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="exposure rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-mb", type=int, default=6_000, help="DuckDB's limit")
    parser.add_argument("--folder", type=Path, help="where the Parquet lies; kept, and used again when it is there")
    ask = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = ask.folder or Path(scratch)
        write(folder, ask.rows)
        database = duckdb.connect(config={"threads": ask.threads, "memory_limit": f"{ask.memory_mb}MiB"})
        database.execute(f"SET TimeZone = 'UTC'; SET temp_directory = '{scratch}/spill'")
        for name in ("exposures", "events", "orders"):
            database.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{folder / name}.parquet')")
        database.execute(EXPOSURE_VARIANTS)
        begin = time.perf_counter()
        report = measure_in(Timed(database), EXPERIMENT, START + timedelta(days=DAYS))
        took = time.perf_counter() - begin
        report_json(report)
    print(f"{ask.rows:,} exposures, {sum(report.units.values()):,} units, {len(report.segments)} segment rows")
    print(f"full report in {took:.1f} s on {ask.threads} threads: {report.decision.sentence}")
    print(f"largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")


class Timed:
    """A database that prints what takes longer than a second."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self.database = database

    def execute(self, query: str) -> duckdb.DuckDBPyConnection:
        """Runs one query."""
        begin = time.perf_counter()
        answer = self.database.execute(query)
        took = time.perf_counter() - begin
        if took > 1:
            print(f"  {took:6.1f} s  {' '.join(query.split())[:100]}")
        return answer


def write(folder: Path, rows: int) -> None:
    """Writes the three files, unless they are there."""
    if all((folder / f"{name}.parquet").is_file() for name in ("exposures", "events", "orders")):
        return
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: str(folder / f"{name}.parquet") for name in ("exposures", "events", "orders")}
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    exposures = EXPOSURES.format(low=0, high=rows, units=max(rows // 5, 1), spread=200_000, path=paths["exposures"])
    database.execute(exposures)
    for sql, name in ((EVENTS, "events"), (ORDERS, "orders")):
        database.execute(sql.format(exposures=paths["exposures"], path=paths[name]))


if __name__ == "__main__":
    main()
