import os
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thinslice.errors import BadInput
from thinslice.experiments.analyze import analyze, report_json
from thinslice.experiments.evidence import Units
from thinslice.jobs.analyze_file import Question, analyze_file
from thinslice.records import Experiment, Metric, Variant

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DATA = Path(os.environ.get("THINSLICE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def ask(**fields):
    return Question(**{"unit": "user", "variant": "arm", "control": "a", "metrics": ["money=money"], **fields})


def rows(n=600, seed=0):
    rng = np.random.default_rng(seed)
    share = np.where(np.arange(n) < n // 2, 0.5, 0.25)
    treated = rng.random(n) < share
    before = rng.gamma(2, 10, n)
    visits = rng.poisson(2, n) + 1
    return {
        "user": [f"u{i}" for i in range(n)],
        "arm": np.where(treated, "b", "a"),
        "money": before + rng.normal(5, 3, n) + treated,
        "clicks": rng.binomial(visits, 0.3),
        "visits": visits,
        "before": before,
        "device": np.where(rng.random(n) < 0.5, "phone", "desk"),
        "pa": 1 - share,
        "pb": share,
    }


def write(tmp_path, columns, name="test.parquet"):
    path = tmp_path / name
    table = pa.table({key: pa.array(list(values)) for key, values in columns.items()})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        duckdb.from_arrow(table).write_csv(str(path))
    return path


def in_memory(columns, metrics, **fields):
    plan = Experiment(
        name="test", tenant="", control="a", metrics=metrics,
        variants=[Variant(name="a", policy="", weight=0.5), Variant(name="b", policy="", weight=0.5)],
    )  # fmt: skip
    return analyze(Units(variant=columns["arm"], columns=columns, **fields), plan, NOW)


MEAN = Metric(name="money", numerator="money", role="goal")
RATIO = Metric(name="ctr", numerator="clicks", denominator="visits", role="goal")


def same(one, other):
    for a, b in zip(one, other, strict=True):
        assert (a.n_control, a.n_treatment, a.reading) == (b.n_control, b.n_treatment, b.reading)
        assert a.mean_control == pytest.approx(b.mean_control)
        assert a.effect_size_ci == pytest.approx(b.effect_size_ci)
        assert a.rel_effect_size_ci == pytest.approx(b.rel_effect_size_ci)
        assert a.pvalue == pytest.approx(b.pvalue)


@pytest.mark.parametrize("name", ["test.parquet", "test.csv"])
def test_a_file_gives_the_numbers_of_its_rows(tmp_path, name):
    columns = rows()
    got = analyze_file(write(tmp_path, columns, name), ask(metrics=["money=money", "ctr=clicks/visits"]), NOW)
    same(got.metrics, in_memory(columns, [MEAN, RATIO]).metrics)
    assert got.experiment == "test"


def test_with_a_covariate_it_is_cuped_with_theta_over_all_variants(tmp_path):
    columns = rows()
    got = analyze_file(write(tmp_path, columns), ask(covariate="before"), NOW)
    same(got.metrics, in_memory(columns, [MEAN], covariate=columns["before"]).metrics)


@pytest.mark.parametrize("covariate", [None, "before"])
def test_with_propensities_units_are_weighted_and_the_split_is_tested_against_them(tmp_path, covariate):
    columns = rows()
    both = np.stack([columns["pa"], columns["pb"]], axis=1)
    path = write(tmp_path, columns)
    before = None if covariate is None else columns["before"]
    expected = in_memory(columns, [MEAN, RATIO], propensities=both, covariate=before)
    for propensity in ("pa,pb", "b=pb,a=pa"):
        question = ask(metrics=["money=money", "ctr=clicks/visits"], propensity=propensity, covariate=covariate)
        got = analyze_file(path, question, NOW)
        same(got.metrics, expected.metrics)
        assert got.checks[0].pvalue == pytest.approx(expected.checks[0].pvalue)
        assert got.checks[0].passed
    assert not analyze_file(path, ask(), NOW).checks[0].passed


def test_rows_of_exposures_are_summed_per_unit(tmp_path):
    columns = rows(200)
    split = {key: np.repeat(values, 2) for key, values in columns.items()}
    for name in ("money", "clicks", "visits"):
        split[name] = np.stack([np.asarray(columns[name]) / 4, np.asarray(columns[name]) * 3 / 4], 1).ravel()
    metrics = ["money=money", "ctr=clicks/visits"]
    whole, parts = (
        analyze_file(write(tmp_path, of, name), ask(metrics=metrics, covariate="before"), NOW)
        for of, name in ((columns, "whole.parquet"), (split, "parts.parquet"))
    )
    same(parts.metrics, whole.metrics)


def test_segments_are_analyses_of_their_own_rows(tmp_path):
    columns = rows()
    got = analyze_file(write(tmp_path, columns), ask(segments=["device"]), NOW)
    phones = np.asarray(columns["device"]) == "phone"
    alone = in_memory({key: np.asarray(of)[phones] for key, of in columns.items()}, [MEAN]).metrics[0]
    row = next(row for row in got.segments if row["value"] == "phone")
    assert (row["n_control"], row["pvalue"]) == (alone.n_control, pytest.approx(alone.pvalue))


def test_days_make_a_curve_that_ends_at_the_whole(tmp_path):
    rng = np.random.default_rng(0)
    columns = rows(300)
    long = {key: np.tile(values, 3) for key, values in columns.items()}
    long["money"] = rng.exponential(5, 900)
    long["day"] = [date(2026, 1, day) for day in (1, 2, 5) for _ in range(300)]
    got = analyze_file(write(tmp_path, long), ask(day="day"), NOW)
    assert [row["until"] for row in got.cumulative] == ["2026-01-01", "2026-01-02", "2026-01-05"]
    assert got.cumulative[-1]["effect_size"] == pytest.approx(got.metrics[0].effect_size)
    assert got.cumulative[-1]["effect_size_ci"] == pytest.approx(list(got.metrics[0].effect_size_ci))
    first = {key: values[:300] for key, values in long.items()}
    assert got.cumulative[0]["effect_size_ci"] == pytest.approx(
        list(in_memory(first, [MEAN]).metrics[0].effect_size_ci)
    )


def test_a_long_experiment_has_at_most_thirty_points(tmp_path):
    columns = rows(400)
    columns["day"] = np.arange(400) // 4
    got = analyze_file(write(tmp_path, columns), ask(day="day"), NOW)
    assert len(got.cumulative) == 30
    assert got.cumulative[-1]["until"] == "99"


def clustered(rng, lift=0.0):
    """40 clusters of 100 units that resemble each other inside a cluster."""
    cluster = np.repeat(np.arange(40), 100)
    arm = np.where(cluster % 2 == 0, "a", "b")
    value = 10 + rng.normal(0, 0.5, 40)[cluster] + rng.normal(0, 2, 4_000) + lift * (arm == "b")
    return {"user": np.arange(4_000), "arm": arm, "money": value, "shop": cluster}


def test_clusters_have_as_many_degrees_of_freedom_as_there_are_clusters_less_two(tmp_path):
    import scipy.stats

    columns = clustered(np.random.default_rng(0))
    got = analyze_file(write(tmp_path, columns), ask(cluster="shop"), NOW)
    means = columns["money"].reshape(40, 100).mean(axis=1)
    oracle = scipy.stats.ttest_ind(means[1::2], means[::2])
    assert got.metrics[0].pvalue == pytest.approx(oracle.pvalue, rel=0.02)
    assert (got.metrics[0].n_control, got.units) == (2_000, {"a": 2_000, "b": 2_000})
    assert "a 20 (50.0%" in got.checks[0].detail


@pytest.mark.slow
def test_ignoring_clusters_raises_false_alarms_and_naming_them_does_not(tmp_path):
    rng, alarms = np.random.default_rng(0), {"naive": 0, "clustered": 0}
    for _ in range(60):
        path = write(tmp_path, clustered(rng))
        alarms["naive"] += analyze_file(path, ask(), NOW).metrics[0].pvalue < 0.05
        alarms["clustered"] += analyze_file(path, ask(cluster="shop"), NOW).metrics[0].pvalue < 0.05
    assert alarms["naive"] > 15
    assert alarms["clustered"] <= 8


@pytest.mark.parametrize(
    ("expected", "passed"),
    [
        ("0.5,0.5", False),
        ("0.6,0.4", True),
        ("b=0.4,a=0.6", True),
        ("a=0.6,b=0.4,c=0", True),
        ("a=.5,b=.4,c=.1", False),
    ],
)
def test_the_split_is_tested_against_what_was_planned(tmp_path, expected, passed):
    columns = {"user": range(1_000), "arm": ["a"] * 600 + ["b"] * 400, "money": np.arange(1_000) % 7}
    got = analyze_file(write(tmp_path, columns), ask(expected=expected), NOW)
    assert got.checks[0].passed is passed
    assert (got.decision.action == "invalid") is not passed


def test_a_unit_in_two_variants_makes_it_invalid_and_counts_nowhere(tmp_path):
    columns = {"user": ["x", "x", "y", "z", "p", "q"], "arm": list("abaabb"), "money": [9, 9, 1, 2, 3, 4]}
    got = analyze_file(write(tmp_path, columns), ask(), NOW)
    assert got.decision.action == "invalid"
    assert "1 of 5 units were seen in more than one variant" in got.decision.sentence
    assert (got.metrics[0].mean_control, got.metrics[0].mean_treatment) == (1.5, 3.5)


def test_an_all_zero_metric_cannot_be_read(tmp_path):
    columns = {"user": range(100), "arm": ["a", "b"] * 50, "money": [0] * 100}
    got = analyze_file(write(tmp_path, columns), ask(), NOW)
    assert (got.metrics[0].reading, got.metrics[0].pvalue) == ("cannot_say", None)
    report_json(got)


def test_strange_column_names_and_true_or_false_are_fine(tmp_path):
    names = {"user": 'the "unit"', "arm": "variant", "money": "key", "flag": "a/b", "x": "unit", "y": "line"}
    columns = {"user": range(100), "arm": ["a", "b"] * 50, "money": np.arange(100.0), "flag": [True, False] * 50,
               "x": [1] * 100, "y": [2] * 100}  # fmt: skip
    path = write(tmp_path, {names[key]: of for key, of in columns.items()})
    question = Question(unit='the "unit"', variant="variant", control="a", metrics=["m=key", "f=a/b", "r=key/unit"])
    got = analyze_file(path, question, NOW)
    assert [row.mean_control for row in got.metrics] == [49.0, 1.0, 49.0]
    assert got.units == {"a": 50, "b": 50}


BAD = [
    ({"unit": "nobody"}, {}, "no column 'nobody' (there is: user, arm, money"),
    ({"metrics": ["money=cash"]}, {}, "no column 'cash'"),
    ({"metrics": ["money"]}, {}, "is not NAME=COLUMN"),
    ({"metrics": ["x=device"]}, {}, "'device' of test.parquet holds text, where numbers are needed"),
    ({"metrics": ["x=money", "x=clicks"]}, {}, "metric 'x' occurs twice"),
    ({"control": "z"}, {}, "control 'z' does not occur in column 'arm' (a, b)"),
    ({"expected": "0.5,0.6"}, {}, "--expected sums to 1.1"),
    ({"expected": "0.5,0.3,0.2"}, {}, "--expected has 3 entries for 2 variants (a, b)"),
    ({"expected": "a=0.5"}, {}, "'b' is not named once"),
    ({"expected": "a=0.5,0.5"}, {}, "--expected has 2 entries"),
    ({"expected": "half,half"}, {}, "--expected: 'half' is no number"),
    ({"expected": "nan,1"}, {}, "'nan' is no finite number"),
    ({"expected": "-0.5,1.5"}, {}, "shares lie between 0 and 1"),
    ({"margins": ["other=0.1"]}, {}, "--margin names metric 'other'"),
    ({"margins": ["money=2"]}, {}, "a margin is relative and positive"),
    ({"margins": ["money=-0.1"]}, {}, "a margin is relative and positive"),
    ({"propensity": "pa,nix"}, {}, "no column 'nix'"),
    ({"propensity": "pa,pa"}, {}, "do not sum to 1"),
    ({"propensity": "zero,one"}, {}, "0 for the variant that was served"),
    ({"cluster": "device"}, {}, "were not randomized as a whole"),
    ({}, {"money": [float("nan")]}, "'money' of test.parquet has 1 values that are empty or no finite numbers"),
    ({}, {"money": [None]}, "the first in data row 600"),
    ({}, {"money": [float("inf")]}, "the first in data row 600"),
    ({}, {"user": [None]}, "column 'user'"),
    ({}, {"arm": [None]}, "column 'arm'"),
]


@pytest.mark.parametrize(("question", "last", "words"), BAD)
def test_what_cannot_be_analyzed_is_refused_with_what_and_where(tmp_path, question, last, words):
    columns = {**rows(), "zero": np.zeros(600), "one": np.ones(600)}
    columns = {key: [*list(values)[:599], *last.get(key, [list(values)[599]])] for key, values in columns.items()}
    with pytest.raises(BadInput) as caught:
        analyze_file(write(tmp_path, columns), ask(**question), NOW)
    assert words in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path):
    for name, body, says in [("latin.csv", b"unit,variant\n1,caf\xe9\n", "line 2 holds the byte 0xe9"),
                             ("photo.csv", b"\x89PNG\r\n\0", "is no text")]:  # fmt: skip
        (tmp_path / name).write_bytes(body)
        with pytest.raises(BadInput, match=says):
            analyze_file(tmp_path / name, ask(), NOW)
    with pytest.raises(BadInput, match="there is no file"):
        analyze_file(tmp_path / "absent.parquet", ask(), NOW)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    with pytest.raises(BadInput, match=r"broken\.parquet cannot be read"):
        analyze_file(broken, ask(), NOW)
    with pytest.raises(BadInput, match="neither Parquet nor CSV"):
        analyze_file(Path(__file__), ask(), NOW)
    bare = tmp_path / "bare.csv"
    for content, says in (("", "is empty"), ("user,arm,money\n", "has no rows")):
        bare.write_text(content, encoding="utf-8")
        with pytest.raises(BadInput, match=rf"bare\.csv {says}"):
            analyze_file(bare, ask(), NOW)
    one = {"user": range(10), "arm": ["a"] * 10, "money": range(10)}
    with pytest.raises(BadInput, match="only one variant"):
        analyze_file(write(tmp_path, one), ask(), NOW)


@pytest.mark.parametrize("header", ["user,arm,money,money", '"user";"arm";"money";" Money"'], ids=["same", "case"])
def test_a_column_that_is_named_twice_is_refused(tmp_path, header):
    path = tmp_path / "twice.csv"
    between = ";" if ";" in header else ","
    path.write_text("\n".join([header, *(between.join(("1", arm, "2", "3")) for arm in "ab")]), encoding="utf-8")
    with pytest.raises(BadInput, match=r"has 2 columns named 'money' \(columns 3 and 4\)"):
        analyze_file(path, ask(), NOW)


@pytest.mark.data
def test_cookie_cats_reads_as_published():
    question = Question("userid", "version", "gate_30", ["retention_7=retention_7", "retention_1=retention_1"])
    got = analyze_file(DATA / "ab_cookie_cats" / "users.parquet", question, NOW)
    assert got.units == {"gate_30": 44_700, "gate_40": 45_489}
    assert got.checks[0].pvalue == pytest.approx(0.0086, abs=5e-5)
    assert got.checks[0].passed
    week = got.metrics[0]
    assert (week.mean_control, week.mean_treatment) == pytest.approx((0.1902, 0.1820), abs=5e-5)
    assert week.pvalue == pytest.approx(0.00156, abs=1e-5)
    assert (week.reading, got.metrics[1].reading, got.decision.action) == ("worse", "cannot_say", "stop")
