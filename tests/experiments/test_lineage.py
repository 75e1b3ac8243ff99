"""Lineage: every training click knows the variant that caused it, and what came from others is counted."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput, StatisticsError
from thinslice.experiments.isolation import training_filter
from thinslice.experiments.lineage import lineage
from thinslice.records import Experiment, Variant

START = datetime(2026, 5, 1, tzinfo=UTC)
NAMES = ["", "old", "new", "gone"]


def experiment(started=START):
    variants = [Variant(name="old", policy="popular", weight=0.5), Variant(name="new", policy="newest", weight=0.5)]
    return Experiment(name="test", tenant="shop", variants=variants, started_at=started)


def test_clicks_of_others_are_counted_and_those_from_before_are_nobodys():
    at = START.timestamp()
    found = lineage(
        experiment(), "old", ["old", "old", "new", "", "new"], [at - 1, at, at, at, at], [5, 10, 20, 7, 100],
        [True, True, True, True, False],
    )  # fmt: skip
    assert found.clicks == {"before": 5, "outside": 7, "old": 10, "new": 20}
    assert found.contamination == 20 / 42


sessions = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(-5, 5), st.integers(0, 9)), max_size=30)


@settings(max_examples=60, deadline=None)
@given(sessions, st.sampled_from(["old", "new"]), st.integers(0, 9))
def test_isolated_training_is_never_contaminated_and_every_click_has_one_origin(rows, variant, seed):
    labels = [label for label, _, _ in rows]
    starts = [START.timestamp() + at for _, at, _ in rows]
    clicks = [count for _, _, count in rows]
    mask = training_filter(experiment(), variant, labels, starts, rng=np.random.default_rng(seed))
    own = lineage(experiment(), variant, labels, starts, clicks, mask)
    assert own.contamination == 0
    everyone = lineage(experiment(), variant, labels, starts, clicks, np.ones(len(rows), dtype=bool))
    assert sum(everyone.clicks.values()) == sum(clicks)
    assert 0 <= everyone.contamination <= 1


def test_an_experiment_that_has_not_begun_and_a_model_without_clicks_are_clean():
    assert lineage(experiment(None), "old", ["new"], [1.0], [3], [True]).clicks["before"] == 3
    assert lineage(experiment(), "old", [], [], [], []).contamination == 0


def test_unknown_variants_and_columns_of_different_lengths_are_refused():
    with pytest.raises(BadInput, match="no variant 'third'"):
        lineage(experiment(), "third", [], [], [], [])
    with pytest.raises(StatisticsError, match="0 and 1 sessions"):
        lineage(experiment(), "old", ["old"], [1.0], [1], [])
