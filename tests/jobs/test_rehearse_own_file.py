"""An experiment's file is rehearsed as it is: clusters, blocks of time, planned looks, weights that results steer."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from thinslice.cli.init import make_tenant
from thinslice.errors import BadInput
from thinslice.jobs.rehearsal.own import own_experiment
from thinslice.jobs.rehearsal.own_shoppers import columns
from thinslice.jobs.rehearse import rehearse
from thinslice.settings import Workspace

VARIANTS = 'variants = [{name = "old", policy = "popular"}, {name = "new", policy = "session-knn"}]\n'
VIEWS = '[[metrics]]\nname = "views_per_visitor"\n'


def own(tmp_path, text, metrics=VIEWS, traffic=300.0, effect=0.3):
    file = f'name = "own"\n{text}\n{VARIANTS}{metrics}'.encode()
    return own_experiment(Workspace(tmp_path / "none"), None, file, "own.toml", traffic=traffic, effect=effect)


def played(tmp_path, text, runs=6, **more):
    name, scenario = own(tmp_path, text, **more)
    found = rehearse(name, scenario, runs=runs)
    return found, {design.name: design for design in found.designs}


def test_clusters_are_drawn_whole_and_analyzed_whole(tmp_path):
    found, designs = played(tmp_path, 'unit = "cluster"\ncluster = "city"\ndays = 10\ncovariate_days = 14')
    assert "in 60 clusters" in found.says
    assert found.truth["rel_effect_size"] == pytest.approx(0.3)
    assert designs["effect"].rejection_rate > 0.6
    assert designs["effect"].estimate_mean == pytest.approx(1.5, abs=0.4)
    alone, _ = played(tmp_path, "days = 10", runs=2)
    assert designs["nothing"].estimate_sd > 2 * alone.designs[0].estimate_sd


def test_blocks_of_time_follow_productions_schedule_and_leave_out_their_burn_in(tmp_path):
    text = 'unit = "block"\nblock_minutes = 360\nburn_in_minutes = {}\ndays = 14\nsegments = ["device"]'
    found, designs = played(tmp_path, text.format(120))
    assert "in 56 blocks of 6 hours" in found.says
    assert designs["effect"].rejection_rate == 1
    assert designs["effect"].estimate_mean == pytest.approx(1.5, abs=0.2)
    assert designs["nothing"].rejection_rate <= 0.5
    tail = '[[metrics]]\nname = "tail"\nnumerator = "views"\nquantile = 0.9\n'
    quantile, _ = played(tmp_path, text.format(0), runs=1, metrics=tail)
    assert quantile.truth["effect_size"] == pytest.approx(3, abs=1.01)


def test_a_policy_that_the_tenant_does_not_have_is_refused_as_a_start_refuses_it(tmp_path):
    workspace = Workspace(tmp_path)
    make_tenant(workspace, "shop")
    file = b'name = "own"\nvariants = [{name = "old", policy = "popular"}, {name = "new", policy = "session-knm"}]\n'
    with pytest.raises(BadInput, match="there is no policy 'session-knm'"):
        own_experiment(workspace, "shop", file, "own.toml", traffic=100.0, effect=0.1)


def test_planned_looks_are_all_taken_with_their_own_alpha(tmp_path):
    found, designs = played(tmp_path, "days = 8\nlooks = 4", runs=40, effect=0.1)
    assert "with 4 planned looks" in found.says
    assert designs["nothing"].rejection_rate <= 0.15
    assert 0.5 < designs["effect"].rejection_rate <= 1
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = f"started_at = {start.isoformat()}\nlooks = [{(start + timedelta(days=2)).isoformat()}]\ndays = 4"
    assert "with 1 planned look," in own(tmp_path, times)[1].says


def test_weights_that_results_steer_are_steered_and_told_with_their_probabilities(tmp_path):
    found, designs = played(tmp_path, 'days = 6\nallocation = "thompson"', runs=8)
    assert "steered by results" in found.says
    assert designs["effect"].estimate_mean == pytest.approx(1.5, abs=0.3)
    assert "sample_ratio" not in designs["effect"].warnings
    assert designs["nothing"].rejection_rate <= 0.25


def test_caps_segments_and_coverage_are_those_of_the_file(tmp_path):
    metrics = '[[metrics]]\nname = "revenue_per_visitor"\ncap_quantile = 0.97\n'
    found, _ = played(tmp_path, 'days = 10\ncoverage = 0.5\nsegments = ["device"]', runs=1, metrics=metrics)
    assert found.truth["rel_effect_size"] == pytest.approx(0.3, abs=0.02)
    assert found.truth["mean_control"] < 520


def test_what_cannot_be_rehearsed_says_so(tmp_path):
    with pytest.raises(BadInput, match="7 blocks of time in 7 days"):
        own(tmp_path, 'unit = "block"\nblock_minutes = 1440\ndays = 7')
    with pytest.raises(BadInput, match="steer clusters"):
        own(tmp_path, 'unit = "cluster"\ncluster = "city"\nallocation = "thompson"')
    with pytest.raises(BadInput, match="at most"):
        own(tmp_path, "days = 14", traffic=1e6)


def test_the_same_shoppers_have_the_same_luck_under_another_lift():
    plain, lifted = (columns(np.random.default_rng(0), np.full(500, lift)) for lift in (0.0, 0.2))
    assert (lifted["converted"] >= plain["converted"]).all()
    assert (lifted["past views"] == plain["past views"]).all()
