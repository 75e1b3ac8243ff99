"""The same report, to the last digits, from an engine that Ibis reaches as from our own."""

import importlib.util
from datetime import UTC, datetime, timedelta

import ibis
import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from thinslice.experiments import assign
from thinslice.experiments.analyze import report_json
from thinslice.jobs.measure import measure_in
from thinslice.metrics import DEFAULT_METRICS
from thinslice.records import Event, Experiment, ExperimentExposure, Exposure, Order, OrderLine, Variant
from thinslice.store.lake import Lake
from thinslice.store.portable import PortableDatabase

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=7)
EXPERIMENT = Experiment(
    name="ranker", tenant="shop", started_at=START, ends_at=END, days=7.0, metrics=list(DEFAULT_METRICS),
    variants=[Variant(name="old", policy="popular", weight=0.5), Variant(name="new", policy="session-knn", weight=0.5)],
)  # fmt: skip
VIEWS = ("exposure_variants", "events", "orders")


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A week of 300 visitors, the weights changed on the third day."""
    rng = np.random.default_rng(0)
    other = msgspec.structs.replace(
        EXPERIMENT, allocation_version=2,
        variants=[msgspec.structs.replace(each, weight=share)
                  for each, share in zip(EXPERIMENT.variants, (0.8, 0.2), strict=True)],
    )  # fmt: skip
    exposures, events, orders = [], [], []
    for number in range(300):
        at, who = START + timedelta(minutes=float(rng.uniform(0, 9000))), f"v{number}"
        got = assign(EXPERIMENT if at < START + timedelta(days=3) else other, who)
        noted = ExperimentExposure(
            experiment="ranker", variant=got.variant, unit="visitor", unit_id=who,
            allocation_version=got.allocation_version, propensities=got.propensities,
        )  # fmt: skip
        base = {"tenant": "shop", "visitor_id": who, "session_id": f"{who}-s"}
        exposures.append(Exposure(**base, recommendation_id=f"r{number}", occurred_at=at, placement="home",
                                  policy="p", model_version="m", experiments=[noted]))  # fmt: skip
        for name in ("view_item_list", "select_item", "view_item")[: int(rng.integers(0, 4))]:
            events.append(Event(**base, event_id=f"{who}-{name}", name=name, occurred_at=at + timedelta(seconds=9),
                                received_at=at, recommendation_id=f"r{number}", item_id="a"))  # fmt: skip
        if rng.random() < 0.4:
            orders.append(Order(**base, order_id=f"o{number}", occurred_at=at + timedelta(seconds=20), received_at=at,
                                currency="EUR", total_minor=int(rng.lognormal(8, 0.5)),
                                lines=[OrderLine(item_id="a", quantity=1, price_minor=1)]))  # fmt: skip
    lake = Lake(tmp_path_factory.mktemp("lake"))
    for table, rows in (("exposures", exposures), ("events", events), ("orders", orders)):
        lake.append(table, rows)
    return lake


@pytest.fixture(scope="module")
def ours(lake):
    connection = lake.connect(tenant="shop")
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def files(ours, tmp_path_factory):
    """The views as files, as another engine may find them."""
    folder = tmp_path_factory.mktemp("files")
    for name in VIEWS:
        pq.write_table(ours.sql(f"SELECT * FROM {name}").to_arrow_table(), folder / f"{name}.parquet")
    return folder


def read_into(connection, folder):
    for name in VIEWS:
        connection.create_view(name, connection.read_parquet(folder / f"{name}.parquet"), overwrite=True)
    return PortableDatabase(connection)


def same(one, other):
    """Equal but for the last digits, which depend on the order in which an engine adds."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=1e-9, abs=1e-9)
    else:
        assert one == other


def reported(database):
    return msgspec.json.decode(report_json(measure_in(database, EXPERIMENT, END)))


def test_a_report_through_ibis_is_the_report(ours, files):
    same(reported(ours), reported(read_into(ibis.duckdb.connect(), files)))


@pytest.mark.spark
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # py4j leaves sockets to the collector
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_report_from_spark_is_the_report(ours, files):
    from pyspark.sql import SparkSession

    settings = {"spark.sql.session.timeZone": "UTC", "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1",
                "spark.driver.bindAddress": "127.0.0.1", "spark.sql.shuffle.partitions": "2"}  # fmt: skip
    builder = SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    try:
        same(reported(ours), reported(read_into(ibis.pyspark.connect(session), files)))
    finally:
        session.stop()


def test_a_temporary_table_is_made_again_under_its_name_and_a_query_names_its_columns():
    database = PortableDatabase(ibis.duckdb.connect())
    for value in (1, 2):
        database.execute(f"CREATE OR REPLACE TEMP TABLE kept AS SELECT {value} AS one, 'x' AS two")
    answer = database.execute("SELECT * FROM kept")
    assert ([name for (name,) in answer.description], answer.fetchall()) == (["one", "two"], [(2, "x")])


def test_nothing_that_serves_needs_ibis():
    assert importlib.util.find_spec("thinslice.store.portable") is not None
    source = importlib.util.find_spec("thinslice.store.portable").loader.get_source("thinslice.store.portable")
    assert not [line for line in source.splitlines() if line.startswith(("import ibis", "from ibis", "import sqlglot"))]
