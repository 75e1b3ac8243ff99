"""`benchmark freeze | label | run`: goals come first, frozen is frozen, and what was changed is said."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from thinslice.cli.program import program
from thinslice.records import Event
from thinslice.settings import Workspace
from thinslice.store.lake import Lake


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    assert CliRunner().invoke(program, ["init", "--workspace", str(workspace.root)]).exit_code == 0
    start = datetime.now(UTC) - timedelta(days=5)

    def did(name, visit, step, item):
        at = start + timedelta(hours=visit, minutes=step)
        return Event(event_id=f"{name}{visit}-{step}", tenant="shop", name=name, visitor_id=f"v{visit}", item_id=item,
                     occurred_at=at, received_at=at)  # fmt: skip

    events = [
        did("view_item", visit, step, f"{visit % 2}-{(visit + step) % 5}") for visit in range(100) for step in range(3)
    ]
    events += [did("purchase", 98, 4, "0-4"), did("hide", 99, 5, "1-0"), did("report", 99, 6, "never-viewed")]
    Lake(workspace.lake).append("events", events)
    return workspace


@pytest.fixture
def bench(workspace):
    def run(*arguments, typed=None):
        words = ["benchmark", arguments[0], "--workspace", str(workspace.root), *map(str, arguments[1:])]
        return CliRunner().invoke(program, words, input=typed)

    return run


def test_freeze_label_and_run_as_one_would(workspace, bench, tmp_path):
    frozen = bench(
        "freeze", "spring", "--goal", "hr=0.6", "--goal", "bad=0.5", "-k", 3, "--note", 'what "spring" needs'
    )
    assert frozen.exit_code == 0, frozen.output
    assert "Goals: hr 0.6, bad 0.5" in frozen.stdout
    assert f"`thinslice benchmark run spring --workspace {workspace.root}`" in frozen.stdout
    toml = workspace.root / "benchmarks" / "shop" / "spring.toml"
    assert "hr = 0.6" in toml.read_text()

    exported = tmp_path / "queries.csv"
    assert bench("label", "spring", "--export", exported).exit_code == 0
    first = exported.read_text().splitlines()[1].split(",")[0]
    picks = tmp_path / "picks.csv"
    picks.write_text(f"query_id,item_id\n{first},0-1\n{first},0-2\n")
    labeled = bench("label", "spring", "--picks", picks, "--by", "ann")
    assert "2 picks for 1 queries are kept as labels of ann" in labeled.stdout, labeled.output

    ran = bench("run", "spring", "--models", "session-knn")
    assert ran.exit_code == (0 if "Passed." in ran.stdout else 1), ran.output
    for words in ("popular", "session-knn", "hand-picked", "ceiling (candidates)", "ceiling (known items)"):
        assert words in ran.stdout
    assert "goals were changed" not in ran.stdout
    found = json.loads(bench("run", "spring", "--models", "session-knn", "--json").stdout)
    assert found["labeled"] == 1
    assert not found["first_run"]
    rows = {row["name"]: row for row in found["rows"]}
    assert {goal["metric"] for goal in rows["session-knn"]["goals"]} == {"hr", "bad"}
    assert rows["session-knn"]["figures"]["hr"]["value"] > rows["popular"]["figures"]["hr"]["value"]
    assert "bad" in rows["session-knn"]["figures"]
    assert found["passed"] == rows["session-knn"]["passed"]


def test_a_goal_changed_after_the_first_run_is_said_in_every_report(workspace, bench):
    assert bench("freeze", "spring", "--goal", "hr=1", "-k", 3).exit_code == 0
    assert "Failed." in bench("run", "spring", "--models", "popular").stdout
    toml = workspace.root / "benchmarks" / "shop" / "spring.toml"
    toml.write_text(toml.read_text().replace("hr = 1.0", "hr = 0.0"))
    for _ in range(2):
        ran = bench("run", "spring", "--models", "popular")
        words = " ".join(ran.stdout.split())
        assert "goals were changed: the goal of hr was 1 and is now 0" in words
        assert "Passed." in words


def test_the_exit_code_says_whether_it_passed_so_that_ci_can_ask(workspace, bench):
    assert bench("freeze", "spring", "--goal", "hr=0", "-k", 3).exit_code == 0
    assert bench("run", "spring", "--models", "popular").exit_code == 0
    toml = workspace.root / "benchmarks" / "shop" / "spring.toml"
    toml.write_text(toml.read_text().replace("hr = 0.0", "hr = 1.0"))
    failed = bench("run", "spring", "--models", "popular", "--json")
    assert (failed.exit_code, json.loads(failed.stdout)["passed"], failed.stderr) == (1, False, "")


def test_a_goal_that_nothing_is_labeled_for_is_neither_passed_nor_failed(bench):
    assert bench("freeze", "spring", "--goal", "picks=0.1", "--goal", "hr=0").exit_code == 0
    ran = bench("run", "spring", "--models", "popular")
    assert (ran.exit_code, "Neither passed nor failed" in ran.stdout) == (1, True)
    assert json.loads(bench("run", "spring", "--models", "popular", "--json").stdout)["passed"] is None


def test_frozen_is_frozen(workspace, bench):
    assert bench("freeze", "spring", "--goal", "hr=0.5").exit_code == 0
    again = bench("freeze", "spring", "--goal", "hr=0.1")
    assert (again.exit_code, "take another name" in again.stderr) == (2, True)
    queries = workspace.root / "benchmarks" / "shop" / "spring.queries.parquet"
    queries.write_bytes(queries.read_bytes()[:-1])
    broken = bench("run", "spring")
    assert (broken.exit_code, "is not what was frozen" in broken.stderr) == (1, True)


def test_people_pick_in_the_terminal_and_are_asked_each_query_once(workspace, bench):
    assert bench("freeze", "spring", "--goal", "picks=0.1", "--queries", 3).exit_code == 0
    answered = bench("label", "spring", "--by", "ann", typed="1, 2\nno-such-item\n0-1\n\n")
    assert answered.exit_code == 0, answered.output
    assert "There is no item no-such-item" in answered.stdout
    assert "3 picks for 2 queries are kept as labels of ann" in answered.stdout
    later = bench("label", "spring", "--by", "ann", typed="q\n")
    assert "1 of 1, q0003" in later.stdout
    assert "0 picks for 0 queries" in later.stdout
    found = json.loads(bench("run", "spring", "--models", "popular", "--json").stdout)
    assert found["labeled"] == 2
    assert found["rows"][0]["figures"]["picks"]["value"] is not None


def test_an_export_says_as_json_where_it_is(bench, tmp_path):
    assert bench("freeze", "spring", "--goal", "hr=0.1", "--queries", 3).exit_code == 0
    told = bench("label", "spring", "--export", tmp_path / "q.csv", "--json")
    assert json.loads(told.stdout) == {"benchmark": "spring", "queries": 3, "file": str(tmp_path / "q.csv")}


def test_a_person_who_picks_anew_takes_back_what_stood_there(bench, tmp_path):
    assert bench("freeze", "spring", "--goal", "picks=0.1", "--queries", 3).exit_code == 0
    picks = tmp_path / "picks.jsonl"
    picks.write_text('{"query_id": "q0001", "item_ids": ["0-1", "0-2"]}\n')
    assert bench("label", "spring", "--picks", picks, "--by", "ann").exit_code == 0
    picks.write_text('{"query_id": "q0001", "item_ids": ["0-2"]}\n')
    assert bench("label", "spring", "--picks", picks, "--by", "ann").exit_code == 0
    found = json.loads(bench("run", "spring", "--models", "popular", "--json").stdout)
    hand = next(row for row in found["rows"] if row["kind"] == "picked")
    assert hand["n"] == 1
    assert found["rows"][0]["figures"]["picks"]["value"] == 1  # only 0-2 is wanted, and all items are in the list


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("query_id,item_id\nq9999,a\n", "picks.csv:2: 'q9999' is no query of this benchmark"),
        ("query_id\nq0001\n", "picks.csv:2: query_id and item_id are needed"),
        ("query_id,item_id,place\nq0001,a,first\n", "place must be a number, it is 'first'"),
        ("query_id,item_id\n", "holds no picks"),
    ],
)
def test_picks_that_cannot_be_meant_are_refused_with_their_line(bench, tmp_path, text, says):
    assert bench("freeze", "spring", "--goal", "hr=0.5").exit_code == 0
    picks = tmp_path / "picks.csv"
    picks.write_text(text)
    result = bench("label", "spring", "--picks", picks)
    assert (result.exit_code, says in result.stderr) == (2, True), result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("freeze", "spring"), "needs a goal before its first run"),
        (("freeze", "spring", "--goal", "hr"), "'hr' is no goal"),
        (("freeze", "../spring", "--goal", "hr=0.5"), "cannot name a benchmark"),
        (("run", "absent"), "there is no benchmark 'absent'"),
        (("freeze", "spring", "--tenant", "other", "--goal", "hr=0.5"), "there is no tenant 'other'"),
    ],
)
def test_what_is_wrong_is_refused_with_exit_code_2(bench, arguments, says):
    result = bench(*arguments)
    assert (result.exit_code, says in result.stderr) == (2, True), result.output
