"""A report that is killed at any moment leaves nothing behind that makes the next one wrong."""

import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

from thinslice.experiments.analyze import report_json
from thinslice.jobs.measure import declared, measure_in
from thinslice.jobs.measure_journal import parts_of
from thinslice.records import Experiment, ExperimentExposure, Exposure, Variant
from thinslice.store.lake import Lake

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=14)
EXPERIMENT = declared(
    Experiment(
        name="ranker", tenant="shop", started_at=START, ends_at=END,
        variants=[Variant(name="old", policy="a", weight=0.5), Variant(name="new", policy="b", weight=0.5)],
    )
)  # fmt: skip
KILLS = 12

REPORTER = """
import sys
from pathlib import Path
import msgspec
from thinslice.jobs import measure_journal
from thinslice.jobs.measure_journal import parts_of
from thinslice.records import Experiment
from thinslice.store.lake import Lake

measure_journal.PART_ROWS = 60
experiment = msgspec.json.decode(sys.argv[2], type=Experiment)
lake = Lake(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    with lake.connect(tenant="shop", threads=1) as database:
        parts_of(lake, experiment, (), database)
    print("done", flush=True)
"""


def slates(rng, batch, size=150):
    """Slates of visitors of both variants, some of whom come again."""
    noted = {
        name: ExperimentExposure(
            experiment="ranker", variant=name, unit="visitor", unit_id="", allocation_version=1,
            propensities={"old": 0.5, "new": 0.5},
        )
        for name in ("old", "new")
    }  # fmt: skip
    for number in range(size):
        who = int(rng.integers(500))
        of = noted[("old", "new")[who % 2]]
        yield Exposure(
            tenant="shop", visitor_id=f"v{who}", session_id=f"v{who}", recommendation_id=f"{batch}-{number}",
            occurred_at=START + timedelta(hours=float(rng.uniform(0, 300))), placement="home", policy="p",
            model_version="m", experiments=[msgspec.structs.replace(of, unit_id=f"v{who}")],
        )  # fmt: skip


@pytest.mark.faults
def test_a_report_after_reports_that_were_killed_is_right_to_the_byte(tmp_path):
    rng, chance, lake = np.random.default_rng(0), random.Random(0), Lake(tmp_path / "lake")
    command = [sys.executable, "-c", REPORTER, str(tmp_path / "lake"), msgspec.json.encode(EXPERIMENT).decode()]
    amid = 0
    for kill in range(KILLS):
        lake.append("exposures", list(slates(rng, kill)))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.0, 0.05))
            assert child.poll() is None, "it ended by itself"
            child.send_signal(signal.SIGKILL)
            child.wait(timeout=10)
            amid += "done" not in child.stdout.read()
        with lake.connect(tenant="shop") as database:
            plain = report_json(measure_in(database, EXPERIMENT, END))
        with lake.connect(tenant="shop", threads=1) as database:
            parts = parts_of(lake, EXPERIMENT, (), database)
            kept = report_json(measure_in(database, EXPERIMENT, END, parts=parts))
        assert kept == plain
    assert amid >= KILLS // 3, "too few were killed while they worked"
