"""All experiments together: luck is not counted, a holdout is asked, and offline figures are held to what they said."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import TooFewUnits
from thinslice.experiments.program import Outcome, foretold, log_effect, program, sentence
from thinslice.stats import estimate


def outcome(value, se=0.01, shipped=False, told=None, name="e"):
    return Outcome(name, "new", shipped, estimate(value, se), told)


def test_a_symmetric_log_interval_gives_back_its_standard_error_and_down_is_turned():
    half = 1.959963984540054 * 0.03
    row = {
        "rel_effect_size": math.expm1(0.02),
        "rel_effect_size_ci": [math.expm1(0.02 - half), math.expm1(0.02 + half)],
    }
    up, down = log_effect(row), log_effect({**row, "direction": "down"})
    assert (up.value, up.se) == pytest.approx((0.02, 0.03))
    assert (down.value, down.se) == pytest.approx((-0.02, 0.03))


@pytest.mark.parametrize(
    "row",
    [
        {"rel_effect_size": None, "rel_effect_size_ci": None},
        {"rel_effect_size": 0.1, "rel_effect_size_ci": [None, 0.2]},
        {"rel_effect_size": -1.0, "rel_effect_size_ci": [-1.2, 0.2]},
        {"rel_effect_size": 0.1, "rel_effect_size_ci": [0.1, 0.1]},
    ],
    ids=["no effect", "open end", "below nothing", "no width"],
)
def test_what_has_no_finite_log_interval_is_left_out(row):
    assert log_effect(row) is None


def test_what_was_shipped_brought_less_than_the_reports_say_and_the_sentence_names_both():
    rng = np.random.default_rng(0)
    seen = rng.normal(rng.normal(0, 0.005, 60), 0.005)
    found = program("revenue_per_visitor", [outcome(x, 0.005, x > 0.008) for x in seen])
    assert 0 < found.cumulative.total.value < found.cumulative.naive.value
    said = sentence(found)
    assert f"{found.cumulative.shipped} of 60 treatments were shipped" in said
    assert "counts luck too" in said


def test_a_holdout_that_says_the_same_agrees_and_another_does_not():
    shipped = [outcome(0.02, 0.004, True), outcome(0.01, 0.004), outcome(0.03, 0.004, True), outcome(0.0, 0.004)]
    near, far = (program("m", shipped, holdout=estimate(value, 0.01)) for value in (0.05, -0.05))
    assert (near.agreement.agrees, far.agreement.agrees) == (True, False)
    assert "The holdout agrees" in sentence(near)
    assert "does not agree" in sentence(far)


def test_offline_figures_that_told_half_of_it_have_slope_two_and_every_sign_right():
    told = [-0.02, 0.01, 0.03, 0.05]
    found = foretold([*(outcome(2 * x, told=x) for x in told), outcome(0.3)])
    assert (found.n, found.same_sign) == (4, 1.0)
    assert found.slope.value == pytest.approx(2.0)
    assert foretold([outcome(0.3)]) == (0, None, None)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.3, 0.3), st.floats(1e-3, 0.1), st.booleans()), min_size=1, max_size=12))
def test_every_program_has_a_sentence_and_an_interval_around_its_total(rows):
    found = program("m", [outcome(value, se, shipped) for value, se, shipped in rows])
    assert sentence(found)
    assert (found.cumulative is None) == (not any(shipped for *_, shipped in rows))
    if found.cumulative is not None:
        low, high = found.cumulative.total.ci
        assert low <= found.cumulative.total.value <= high


def test_without_an_ended_experiment_there_is_nothing_to_say():
    with pytest.raises(TooFewUnits, match="got 0"):
        sentence(program("m", []))
