import json

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from thinslice.cli.program import program
from thinslice.errors import BadSettings, UnknownName
from thinslice.experiments import assign
from thinslice.jobs.rehearsal.learning import count
from thinslice.jobs.rehearsal.shoppers import assigned_pool, two_variants
from thinslice.jobs.rehearsal.trials import Trial
from thinslice.jobs.rehearse import rehearse
from thinslice.simulate.scenarios import SCENARIOS, find_scenario, parse_scenario
from thinslice.simulate.worlds import MEAN_CLICKS, MEAN_EXPOSURES, MEAN_REVENUE, attention, clicked, fill_shelf, shop


def played(name, runs, rng=0, **numbers):
    return rehearse(name, msgspec.structs.replace(find_scenario(name), **numbers), runs=runs, rng=rng)


QUICK = {name: name for name in ("mean", "ratio", "cuped", "cluster", "bandit")}


def test_a_switchback_is_rehearsed_by_its_blocks():
    found = design(played("aa", 2, units=1_000, effect=4.0, designs={"switchback": "switchback"}), "switchback")
    assert found.rejection_rate == 1
    assert found.estimate_mean > 1_000


def design(found, name):
    return next(each for each in found.designs if each.name == name)


def test_pooled_training_turns_the_sign_around_and_isolated_training_does_not():
    found = played("shared-training", 2, visits_per_day=400, visitors=2_500, days=20)
    assert found.truth["effect_size"] > 0.02
    assert design(found, "pooled").wrong_sign_share == 1
    assert design(found, "pooled").warnings["isolated_training"] == 1
    assert design(found, "isolated").wrong_sign_share == 0
    assert design(found, "isolated").estimate_mean > 0.02


def test_two_rankers_that_are_the_same_have_no_effect_in_truth():
    found = played("shared-training", 1, visits_per_day=100, days=5, treatment="greedy", treatment_expects=0.04)
    same = played("shared-training", 1, visits_per_day=100, days=5, treatment="greedy", treatment_expects=0.04)
    assert abs(found.truth["effect_size"]) < 0.1
    assert found == same


def test_an_a_a_test_sees_few_differences_and_its_intervals_hold_zero():
    found = played("aa", 40, units=1_000, bandit_units=1_000, designs=QUICK)
    for each in found.designs:
        assert each.rejection_rate <= 0.2
        assert each.coverage == pytest.approx(1 - each.rejection_rate)
        assert each.wrong_sign_share is None


def test_a_true_effect_is_found_without_bias():
    found = played("aa", 60, effect=0.2, bandit_units=1_000, designs=QUICK)
    mean = design(found, "mean")
    assert found.truth["rel_effect_size"] == pytest.approx(0.2)
    assert mean.bias == pytest.approx(0, abs=4 * mean.estimate_se)
    assert design(found, "ratio").rejection_rate > 0.9


def test_shoppers_are_what_their_expected_values_say():
    shoppers = shop(np.random.default_rng(0), 400_000)
    assert shoppers.revenue_minor.mean() == pytest.approx(MEAN_REVENUE, rel=0.02)
    assert shoppers.clicks.sum() / shoppers.exposures.sum() == pytest.approx(MEAN_CLICKS / MEAN_EXPOSURES, rel=0.01)
    assert shoppers.exposures.mean() == pytest.approx(MEAN_EXPOSURES, rel=0.01)


def test_a_shelf_stays_as_full_as_it_is_and_its_items_leave_on_their_day():
    shelf = fill_shelf(
        np.random.default_rng(0), days=30, at_start=320, new_per_day=40, life_days=8, click_rate=0.05, evenness=20.0
    )
    assert [len(shelf.live(day)) for day in range(8, 30)] == [320] * 22
    assert shelf.rate.mean() == pytest.approx(0.05, abs=0.005)
    assert (shelf.gone - shelf.born)[320:].tolist() == [8] * (40 * 30)


def test_lower_places_are_clicked_as_often_as_they_are_looked_at():
    luck = np.random.default_rng(0).random((200_000, 3))
    hits = clicked(np.full((200_000, 3), 0.5), luck).mean(axis=0)
    np.testing.assert_allclose(hits, 0.5 * attention(3), atol=0.005)


def test_counts_are_by_item_and_place_of_what_is_still_there():
    arrays = count(np.array([[0, 2], [2, 1]]), np.array([[True, False], [True, True]]), np.array([1, 2]), 3, 9.0)
    assert arrays["shows"].tolist() == [[0, 1], [1, 1]]
    assert arrays["clicks"].tolist() == [[0, 1], [1, 0]]


def test_rehearsed_visitors_are_assigned_as_production_does():
    experiment = two_variants("a", 14)
    names = [variant.name for variant in experiment.variants]
    assert [names[at] for at in assigned_pool(experiment, 50)] == [
        assign(experiment, f"visitor-{number}").variant for number in range(50)
    ]


@pytest.mark.parametrize(
    ("ci", "covered"),
    [((0.5, 1.5), True), ((1.1, 1.5), False), ((None, 1.5), True), ((0.5, None), True), (None, False)],
    ids=["inside", "below", "no-low-end", "no-high-end", "no-interval"],
)
def test_an_interval_covers_the_truth_or_not(ci, covered):
    assert Trial("x", 1.0, 1.0, ci, False, ()).covered is covered


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("days = 3", "like"),
        ('like = "aa"\nunitz = 3', "'unitz'"),
        ('like = "aa"\nunits = "many"', "int"),
        ('like = "aa"\nunits = 0', "units is 0"),
        ('like = "shared-training"\nclick_rate = 2.0', "click_rate is 2"),
        ('like = "shared-training"\ncontrol = "clever"', "clever"),
        ("like = ", "TOML"),
    ],
    ids=["like-nothing", "strange", "type", "zero", "share", "ranker", "toml"],
)
def test_a_scenario_that_makes_no_world_is_refused_with_the_field(text, says):
    with pytest.raises(BadSettings, match=says):
        parse_scenario(text, "own.toml")


def test_a_name_that_is_no_scenario_lists_those_that_are():
    with pytest.raises(UnknownName, match="shared-training"):
        find_scenario("nothing")


def test_every_scenario_says_what_it_shows_and_what_it_compares():
    for scenario in SCENARIOS.values():
        assert scenario.says[-1] in ".?"
        assert scenario.designs


def test_the_command_prints_the_json_that_others_read(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('like = "shared-training"\nname = "ours"\nvisits_per_day = 100\ndays = 4\n')
    result = CliRunner().invoke(program, ["rehearse", str(own), "--runs", "1", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["scenario"], found["runs"]) == ("ours", 1)
    assert found["truth"]["effect_size"] == pytest.approx(
        found["truth"]["mean_treatment"] - found["truth"]["mean_control"]
    )
    assert [each["name"] for each in found["designs"]] == ["pooled", "isolated"]
    wanted = {"name", "estimate_mean", "estimate_se", "wrong_sign_share", "coverage", "rejection_rate", "warned_share"}
    assert all(wanted <= set(each) for each in found["designs"])


def test_the_command_ends_with_a_sentence_that_anyone_understands():
    result = CliRunner().invoke(program, ["rehearse", "adaptive-allocation", "--runs", "3"], terminal_width=100)
    assert result.exit_code == 0, result.output
    told = " ".join(result.stdout.split())
    assert told.endswith("5 % is what a sound test does.")
    assert "An ordinary A/B test warned: ! the split is not as planned (sample_ratio, 100 % of the runs)" in told
    assert "Without a warning: the test by logged probabilities." in told
    assert "3 runs tell little of rare things: what did not happen in them may happen in up to 71 % of all." in told
    for words in ("the truth", "found", "bias", "covers", "warns", "decides"):
        assert words in told


def test_the_command_lists_the_scenarios_and_refuses_others():
    runner = CliRunner()
    assert [row["name"] for row in json.loads(runner.invoke(program, ["rehearse", "--json"]).stdout)] == list(SCENARIOS)
    assert runner.invoke(program, ["rehearse", "nothing"]).exit_code == 2
    assert runner.invoke(program, ["rehearse", "nothing.toml"]).exit_code == 2


EXPERIMENT = """
name = "knn-or-popular"
days = 5
[[variants]]
name = "popular"
policy = "popular"
weight = 0.7
[[variants]]
name = "knn"
policy = "session-knn"
weight = 0.3
[[metrics]]
name = "click_through_rate"
[[metrics]]
name = "views_per_visitor"
margin = 0.05
"""


def test_an_experiments_own_file_is_rehearsed_with_and_without_an_effect(tmp_path):
    file = tmp_path / "knn-or-popular.toml"
    file.write_text(EXPERIMENT)
    arguments = ["rehearse", str(file), "--runs", "6", "--traffic", "2000", "--effect", "0.2", "--json"]
    result = CliRunner().invoke(program, [*arguments, "--workspace", str(tmp_path / "none")])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["truth"]["rel_effect_size"] == pytest.approx(0.2)
    nothing, effect = found["designs"]
    assert (nothing["name"], effect["name"]) == ("nothing", "effect")
    assert nothing["rejection_rate"] <= 0.5
    assert effect["rejection_rate"] == 1
    assert effect["actions"]["ship"] > 0.5


def test_results_that_steer_fool_an_ordinary_test_and_not_the_one_by_logged_probabilities():
    found = played("adaptive-allocation", 20)
    assert design(found, "naive").rejection_rate >= 0.4
    assert design(found, "naive").warnings["sample_ratio"] >= 0.8
    assert design(found, "aipw").rejection_rate <= 0.2
    assert design(found, "aipw").warned_share <= 0.1
    production = played("adaptive-allocation", 3, units=4_000, rule="weighted")
    assert design(production, "aipw").warned_share == 0


def test_logs_that_get_lost_in_one_browser_are_found_and_named():
    found = played("sample-ratio", 2, units=20_000)
    assert design(found, "unchecked").bias > 0.002
    assert design(found, "checked").actions == {"invalid": 1.0}
    assert design(found, "checked").warnings["sample_ratio_by_segment"] == 1
    healthy = played("sample-ratio", 1, units=20_000, lost=0.0)
    assert design(healthy, "checked").warned_share == 0


def test_peeking_is_punished_where_it_is_not_planned():
    found = played("peeking", 40, units=4_000)
    naive, sequence, planned = (design(found, name) for name in ("naive", "sequence", "planned"))
    assert naive.rejection_rate > planned.rejection_rate
    assert sequence.rejection_rate <= 0.1
    assert planned.rejection_rate <= 0.2
    assert 1.0 == naive.width < planned.width < 1.15 < sequence.width < 1.7


def test_an_effect_that_wears_off_is_named():
    found = played("novelty", 3, units=8_000, decay=0.2)
    assert design(found, "steady").warnings == {"novelty": 1.0}
    assert design(found, "whole").bias > 0.02
    assert played("novelty", 3, units=2_000, decay=0.0, steady=0.1).truth["effect_size"] == pytest.approx(0.1)


def test_a_segment_that_is_harmed_keeps_a_treatment_from_being_shipped():
    found = played("harmed-segment", 2, units=20_000, effect=0.2, harm=-0.3)
    assert design(found, "overall").rejection_rate == 1
    assert design(found, "segments").warnings["harmed_segment"] == 1
    assert "ship" not in design(found, "segments").actions


def test_one_stock_for_both_makes_a_test_of_visitors_too_hopeful_and_neighbors_too_modest():
    stock = played("interference", 4)
    assert design(stock, "visitors").estimate_mean > 1.5 * stock.truth["effect_size"]
    assert design(stock, "cities").bias == pytest.approx(0, abs=0.3 * stock.truth["effect_size"])
    assert design(stock, "visitors").warnings["spillover"] == 1
    assert design(stock, "cities").warned_share == 0
    social = played("interference-social", 4)
    assert design(social, "visitors").warnings["spillover"] == 1
    assert design(social, "cities").warned_share == 0
    assert design(social, "visitors").estimate_mean < 0.5 * social.truth["effect_size"]
    assert design(social, "cities").bias == pytest.approx(0, abs=0.3 * social.truth["effect_size"])


def test_what_was_shipped_brought_less_than_was_measured():
    found = played("winners-curse", 8)
    assert design(found, "sum").bias > 0.01
    assert abs(design(found, "hierarchy").bias) < design(found, "sum").bias / 2
    assert design(found, "hierarchy").coverage > design(found, "sum").coverage


def test_shoppers_who_do_not_meet_raise_no_warning():
    for name, alone in (("interference", {"stock": 0.0}), ("interference-social", {"social": 0.0})):
        assert design(played(name, 4, **alone), "visitors").warned_share == 0


def test_own_models_beside_pooled_ones_and_a_ramp_show_that_training_is_shared():
    small = {"markets": 3, "visits_per_day": 300, "days": 24, "days_before": 10}
    found = played("shared-training-detected", 1, **small)
    assert "own_against_pooled" in design(found, "cells").warnings
    assert "contamination" in design(found, "pooled-ramp").warnings
    assert "contamination" not in design(found, "cells").warnings
    same = played("shared-training-detected", 1, treatment="greedy", treatment_expects=0.04, **small)
    assert "own_against_pooled" not in design(same, "cells").warnings


def test_a_ranker_that_starts_cold_looks_worse_than_it_is_and_shadow_serving_helps():
    found = played("cold-start", 1)
    assert "effect_over_time" in design(found, "cold").warnings
    assert design(found, "cold").estimate_mean < design(found, "warm").estimate_mean
    assert design(found, "cold").estimate_mean < found.truth["effect_size"]


def test_a_log_promises_nothing_of_what_was_never_shown_and_says_so():
    found = played("feedback-loop", 1, visits_per_day=300, visitors=2_000, days=15)
    assert found.truth["effect_size"] > 0
    assert design(found, "log").wrong_sign_share == 1
    assert design(found, "log").warned_share == 1
    assert design(found, "isolated").wrong_sign_share == 0
