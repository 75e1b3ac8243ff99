"""Plots: zero is always drawn, bars stand where their numbers are, and what is open is cut at the edge."""

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.web import charts

ends = st.floats(-5, 5) | st.none()


@given(st.lists(st.tuples(ends, ends) | st.none()))
def test_zero_is_in_the_middle_of_the_shared_scale(intervals):
    assert charts.shared_scale(intervals).at(0.0) == 50.0


@given(st.floats(-0.9, 0.9), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_bar_begins_and_ends_at_its_bounds(point, below, above):
    scale = charts.Scale(-2.0, 2.0)
    bar = charts.bar(scale, point, (point - below, point + above))
    assert bar.left == pytest.approx(scale.at(point - below), abs=0.01)
    assert bar.left + bar.width == pytest.approx(scale.at(point + above), abs=0.01)
    assert not bar.cut_low
    assert not bar.cut_high


def test_an_open_bound_is_drawn_to_the_edge_and_said_to_be_cut():
    bar = charts.bar(charts.Scale(-1.0, 1.0), 0.5, (0.1, None))
    assert (bar.left, bar.width, bar.cut_low, bar.cut_high) == (55.0, 45.0, False, True)


def test_nothing_known_draws_nothing():
    assert charts.bar(charts.Scale(-1.0, 1.0), None, None) is None
    assert charts.cumulative_curve([None, 0.1], [None, (0.0, 0.2)], [None, None], "words") is None


@given(st.floats(1e-6, 1e3))
def test_ticks_are_few_round_and_hold_zero(reach):
    ticks = charts.Scale(-reach, reach).ticks(5)
    assert 3 <= len(ticks) <= 11
    assert "0 %" in [tick.text for tick in ticks]


def test_words_from_outside_cannot_leave_their_attribute():
    svg = charts.sparkline([1, 2, 3], '"><script>alert(1)</script>')
    assert ElementTree.fromstring(str(svg)).get("aria-label") == '"><script>alert(1)</script>'


def test_the_curve_ends_where_the_last_effect_is():
    curve = charts.cumulative_curve([0.2, 0.1], [(0.0, 0.4), (0.0, 0.2)], [(-0.1, 0.5), (-0.1, 0.3)], "words")
    svg = ElementTree.fromstring(str(curve.svg))
    line = next(part for part in svg if part.get("class") == "line")
    assert float(line.get("points").split()[-1].split(",")[1]) == pytest.approx(curve.last, abs=0.01)
    assert 0 < curve.last < 50
