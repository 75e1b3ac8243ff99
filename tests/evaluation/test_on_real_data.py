"""On a real shop's clicks: the figures that the README shows, all queries, the settings that are served."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from thinslice.evaluation import evaluate

DATA = Path(os.environ.get("THINSLICE_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.data
def test_on_diginetica_session_knn_ranks_as_well_as_published_with_the_settings_that_are_served():
    table = pq.read_table(DATA / "diginetica" / "events.parquet")
    columns = {name: table[name].to_numpy() for name in ("session_id", "item_id", "ts", "event", "split")}
    result = evaluate(columns)
    popular, _, knn = result["models"]
    assert knn["n"] == 60_858
    assert knn["hr"] >= 0.515
    assert knn["mrr"] >= 0.182
    assert popular["hr"] < 0.05
    assert knn["bytes_per_event"] <= 11
    assert result["simplest"] == "session-knn"
