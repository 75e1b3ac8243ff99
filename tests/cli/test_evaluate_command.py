"""`thinslice evaluate`: a table for people, JSON for programs, exit code 2 for what is wrong."""

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from thinslice.cli import evaluate_report
from thinslice.cli.program import program
from thinslice.records import Event
from thinslice.settings import Workspace
from thinslice.store.lake import Lake


def run(*arguments):
    return CliRunner().invoke(program, ["evaluate", *map(str, arguments)])


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "events.parquet"
    clicks = [(session, click) for session in range(60) for click in range(3)]
    columns = {
        "session_id": [session for session, _ in clicks],
        "item_id": [f"{session % 2}-{(session + click) % 5}" for session, click in clicks],
        "ts": [
            datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=session, seconds=click) for session, click in clicks
        ],
    }
    pq.write_table(pa.table(columns | {"event": pa.array(["view"] * len(clicks)).dictionary_encode()}), path)
    return path


def test_json_holds_the_protocol_the_models_and_the_simplest(events):
    result = run("--events", events, "--models", "session-knn,popular", "-k", 5, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [row["name"] for row in found["models"]] == ["popular", "session-knn"]
    assert found["protocol"]["k"] == 5
    assert not found["protocol"]["order_only"]
    assert found["simplest"] == "session-knn"


def test_the_table_says_what_was_asked_and_how(events):
    result = run("--events", events, "--order-only", "--models", "popular,session-knn")
    assert result.exit_code == 0, result.output
    for words in ("HR@20", "session-knn", "order only", "Ties count against the model", "clicks known: 2",
                  "session-knn against popular: MRR@20", "session-knn is the best of what was measured"):  # fmt: skip
        assert words in " ".join(result.stdout.split())


def test_a_narrow_window_cuts_no_figure_off_and_a_pipe_breaks_no_row(events, monkeypatch):
    models = "popular,markov,session-knn,implicit-cosine"
    monkeypatch.setenv("COLUMNS", "80")
    narrow = run("--events", events, "--models", models).stdout
    assert "…" not in narrow.replace("by …", "")
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.count("clicks known: 2") == 1
    monkeypatch.delenv("COLUMNS")
    wide = run("--events", events, "--models", models).stdout
    row = next(line for line in wide.splitlines() if line.startswith("clicks known: 2"))
    assert row.count("±") >= 3, "each model's figure with its interval"


def test_where_nobody_watches_a_terminal_lines_say_which_model_is_at_work_and_how_far(events, monkeypatch):
    monkeypatch.setattr(evaluate_report, "EVERY_S", 0.0)
    result = run("--events", events, "--models", "popular,session-knn", "--json")
    assert json.loads(result.stdout)["models"]
    asked = json.loads(result.stdout)["protocol"]["queries"]
    assert result.stderr.splitlines() == [
        "popular learns", f"popular: {asked} of {asked} queries",
        "session-knn learns", f"session-knn: {asked} of {asked} queries",
    ]  # fmt: skip


def test_a_csv_file_gives_the_same_figures(events, tmp_path):
    text = tmp_path / "events.csv"
    csv.write_csv(pq.read_table(events), text)
    figures = []
    for path in (events, text):
        found = json.loads(run("--events", path, "--models", "session-knn", "--json").stdout)["models"][0]
        figures.append([found[name] for name in ("n", "hr", "mrr", "ndcg", "coverage", "novelty")])
    assert figures[0] == figures[1]


def test_items_bring_the_dates_that_newest_goes_by(events, tmp_path):
    items = tmp_path / "items.parquet"
    dates = [datetime(2026, 11, 1, tzinfo=UTC), None]
    pq.write_table(pa.table({"item_id": ["0-1", "1-1"], "published_at": dates}), items)
    result = run("--events", events, "--items", items, "--models", "newest", "--json")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"session_id": [1], "ts": [1]}, "lacks the column item_id (there is: session_id, ts)"),
        (
            {"session_id": [1, None], "item_id": [1, 2], "ts": [1, 2]},
            "session_id is empty in 1 of 2 rows, first in row 2",
        ),
        ({"session_id": [1], "item_id": [1], "ts": ["x"]}, "ts must be a number or a timestamp, it is string"),
        ({"session_id": [1], "item_id": [0.5], "ts": [1]}, "item_id must be whole numbers or text, it is double"),
        ({"session_id": [1], "item_id": [1], "ts": [float("nan")]}, "are not finite"),
        ({"session_id": [1], "item_id": [1], "ts": [1]}, "leaves one side empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_exit_code_2(tmp_path, table, says):
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(table), path)
    result = run("--events", path)
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("header.csv", b"session_id,item_id,ts\n", "names its columns and holds no rows"),
        ("spaces.jsonl", b"\n\n", "lacks the column session_id, item_id, ts"),
        ("latin.csv", b"session_id,item_id,ts\ns,mug,1\ns,caf\xe9,2\n", "no text in UTF-8: line 3 holds the byte 0xe9"),
        ("latin_header.csv", b"caf\xe9,item_id,ts\n", "no text in UTF-8: line 1"),
        ("photo.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is no text (its first bytes are 89 50 4e 47"),
        ("excel.csv", "session_id,item_id,ts\n".encode("utf-16"), "is text in UTF-16"),
        ("nothing.csv", b"", "is empty"),
        ("packed.csv", b"\x1f\x8b\x08", "is packed (gzip)"),
        ("ragged.csv", b"session_id,item_id,ts\n1,2\n", "is not a CSV file that can be read"),
        ("other.csv", b"visit,item_id,ts\n1,2,3\n", "`thinslice import` it with --map"),
    ],
    ids=["header", "spaces", "latin", "latin header", "photo", "utf16", "nothing", "packed", "ragged", "other names"],
)
def test_a_file_that_is_no_log_is_refused_by_what_it_is(tmp_path, name, body, says):
    path = tmp_path / name
    path.write_bytes(body)
    result = run("--events", path)
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
    assert result.stdout == ""


def test_a_log_in_which_nothing_goes_with_anything_is_told_what_train_would_say(tmp_path):
    path = tmp_path / "lone.csv"
    path.write_text(
        "session_id,item_id,ts\n" + "".join(f"s{n},i{n % 7},{1_700_000_000 + n * 1000}\n" for n in range(90))
    )
    told = run("--events", path)
    assert (told.exit_code, "No session of this log holds two different items" in told.stderr) == (2, True)
    assert "popular is enough" in told.stderr
    path.write_text("session_id,item_id,ts\n" + "".join(f"s{n // 3},mug,{1_700_000_000 + n}\n" for n in range(90)))
    found = json.loads(run("--events", path, "--models", "popular,session-knn", "--json").stdout)
    assert found["simplest"] == "popular"
    assert "`train` chooses by 200 queries or more, these are" in found["sentence"]


def test_a_folder_is_refused_and_tabs_and_json_lines_are_read(events, tmp_path):
    assert "is a folder" in run("--events", tmp_path).stderr
    table = pq.read_table(events)
    tabs, lines = tmp_path / "events.tsv", tmp_path / "events.jsonl"
    csv.write_csv(table, tabs, csv.WriteOptions(delimiter="\t"))
    rows = [{**row, "ts": row["ts"].timestamp()} for row in table.to_pylist()]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    told = [json.loads(run("--events", path, "--models", "popular", "--json").stdout) for path in (events, tabs, lines)]
    assert len({(each["models"][0]["n"], each["models"][0]["hr"]) for each in told}) == 1


def test_no_parquet_no_file_no_such_model_and_nothing_named_are_refused_with_exit_code_2(tmp_path, events):
    text = tmp_path / "text.parquet"
    text.write_text("session_id,item_id,ts\n")
    for arguments, says in [
        (("--events", text), "is not a Parquet file that can be read"),
        (("--events", tmp_path / "none.parquet"), "there is no file"),
        (("--events", events, "--models", "deep"), "there is no model 'deep'"),
        (("--events", events, "--tenant", "shop"), "either --events FILE.parquet or --tenant NAME"),
        ((), "either --events FILE.parquet or --tenant NAME"),
        (("--events", events, "-k", 0), "1<=x<=1000"),
    ]:
        result = run(*arguments)
        assert (result.exit_code, says in result.stderr) == (2, True), result.stderr


@pytest.fixture
def tenant(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    assert CliRunner().invoke(program, ["init", "--workspace", str(workspace.root)]).exit_code == 0
    start = datetime.now(UTC) - timedelta(days=5)
    events = [
        Event(
            event_id=f"e{visit}-{click}", tenant="shop", name="view_item", visitor_id=f"v{visit % 20}",
            item_id=f"{visit % 2}-{(visit + click) % 5}", occurred_at=start + timedelta(hours=visit, minutes=click),
            received_at=start + timedelta(hours=visit, minutes=click),
        )
        for visit in range(100) for click in range(3)
    ]  # fmt: skip
    Lake(workspace.lake).append("events", events)
    return workspace


def test_why_says_what_buys_the_next_point_and_keeps_its_trials_in_the_lake(tenant):
    asked = ("--workspace", tenant.root, "--tenant", "shop", "--models", "session-knn", "--why", "--seeds", 2, "-k", 3)
    result = run(*asked)
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    for part in ("MRR@3", "0.5 of the sessions", "without the rarity of", "Twice the data would bring",
                 "were added to the table `trials`"):  # fmt: skip
        assert part in words
    found = json.loads(run(*asked, "--json").stdout)
    connection = Lake(tenant.lake).connect(tenant="shop")
    rows = connection.execute(
        "SELECT run_id, count(*), min(mrr) >= 0, max(lake_version) FROM trials GROUP BY 1"
    ).fetchall()
    connection.close()
    assert [row[1:] for row in rows] == [(len(found["trials"]), True, Lake(tenant.lake).version("events"))] * 2


def test_the_margin_is_the_tenants_unless_it_is_told(tenant):
    file = tenant.settings_file
    file.write_text(file.read_text().replace("[tenants.shop]", "[tenants.shop]\nmargin = 0.5", 1))
    asked = ("--workspace", tenant.root, "--tenant", "shop", "--models", "popular", "--json")
    assert json.loads(run(*asked).stdout)["protocol"]["margin"] == 0.5
    assert json.loads(run(*asked, "--margin", 0.1).stdout)["protocol"]["margin"] == 0.1


def test_two_questions_at_once_are_refused(events):
    for arguments, says in [(("--why", "--errors"), "two questions"), (("--why", "--refit-hours", 3), "learned once")]:
        result = run("--events", events, *arguments)
        assert (result.exit_code, says in result.stderr) == (2, True), result.stderr


def test_the_lake_of_a_tenant_is_evaluated_as_training_reads_it(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    assert CliRunner().invoke(program, ["init", "--workspace", str(workspace.root)]).exit_code == 0
    empty = run("--workspace", workspace.root, "--tenant", "shop", "--json")
    assert (empty.exit_code, "the lake holds nothing yet" in empty.stderr) == (2, True), empty.output
    start = datetime.now(UTC) - timedelta(days=5)
    events = [
        Event(
            event_id=f"e{visit}-{click}", tenant="shop", name="view_item", visitor_id=f"v{visit % 20}",
            item_id=f"{visit % 2}-{(visit + click) % 5}", occurred_at=start + timedelta(hours=visit, minutes=click),
            received_at=start + timedelta(hours=visit, minutes=click), is_bot=visit == 7,
        )
        for visit in range(100) for click in range(3)
    ]  # fmt: skip
    Lake(workspace.lake).append("events", events)
    result = run("--workspace", workspace.root, "--tenant", "shop", "--models", "popular,session-knn", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["protocol"]
    assert found["train_sessions"] + found["test_sessions"] == 99
    assert found["split"] == "last 1 day"
    strange = run("--workspace", workspace.root, "--tenant", "other")
    assert (strange.exit_code, "there is no tenant 'other'" in strange.stderr) == (2, True)
