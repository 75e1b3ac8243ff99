"""The journey of a user on every public data set with sessions: init, import, train, evaluate, recommend and explain.

A slice of each set, its newest sessions, so that all of them take a minute; the figures are for `make bench`.
"""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from thinslice.cli.program import program

pytestmark = [pytest.mark.slow, pytest.mark.data]
DATA = Path(os.environ.get("THINSLICE_DATA", Path(__file__).parents[3] / "shared" / "data"))
SETS = (
    "complete_journey", "diginetica", "gazelle_bms1", "gazelle_bms2", "ml_100k", "online_retail", "otto_tiny",
    "serenade_toy", "tmall", "trivago_100k", "yoochoose1_64", "yoochoose_100k",
)  # fmt: skip
ROWS = 8000


def newest(name, folder):
    """The newest whole sessions of a set, about `ROWS` of its rows, and its catalog as far as they need it."""
    table = pq.read_table(DATA / name / "events.parquet")
    session = table["session_id"].to_numpy()
    ended = np.argsort(table["ts"].to_numpy(), kind="stable")[-ROWS:]
    events = table.filter(pa.array(np.isin(session, np.unique(session[ended])[-1500:])))
    if "split" in events.column_names:  # the newest rows are all of the test part
        events = events.drop_columns(["split"])
    pq.write_table(events, folder / "events.parquet")
    if (DATA / name / "items.parquet").is_file():
        items = pq.read_table(DATA / name / "items.parquet")
        pq.write_table(items.filter(pc.is_in(items["item_id"], events["item_id"].combine_chunks())),
                       folder / "items.parquet")  # fmt: skip
    return events


@pytest.fixture
def run(tmp_path):
    def call(*arguments):
        result = CliRunner().invoke(program, [*arguments, "--workspace", str(tmp_path / "ws"), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return call


@pytest.mark.parametrize("name", SETS)
def test_a_data_set_goes_from_a_file_to_explained_slates(name, tmp_path, run):
    events = newest(name, tmp_path)
    run("init")
    if (tmp_path / "items.parquet").is_file():
        run("import", "items", str(tmp_path / "items.parquet"))
    told = run("import", "events", str(tmp_path / "events.parquet"))
    assert told["quarantined"] == 0
    assert told["kept"] == told["read"] == events.num_rows
    assert run("train", "--policy", "session-ranker", "--force")
    measured = run("evaluate", "--events", str(tmp_path / "events.parquet"), "--models", "popular,session-knn")
    assert [row["name"] for row in measured["models"]] == ["popular", "session-knn"]
    items, visitors = events["item_id"].to_pylist(), events.column_names.count("visitor_id")
    questions = [["--session", f"{items[0]},{items[-1]}"], ["--session", "never-seen"]]
    questions += [["--visitor", str(events["visitor_id"][0].as_py())]] if visitors else []
    for question in questions:
        answer = run("recommend", "--policy", "session-ranker", "-k", "5", "--explain", *question)
        assert len(answer["items"]) == 5
        assert all(item["source"] and item["reason"] for item in answer["items"])
        for item, why in zip(answer["items"], answer["explain"], strict=True):
            assert sum(why["terms"].values()) == pytest.approx(item["score"], rel=1e-5, abs=1e-6)
