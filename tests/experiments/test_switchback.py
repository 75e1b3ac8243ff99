from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.experiments import assign, bucket, unit_id_of
from thinslice.experiments.switchback import block_of, block_start, block_variant, schedule
from thinslice.records import Experiment, Variant

START = datetime(2026, 3, 2, tzinfo=UTC)


def switchback(minutes=60.0, days=7.0, weights=(0.5, 0.5), start=START):
    variants = [Variant(name=f"v{n}", policy="popular", weight=weight) for n, weight in enumerate(weights)]
    return Experiment(
        name="fares", tenant="shop", variants=variants, unit="block", block_minutes=minutes,
        started_at=start, ends_at=start + timedelta(days=days), training="shared",
    )  # fmt: skip


def blocks_of(experiment):
    first = block_of(experiment, experiment.started_at.timestamp())
    return range(first, block_of(experiment, experiment.ends_at.timestamp()))


def test_everybody_sees_the_same_variant_within_a_block_and_blocks_are_the_units():
    of = switchback()
    at = START.timestamp()
    assert unit_id_of(of, visitor_id="anna", at=at) == unit_id_of(of, visitor_id="ben", at=at + 3_599)
    assert unit_id_of(of, at=at) != unit_id_of(of, at=at + 3_600)
    got = assign(of, unit_id_of(of, at=at), at)
    assert got.variant == block_variant(of, block_of(of, at), bucket)
    assert got.propensities == {"v0": 0.5, "v1": 0.5}


@given(st.floats(0, 4e9), st.sampled_from([7.0, 30.0, 60.0, 90.0, 240.0]))
def test_a_moment_lies_in_its_block(at, minutes):
    of = switchback(minutes)
    start = block_start(of, block_of(of, at)).timestamp()
    assert start <= at < start + minutes * 60


@pytest.mark.parametrize("weights", [(0.5, 0.5), (1 / 3, 1 / 3, 1 / 3)], ids=["two", "three"])
@pytest.mark.parametrize("minutes", [30.0, 60.0, 240.0])
def test_equal_variants_share_every_hour_of_the_day_alike(minutes, weights):
    of = switchback(minutes, days=6.0, weights=weights)
    hours = Counter((block_start(of, block).time(), block_variant(of, block, bucket)) for block in blocks_of(of))
    assert set(hours.values()) == {6 // len(weights)}


def test_over_a_fortnight_they_share_every_hour_of_the_week_alike():
    of = switchback(days=28.0)
    slots = Counter(
        (block_start(of, block).weekday(), block_start(of, block).hour, block_variant(of, block, bucket))
        for block in blocks_of(of)
    )
    assert len(slots) == 7 * 24 * 2
    assert set(slots.values()) == {2}


def test_unequal_shares_come_out_as_planned():
    of = switchback(minutes=10.0, days=60.0, weights=(0.2, 0.8))
    share = np.mean([variant == "v1" for variant in schedule(of, blocks_of(of), bucket)])
    assert abs(share - 0.8) < 0.015


def test_another_seed_is_another_draw_of_the_same_design():
    of = switchback(days=6.0)
    served = schedule(of, blocks_of(of), bucket)
    redrawn = [schedule(of, blocks_of(of), bucket, seed=f"again {n}") for n in range(200)]
    assert all(each.count("v1") == served.count("v1") == 72 for each in redrawn)
    shares = np.mean([[variant == "v1" for variant in each] for each in redrawn], axis=0)
    assert np.abs(shares - 0.5).max() < 0.15  # five standard errors of a fair coin


def test_a_variant_that_is_off_is_never_on():
    of = switchback(weights=(0.5, 0.5, 0.0))
    assert set(schedule(of, blocks_of(of), bucket)) == {"v0", "v1"}


def test_an_experiment_on_visitors_has_no_blocks():
    of = Experiment(name="a", tenant="shop", variants=[Variant(name="x", policy="popular", weight=1.0)])
    with pytest.raises(BadInput, match="randomizes visitors, not blocks of time"):
        block_of(of, 0.0)
