"""Eight bugs that a team could make, put in on purpose wherever they fit: the suite has to turn red, each time.

A bug is a piece of a module's text and what stands there instead; `tests/injection.py` puts it in as the module is
imported. The guards are tests of the ordinary suite: they pass without the bug, and with it an assertion fails.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

ADAPTIVE, EFFECTS, LOOKS, SWITCHBACKS = (
    f"tests/stats/test_{name}.py" for name in ("adaptive", "effects", "looks", "switchback")
)
FILES, DESIGNS, BLOCKS, TRAINING = (
    f"tests/jobs/test_{name}.py" for name in ("analyze_file", "analyze_designs", "measure_blocks", "train")
)
REHEARSALS, REPORTS = "tests/jobs/test_rehearse.py", "tests/experiments/test_analyze.py"


class Bug(NamedTuple):
    """A piece of text that is replaced in a module, and tests that have to notice, each of them."""

    module: str
    old: str
    new: str
    guards: tuple[str, ...]


BUGS = {
    "zero-weight degrees of freedom": [
        Bug(
            "thinslice.stats.balance", "df = int(possible.sum()) - 1", "df = possible.size - 1",
            ("tests/stats/test_balance.py::test_a_variant_without_a_share_has_no_degree_of_freedom",
             "tests/experiments/test_checks.py::test_a_variant_with_a_share_of_zero_hides_no_mismatch"),
        ),
    ],
    "absolute interval divided by the mean": [
        Bug(
            "thinslice.stats.effects", "control.mean, treatment.mean, difference, ci, rel.change, rel.ci,",
            "control.mean, treatment.mean, difference, ci, rel.change, tuple(end / control.mean for end in ci),",
            (f"{EFFECTS}::test_every_number_is_that_of_tea_tasting",
             f"{DESIGNS}::test_means_ratios_and_cuped_are_those_of_tea_tasting"),
        ),
        Bug(
            "thinslice.stats.effects", "mean_control, mean_treatment, difference, ci, rel.change, rel.ci,",
            "mean_control, mean_treatment, difference, ci, rel.change, tuple(end / mean_control for end in ci),",
            (f"{ADAPTIVE}::test_the_relative_interval_of_scores_knows_that_control_varies_too",),
        ),
    ],
    "row-level variance": [
        Bug(
            "thinslice.stats.clusters",
            "np.unique(np.asarray(cluster), return_inverse=True)\n    code = code.ravel()\n    totals",
            "None, np.arange(np.size(cluster))\n    code = code.ravel()\n    totals",
            ("tests/stats/test_clusters.py::test_totals_are_sums_by_cluster_in_sorted_order",),
        ),
        Bug(
            "thinslice.stats.samples", "slope[of.names.index(metric.denominator)] -= top / bottom**2", "pass",
            (f"{EFFECTS}::test_every_number_is_that_of_tea_tasting",
             f"{EFFECTS}::test_absolute_effects_are_those_of_growthbook"),
        ),
        Bug(
            "thinslice.experiments.counting", "FROM {PERIODS_TABLE} GROUP BY unit_id) AS d",
            "FROM {PERIODS_TABLE} GROUP BY unit_id, period) AS d",
            (f"{FILES}::test_days_make_a_curve_that_ends_at_the_whole",
             f"{DESIGNS}::test_a_cap_holds_for_the_sum_of_a_unit_and_the_curve_ends_at_it"),
        ),
        Bug(
            "thinslice.experiments.counting", "FROM unit_totals GROUP BY {keys})",
            "FROM unit_totals GROUP BY {keys}, unit_id)",
            (f"{FILES}::test_clusters_have_as_many_degrees_of_freedom_as_there_are_clusters_less_two",),
        ),
    ],
    "no burn-in": [
        Bug(
            "thinslice.stats.switchback", "- start[code] >= burn_in", "- start[code] >= 0",
            (f"{SWITCHBACKS}::test_blocks_are_sums_without_the_first_periods",
             f"{SWITCHBACKS}::test_without_burn_in_what_the_other_side_left_behind_makes_the_effect_smaller"),
        ),
        Bug(
            "thinslice.jobs.file_blocks", "WHERE place > {ask.burn_in}", "WHERE place > 0",
            (f"{DESIGNS}::test_a_switchback_leaves_out_what_the_other_side_left_behind",),
        ),
        Bug(
            "thinslice.metrics.block_table", ">= {experiment.burn_in_minutes * 60!r}", ">= 0",
            (f"{BLOCKS}::test_blocks_that_are_over_are_counted_visitor_by_visitor_without_their_first_hour",
             f"{BLOCKS}::test_a_lift_is_found_by_drawing_the_assignment_again"),
        ),
    ],
    "post-treatment segment": [
        Bug(
            "thinslice.experiments.validity", "if segment in AFTER_EXPOSURE:", "if False:",
            ("tests/experiments/test_definition.py::test_a_file_that_does_not_hold_together_is_refused_with_its_reason",),
        ),
        Bug(
            "thinslice.experiments.health", "if found.pvalue < ALARM:\n            odd", "if False:\n            odd",
            (f"{DESIGNS}::test_a_segment_that_the_treatment_made_is_named_and_not_shown",),
        ),
        Bug(
            "thinslice.metrics.unit_table", "min(struct_pack({opening}))", "max(struct_pack({opening}))",
            ("tests/jobs/test_measure_designs.py::test_caps_quantiles_and_segments_as_of_the_first_exposure",),
        ),
    ],
    "pooled training left on": [
        Bug(
            "thinslice.jobs.train", "interactions_of(clicks, mask), own", "data.everyone, own",
            (f"{TRAINING}::test_each_variant_learns_from_its_own_sessions_and_those_before",),
        ),
        Bug(
            "thinslice.experiments.isolation", "mask = before.copy()", "mask = np.ones(labels.size, dtype=np.bool_)",
            (f"{TRAINING}::test_each_variant_learns_from_its_own_sessions_and_those_before",
             "tests/experiments/test_isolation.py::test_the_same_rng_leaves_out_the_same_sessions",
             f"{REHEARSALS}::test_pooled_training_turns_the_sign_around_and_isolated_training_does_not"),
        ),
        Bug(
            "thinslice.jobs.rehearsal.learning", "if not mark:", "if False:",
            (f"{REHEARSALS}::test_pooled_training_turns_the_sign_around_and_isolated_training_does_not",),
        ),
        Bug(
            "thinslice.experiments.checks", 'isolated = experiment.training == "isolated"', "isolated = True",
            (f"{REPORTS}::test_shared_training_is_told_as_a_warning",),
        ),
    ],
    "propensity of the wrong variant": [
        Bug(
            "thinslice.stats.adaptive", "inverse = 1 / cell.propensities[name] if name == served",
            "inverse = 1 / cell.propensities[variants[at - 1]] if name == served",
            (f"{ADAPTIVE}::test_the_scores_are_those_of_the_formula_unit_by_unit",
             f"{DESIGNS}::test_scores_use_the_probability_of_the_variant_that_was_served"),
        ),
        Bug(
            "thinslice.stats.adaptive", "(y[served] - expected[served]) / shares[served, place]",
            "(y[served] - expected[served]) / shares[served, place - 1]",
            (f"{ADAPTIVE}::test_scores_of_units_and_of_cells_are_the_same",
             f"{ADAPTIVE}::test_probabilities_that_follow_a_context_fake_no_effect"),
        ),
        Bug(
            "thinslice.experiments.evidence", "1 / logged[np.arange(labels.size), code]",
            "1 / logged[np.arange(labels.size), code - 1]",
            (f"{DESIGNS}::test_segments_and_clusters_are_weighted_by_the_probability_of_the_variant_that_was_served",),
        ),
        Bug(
            "thinslice.experiments.counting", "THEN p{at}\" for at", "THEN p{len(names) - 1 - at}\" for at",
            (f"{DESIGNS}::test_segments_and_clusters_are_weighted_by_the_probability_of_the_variant_that_was_served",),
        ),
    ],
    "look without correction": [
        Bug(
            "thinslice.experiments.compare", "if evidence.look is None:", "if True:",
            (f"{DESIGNS}::test_the_interval_of_a_planned_look_is_that_of_its_own_alpha",
             f"{REHEARSALS}::test_peeking_is_punished_where_it_is_not_planned"),
        ),
        Bug(
            "thinslice.stats.group_sequential", "nominal = tuple(2 * float(ndtr(-z)) for z in critical)",
            "nominal = tuple(alpha for _ in critical)",
            (f"{DESIGNS}::test_the_interval_of_a_planned_look_is_that_of_its_own_alpha",
             f"{REHEARSALS}::test_peeking_is_punished_where_it_is_not_planned"),
        ),
        Bug(
            "thinslice.stats.always_valid", "return se * math.sqrt(2 * scaled / (n * rho_squared) * log_term)",
            "return se * 1.959963984540054",
            (f"{LOOKS}::test_interval_p_value_and_nominal_alpha_say_the_same",
             f"{REHEARSALS}::test_peeking_is_punished_where_it_is_not_planned"),
        ),
    ],
}  # fmt: skip
EVERY = {f"{name} ({number})": bug for name, bugs in BUGS.items() for number, bug in enumerate(bugs, 1)}


def outcomes(bug, guards, tmp_path):
    """Test → what became of it, with the bug put in; None is no bug."""
    file = tmp_path / "bug.json"
    file.write_text(json.dumps({} if bug is None else {"module": bug.module, "old": bug.old, "new": bug.new}))
    environment = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "examples"), "OMP_NUM_THREADS": "1"}
    got = subprocess.run(
        [sys.executable, ROOT / "tests" / "injection.py", file, *guards],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert got.returncode == 0, got.stdout[-3_000:] + got.stderr[-3_000:]
    return json.loads(got.stdout.splitlines()[-1])


def of_guard(guard, found):
    """What became of a guard's cases."""
    return [how for test, how in found.items() if test == guard or test.startswith(f"{guard}[")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Bug → what became of its guards, later; no bug is "". Two run at a time."""
    guards = sorted({guard for bug in EVERY.values() for guard in bug.guards})
    with ThreadPoolExecutor(2) as pool:
        asked = {"": (None, guards)} | {name: (bug, bug.guards) for name, bug in EVERY.items()}
        yield {name: pool.submit(outcomes, *ask, tmp_path_factory.mktemp("bug")) for name, ask in asked.items()}


def test_without_a_bug_every_guard_passes(runs):
    found = runs[""].result()
    assert {guard for bug in EVERY.values() for guard in bug.guards if not of_guard(guard, found)} == set()
    assert {test: how for test, how in found.items() if how != "passed"} == {}


@pytest.mark.parametrize("name", EVERY)
def test_a_bug_turns_its_guards_red(name, runs):
    found = runs[name].result()
    for guard in EVERY[name].guards:
        cases = of_guard(guard, found)
        assert "wrong" in cases, f"{guard} says nothing of {name}: {found}"
        assert set(cases) <= {"passed", "wrong"}


def test_a_bug_whose_place_has_gone_is_an_error_and_no_pass(tmp_path):
    guards = (f"{EFFECTS}::test_one_unit_is_not_enough",)
    with pytest.raises(AssertionError, match="holds this 0 times"):
        outcomes(Bug("thinslice.stats.effects", "no such text", "", guards), guards, tmp_path)
    with pytest.raises(AssertionError, match=r"no test imported thinslice\.jobs\.demo"):
        outcomes(Bug("thinslice.jobs.demo", "", "", guards), guards, tmp_path)
