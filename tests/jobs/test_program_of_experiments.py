"""The ledger as a whole: what was shipped, by how much it counts, what offline figures said, and the holdout."""

import json
import math
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from click.testing import CliRunner

from thinslice.cli.experiment_ledger import ledger
from thinslice.cli.init import make_tenant
from thinslice.errors import UnknownName
from thinslice.experiments import dump_experiment
from thinslice.jobs.measure import experiment_file, report_file, write_report
from thinslice.jobs.program import holdout_effect, program_file, program_of, write_programs
from thinslice.records import Decision, Experiment, MetricResult, Report, Variant
from thinslice.settings import Workspace
from thinslice.store.lake import Lake
from thinslice.store.schemas import Decided, TrainedModel

START = datetime(2026, 3, 1, tzinfo=UTC)
HALF = 1.959963984540054 * 0.01


def result(name, variant, log, role="goal", half=HALF):
    return MetricResult(
        name=name, role=role, variant=variant, n_control=500, n_treatment=500, mean_control=1.0,
        mean_treatment=math.exp(log), effect_size=math.expm1(log), effect_size_ci=(0.0, 0.0),
        rel_effect_size=math.expm1(log), pvalue=0.5,
        rel_effect_size_ci=(math.expm1(log - half), math.expm1(log + half)),
    )  # fmt: skip


@pytest.fixture
def workspace(tmp_path):
    """Three tests that ended (one shipped, one kept, one invalid) and a holdout that runs."""
    workspace = Workspace(tmp_path)
    make_tenant(workspace, "shop")
    lake = Lake(workspace.lake)
    figures = {"popular": {"mrr": 0.1}, "session-knn": {"mrr": 0.2}, "newest": {"mrr": 0.05}}
    lake.append("models", [
        TrainedModel(tenant="shop", slot="live", version="v", trained_at=START, manifest={"offline": figures}),
        TrainedModel(tenant="shop", slot="live", version="w", trained_at=START + timedelta(days=9),
                     manifest={"offline": {"popular": {"mrr": 0.9}}}),
    ])  # fmt: skip
    for place, (name, policy, log, action) in enumerate(
        [("knn", "session-knn", 0.05, "ship"), ("fresh", "newest", -0.02, "keep"), ("odd", "newest", 0.9, "invalid")]
    ):
        define(workspace, name, policy)
        effects = {
            "revenue_per_visitor/new": result("revenue_per_visitor", "new", log),
            "views_per_visitor/new": result("views_per_visitor", "new", 0.0, role="guardrail"),
        }
        lake.add("decisions", [
            Decided(tenant="shop", experiment=name, decided_at=START + timedelta(days=20 + place), action=action,
                    sentence="So it was.", variant="new" if action == "ship" else "old",
                    effects={key: msgspec.to_builtins(row) for key, row in effects.items()}),
        ])  # fmt: skip
    return workspace


def define(workspace, name, policy, kind="test", since=START + timedelta(days=1), of=""):
    variants = [Variant(name="old", policy="popular", weight=0.5), Variant(name="new", policy=policy, weight=0.5)]
    path = experiment_file(workspace, "shop", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    started = Experiment(name=name, tenant="shop", kind=kind, of=of, variants=variants, started_at=since)
    path.write_text(dump_experiment(started), encoding="utf-8")


def held_out(workspace, log, half=HALF, since=START + timedelta(days=1), until=None):
    define(workspace, "holdout", "popular", kind="holdout", since=since)
    told(workspace, "holdout", log, half, until)


def told(workspace, name, log, half=HALF, until=None):
    decision = Decision(action="extend", variant=None, sentence="It runs.")
    write_report(
        report_file(workspace, "shop", name),
        Report(experiment=name, control="old", decision=decision, checks=[], as_of=until,
               metrics=[result("revenue_per_visitor", "new", log, half=half)]),
    )  # fmt: skip


def test_what_was_shipped_counts_and_what_was_not_valid_does_not(workspace):
    found = program_of(workspace, "shop")
    assert found.metric == "revenue_per_visitor"
    assert [(each.experiment, each.shipped) for each in found.outcomes] == [("knn", True), ("fresh", False)]
    assert found.cumulative.naive.value == pytest.approx(0.05)
    assert found.outcomes[0].effect.se == pytest.approx(0.01)


def test_offline_figures_are_those_from_before_the_start(workspace):
    told = {each.experiment: each.foretold for each in program_of(workspace, "shop").outcomes}
    assert told == pytest.approx({"knn": math.log(2), "fresh": math.log(0.5)})
    assert program_of(workspace, "shop").foretold.same_sign == 1.0


def test_a_running_holdout_is_asked(workspace):
    assert holdout_effect(workspace, "shop", "revenue_per_visitor") is None
    held_out(workspace, 0.05)
    assert program_of(workspace, "shop").agreement.agrees
    held_out(workspace, -0.2)
    assert not program_of(workspace, "shop").agreement.agrees


def test_a_holdout_is_held_to_what_was_shipped_while_it_ran(workspace):
    held_out(workspace, 0.0, since=START + timedelta(days=30))
    after = program_of(workspace, "shop")
    assert after.outcomes[0].in_holdout == 0.0
    assert (after.expected, after.agreement) == (None, None)
    held_out(workspace, 0.025, since=START, until=START + timedelta(days=40))
    half = program_of(workspace, "shop")
    assert half.outcomes[0].in_holdout == pytest.approx(0.5)
    assert half.expected.value == pytest.approx(half.cumulative.total.value / 2)
    assert half.agreement.agrees


def test_a_backtest_says_whether_what_was_shipped_still_helps(workspace):
    define(workspace, "knn-backtest", "session-knn", kind="backtest", of="knn")
    told(workspace, "knn-backtest", 0.04)
    first = program_of(workspace, "shop").outcomes[0]
    assert first.again.value == pytest.approx(0.04)
    assert first.lasts.agrees
    told(workspace, "knn-backtest", -0.05)
    assert not program_of(workspace, "shop").outcomes[0].lasts.agrees
    said = CliRunner().invoke(ledger, ["--workspace", str(workspace.root)]).output
    assert "backtest     -4.9 %" in said
    assert "does not agree" in said


def test_the_pages_file_is_what_the_command_prints(workspace):
    assert write_programs(workspace) == {}
    printed = CliRunner().invoke(ledger, ["--workspace", str(workspace.root), "--json"]).output
    assert json.loads(program_file(workspace, "shop").read_bytes()) == json.loads(printed)


def test_a_file_that_is_gone_takes_no_decision_with_it(workspace):
    experiment_file(workspace, "shop", "knn").unlink()
    first = program_of(workspace, "shop").outcomes[0]
    assert (first.experiment, first.shipped, first.foretold) == ("knn", True, None)


def test_another_metric_can_be_asked_for_and_an_unknown_one_is_refused_by_name(workspace):
    assert program_of(workspace, "shop", "views_per_visitor").cumulative.naive.value == pytest.approx(0.0)
    with pytest.raises(UnknownName, match="revenue_per_visitor, views_per_visitor"):
        program_of(workspace, "shop", "clicks")


def test_the_command_says_it_in_words_and_as_json(workspace):
    held_out(workspace, 0.05)
    said = CliRunner().invoke(ledger, ["--workspace", str(workspace.root)]).output
    assert "1 of 2 treatments were shipped" in said
    assert "The holdout agrees" in said
    assert "Offline figures foretold the sign of 100% of 2 online effects" in said
    got = json.loads(CliRunner().invoke(ledger, ["--workspace", str(workspace.root), "--json"]).output)
    assert got["naive"]["change"] == pytest.approx(math.expm1(0.05))
    assert got["agreement"]["agrees"] is True
    assert got["outcomes"][0]["offline_change"] == pytest.approx(1.0)


def test_before_the_first_decision_the_command_says_so(tmp_path):
    make_tenant(Workspace(tmp_path), "shop")
    assert "No experiment has ended" in CliRunner().invoke(ledger, ["--workspace", str(tmp_path)]).output
