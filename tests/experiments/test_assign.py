import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, kstest

from thinslice.experiments import assign, bucket, unit_id_of
from thinslice.records import Experiment, Variant


def experiment(*weights, coverage=1.0, name="ranker", tenant="shop", version=1):
    variants = [Variant(name=f"v{i}", policy="popular", weight=weight) for i, weight in enumerate(weights)]
    return Experiment(name=name, tenant=tenant, variants=variants, coverage=coverage, allocation_version=version)


@pytest.mark.parametrize(
    ("seed", "value", "expected"),
    [  # the hash's public test cases, version 2
        ("seed", "a", 0.0505),
        ("seed", "b", 0.2696),
        ("foo", "ab", 0.2575),
        ("foo", "def", 0.2019),
        ("89123klj", "8952klfjas09ujkasdf", 0.124),
        ("90850943850283058242805", "123", 0.7516),
        ("()**(%$##$%#$#", '___)((*":&', 0.0128),
    ],
)
def test_the_bucket_is_growthbooks_version_2(seed, value, expected):
    assert bucket(seed, value) == expected


def slow_bucket(seed, value):
    """The definition, written as plainly as it can be."""

    def fnv(text):
        h = 0x811C9DC5
        raw = text.encode("utf-16-le", "surrogatepass")
        for unit in (raw[i] | raw[i + 1] << 8 for i in range(0, len(raw), 2)):
            h = ((h ^ unit) * 0x01000193) % 2**32
        return h

    return fnv(str(fnv(seed + value))) % 10000 / 10000


@given(st.text(), st.text())
def test_any_text_hashes_over_its_utf_16_code_units(seed, value):
    assert bucket(seed, value) == slow_bucket(seed, value)


def test_buckets_are_uniform_and_two_experiments_are_independent():
    units = [f"visitor-{i}" for i in range(20_000)]
    first = np.array([bucket("shop:a", unit) for unit in units])
    second = np.array([bucket("shop:b", unit) for unit in units])
    other_shop = np.array([bucket("mall:a", unit) for unit in units])
    assert kstest(first + 0.00005, "uniform").pvalue > 0.001
    for other in (second, other_shop):
        table = np.histogram2d(first, other, bins=[[0, 0.5, 1], [0, 0.5, 1]])[0]
        assert chi2_contingency(table, correction=False).pvalue > 0.001


def test_the_shares_are_as_planned():
    got = [assign(experiment(0.2, 0.3, 0.5), f"u{i}").variant for i in range(20_000)]
    shares = [got.count(f"v{i}") / len(got) for i in range(3)]
    assert np.allclose(shares, [0.2, 0.3, 0.5], atol=0.012)


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.text(min_size=1, max_size=20))
def test_a_ramp_only_adds_units(one, other, unit):
    small, large = sorted((one, other))
    before = assign(experiment(0.3, 0.7, coverage=small), unit).variant
    after = assign(experiment(0.3, 0.7, coverage=large), unit).variant
    assert before in (None, after)


@given(st.lists(st.integers(0, 20), min_size=2, max_size=6).filter(any), st.text(max_size=20))
def test_full_coverage_leaves_nobody_out_and_never_serves_a_share_of_zero(parts, unit):
    weights = [part / sum(parts) for part in parts]
    got = assign(experiment(*weights), unit)
    assert got.variant is not None
    assert got.propensities[got.variant] > 0
    assert abs(sum(got.propensities.values()) - 1) < 1e-9


def test_an_assignment_says_with_which_probabilities():
    got = assign(experiment(0.25, 0.75, version=3), "u1")
    assert got.propensities == {"v0": 0.25, "v1": 0.75}
    assert got.allocation_version == 3
    assert got.bucket == bucket("shop:ranker", "u1")


def test_ranges_touch_and_do_not_overlap():
    edges = [assign(experiment(0.1, 0.2, 0.3, 0.4), f"u{i}") for i in range(5_000)]
    ordered = [got.variant for got in sorted(edges, key=lambda got: got.bucket)]
    assert sum(a != b for a, b in pairwise(ordered)) == 3


def test_the_unit_is_what_the_experiment_randomizes():
    by_user = Experiment(name="x", tenant="shop", variants=[], unit="user")
    assert unit_id_of(by_user, visitor_id="v", session_id="s", user_id="u") == "u"
    assert unit_id_of(by_user, visitor_id="v") is None


def test_request_time_imports_no_statistics():
    code = (
        "import sys, thinslice.experiments\n"
        "print([m for m in ('scipy', 'numpy', 'pyarrow', 'duckdb', 'rich') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() in ("[]", "['numpy']")  # records bring numpy for its types
