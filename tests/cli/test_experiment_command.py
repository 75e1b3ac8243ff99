import io
import json
import re
from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from rich.console import Console

from thinslice.cli.experiment_report import print_report
from thinslice.cli.program import program
from thinslice.experiments import parse_experiment
from thinslice.experiments.analyze import analyze
from thinslice.experiments.evidence import Units
from thinslice.metrics import DEFAULT_METRICS
from thinslice.records import Experiment, Metric, Variant

NOW = datetime(2026, 3, 8, tzinfo=UTC)

FILE = """
name = "ranker"
days = 14
variants = [{name = "popular", policy = "popular"}, {name = "knn", policy = "session-knn"}]
"""


@pytest.fixture
def run(tmp_path):
    def call(*arguments, code=0):
        place = [] if arguments[:2] == ("experiment", "analyze") else ["--workspace", str(tmp_path / "w")]
        result = CliRunner().invoke(program, [*arguments, *place])
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    call("init")
    return call


@pytest.fixture
def definition(tmp_path):
    path = tmp_path / "ranker.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_an_experiment_is_started_listed_reported_and_stopped(run, definition, tmp_path):
    assert "knn                   50.0% of visitors  policy session-knn (treatment)" in run(
        "experiment", "start", str(definition)
    )
    stored = parse_experiment((tmp_path / "w" / "experiments" / "shop" / "ranker.toml").read_text(), "shop")
    assert stored.ends_at - stored.started_at == timedelta(days=14)
    assert stored.metrics == DEFAULT_METRICS
    listed = json.loads(run("experiment", "list", "--json"))
    assert [(row["name"], row["status"]) for row in listed] == [("ranker", "running")]
    report = json.loads(run("experiment", "report", "ranker", "--json"))
    assert report["decision"]["action"] == "extend"
    assert report["units"] == {"popular": 0, "knn": 0}
    assert "EXTEND, DO NOT SHIP YET" in run("experiment", "report", "ranker")
    run("experiment", "stop", "ranker")
    assert "stopped" in run("experiment", "list")
    assert "is not running" in run("experiment", "stop", "ranker", code=2)


def test_a_started_name_cannot_be_started_again(run, definition):
    run("experiment", "start", str(definition))
    assert "was started before" in run("experiment", "start", str(definition), code=2)


def test_only_one_experiment_isolates_training_on_a_placement(run, definition, tmp_path):
    run("experiment", "start", str(definition))
    second = tmp_path / "second.toml"
    second.write_text(FILE.replace("ranker", "second"), encoding="utf-8")
    assert "isolates training on placement '*' already" in run("experiment", "start", str(second), code=2)
    second.write_text(FILE.replace("ranker", "second") + 'training = "shared"\n', encoding="utf-8")
    run("experiment", "start", str(second))


@pytest.fixture
def broken(run, definition, tmp_path):
    """A running experiment beside one whose file breaks off in the middle."""
    run("experiment", "start", str(definition))
    path = tmp_path / "w" / "experiments" / "shop" / "half.toml"
    path.write_text('name = "half"\nvariants = [', encoding="utf-8")
    return path


def test_a_broken_experiment_file_is_named_and_hides_no_other(run, broken, tmp_path):
    got = CliRunner().invoke(program, ["experiment", "list", "--json", "--workspace", str(tmp_path / "w")])
    assert got.exit_code == 0
    rows = json.loads(got.stdout)
    assert [(row["name"], row["status"]) for row in rows] == [("half", "broken"), ("ranker", "running")]
    assert rows[0]["file"] == str(broken)
    assert f"{broken} is not valid TOML" in rows[0]["error"]
    assert got.stderr.startswith(f"Warning: {broken} is not valid TOML")
    text = run("experiment", "list")
    assert "half" in text
    assert "ranker" in text
    assert "EXTEND" in run("experiment", "report", "ranker")
    assert "is not valid TOML" in run("experiment", "report", "half", code=2)


def test_beside_a_broken_file_none_may_isolate_since_nobody_knows_what_that_one_does(run, broken, tmp_path):
    run("experiment", "stop", "ranker")
    second = tmp_path / "second.toml"
    second.write_text(FILE.replace("ranker", "second"), encoding="utf-8")
    assert "cannot be told whether it isolates" in run("experiment", "start", str(second), code=2)
    second.write_text(FILE.replace("ranker", "second") + 'training = "shared"\n', encoding="utf-8")
    run("experiment", "start", str(second))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("session-knn", "neural"), "there is no policy 'neural' (there is: "),
        (("days = 14", "days = -1"), "days is -1"),
        (("name =", "nom =", 1), "there is no field 'nom'. docs/reference"),
        (("days =", "dayz ="), "there is no field 'dayz'; 'days' perhaps?"),
        (("14", "'14'"), "days is text in quotes; it has to be a number."),
        (("policy =", "polcy =", 1), "there is no field 'polcy' in variants; 'policy' perhaps?"),
        ((', policy = "popular"', ""), "each of variants needs a 'policy'"),
        (("days = 14", "ends_at = 2026-12-31"), "ends_at is a day without a time of day; it has to be a moment such"),
    ],
)
def test_a_file_that_does_not_hold_together_starts_nothing(run, definition, tmp_path, change, words):
    definition.write_text(FILE.replace(*change), encoding="utf-8")
    assert words in run("experiment", "start", str(definition), code=2)
    assert not (tmp_path / "w" / "experiments").exists()


def test_a_file_that_is_no_text_starts_nothing(run, definition, tmp_path):
    definition.write_bytes(FILE.encode() + b'hypothesis = "caf\xe9"')
    assert "is no text in UTF-8" in run("experiment", "start", str(definition), code=2)
    assert not (tmp_path / "w" / "experiments").exists()


def test_names_that_do_not_exist_are_refused(run, definition):
    assert "there is no tenant 'mall'" in run("experiment", "list", "--tenant", "mall", code=2)
    assert "has no experiment 'x'" in run("experiment", "report", "x", code=2)
    assert "No experiment yet" in run("experiment", "list")
    run("init", "--tenant", "mall")
    assert "--tenant is needed: the workspace has 2 tenants" in run("experiment", "start", str(definition), code=2)


@pytest.fixture
def csv(tmp_path):
    rng = np.random.default_rng(0)
    table = pa.table({
        "user": range(2_000), "arm": ["control", "new"] * 1_000, "money": rng.exponential(10, 2_000),
        "clicks": rng.poisson(2, 2_000), "views": rng.poisson(20, 2_000) + 1, "shelf": ["a", "a", "b", "b"] * 500,
        "day": [date(2026, 3, 1 + n % 4) for n in range(2_000)], "empty": [None] * 2_000,
    })  # fmt: skip
    path = tmp_path / "units.csv"
    duckdb.from_arrow(table).write_csv(str(path))
    return str(path)


ASK = ("--unit", "user", "--variant", "arm", "--control", "control", "--metric", "money=money", "--metric",
       "ctr=clicks/views")  # fmt: skip


def test_analyze_prints_the_contract_as_json(run, csv):
    got = json.loads(run("experiment", "analyze", csv, *ASK, "--margin", "ctr=0.1", "--json"))
    assert set(got) >= {"experiment", "control", "decision", "checks", "metrics", "segments", "novelty"}
    assert set(got["decision"]) == {"action", "variant", "sentence", "reasons"}
    assert set(got["checks"][0]) == {"name", "passed", "statistic", "pvalue", "detail"}
    assert set(got["metrics"][0]) >= {
        "name", "role", "variant", "n_control", "n_treatment", "mean_control", "mean_treatment", "effect_size",
        "effect_size_ci", "rel_effect_size", "rel_effect_size_ci", "pvalue", "always_valid_ci", "margin", "reading",
    }  # fmt: skip
    assert [(row["name"], row["role"]) for row in got["metrics"]] == [("money", "goal"), ("ctr", "guardrail")]
    assert got["metrics"][1]["reading"] == "not_worse"


def test_analyze_writes_a_page_and_prints_segments(run, csv, tmp_path):
    page = tmp_path / "report.html"
    said = run("experiment", "analyze", csv, *ASK, "--segment", "shelf", "--day", "day", "--html", str(page))
    assert re.search(r"shelf a +50 % .* \[.*\] +cannot say", said)
    assert "money of new by segment" in said
    html = page.read_text()
    for words in (
        "from a file, randomized by unit",
        "1 Mar 2026",
        "4 Mar 2026",
        "Shelf: a",
        '<p class="note">units</p>',
    ):
        assert words in html
    assert "learns from" not in html
    gone = str(tmp_path / "absent" / "report.html")
    assert "report.html: No such file" in run("experiment", "analyze", csv, *ASK, "--html", gone, code=1)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--segment", "empty"), "values that are empty, the first in data row 1. Write a word such as unknown"),
        (("--covariate", "empty"), "column 'empty' of units.csv is empty in every row."),
        (("--covariate", "shelf"), "holds text, where numbers are needed. Decimals stand behind a point"),
        (("--covariate", "day"), "holds dates, where numbers are needed."),
    ],
    ids=["segment", "empty", "text", "dates"],
)
def test_a_column_that_cannot_be_used_is_refused_in_words_that_need_no_database(run, csv, option, words):
    assert words in run("experiment", "analyze", csv, *ASK, *option, code=2)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1,old,2\n2,new,3\n3,New,1\n", "names 'New' and 'new', which differ by case or spaces alone"),
        ("1,old,2\n2,new ,3\n3,new,1\n", "names 'new' and 'new ', which differ by case or spaces alone"),
        ("1,old,2\n2,new\n", "some of its rows have more or fewer values than its header"),
    ],
    ids=["case", "space", "ragged"],
)
def test_a_file_that_is_written_carelessly_is_told_what_is_wrong(run, tmp_path, rows, words):
    path = tmp_path / "units.csv"
    path.write_text("user,arm,money\n" + rows)
    asked = ("--unit", "user", "--variant", "arm", "--control", "old", "--metric", "money=money")
    assert words in run("experiment", "analyze", str(path), *asked, code=2)
    assert "is a folder" in run("experiment", "analyze", str(tmp_path), *asked, code=2)


def test_analyze_refuses_with_exit_code_two(run, csv):
    assert "no column 'nobody'" in run("experiment", "analyze", csv, *ASK, "--covariate", "nobody", code=2)
    assert "there is no file" in run("experiment", "analyze", "absent.csv", *ASK, code=2)
    assert "--unit" in run("experiment", "analyze", csv, code=2)


def report(experiment):
    rng = np.random.default_rng(0)
    factor = np.resize([1.0, 1.4], 4_000)
    columns = {
        "revenue_minor": rng.exponential(1_000, 4_000) * factor, "converted": rng.binomial(1, 0.2, 4_000),
        "clicks": rng.poisson(3, 4_000), "exposures": rng.poisson(9, 4_000) + 1,
        "views": rng.poisson(20 * np.resize([1.0, 0.7], 4_000)),
    }  # fmt: skip
    return analyze(Units(np.resize(["popular", "knn"], 4_000), columns), experiment, NOW)


EXPERIMENT = Experiment(
    name="ranker", tenant="shop",
    metrics=[*DEFAULT_METRICS, Metric(name="bounce", numerator="views", direction="down")],
    started_at=NOW - timedelta(days=7), ends_at=NOW,
    variants=[Variant(name="popular", policy="popular", weight=0.5), Variant(name="knn", policy="knn", weight=0.5)],
)  # fmt: skip


def printed(width, **options):
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, **options)
    print_report(console, report(EXPERIMENT), experiment=EXPERIMENT, currency="EUR")
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 104, 160])
def test_the_report_fits_the_terminal_and_draws_zero_in_every_row(width):
    lines = printed(width).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    head = next(line for line in lines if line.startswith("Metric"))
    zero = head.index(" 0 " if " 0 " in head else "0") + (1 if " 0 " in head else 0)
    rows = [line for line in lines if line.startswith(("revenue", "conversion", "click", "views", "bounce"))]
    assert len(rows) == 5
    assert all(line[zero] in "│┼●" for line in rows)


def test_words_stand_beside_colors_and_money_is_money():
    text = printed(104)
    for word in (
        "KEEP CONTROL",
        "better",
        "worse",
        "cannot say",
        "passed",
        "ranker  day 7/7",
        "EUR",
        "bounce ↓",
        "views per visitor 5 %",
    ):
        assert word in text
    assert "\x1b[" not in text
    assert "\x1b[" in printed(104, force_terminal=True, color_system="standard")


def test_no_color_leaves_no_color(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in printed(104, force_terminal=True)


def test_an_interval_that_leaves_the_scale_ends_in_an_arrow():
    columns = {"revenue_minor": np.resize([1, 30, 0, 0, 0, 900], 60)}
    plan = Experiment(
        name="x", tenant="shop", variants=EXPERIMENT.variants,
        metrics=[Metric(name="revenue", numerator="revenue_minor", role="goal")],
    )  # fmt: skip
    out = io.StringIO()
    print_report(Console(file=out, width=104), analyze(Units(np.resize(["popular", "knn"], 60), columns), plan, NOW))
    assert "→" in out.getvalue()
