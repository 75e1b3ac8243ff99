"""What is wrong with an experiment or its data, by the command line: a refusal that says why, or a named finding."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from thinslice.cli.program import program

GOOD = """
name = "knn-or-popular"
days = 7
[[variants]]
name = "popular"
policy = "popular"
weight = 0.5
[[variants]]
name = "knn"
policy = "session-knn"
weight = 0.5
[[metrics]]
name = "click_through_rate"
"""

FILES = {
    "weights do not sum to one": ("weight = 0.5\n[[variants]]", "weight = 0.4\n[[variants]]", "sum to 0.9"),
    "a metric that does not exist": ("click_through_rate", "joy", "'joy' is not built in"),
    "a column that does not exist": (
        'name = "click_through_rate"', 'name = "joy"\nnumerator = "smiles"', "'smiles' of metric 'joy' is unknown",
    ),
    "a weight that is no number": ("weight = 0.5\n[[variants]]", "weight = nan\n[[variants]]", "weight"),
    "a time without a zone": ("days = 7", "ends_at = 2026-03-08T00:00:00", "without a time zone"),
    "a margin that is no number": (
        'name = "click_through_rate"', 'name = "click_through_rate"\nmargin = nan', "margin",
    ),
    "days that are no number": ("days = 7", "days = nan", "days is nan"),
    "a tester in two variants": (
        'policy = "popular"\n', 'policy = "popular"\nforced = ["me", "me"]\n', "'me' is forced twice",
    ),
    "a goal known only afterwards as segment": ("days = 7", 'days = 7\nsegments = ["clicks"]', "known only after"),
    "one variant": ('[[variants]]\nname = "knn"\npolicy = "session-knn"\nweight = 0.5\n', "", "at least 2 variants"),
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    def call(*arguments):
        return CliRunner().invoke(program, [*map(str, arguments), "--workspace", str(tmp_path / "shop")])

    assert call("init", "--tenant", "shop").exit_code == 0
    return call


def refused(result, words):
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert result.stdout == ""


@pytest.mark.parametrize("case", FILES)
def test_an_experiment_that_does_not_hold_together_is_refused_with_the_reason(run, tmp_path, case):
    old, new, words = FILES[case]
    assert old in GOOD
    file = tmp_path / "bad.toml"
    file.write_text(GOOD.replace(old, new, 1))
    refused(run("experiment", "start", file, "--tenant", "shop"), words)
    refused(run("rehearse", file, "--runs", 1), words)
    assert json.loads(run("experiment", "list", "--json").stdout) == []


def test_a_file_that_was_changed_while_it_runs_is_refused_by_the_field(run, tmp_path):
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    started = run("experiment", "start", file, "--tenant", "shop")
    assert started.exit_code == 0, started.output
    kept = tmp_path / "shop" / "experiments" / "shop" / "knn-or-popular.toml"
    kept.write_text(kept.read_text().replace('policy = "session-knn"', 'policy = "newest"'))
    result = run("experiment", "report", "knn-or-popular", "--tenant", "shop", "--json")
    refused(result, "variants of 'knn-or-popular' changed after its start")


UNITS = 400


def rows(**columns):
    rng = np.random.default_rng(0)
    table = {
        "unit": [f"u{number}" for number in range(UNITS)],
        "arm": ["old" if number % 2 else "new" for number in range(UNITS)],
        "day": [f"2026-03-{1 + number // 2 % 10:02d}" for number in range(UNITS)],
        "shown": ["2026-03-01"] * UNITS,
        "clicks": rng.poisson(2, UNITS).tolist(),
        "slates": (rng.poisson(3, UNITS) + 1).tolist(),
    }
    table |= columns
    names = list(table)
    return "\n".join([",".join(names), *(",".join(map(str, row)) for row in zip(*table.values(), strict=True))])


def at(place, value, of):
    return [*of[:place], value, *of[place + 1 :]]


DAYS = [f"2026-03-{1 + number // 2 % 10:02d}" for number in range(UNITS)]
ONES = ["1"] * UNITS

REFUSED = {
    "an empty value": ({"clicks": at(7, "", ONES)}, [], "1 values that are empty or no finite numbers, the first in"),
    "NaN": ({"clicks": at(7, "nan", ONES)}, [], "no finite numbers, the first in data row 8"),
    "infinity": ({"clicks": at(7, "inf", ONES)}, [], "no finite numbers"),
    "words for numbers": ({"clicks": at(7, "many", ONES)}, [], "where numbers are needed"),
    "a column that is not there": ({}, ["--metric", "joy=smiles"], "no column 'smiles'"),
    "one variant": ({"arm": ["old"] * UNITS}, [], "only one variant"),
    "a control that is not there": ({"arm": ["a", "b"] * (UNITS // 2)}, [], "control 'old' does not occur"),
    "shares that do not sum to one": ({}, ["--expected", "0.5,0.4"], "sums to 0.9"),
    "a margin that is no number": ({}, ["--margin", "clicks=nan"], "no finite number"),
    "times with and without a zone": (
        {"day": at(3, "2026-03-02T10:00:00+02:00", [f"{day}T10:00:00" for day in DAYS])}, ["--day", "day"], "mixes",
    ),
    "probabilities that do not sum to one": (
        {"p": ["0.5"] * UNITS, "q": at(3, "0.4", ["0.5"] * UNITS)}, ["--propensity", "p,q"], "do not sum to 1",
    ),
}  # fmt: skip


def analyze(tmp_path, table, *options):
    path = tmp_path / "units.csv"
    path.write_text(table)
    return CliRunner().invoke(
        program,
        ["experiment", "analyze", str(path), "--unit", "unit", "--variant", "arm", "--control", "old", "--metric",
         "clicks=clicks", *options, "--json"],
    )  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_data_that_cannot_be_used_is_refused_with_the_place(tmp_path, case):
    columns, options, words = REFUSED[case]
    refused(analyze(tmp_path, rows(**columns), *options), words)


def numbers(value):
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, float) else []


def told(result):
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert all(math.isfinite(number) for number in numbers(found))
    return found, {check["name"]: check for check in found["checks"]}


def test_a_unit_in_two_variants_is_found_and_nothing_is_decided(tmp_path):
    doubled = rows(unit=["u0", "u0", *(f"u{number}" for number in range(2, UNITS))])
    result = analyze(tmp_path, doubled)
    found, checks = told(result)
    assert found["decision"]["action"] == "invalid"
    assert checks["mixed_assignment"]["detail"] == "1 of 399 units were seen in more than one variant"
    assert "Invalid" in found["decision"]["sentence"]


def test_outcomes_before_the_exposure_count_nowhere_and_are_named(tmp_path):
    late = rows(shown=["2026-03-05"] * UNITS)
    _, checks = told(analyze(tmp_path, late, "--day", "day", "--exposure", "shown"))
    assert not checks["outcomes_before_exposure"]["passed"]
    assert "160 rows of 160 units lie before" in checks["outcomes_before_exposure"]["detail"]
    assert checks["outcomes_before_exposure"]["advice"]


def test_days_without_rows_are_named(tmp_path):
    gap = rows(day=[day.replace("-05", "-06").replace("-04", "-03") for day in DAYS])
    _, checks = told(analyze(tmp_path, gap, "--day", "day"))
    assert not checks["missing_days"]["passed"]
    assert "2 of 10 days" in checks["missing_days"]["detail"]


@pytest.mark.parametrize("case", ["all zero", "a ratio over zero", "one unit a variant", "all the same"])
def test_what_cannot_be_compared_reads_cannot_say_with_the_reason_and_no_number(tmp_path, case):
    options = ["--metric", "rate=clicks/slates"] if case == "a ratio over zero" else []
    columns = {
        "all zero": {"clicks": ["0"] * UNITS}, "a ratio over zero": {"slates": ["0"] * UNITS},
        "all the same": {"clicks": ONES}, "one unit a variant": {},
    }[case]  # fmt: skip
    table = rows(**columns)
    if case == "one unit a variant":
        table = "\n".join(table.split("\n")[:3])
    found, _ = told(analyze(tmp_path, table, *options))
    row = found["metrics"][-1]
    assert (row["reading"], row["pvalue"], row["effect_size_ci"]) == ("cannot_say", None, None)
    assert row["why"]
    assert found["decision"]["action"] == "extend"


def test_times_in_other_zones_fall_on_days_in_utc(tmp_path):
    zoned = rows(day=[f"{day}T00:30:00+02:00" for day in DAYS])
    _, checks = told(analyze(tmp_path, zoned, "--day", "day"))
    assert checks["missing_days"]["passed"]
    found, _ = told(analyze(tmp_path, zoned, "--day", "day"))
    assert found["cumulative"][0]["until"].startswith("2026-02-28")
