"""`thinslice rules` and `recommend --explain`: what is shown, what each rule took out, and what made each score."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from thinslice.cli.program import program
from thinslice.cli.recommend import terms_of
from thinslice.records import Event, Item
from thinslice.settings import Workspace
from thinslice.store.lake import Lake

RULES = """
[[tenants.shop.rules]]
kind = "exclude"
name = "no lamps"
categories = ["lamps"]

[[tenants.shop.rules]]
kind = "age"

[[tenants.shop.rules]]
kind = "boost"
name = "own brand"
brands = ["ours"]
factor = 2.5

[[tenants.shop.rules]]
kind = "pin"
placement = "home"
item_id = "i4"
position = 0
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("rules") / "workspace")
    run = CliRunner().invoke
    assert run(program, ["init", "--workspace", str(workspace.root)]).exit_code == 0
    workspace.settings_file.write_text(workspace.settings_file.read_text() + RULES)
    start = datetime.now(UTC) - timedelta(days=1)
    lake = Lake(workspace.lake)
    lake.append("events", [
        Event(event_id=f"{visit}-{step}", tenant="shop", name="view_item", visitor_id=f"v{visit}", item_id=f"i{item}",
              occurred_at=start + timedelta(minutes=visit, seconds=step), received_at=start)
        for visit in range(60) for step, item in enumerate([0, 1 + visit % 4])
    ])  # fmt: skip
    lake.append("items", [
        Item(tenant="shop", item_id=f"i{n}", updated_at=start, title=f"Thing {n}",
             categories=["lamps"] if n == 1 else ["mugs"], brand="ours" if n == 3 else "theirs",
             attributes={"min_age": 18} if n == 2 else {})
        for n in range(6)
    ])  # fmt: skip
    trained = run(program, ["train", "--workspace", str(workspace.root)])
    assert trained.exit_code == 0, trained.output
    return workspace.root


def ask(root, *arguments):
    return CliRunner().invoke(program, [*arguments[:1], *arguments[1:], "--workspace", str(root)])


def test_the_preview_shows_before_and_after_and_what_each_rule_took_out(root):
    result = ask(root, "rules", "preview", "--session", "i0", "--policy", "session-knn", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    before = {row["item_id"]: row["removed_by"] for row in found["before"]}
    after = [row["item_id"] for row in found["after"]]
    assert (before["i1"], before["i2"], before["i0"]) == ("no lamps", "age-2", "page")
    assert not {"i0", "i1", "i2"} & set(after)
    assert (found["removed"]["no lamps"], found["removed"]["age-2"]) == (1, 1)
    assert {row["item_id"]: row["boosts"] for row in found["after"]}["i3"] == {"own brand": 2.5}
    assert 0 <= found["spread"]["before"] <= 1


def test_context_and_placement_count(root):
    result = ask(
        root, "rules", "preview", "--session", "i0", "--placement", "home", "--context", '{"age": 30}', "--json"
    )
    found = json.loads(result.stdout)
    assert found["after"][0] == {"item_id": "i4", "score": 0.0, "source": "pin", "boosts": {}}
    assert "i2" in [row["item_id"] for row in found["after"]]


def test_in_words_the_preview_stands_side_by_side(root):
    result = ask(root, "rules", "preview", "--session", "i0")
    assert result.exit_code == 0, result.output
    assert "(no lamps)" in result.stdout
    assert "no lamps took out 1." in result.stdout


def test_the_list_names_every_rule_and_whether_it_always_holds(root):
    rows = json.loads(ask(root, "rules", "list", "--json").stdout)
    assert [(row["name"], row["kind"], row["placement"], row["always_holds"]) for row in rows] == [
        ("no lamps", "exclude", "*", True), ("age-2", "age", "*", True), ("own brand", "boost", "*", False),
        ("pin-4", "pin", "home", False),
    ]  # fmt: skip
    assert rows[2]["settings"] == {"brands": ["ours"], "factor": 2.5}
    words = ask(root, "rules", "list").stdout
    assert "pin-4: pin at home: item_id = i4" in words


def test_explain_shows_the_terms_the_boosts_and_the_rules(root):
    arguments = ("recommend", "--session", "i0", "--policy", "session-knn", "--explain")
    found = json.loads(ask(root, *arguments, "--json").stdout)
    place = [item["item_id"] for item in found["items"]].index("i3")
    assert set(found["explain"][place]["terms"]) == {"i0"}
    assert found["explain"][place]["boosts"] == {"own brand": 2.5}
    score = found["items"][place]["score"]
    assert sum(found["explain"][place]["terms"].values()) * 2.5 == pytest.approx(score, rel=1e-5)
    assert found["removed"]["no lamps"] == 1
    words = ask(root, *arguments).stdout
    assert "rule own brand: × 2.5" in words
    assert "Left out:" in words


def test_explain_prints_no_empty_line_for_what_nothing_scored_and_no_share_of_nothing(root):
    lines = ask(root, "recommend", "--session", "i0", "--placement", "home", "--explain").stdout.splitlines()
    assert any(" i4 " in line and " pin " in line for line in lines)
    assert all(line.strip() for line in lines)
    terms = {"chair": 0.25, "base": -0.0, "lamp": -1.5, "session": -1e-9}
    assert terms_of(terms, -1.25) == ["chair: 0.25", "lamp: -1.5"]
    assert terms_of({}, 0.0) == terms_of({"base": -0.0}, -0.0) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--context", "{"), "--context is no JSON"),
        (("--context", "[1]"), "must be an object"),
        (("--context", '{"age": "old"}'), "age must be a number"),
        (("--policy", "deep"), "there is no policy 'deep'"),
        (("--session", ","), "names no item"),
    ],
)
def test_what_cannot_be_previewed_is_refused_with_exit_code_2(root, arguments, says):
    result = ask(root, "rules", "preview", *arguments)
    assert (result.exit_code, says in result.stderr) == (2, True), result.output
