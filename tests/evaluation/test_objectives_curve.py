"""The trade-off curve: what weighing actions brings and costs, on a log whose truth is known."""

import json

import numpy as np
import pytest

from thinslice.errors import BadInput, UnknownName
from thinslice.evaluation.objectives import mixed, trade_off


def shop(seed=0, sessions=1500):
    """Two kinds of items in each of 5 corners: `liked` ones are clicked more, `bought` ones are bought more."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(sessions):
        corner = int(rng.integers(5))
        for step in range(4):
            kind = "liked" if rng.random() < 0.65 else "bought"
            item = f"{kind}-{corner}-{rng.integers(4)}"
            at = 1.76e9 + number * 300 + step * 10
            rows.append((f"s{number}", item, at, "view_item"))
            if rng.random() < (0.4 if kind == "bought" else 0.02):
                rows.append((f"s{number}", item, at + 1, "purchase"))
                if kind == "liked" and rng.random() < 0.5:
                    rows.append((f"s{number}", item, at + 2, "refund"))
    names = ("session_id", "item_id", "ts", "event")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


@pytest.fixture(scope="module")
def curve():
    return trade_off(shop(), "session-knn", {"purchase": 1.0}, 4)


def test_more_weight_on_purchases_brings_more_of_them_into_slates(curve):
    predicted = [point["predicted"]["purchase"] for point in curve["curve"]]
    assert (np.diff(predicted) >= -1e-9).all()
    assert predicted[-1] > 1.5 * predicted[0]
    observed = [point["observed"]["purchase"] for point in curve["curve"]]
    assert observed[0]["n"] > 100
    assert observed[-1]["hr"] > observed[0]["hr"] + 2 * observed[0]["hr_se"]


def test_and_it_costs_clicks(curve):
    hit = [point["hr"] for point in curve["curve"]]
    assert hit[-1] < hit[0] - 2 * curve["curve"][0]["hr_se"]


def test_the_first_point_is_the_ranking_as_it_is_and_the_last_the_objectives_alone(curve):
    first, last = curve["curve"][0], curve["curve"][-1]
    assert first["objectives"] == {"click": 1.0}
    assert "click" not in last["objectives"]
    assert curve["queries"] > 400
    json.dumps(curve, allow_nan=False)


def test_weights_are_mixed_by_what_an_average_click_is_worth():
    assert mixed({"purchase": 2.0, "refund": -1.0}, 0.5, 0.1) == {"click": 0.5, "purchase": 10.0, "refund": -5.0}


def test_refunds_count_against():
    result = trade_off(shop(), "popular", {"purchase": 0.1, "refund": -1.0}, 10)
    sent_back = [point["predicted"]["refund"] for point in result["curve"]]
    assert sent_back[-1] < sent_back[0]


def test_fewer_questions_are_asked_of_sessions_at_random():
    assert 100 <= trade_off(shop(), "popular", {"purchase": 1.0}, 5, max_queries=100)["queries"] <= 103


def test_what_cannot_be_weighed_is_refused():
    log = shop(sessions=200)
    with pytest.raises(UnknownName, match="no model 'nobody'"):
        trade_off(log, "nobody", {"purchase": 1.0})
    with pytest.raises(BadInput, match="objectives are actions with a weight, got 'sell'"):
        trade_off(log, "popular", {"sell": 1.0})
    with pytest.raises(BadInput, match="no session before the cut has any of: report"):
        trade_off(log, "popular", {"report": 1.0})
    with pytest.raises(BadInput, match="need the column event"):
        trade_off({name: column for name, column in log.items() if name != "event"}, "popular", {"purchase": 1.0})


def test_what_is_sent_back_elsewhere_counts_too():
    log = shop()
    kept = log["event"] != "refund"
    told = {}

    def refusals(until):
        told["until"] = until
        return {"refund": {f"liked-{corner}-{number}": 200 for corner in range(5) for number in range(4)}}

    result = trade_off({name: column[kept] for name, column in log.items()}, "popular", {"refund": -1.0}, 10,
                       refusals=refusals)  # fmt: skip
    assert told["until"] < log["ts"].max() - 3600
    assert result["curve"][-1]["predicted"]["refund"] < result["curve"][0]["predicted"]["refund"]


def test_the_command_prints_the_curve(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from click.testing import CliRunner

    from thinslice.cli.program import program

    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(shop(sessions=600)), path)
    given = ["evaluate", "--events", str(path), "--models", "popular", "-k", "5", "--objectives"]
    shown = CliRunner().invoke(program, [*given, "purchase=1"])
    assert shown.exit_code == 0, shown.output
    assert "popular" in shown.output
    assert "100%" in shown.output
    found = json.loads(CliRunner().invoke(program, [*given, "purchase=1,refund=-0.5", "--json"]).stdout)
    assert [point["share"] for point in found["curve"]] == [0.0, 0.25, 0.5, 0.75, 0.9, 1.0]
    wrong = CliRunner().invoke(program, [*given, "purchase"])
    assert wrong.exit_code == 2
    assert "'purchase' is no objective" in wrong.output
    both = CliRunner().invoke(program, [*given, "purchase=1", "--why"])
    assert both.exit_code == 2
