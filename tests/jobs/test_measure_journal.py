"""A report from the journal, however it came to be, is the report from the lake's rows, to the byte."""

import shutil
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from thinslice.experiments.analyze import report_json
from thinslice.jobs import measure_journal
from thinslice.jobs import watch as watching
from thinslice.jobs.measure import declared, measure_in
from thinslice.jobs.measure_journal import Journal, drop_idle, keeps_journal, parts_of
from thinslice.jobs.watch import watch, watch_rows
from thinslice.metrics import DEFAULT_METRICS, METRICS
from thinslice.records import Event, Experiment, ExperimentExposure, Exposure, Metric, Order, OrderLine, Variant
from thinslice.store.lake import Lake
from thinslice.store.schemas import to_table

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=14)
EXPERIMENT = Experiment(
    name="ranker", tenant="shop", started_at=START, ends_at=END, segments=["device", "placement"],
    variants=[Variant(name="old", policy="a", weight=0.5), Variant(name="new", policy="b", weight=0.5)],
    metrics=[
        *DEFAULT_METRICS, Metric(name="capped", numerator="revenue_minor", cap_quantile=0.8),
        Metric(name="shown", numerator="impressions", denominator="sessions"),
        Metric(name="median", numerator="views", quantile=0.5),
    ],
)  # fmt: skip
BESIDE = msgspec.structs.replace(
    EXPERIMENT, name="beside", segments=[], metrics=[],
    variants=[Variant(name="x", policy="a", weight=0.5), Variant(name="y", policy="b", weight=0.5)],
)  # fmt: skip
EVEN, STEERED = {"old": 0.5, "new": 0.5}, {"old": 0.3, "new": 0.7}


LINE = OrderLine(item_id="a", quantity=1, price_minor=1)


class Shop:
    """Visitors who do everything that a report has to stand, in a random order of arrival."""

    def __init__(self, root, rng, visitors=100):
        self.lake, self.rng, self.rows = Lake(root), rng, []
        for number in range(visitors):
            self._visit(f"v{number}")
        rng.shuffle(self.rows)

    def _visit(self, who):
        rng = self.rng
        first = START + timedelta(hours=float(rng.uniform(0, 300)))
        sides = ["old", "new"] if rng.random() < 0.1 else [str(rng.choice(["old", "new"]))]
        shown = []
        for slate in range(int(rng.integers(1, 5))):
            at = first + timedelta(hours=float(rng.choice([0, 0, 0.1, 30]))) * slate
            noted = [
                self._noted(who, str(rng.choice(sides)), "ranker", STEERED if at > START + timedelta(days=9) else EVEN),
                self._noted(who, "xy"[len(who) % 2], "beside", {"x": 0.5, "y": 0.5}),
            ]
            shown.append(f"{who}-{slate}")
            self.rows.append(
                ("exposures", Exposure(
                    tenant="shop", visitor_id=who, session_id=f"{who}-{slate // 2}", recommendation_id=shown[-1],
                    occurred_at=at, placement=str(rng.choice(["home", "cart"])), policy="p", model_version="m",
                    is_bot=bool(rng.random() < 0.02), segments={"device": str(rng.choice(["phone", "desk"]))},
                    experiments=noted[: int(rng.integers(1, 3))]))
            )  # fmt: skip
        for act in range(int(rng.integers(0, 8))):
            name = str(rng.choice(["view_item", "select_item", "view_item_list", "add_to_cart", "search"]))
            at = first + timedelta(hours=float(rng.uniform(-30, 90)))
            slate = str(rng.choice([*shown, "foreign", "v1-0"])) if name in ("select_item", "view_item_list") else None
            self.rows.append(
                ("events", Event(
                    tenant="shop", visitor_id=who, session_id=f"{who}-{act // 3}", event_id=f"{who}-e{act}", name=name,
                    occurred_at=at, received_at=at, recommendation_id=slate, duplicate=bool(rng.random() < 0.05),
                    item_id="a"))
            )  # fmt: skip
        for bought in range(int(rng.integers(0, 3))):
            at = first + timedelta(hours=float(rng.uniform(-10, 90)))
            for hour in range(int(rng.integers(1, 3))):  # a later row of an order replaces the older one
                self.rows.append(
                    ("orders", Order(
                        tenant="shop", visitor_id=who, session_id=f"{who}-0", order_id=f"{who}-o{bought}",
                        occurred_at=at, received_at=at + timedelta(hours=hour), currency="EUR",
                        total_minor=int(rng.lognormal(8, 1)), lines=[LINE]))
                )  # fmt: skip

    def _noted(self, who, variant, experiment, propensities):
        return ExperimentExposure(
            experiment=experiment, variant=variant, unit="visitor", unit_id=who, allocation_version=1,
            propensities=propensities,
        )  # fmt: skip

    def receive(self, number):
        """The next rows reach the lake."""
        rows, self.rows = self.rows[:number], self.rows[number:]
        for table in ("exposures", "events", "orders"):
            found = [row for name, row in rows if name == table]
            if found:
                self.lake.append(table, found)


def from_rows(lake, experiment=EXPERIMENT, now=END, others=(BESIDE,)):
    seen = watch_rows(lake, declared(experiment), now)
    with lake.connect(tenant="shop") as database:
        return report_json(measure_in(database, declared(experiment), now, others=others, watched=seen))


def from_journal(lake, experiment=EXPERIMENT, now=END, others=(BESIDE,), threads=2):
    experiment, others = declared(experiment), [declared(other) for other in others]
    with lake.connect(tenant="shop", threads=threads) as database:
        parts = parts_of(lake, experiment, others, database)
        seen = watch(database, experiment, now, parts.some)
        return report_json(measure_in(database, experiment, now, others=others, parts=parts, watched=seen))


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path / "lake", np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(2))
def test_rows_that_come_late_and_in_any_order_give_the_report_of_the_whole_to_the_byte(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(measure_journal, "PART_ROWS", 60)
    monkeypatch.setattr(measure_journal, "MOST_CHUNKS", 3)
    shop = Shop(tmp_path / "lake", np.random.default_rng(seed))
    while shop.rows:
        shop.receive(int(shop.rng.integers(150, 500)))
        now = START + timedelta(days=float(shop.rng.uniform(5, 16)))
        assert from_journal(shop.lake, now=now) == from_rows(shop.lake, now=now)
    units = msgspec.json.decode(from_rows(shop.lake))["units"]
    assert min(units.values()) > 30


@pytest.mark.parametrize("most", [10**6, 60], ids=["everybody", "some"])
def test_what_variants_share_is_seen_alike_in_the_journal_and_in_the_rows(shop, monkeypatch, most):
    monkeypatch.setattr(watching, "MOST_SLATES", most)
    rate = msgspec.structs.replace(METRICS["click_through_rate"], role="goal")
    experiment = msgspec.structs.replace(EXPERIMENT, metrics=[rate])
    for number in range(80):  # before the start, by control's policy
        who = {"tenant": "shop", "visitor_id": f"b{number % 50}", "session_id": f"b{number}"}
        at = START - timedelta(hours=4 * number + 1)
        shop.rows.append(
            ("exposures", Exposure(**who, recommendation_id=f"b{number}", occurred_at=at, placement="home", policy="a",
                                   model_version="m"))
        )  # fmt: skip
        if number % 3:
            shop.rows.append(
                ("events", Event(**who, event_id=f"b{number}", name="select_item", occurred_at=at, received_at=at,
                                 recommendation_id=f"b{number}", item_id="a"))
            )  # fmt: skip
    shop.rows += [row for row in shop.rows[:40] if row[0] == "exposures"]  # logged twice
    shop.rng.shuffle(shop.rows)
    late = END + timedelta(days=9)  # after everything, so that both draw from the same slates
    for number in (250, len(shop.rows)):
        shop.receive(number)
        with shop.lake.connect(tenant="shop") as database:
            parts = parts_of(shop.lake, experiment, (), database)
            found = watch(database, experiment, late, parts.some)
        with np.printoptions(floatmode="unique"):
            assert str(found) == str(watch_rows(shop.lake, experiment, late))
    assert (parts.some.one_in > 1) == (most == 60)
    assert sum(day.day < 0 for day in found.daily) > 5
    assert sum(of.mean_of("clicks") > 0 for day in found.daily if day.day < 0 for of in day.variants.values()) > 0
    assert sum(day.day >= 0 for day in found.daily) > 5
    assert sum(again for _, again in found.duplicates.values()) > 0
    assert set(found.served_by) == {"device", "placement"}


@pytest.mark.parametrize(
    "changed",
    [
        {"covariate_days": 2.0}, {"rerandomize_days": 3.0}, {"segments": ["device"]}, {"metrics": [], "segments": []},
        {"started_at": START + timedelta(days=2)}, {"metrics": [Metric(name="s", numerator="sessions", role="goal")]},
    ],
    ids=["covariate", "periods", "segments", "metrics", "start", "sessions"],
)  # fmt: skip
def test_a_changed_experiment_file_makes_the_journal_anew(shop, changed):
    shop.receive(300)
    from_journal(shop.lake)
    shop.receive(len(shop.rows))
    experiment = msgspec.structs.replace(EXPERIMENT, **changed)
    assert from_journal(shop.lake, experiment) == from_rows(shop.lake, experiment)
    assert from_journal(shop.lake) == from_rows(shop.lake)


def test_sessions_and_users_are_units_too(shop):
    shop.receive(len(shop.rows))
    experiment = msgspec.structs.replace(EXPERIMENT, unit="session", variants=EXPERIMENT.variants)
    assert from_journal(shop.lake, experiment, others=()) == from_rows(shop.lake, experiment, others=())


def test_a_lake_whose_files_were_joined_brings_no_row_twice(shop):
    shop.receive(250)
    first = from_journal(shop.lake)
    assert first == from_rows(shop.lake)
    shop.receive(250)
    shop.receive(250)
    shop.lake.maintain()
    assert from_journal(shop.lake) == from_rows(shop.lake) != first
    shop.receive(len(shop.rows))
    assert from_journal(shop.lake) == from_rows(shop.lake)


def test_only_new_rows_are_read(shop, monkeypatch):
    read = []
    write = Journal._write

    def noted(self, database, state, table, files):
        read.append((table, len(files)))
        return write(self, database, state, table, files)

    monkeypatch.setattr(Journal, "_write", noted)
    shop.receive(400)
    from_journal(shop.lake, others=())
    assert read
    read.clear()
    from_journal(shop.lake, others=())
    assert read == []
    old = shop.lake.version("exposures")
    shop.receive(200)
    new = shop.lake.changed_files("exposures", old, shop.lake.version("exposures"))
    from_journal(shop.lake, others=())
    assert sum(number for table, number in read if table == "exposures") == len(new)


def test_a_run_that_was_killed_is_gone_on_from_what_was_noted(shop, monkeypatch):
    shop.receive(300)
    from_journal(shop.lake)
    shop.receive(len(shop.rows))
    save = Journal._save
    for place in range(2):
        saves = []

        def killed(self, state, saves=saves, place=place):
            if len(saves) == place:
                raise KeyboardInterrupt
            saves.append(state)
            save(self, state)

        with monkeypatch.context() as broken:
            broken.setattr(Journal, "_save", killed)
            with pytest.raises(KeyboardInterrupt):
                from_journal(shop.lake)
    assert from_journal(shop.lake) == from_rows(shop.lake)


@pytest.mark.parametrize("damage", ["state", "chunk", "gone"])
def test_a_damaged_journal_is_made_again(shop, damage):
    shop.receive(len(shop.rows))
    expected = from_journal(shop.lake)
    folder = shop.lake.root / ".journals" / "shop" / "ranker"
    if damage == "state":
        (folder / "journal.json").write_bytes(b"{")
    elif damage == "chunk":
        next(folder.glob("*.parquet")).unlink()
    else:
        shutil.rmtree(folder)
    assert from_journal(shop.lake) == expected


def test_a_lake_that_was_restored_from_a_copy_is_read_again(shop, tmp_path):
    shop.receive(200)
    shutil.copytree(shop.lake.root, tmp_path / "copy")
    shop.receive(200)
    from_journal(shop.lake)
    journals = tmp_path / "journals"
    shutil.move(shop.lake.root / ".journals", journals)
    shutil.rmtree(shop.lake.root)
    shutil.move(tmp_path / "copy", shop.lake.root)
    shutil.move(journals, shop.lake.root / ".journals")
    shop.lake = Lake(shop.lake.root)
    shop.rows.reverse()
    shop.receive(200)
    assert from_journal(shop.lake) == from_rows(shop.lake)


def test_chunks_that_nothing_names_are_deleted_once_no_report_reads_them(shop, monkeypatch):
    monkeypatch.setattr(measure_journal, "MOST_CHUNKS", 2)
    monkeypatch.setattr(measure_journal, "GRACE_S", 0.0)
    for _ in range(6):
        shop.receive(60)
        from_journal(shop.lake, others=())
    chunks = list((shop.lake.root / ".journals" / "shop" / "ranker").glob("*.parquet"))
    assert len(chunks) <= 6


def test_files_that_an_older_version_wrote_without_a_column_are_read(shop):
    shop.receive(300)
    from_journal(shop.lake)
    row = next(row for name, row in shop.rows if name == "exposures")
    shop.lake.append("exposures", to_table(Exposure, [row]))
    (path,) = shop.lake.changed_files("exposures", shop.lake.version("exposures") - 1, shop.lake.version("exposures"))
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["user_id"]), path)
    assert from_journal(shop.lake) == from_rows(shop.lake)


def test_a_journal_that_no_report_reads_any_more_is_deleted(shop):
    shop.receive(300)
    expected = from_journal(shop.lake, others=())
    drop_idle(shop.lake, datetime.now(UTC) + timedelta(days=1))
    folder = shop.lake.root / ".journals" / "shop" / "ranker"
    assert folder.is_dir()
    drop_idle(shop.lake, datetime.now(UTC) + timedelta(days=8))
    assert not folder.exists()
    assert from_journal(shop.lake, others=()) == expected


def test_clusters_blocks_pages_and_what_has_not_started_have_no_journal():
    assert keeps_journal(EXPERIMENT)
    for changed in (
        {"unit": "cluster"}, {"unit": "block"}, {"started_at": None},
        {"metrics": [Metric(name="page", numerator="page_clicks")]},
    ):  # fmt: skip
        assert not keeps_journal(msgspec.structs.replace(EXPERIMENT, **changed))
