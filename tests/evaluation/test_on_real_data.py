"""On real shops' clicks: the figures that the README shows stay what they are, and every data set can be evaluated."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from thinslice.cli.evaluate_input import read_events
from thinslice.evaluation import evaluate

DATA = Path(os.environ.get("THINSLICE_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.data
def test_on_diginetica_the_figures_of_popular_and_session_knn_stay_what_they_are():
    result = evaluate(read_events(DATA / "diginetica" / "events.parquet"), ["popular", "session-knn"])
    popular, knn = result["models"]
    assert popular["n"] == knn["n"] == 60_858
    assert (knn["hr"], knn["mrr"]) == pytest.approx((0.5291, 0.1884), abs=5e-4)
    assert (popular["hr"], popular["mrr"]) == pytest.approx((0.0122, 0.0016), abs=1e-4)
    assert knn["coverage"] == pytest.approx(0.929, abs=2e-3)
    assert knn["bytes_per_event"] <= 11
    assert result["simplest"] == "session-knn"


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "complete_journey", "diginetica", "gazelle_bms1", "gazelle_bms2", "ml_100k", "online_retail", "otto_tiny",
        "serenade_toy", "tmall", "trivago_100k", "yoochoose1_64", "yoochoose_100k",
    ],
)  # fmt: skip
def test_every_data_set_with_sessions_can_be_evaluated(name):
    result = evaluate(read_events(DATA / name / "events.parquet"), ["popular", "markov"])
    assert result["skipped"] == []
    for row in result["models"]:
        assert row["n"] == result["protocol"]["queries"] > 0
        assert 0 <= row["mrr"] <= row["ndcg"] <= row["hr"] <= 1
    assert pq.read_metadata(DATA / name / "events.parquet").num_rows >= result["protocol"]["train_clicks"]
