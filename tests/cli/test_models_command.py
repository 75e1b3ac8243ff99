"""Models in hand: list, diff, promote and roll back; a model that was spoiled on purpose does not go live."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from click.testing import CliRunner

from thinslice.cli.init import make_tenant
from thinslice.cli.program import program
from thinslice.jobs.demo import fill
from thinslice.jobs.train import train
from thinslice.records import Event
from thinslice.settings import Workspace
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A trained shop, its workspace copied for each test by `workspace`."""
    workspace = Workspace(tmp_path_factory.mktemp("shop"))
    make_tenant(workspace, "shop")
    fill(workspace, "shop", now=NOW, sessions=1500)
    train(workspace, "shop", now=NOW)
    return workspace


@pytest.fixture
def workspace(shop, tmp_path):
    import shutil

    shutil.copytree(shop.root, tmp_path / "copy")
    return Workspace(tmp_path / "copy")


def run(workspace, *arguments, code=0):
    result = CliRunner().invoke(program, ["models", *arguments, "--workspace", str(workspace.root)])
    assert result.exit_code == code, result.output
    return result.output


def more_clicks(workspace, name="late"):
    at = NOW - timedelta(minutes=1)
    rows = [
        Event(event_id=f"{name}-{number}", tenant="shop", name="view_item", visitor_id=name, item_id=f"{name}-{number}",
              occurred_at=at, received_at=at) for number in range(3)
    ]  # fmt: skip
    Lake(workspace.lake).append("events", rows)


def live(workspace):
    return FileArtifacts(workspace.models).live("shop")["live"]


def spoil(workspace):
    """Stores a generation whose kNN names every item wrongly, and leaves it not live."""
    artifacts = FileArtifacts(workspace.models)
    arrays, manifest = artifacts.load("shop", live(workspace))
    item = np.array(arrays["session-knn"]["item"])
    arrays["session-knn"] = {**arrays["session-knn"], "item": np.random.default_rng(0).permutation(item)}
    return artifacts.put("shop", "live", arrays, manifest)


def test_the_list_says_what_is_live_and_how_it_ranked(workspace):
    (row,) = json.loads(run(workspace, "list", "--json"))
    assert {"name", "version", "sha256", "lake_version", "live"} <= set(row)
    assert row["live"]
    assert row["offline"]["session-knn"]["n"] > 200
    assert "(live)" in run(workspace, "list")


def test_the_list_shows_the_figures_of_what_visitors_get(workspace):
    text = workspace.settings_file.read_text().replace('default_policy = "session-knn"', 'default_policy = "auto"')
    workspace.settings_file.write_text(text)
    (trained,) = train(workspace, "shop", now=NOW)
    shown = next(line for line in run(workspace, "list").splitlines() if "(live)" in line)
    assert shown.split()[-2] == trained.default
    assert f"{trained.offline[trained.default]['mrr']:.3f}" in shown


def test_the_list_names_the_model_where_policies_of_one_model_rank_alike(workspace, monkeypatch):
    from thinslice.jobs import generations

    (row,) = generations.listed(workspace, "shop")
    figures = {"n": 300, "hr": 0.9, "mrr": 0.8}
    row = {**row, "offline": {"careful": figures, "session-knn": figures, "popular": {"n": 300, "hr": 0.1, "mrr": 0.1}}}
    monkeypatch.setattr(generations, "listed", lambda *_: [row])
    assert "0.900  0.800  session-knn" in run(workspace, "list")


def test_a_spoiled_model_is_refused_and_force_leaves_a_note(workspace):
    good, spoiled = live(workspace), spoil(workspace)
    said = run(workspace, "promote", spoiled, code=1)
    assert "session-knn: not worse than live" in said
    assert live(workspace) == good
    assert "By force, against this: session-knn" in run(workspace, "promote", spoiled, "--force")
    assert live(workspace) == spoiled
    assert "promote by hand, by force against" in run(workspace, "list")


def test_rollback_is_one_command_and_scheduled_trainings_leave_it_there(workspace):
    first = live(workspace)
    more_clicks(workspace)
    train(workspace, "shop", now=NOW)
    second = live(workspace)
    assert "is live again" in run(workspace, "rollback")
    assert live(workspace) == first
    more_clicks(workspace, "later")
    (trained,) = train(workspace, "shop", now=NOW, scheduled=True)
    assert not trained.live
    assert live(workspace) == first
    assert "held since a rollback" in run(workspace, "list")
    run(workspace, "promote", second)
    assert live(workspace) == second
    (trained,) = train(workspace, "shop", now=NOW, scheduled=True)
    assert live(workspace) == trained.version


def test_there_is_nothing_before_the_first(workspace):
    assert "no earlier version" in run(workspace, "rollback", code=2)


def test_diff_says_what_changed_in_data_and_in_slates(workspace):
    more_clicks(workspace)
    train(workspace, "shop", now=NOW)
    found = json.loads(run(workspace, "diff", "--json"))
    assert any(change.startswith("data:") for change in found["changes"])
    knn = next(row for row in found["policies"] if row["policy"] == "session-knn")
    low, high = knn["difference"]["hr"]["ci"]
    assert low <= knn["difference"]["hr"]["value"] <= high
    assert 0.9 < knn["overlap"] <= 1
    assert knn["sessions"] > 1000
    assert "slates" in run(workspace, "diff", "previous", "live")


def test_a_generation_differs_from_itself_in_nothing(workspace):
    found = json.loads(run(workspace, "diff", "live", "live", "--json"))
    assert found["changes"] == ["nothing: the same data, settings and code."]
    assert {row["overlap"] for row in found["policies"]} == {1.0}
    assert {row["difference"]["mrr"]["value"] for row in found["policies"]} == {0.0}


def test_a_spoiled_model_shows_in_the_diff(workspace):
    spoiled = spoil(workspace)
    found = json.loads(run(workspace, "diff", "live", spoiled[:6], "--policy", "session-knn", "--json"))
    assert found["policies"][0]["difference"]["hr"]["ci"][1] < 0
    assert found["policies"][0]["overlap"] < 0.7


def test_an_unknown_version_is_told_which_there_are(workspace):
    assert live(workspace) in run(workspace, "promote", "zzz", code=2)


def test_training_says_on_stderr_what_is_under_way_and_json_stays_alone_on_stdout(workspace, monkeypatch):
    monkeypatch.setattr("thinslice.cli.train.EVERY_S", 0.0)
    more_clicks(workspace)
    result = CliRunner().invoke(program, ["train", "--json", "--workspace", str(workspace.root)])
    said = result.stderr.splitlines()
    assert said[0] == "the log is read"
    assert any(line.startswith("session-knn learns from ") for line in said)
    assert json.loads(result.stdout)[0]["slot"] == "live"
