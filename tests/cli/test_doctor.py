"""The doctor: an empty, a half-filled and a healthy workspace each hear what is the matter and what to do."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from thinslice.cli.init import make_tenant
from thinslice.cli.program import program
from thinslice.jobs.checkup import CHECKS, check_up
from thinslice.jobs.demo import fill
from thinslice.jobs.train import train
from thinslice.records import Event, Item, Quarantined
from thinslice.settings import Workspace
from thinslice.store.lake import Lake

NOW = datetime.now(UTC).replace(microsecond=0)


def doctor(workspace):
    result = CliRunner().invoke(program, ["doctor", "--workspace", str(workspace.root), "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == (1 if report["status"] == "problem" else 0), result.output
    assert [finding["name"] for finding in report["findings"]] == list(CHECKS)
    for finding in report["findings"]:
        assert finding["message"]
        assert (finding["advice"] == "") == (finding["status"] == "ok"), finding
    return report["status"], {finding["name"]: finding for finding in report["findings"]}


def events(count, *, at=NOW, known=True):
    return [
        Event(event_id=f"e{number}", tenant="shop", name="view_item", occurred_at=at, received_at=at,
              visitor_id=f"v{number % 50}", item_id=f"i{number % 9}" if known else "nobody-knows")
        for number in range(count)
    ]  # fmt: skip


@pytest.fixture
def half(tmp_path):
    workspace = Workspace(tmp_path / "w")
    make_tenant(workspace, "shop")
    return workspace


def test_an_empty_workspace_is_told_to_begin_with_init(tmp_path):
    status, findings = doctor(Workspace(tmp_path / "nowhere"))
    assert status == "problem"
    assert "thinslice init" in findings["settings"]["advice"]
    assert not (tmp_path / "nowhere" / "lake").exists()


def test_a_workspace_without_data_is_told_to_import_some(half):
    status, findings = doctor(half)
    assert status == "problem"
    assert findings["settings"]["status"] == findings["keys"]["status"] == "ok"
    assert "thinslice import events" in findings["events"]["advice"]
    assert "thinslice import items" in findings["catalog"]["advice"]


def test_events_without_a_model_are_told_to_train(half):
    Lake(half.lake).append("events", events(100))
    _, findings = doctor(half)
    assert findings["events"]["status"] == "ok"
    assert findings["model"]["status"] == "problem"
    assert "thinslice train" in findings["model"]["advice"]


def test_old_events_are_called_stale(half):
    Lake(half.lake).append("events", events(100, at=NOW - timedelta(days=9)))
    assert "9.0 days" in doctor(half)[1]["freshness"]["message"]


@pytest.mark.parametrize(
    "why",
    [
        {"in_stock": False},
        {"status": "retired"},
        {"expires_at": NOW - timedelta(days=1)},
        {"published_at": NOW + timedelta(days=1)},
    ],
    ids=["sold out", "retired", "expired", "not yet"],
)
def test_a_feed_that_leaves_nothing_to_show_is_a_problem_and_one_item_mends_it(half, why):
    lake = Lake(half.lake)
    lake.append("items", [Item(item_id=f"i{n}", tenant="shop", updated_at=NOW, **why) for n in range(3)])
    finding = doctor(half)[1]["catalog"]
    assert finding["status"] == "problem"
    assert "none of the 3 items of shop may be shown" in finding["message"]
    lake.append("items", [Item(item_id="i9", tenant="shop", updated_at=NOW)])
    assert doctor(half)[1]["catalog"]["status"] == "ok"


def test_vectors_that_cannot_be_learned_from_are_counted_by_name(half):
    fill(half, "shop", now=NOW, sessions=20)
    vectors = [[1.0, 2.0], [2.0, 1.0], [float("nan"), 1.0], [0.0, 0.0], [1.0, 2.0, 3.0]]
    items = [
        Item(item_id=f"v{n}", tenant="shop", updated_at=NOW, title=f"thing {n}", vectors={"image": vector})
        for n, vector in enumerate(vectors)
    ]
    Lake(half.lake).append("items", items)
    train(half, "shop", now=NOW)
    finding = doctor(half)[1]["model"]
    assert finding["status"] == "look"
    assert "'image' (1 not finite, 1 all zero, 1 of another length than 2; 2 are used) of shop" in finding["message"]


def test_events_that_name_unknown_items_are_worth_a_look(half):
    fill(half, "shop", now=NOW, sessions=5)
    Lake(half.lake).append("events", events(1000, known=False))
    finding = doctor(half)[1]["unjoined"]
    assert finding["status"] == "look"
    assert "same ids" in finding["advice"]


def test_a_full_quarantine_names_its_most_common_reason(half):
    rows = [
        Quarantined(quarantine_id=f"q{number}", tenant="shop", kind="event", raw="{}", code="missing_field",
                    reason="no item", field="item_id", received_at=NOW)
        for number in range(30)
    ]  # fmt: skip
    Lake(half.lake).append("quarantine", rows)
    finding = doctor(half)[1]["quarantine"]
    assert finding["status"] == "look"
    assert "missing_field in item_id" in finding["message"]


def test_a_damaged_model_is_a_problem_and_stops_no_other_check(half):
    fill(half, "shop", now=NOW, sessions=40)
    version = train(half, "shop", now=NOW)[0].version
    array = next(path for path in half.models.rglob("*.npy") if version in str(path))
    array.chmod(0o644)
    array.write_bytes(array.read_bytes()[:-1] + b"\x07")
    status, findings = doctor(half)
    assert status == "problem"
    assert findings["model"]["status"] == "problem"
    assert findings["catalog"]["status"] == "ok"


def test_a_healthy_workspace_is_well_but_for_the_service_that_does_not_run(half):
    fill(half, "shop", now=NOW, sessions=60)
    train(half, "shop", now=NOW)
    status, findings = doctor(half)
    assert status == "look"
    assert [name for name, finding in findings.items() if finding["status"] != "ok"] == ["service"]
    assert "thinslice serve" in findings["service"]["advice"]


def test_a_table_whose_file_is_broken_is_named_by_doctor_and_in_one_line_by_train(half):
    Lake(half.lake).append("events", events(60))
    file = next((half.lake / "events").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    status, findings = doctor(half)
    assert status == "problem"
    assert file.name[:30] in findings["events"]["message"]
    assert "\n" not in findings["events"]["message"]
    assert findings["keys"]["status"] == "ok", "the other checks go on"
    refused = CliRunner().invoke(program, ["train", "--workspace", str(half.root)])
    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: the lake cannot be read: ")
    assert refused.stderr.count("\n") == 1


def test_a_broken_model_is_to_be_trained_again(half):
    fill(half, "shop", now=NOW, sessions=60)
    (trained,) = train(half, "shop", now=NOW)
    (half.models / "shop" / "versions" / trained.version / "manifest.json").unlink()
    status, findings = doctor(half)
    assert (status, findings["model"]["advice"]) == ("problem", "Train again.")
    assert CliRunner().invoke(program, ["models", "list", "--workspace", str(half.root)]).exit_code == 0


def test_words_are_for_people_and_say_the_same(half):
    result = CliRunner().invoke(program, ["doctor", "--workspace", str(half.root)])
    assert result.exit_code == 1, "a cron job must hear of it"
    assert "PROBLEM" in result.output
    assert len([line for line in result.output.splitlines() if line.startswith("  ") and "→" not in line]) == len(
        CHECKS
    )


def test_broken_settings_are_named_with_their_place(tmp_path):
    (tmp_path / "thinslice.toml").write_text("[serve]\nport = 'x'\n")
    finding = check_up(Workspace(tmp_path), NOW)[0]
    assert finding.status == "problem"
    assert "serve.port" in finding.message
    assert "Mend" in finding.advice
    assert "thinslice init" not in finding.advice


def test_an_experiment_file_that_stops_the_training_is_named(half):
    folder = half.experiments / "shop"
    folder.mkdir(parents=True)
    (folder / "a.toml").write_text(
        'name = "a"\nstarted_at = 2026-01-01T00:00:00Z\n'
        'variants = [{name = "x", policy = "popular"}, {name = "y", policy = "newest"}]\n', encoding="utf-8"
    )  # fmt: skip
    assert doctor(half)[1]["experiments"]["message"] == "1 running."
    (folder / "b.toml").write_bytes(b"\xff")
    status, findings = doctor(half)
    assert status == "problem"
    assert "b.toml is no text in UTF-8" in findings["experiments"]["message"]
    assert "not trained" in findings["experiments"]["advice"]


def test_what_was_withheld_rolled_back_or_forced_is_named(half):
    fill(half, "shop", now=NOW, sessions=900)
    train(half, "shop", now=NOW)
    assert doctor(half)[1]["promotion"]["status"] == "ok"
    half.settings_file.write_text(
        half.settings_file.read_text()
        + '\n[tenants.shop.policies.session-knn]\nmodel = "session-knn"\n'
        + "settings = { sample = 2, neighbors = 1, reach = 1 }\n"
    )
    train(half, "shop", now=NOW)
    assert "withheld: session-knn of shop (" in doctor(half)[1]["promotion"]["message"]
    train(half, "shop", now=NOW, force=True)
    assert "live by force: session-knn of shop" in doctor(half)[1]["promotion"]["message"]
    CliRunner().invoke(program, ["models", "rollback", "--workspace", str(half.root)])
    found = doctor(half)[1]["promotion"]
    assert "held since: live of shop" in found["message"]
    assert "models promote" in found["advice"]


def test_models_that_do_not_fit_the_memory_are_named(half):
    fill(half, "shop", now=NOW, sessions=50)
    train(half, "shop", now=NOW)
    assert doctor(half)[1]["memory"]["status"] == "ok"
    half.settings_file.write_text(half.settings_file.read_text() + "\n[models]\nmemory_mb = 0\n")
    counters = half.run / "counters"
    counters.mkdir(parents=True)
    for worker, at, gone in (("w1", time.time(), ["shop"]), ("w2", time.time() - 60, ["old"])):
        counters.joinpath(f"{worker}.json").write_text(json.dumps({"at": at, "tenants": {}, "gave_way": gone}))
    found = doctor(half)[1]["memory"]
    assert found["status"] == "problem"
    assert "Without room now: shop." in found["message"]
    assert "memory_mb" in found["advice"]
