"""The figures of docs/explain/trust.md that are asserted; `python -m benchmarks.trust` prints them all."""

import msgspec
import pytest

from thinslice.jobs.rehearse import rehearse
from thinslice.simulate.scenarios import find_scenario


def played(name, runs, **numbers):
    found = rehearse(name, msgspec.structs.replace(find_scenario(name), **numbers), runs=runs, rng=0)
    return found.truth["effect_size"], {design.name: design for design in found.designs}


@pytest.mark.slow
def test_pooled_training_has_the_wrong_sign_and_warns_and_isolated_training_is_right_where_items_come_and_go():
    truth, designs = played("shared-training", 10)
    assert truth > 0
    assert designs["pooled"].wrong_sign_share >= 0.9
    assert designs["pooled"].warned_share == 1
    assert designs["isolated"].wrong_sign_share <= 0.05


@pytest.mark.slow
def test_pooled_training_hides_the_effect_and_isolated_training_shows_it_where_items_stay():
    truth, designs = played("shared-training-static", 5)
    assert designs["pooled"].estimate_mean <= 0.2 * truth
    assert designs["isolated"].estimate_mean == pytest.approx(truth, rel=0.15)


@pytest.mark.slow
def test_a_bandits_a_a_test_rejects_as_often_as_it_should_by_logged_probabilities_alone():
    _, designs = played("adaptive-allocation", 600)
    assert designs["naive"].rejection_rate >= 0.5
    assert 0.02 <= designs["aipw"].rejection_rate <= 0.085
    assert designs["aipw"].warnings.get("sample_ratio", 0.0) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.0, 0.2])
def test_a_switchback_and_a_bandits_revenue_are_judged_as_often_right_as_promised(effect):
    """600 runs: 95 % plus or minus three standard errors of 0.9 points."""
    _, designs = played("aa", 600, effect=effect, bandit_units=4_000, designs={"switchback": "s", "bandit": "b"})
    for design in designs.values():
        assert 0.923 <= design.coverage <= 0.977
    if not effect:
        assert all(0.023 <= design.rejection_rate <= 0.077 for design in designs.values())


@pytest.mark.slow
def test_fourteen_looks_are_wrong_no_more_often_than_one():
    _, designs = played("peeking", 600)
    assert designs["naive"].rejection_rate > 0.15
    assert designs["sequence"].rejection_rate <= 0.06
    assert designs["planned"].rejection_rate <= 0.07
    assert designs["planned"].width <= 1.15
    assert designs["sequence"].width <= 1.7


@pytest.mark.slow
def test_a_program_of_experiments_is_added_up_without_its_luck():
    _, designs = played("winners-curse", 120)
    assert designs["sum"].coverage < 0.5
    assert designs["hierarchy"].coverage >= 0.9
