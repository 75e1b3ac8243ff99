"""`experiment ramp | holdout | backtest | design` at the shell."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from thinslice.cli.program import program
from thinslice.records import Exposure
from thinslice.store.lake import Lake

FILE = """
name = "ranker"
days = 14
coverage = 0.2
training = "shared"
variants = [{name = "popular", policy = "popular"}, {name = "knn", policy = "session-knn"}]
"""


@pytest.fixture
def run(tmp_path):
    def call(*arguments, code=0):
        result = CliRunner().invoke(program, [*arguments, "--workspace", str(tmp_path / "w")])
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    call("init")
    (tmp_path / "ranker.toml").write_text(FILE, encoding="utf-8")
    return call


def test_an_experiment_is_ramped_by_coverage_and_by_weights(run, tmp_path):
    run("experiment", "start", str(tmp_path / "ranker.toml"))
    said = run("experiment", "ramp", "ranker", "--coverage", "0.5")
    assert "ranker runs under allocation 2." in said
    assert "knn                   25.0% of visitors  policy session-knn (treatment)" in said
    got = json.loads(run("experiment", "ramp", "ranker", "--weights", "popular=0.2,knn=0.8", "--json"))
    assert (got["allocation_version"], got["coverage"], got["weights"]) == (3, 0.5, {"popular": 0.2, "knn": 0.8})
    assert got["kept"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "nothing to change"),
        (("--coverage", "0.1"), "coverage is 0.2 and only grows"),
        (("--weights", "popular:0.2"), "is no NAME=SHARE"),
        (("--weights", "popular=0.2"), "the weights sum to 0.7"),
        (("--weights", "x=0.2"), "has no variant 'x' (there is: popular, knn)"),
    ],
    ids=["nothing", "smaller", "form", "sum", "unknown"],
)
def test_a_ramp_that_cannot_be_exits_with_two(run, tmp_path, options, words):
    run("experiment", "start", str(tmp_path / "ranker.toml"))
    assert words in run("experiment", "ramp", "ranker", *options, code=2)


def test_a_holdout_is_started_shown_and_stopped(run):
    assert "has no holdout" in run("experiment", "holdout", "show", code=2)
    assert "no training has chosen for it yet" in run("experiment", "holdout", "start", "--share", "0.05", code=1)
    started = run("experiment", "holdout", "start", "--share", "0.05", "--policy", "popular")
    assert "holdout runs until it is stopped." in started
    assert "held                   5.0% of visitors  policy popular (control)" in started
    assert "measured               5.0% of visitors  policy unchanged (treatment)" in started
    assert json.loads(run("experiment", "holdout", "show", "--json"))["kind"] == "holdout"
    assert "`thinslice experiment report holdout`" in run("experiment", "holdout", "stop")


def test_a_backtest_comes_after_the_decision(run, tmp_path):
    run("experiment", "start", str(tmp_path / "ranker.toml"))
    assert "still runs" in run("experiment", "backtest", "ranker", code=2)
    run("experiment", "stop", "ranker")
    assert "nothing was decided of 'ranker' yet" in run("experiment", "backtest", "ranker", code=2)
    said = run("experiment", "backtest", "ranker", "--share", "0.1", "--variant", "knn")
    assert "ranker-backtest runs until" in said
    listed = {row["name"]: row for row in json.loads(run("experiment", "list", "--json"))}
    assert (listed["ranker-backtest"]["kind"], listed["ranker-backtest"]["status"]) == ("backtest", "running")


def test_a_start_says_what_visitors_see_while_nothing_is_trained(run, tmp_path):
    got = CliRunner().invoke(
        program, ["experiment", "start", str(tmp_path / "ranker.toml"), "--workspace", str(tmp_path / "w")]
    )
    assert "ranker runs for" in got.stdout
    for variant in ("popular", "knn"):
        assert f"Warning: {variant}: nothing is trained yet" in got.stderr
    assert "the catalog in its own order" in got.stderr


def test_a_start_names_the_experiment_that_serves_the_same_slates(run, tmp_path):
    run("experiment", "start", str(tmp_path / "ranker.toml"))
    (tmp_path / "second.toml").write_text(FILE.replace("ranker", "second"))
    arguments = ["experiment", "start", str(tmp_path / "second.toml"), "--workspace", str(tmp_path / "w")]
    assert "Warning: ranker runs on the same placement" in CliRunner().invoke(program, arguments).stderr
    run("experiment", "stop", "ranker")
    run("experiment", "stop", "second")
    (tmp_path / "third.toml").write_text(FILE.replace("ranker", "third"))
    arguments[2] = str(tmp_path / "third.toml")
    assert "same placement" not in CliRunner().invoke(program, arguments).stderr


def test_a_stopped_shadow_is_listed_as_stopped_and_points_to_what_it_told(run, tmp_path):
    run("experiment", "start", str(tmp_path / "ranker.toml"), "--shadow")
    assert [row["status"] for row in json.loads(run("experiment", "list", "--json"))] == ["shadow"]
    said = run("experiment", "stop", "ranker")
    assert said == "The shadow of ranker is stopped. `thinslice experiment shadow ranker` says what it told.\n"
    assert [row["status"] for row in json.loads(run("experiment", "list", "--json"))] == ["stopped"]
    assert "ranker is stopped" in run("experiment", "shadow", "ranker")
    assert "`thinslice experiment shadow ranker` says" in run("experiment", "report", "ranker", code=2)


def test_an_edited_experiment_is_named_as_broken_and_can_be_stopped(run, tmp_path):
    run("experiment", "start", str(tmp_path / "ranker.toml"))
    path = tmp_path / "w" / "experiments" / "shop" / "ranker.toml"
    path.write_text(path.read_text().replace("coverage = 0.2", "coverage = 0.3"))
    assert "coverage of 'ranker' changed after its start" in run("experiment", "report", "ranker", code=2)
    assert [row["status"] for row in json.loads(run("experiment", "list", "--json"))] == ["broken"]
    run("experiment", "stop", "ranker")


def test_a_plan_is_printed_and_says_what_the_traffic_cannot_show(run, tmp_path):
    assert "had no visitor" in run("experiment", "design", "--metric", "revenue_per_visitor", code=1)
    assert "give an experiment's FILE" in run("experiment", "design", code=2)
    assert "is no NAME=SHARE" in run("experiment", "design", "--metric", "revenue_per_visitor=big", code=2)
    now = datetime.now(UTC)
    Lake(tmp_path / "w" / "lake").append(
        "exposures",
        [
            Exposure(recommendation_id=f"r{v}.{n}", tenant="shop", occurred_at=now - timedelta(hours=v + 1),
                     placement="home", policy="p", model_version="m", visitor_id=f"v{v}")
            for v in range(200) for n in range(1 + v % 3)
        ],
    )  # fmt: skip
    ask = ("experiment", "design", "--metric", "orders_per_visitor=0.05", "--margin", "views_per_visitor=0.05")
    assert "orders_per_visitor is zero for every unit in the history" in run(*ask)
    text = tmp_path / "slates.toml"
    text.write_text(FILE + '[[metrics]]\nname = "slates"\nnumerator = "exposures"\nmde = 0.001\n')
    said = " ".join(run("experiment", "design", str(text)).split())
    assert "This traffic cannot show it: slates: a change of 0.1 % would take more than a year" in said
    got = json.loads(run("experiment", "design", str(text), "--days", "30", "--json"))
    assert (got["units"], got["days"], got["enough"]) == (200, 30.0, False)
    assert got["rows"][0]["mean"] == pytest.approx(1.99, abs=0.02)
