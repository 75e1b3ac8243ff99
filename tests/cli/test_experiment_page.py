import re
from datetime import UTC, date, datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markupsafe import escape
from rich.console import Console

from thinslice.cli.experiment_page import page
from thinslice.cli.experiment_report import print_report
from thinslice.experiments.analyze import report_json
from thinslice.jobs.analyze_file import Question, analyze_file
from thinslice.records import Experiment, Report, Variant
from thinslice.web.wording import spoken

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EXPERIMENT = Experiment(
    name="fading", tenant="shop", hypothesis="New things are clicked <b>once</b>.", started_at=NOW - timedelta(days=14),
    ends_at=NOW, variants=[Variant(name="a", policy="old", weight=0.5), Variant(name="b", policy="new", weight=0.5)],
)  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Fourteen days of 2,000 units whose effect fades, with two segments and a planned last look."""
    rng, n, days = np.random.default_rng(0), 2_000, 14
    arm, base = rng.integers(0, 2, n), rng.normal(10, 1, n)
    unit, day = np.repeat(np.arange(n), days), np.tile(np.arange(days), n)
    columns = {
        "user": unit, "arm": np.array(["a", "b"])[arm[unit]], "device": np.where(unit % 3 == 0, "phone", "desk"),
        "day": [date(2026, 2, 1) + timedelta(days=int(each)) for each in day],
        "money": base[unit] + arm[unit] * (2 - 0.6 * np.log1p(day)) * np.where(unit % 3 == 0, 0.2, 1.0)
        + rng.normal(0, 1, unit.size),
    }  # fmt: skip
    path = tmp_path_factory.mktemp("page") / "fading.parquet"
    pq.write_table(pa.table({key: list(of) for key, of in columns.items()}), path)
    ask = Question("user", "arm", "a", ["revenue=money"], day="day", segments=["device"], looks=14)
    got = analyze_file(path, ask, NOW)
    return msgspec.structs.replace(got, recorded_at=NOW)


def test_the_page_is_one_file_without_scripts_or_requests(report):
    html = page(EXPERIMENT, report, "EUR")
    assert "<script" not in html
    assert not re.findall(r"(?:src|href)=\"(?!#)[^\"]*\"|url\(", html)
    assert "light-dark(" in html
    assert "default-src 'none'" in html
    assert "&lt;b&gt;once&lt;/b&gt;" in html


def test_the_page_shows_decision_checks_effects_novelty_and_segments_and_says_each_number_in_words(report):
    html = page(EXPERIMENT, report, "EUR")
    told = ["Does the effect last?", "The effect is not stable", "Effect by segment", "Look 14 of 14 that were planned"]
    told += ["Decided 1 Mar 2026", "The effect differs by device", spoken(report.decision.sentence, ["revenue"])]
    for words in told:
        assert str(escape(words)) in html
    assert html.count('class="forest"') == 1 + 14 + 2
    assert "<svg" in html
    assert "Show as table" in html


def test_an_old_report_without_the_newer_fields_is_still_a_page(report):
    old = {key: value for key, value in msgspec.to_builtins(report).items() if key not in ("novelty", "segments")}
    for name in ("heterogeneity", "looks", "method", "recorded_at"):
        old.pop(name)
    html = page(EXPERIMENT, msgspec.json.decode(msgspec.json.encode(old), type=Report), "EUR")
    assert "Effect by metric" in html
    assert "Does the effect last?" not in html


def test_the_terminal_says_that_the_effect_fades_and_differs(report, capsys):
    print_report(Console(width=110, highlight=False), report, experiment=EXPERIMENT, currency="EUR")
    out = capsys.readouterr().out
    assert "look 14 of 14" in out
    assert "! not stable: b" in out
    assert "differs by device" in out
    report_json(report)


def test_what_failed_stands_first_and_says_what_to_do_on_the_page_and_in_the_terminal(report, capsys):
    failed = [check for check in report.checks if not check.passed]
    assert "effect_over_time" in {check.name for check in failed}
    html = page(EXPERIMENT, report, "EUR")
    print_report(Console(width=100_000), report, experiment=EXPERIMENT, currency="EUR")
    told = capsys.readouterr().out
    for check in failed:
        assert f"<strong>What to do:</strong> {escape(check.advice)}" in html
        assert f"→ {check.advice}" in told
    assert told.index("effect_over_time FAILED") < told.index("sample_ratio passed")


def test_visitors_who_come_less_often_are_told_from_an_effect_that_fades(report):
    rows = [{**row, "stable": False, "same_share": True} for row in report.novelty["variants"]]
    kept = msgspec.structs.replace(report, novelty={**report.novelty, "variants": rows})
    html = page(EXPERIMENT, kept, "EUR")
    assert "that the effect on it changes is not shown" in html
    assert "The effect is not stable." not in html.split("Does the effect last?")[1]
