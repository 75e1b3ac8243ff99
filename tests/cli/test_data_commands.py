"""`import`, `quarantine` and `recommend` as one types them."""

import asyncio
import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from thinslice.cli.program import program
from thinslice.evaluation import gates
from thinslice.serving import ExperimentFiles, Intake, RecommendationIds
from thinslice.settings import Workspace, read_settings
from thinslice.store.live import MemoryLive
from thinslice.store.log import GroupCommit, SegmentWriter

CSV = "session_id,item_id,ts,event\n" + "".join(
    f"s{n},{item},{1775000000 + n},view\n" for n in range(10) for item in ("a", "b" if n % 2 else "c")
)


@pytest.fixture
def run(tmp_path):
    def call(*arguments, code=0):
        result = CliRunner().invoke(program, [*arguments, "--workspace", str(tmp_path / "w")])
        assert result.exit_code == code, result.output
        return result.stdout

    call("init")
    return call


@pytest.fixture
def workspace(run, tmp_path):
    return Workspace(tmp_path / "w")


def test_import_says_what_it_read_kept_and_refused(run, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(CSV + "s,,1775000000,view\n", encoding="utf-8")
    told = run("import", "events", str(path))
    assert "21 rows read, 20 kept, 0 known already, 1 quarantined" in told
    assert "line 22: view_item needs an item_id" in told
    figures = json.loads(run("import", "events", str(path), "--json"))
    assert (figures["read"], figures["kept"], figures["known"], figures["quarantined"]) == (21, 0, 20, 1)
    assert figures["files"][0]["bad"] == [
        {"line": 22, "code": "missing_field", "reason": "view_item needs an item_id", "field": "item_id"}
    ]


def test_import_refuses_what_it_cannot_use(run, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("item_id,ts\n,1775000000\n", encoding="utf-8")
    run("import", "events", str(path), code=2)
    run("import", "events", str(path), "--map", "nonsense", code=2)
    run("import", "events", str(tmp_path / "nowhere.csv"), code=2)
    run("import", "events", str(path), "--tenant", "nobody", code=2)


def test_import_says_what_a_file_lacks_that_is_no_error(run, tmp_path):
    path = tmp_path / "nobody.csv"
    path.write_text("sesion,product,ts\ns1,x1,1775000000\n", encoding="utf-8")
    assert "no column says whose events these are" in run("import", "events", str(path))
    run("import", "events", str(path), "--map", "sesion=session_id", code=2)
    told = run("import", "events", str(path), "--replace", "--map", "sesion=session_id")
    assert "no column says whose" not in told
    assert "1 rows of the reading before were taken back first" in told
    run("import", "events", str(path), "--replace", "--add", code=2)
    path.write_text("item_id,title\n", encoding="utf-8")
    told = run("import", "items", str(path))
    assert "the file holds no rows, so nothing changed" in told
    assert "status = retired" in told


def test_a_price_that_is_no_number_of_cents_is_said_in_words_for_shops(run, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("session_id,item_id,ts,price_minor\ns1,a,1775000000,1.5\ns1,b,1775000001,150\n", encoding="utf-8")
    told = run("import", "events", str(path))
    assert "line 2: price_minor is no whole number; money in cents, 1290 for 12.90 [wrong_type]" in told


def test_a_file_that_is_not_utf8_is_sent_back_to_be_saved_as_utf8(run, tmp_path):
    path = tmp_path / "old.csv"
    path.write_bytes("session_id,item_id,ts\ns1,Größe,1775000000\n".encode("latin-1"))
    result = CliRunner().invoke(program, ["import", "events", str(path), "--workspace", str(tmp_path / "w")])
    assert result.exit_code == 2
    assert "CSV UTF-8" in result.stderr


@pytest.mark.parametrize("bad", ["missing.csv", "empty.csv", "strange.csv"])
def test_nothing_is_read_when_one_of_the_files_cannot_be(run, workspace, tmp_path, bad):
    good = tmp_path / "log.csv"
    good.write_text(CSV, encoding="utf-8")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "strange.csv").write_text("x,y\n1,2\n")
    run("import", "events", str(good), str(tmp_path / bad), "--json", code=2)
    assert not workspace.lake.exists()
    assert json.loads(run("import", "events", str(good), "--json"))["kept"] == 20


def test_import_train_recommend_answers_without_a_service(run, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(CSV, encoding="utf-8")
    run("import", "events", str(path))
    run("train", "--json")
    answer = json.loads(run("recommend", "--session", "b", "-k", "2", "--explain", "--json"))
    assert answer.keys() == {"recommendation_id", "policy", "model_version", "items", "explain", "removed"}
    best = answer["items"][0]
    assert (best["item_id"], best["source"], best["reason"]) == ("a", "session-ranker", "Because you viewed b")
    assert answer["explain"][0]["terms"].keys() == {"b"}
    assert "Because you viewed b" in run("recommend", "--session", "b", "--explain")


def test_a_shop_so_small_that_one_session_is_asked_about_is_trained_and_says_so(run, tmp_path):
    path = tmp_path / "tiny.csv"
    rows = [f"s{n},{item},{1775000000 + 100 * n + step}" for n in range(10) for step, item in enumerate("ab")]
    path.write_text("session_id,item_id,ts\n" + "\n".join(rows), encoding="utf-8")
    run("import", "events", str(path))
    told = run("train")
    assert "(one session)" in told
    assert "does not go live" not in told
    assert "Nothing is new since the last model" in run("train")


def test_a_log_in_which_nothing_can_be_asked_is_trained_and_says_that_nothing_is_wrong(run, tmp_path):
    path = tmp_path / "alone.csv"
    rows = [f"s{n},i{n},{1775000000 + 100 * n}" for n in range(10)]
    path.write_text("session_id,item_id,ts\n" + "\n".join(rows), encoding="utf-8")
    run("import", "events", str(path))
    assert "How good they are is not known yet" in run("train")


def test_a_model_that_is_refused_is_said_in_plain_words_with_what_to_do(run, tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    path.write_text(CSV, encoding="utf-8")
    run("import", "events", str(path))
    monkeypatch.setattr(gates, "SLOWEST_MS", -1.0)
    told = run("train")
    assert "session-knn does not go live, popular items are shown in its place: it is too slow (" in told
    assert "to publish all the same: `thinslice train --workspace " in told


def test_recommend_serves_the_catalog_of_an_untrained_shop(run, tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("id,title\na,Vase\nb,Lamp\n", encoding="utf-8")
    run("import", "items", str(path))
    answer = json.loads(run("recommend", "--json"))
    assert {item["item_id"] for item in answer["items"]} == {"a", "b"}
    assert answer["model_version"] == "untrained"


def send(workspace, body):
    async def post():
        commit = GroupCommit(SegmentWriter(workspace.log, "worker"))
        ids, experiments = RecommendationIds(b"s" * 32), ExperimentFiles(workspace.experiments)
        intake = Intake(read_settings(workspace), MemoryLive(), commit, experiments, ids)
        key = SimpleNamespace(tenant="shop", kind="secret")
        try:
            return await intake.events(body, key, datetime.now(UTC))
        finally:
            commit.close()

    return asyncio.run(post())


def test_what_was_refused_over_http_is_listed_with_its_reason_and_can_be_replayed(run, workspace):
    bad = {"name": "view_item", "event_id": "e1", "visitor_id": "v", "item_id": 7, "consent": "personalization"}
    result = send(workspace, json.dumps([bad, {**bad, "event_id": "e2", "item_id": "a"}]).encode())
    assert (result.accepted, len(result.rejected)) == (1, 1)
    (listed,) = json.loads(run("quarantine", "list", "--json"))
    assert listed["event"] == bad
    assert "item_id" in listed["reason"]
    assert (listed["file"], listed["line"]) == (None, None)
    assert json.loads(run("quarantine", "replay", "--set", "price_minor=-1", "--json"))["replayed"] == 0
    again = json.loads(run("quarantine", "replay", "--id", listed["quarantine_id"][:8], "--set", "item_id=7", "--json"))
    assert again == {"replayed": 1, "remaining": 0}
    assert json.loads(run("quarantine", "list", "--json")) == []
    assert len(json.loads(run("quarantine", "list", "--all", "--json"))) == 1
    assert "empty" in run("quarantine", "list")


def test_quarantine_refuses_an_unknown_id(run):
    run("quarantine", "replay", "--id", "zzz", code=2)
    run("quarantine", "replay", "--set", "zzz", code=2)
