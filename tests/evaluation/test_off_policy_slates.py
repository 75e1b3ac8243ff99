"""Slates whose places touch each other: by prefixes the value is right where by item and position it is wrong."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.evaluation.off_policy import off_policy
from thinslice.evaluation.off_policy_slates import cascade_dr, prefixes

APPEAL = np.array([0.6, 0.35, 0.2, 0.1, 0.05])
PLACES = 3
LOGGING, TARGET = np.zeros(5), np.array([0.0, 0.3, 0.6, 0.9, 1.2])  # scores of Plackett-Luce: the target turns it over


def given_above(score, slate):
    """The probability of each item of a slate given those above: without replacement, in proportion to exp(score)."""
    worth, left = np.exp(score), list(range(len(score)))
    found = []
    for item in slate:
        found.append(worth[item] / worth[left].sum())
        left.remove(item)
    return found


def tables(score, slates):
    """Of every place of every slate the probability of each item given those above: (rows, items)."""
    worth = np.exp(score)
    rows = []
    for slate in slates:
        free = worth.copy()
        for item in slate:
            rows.append(free / free.sum())
            free = free.copy()
            free[item] = 0
    return np.array(rows)


EVERY = list(permutations(range(5), PLACES))


def value_of(score, earn):
    """The exact value of a policy: every slate, its probability and what it earns."""
    return float(sum(np.prod(given_above(score, slate)) * sum(earn(slate)) for slate in EVERY))


def marginal(score):
    """The probability of each item at each place whatever stands above: (places, items)."""
    found = np.zeros((PLACES, 5))
    for slate in EVERY:
        found[np.arange(PLACES), slate] += np.prod(given_above(score, slate))
    return found


def cascade(slate):
    """A shopper goes down until the first click: the chance of a click at each place."""
    chances, looking = [], 1.0
    for item in slate:
        chances.append(looking * APPEAL[item])
        looking *= 1 - APPEAL[item]
    return chances


def log_of(rng, count):
    """Slates of the logging policy, clicked at most once."""
    chance = np.array([np.prod(given_above(LOGGING, slate)) for slate in EVERY])
    shown = [EVERY[number] for number in rng.choice(len(EVERY), count, p=chance / chance.sum())]
    rows = {name: [] for name in ("reward", "propensity", "target", "propensity_above", "target_above")}
    at_place = marginal(LOGGING), marginal(TARGET)
    for slate in shown:
        clicked = np.zeros(PLACES)
        for place, item in enumerate(slate):
            if rng.random() < APPEAL[item]:
                clicked[place] = 1
                break
        rows["reward"] += clicked.tolist()
        for name, table in zip(("propensity", "target"), at_place, strict=True):
            rows[name] += table[np.arange(PLACES), slate].tolist()
        for name, score in (("propensity_above", LOGGING), ("target_above", TARGET)):
            rows[name] += given_above(score, slate)
    columns = {name: np.array(column) for name, column in rows.items()}
    columns |= {"slate": np.repeat(np.arange(count), PLACES), "position": np.tile(np.arange(PLACES), count),
                "action": np.array(shown).ravel()}  # fmt: skip
    return columns, tables(TARGET, shown)


TRUTH = value_of(TARGET, cascade)


def values(result):
    return {each["name"]: each["value"] for each in result["estimates"]}


def test_where_shoppers_stop_at_the_first_click_prefixes_are_right_and_places_by_themselves_wrong():
    rng = np.random.default_rng(0)
    runs, covered = 40, {"rips": 0, "cascade-dr": 0}
    found = {name: [] for name in ("ips", "rips", "cascade-dr", "plain")}
    for _ in range(runs):
        columns, table = log_of(rng, 1500)
        result = off_policy(columns, probabilities=table, bootstraps=100, rng=rng)
        weight = columns["target_above"] / columns["propensity_above"]
        whole = prefixes(weight, columns["slate"], columns["position"]).weight
        found["plain"].append(float((whole * columns["reward"]).sum() / 1500))
        for each in result["estimates"]:
            if each["name"] in found:
                found[each["name"]].append(each["value"])
            if each["name"] in covered:
                covered[each["name"]] += each["ci"][0] <= TRUTH <= each["ci"][1]
    error = {name: np.std(got) / np.sqrt(len(got)) for name, got in found.items()}
    for name in ("rips", "cascade-dr"):
        assert len(found[name]) >= runs - 3
        assert abs(np.mean(found[name]) - TRUTH) <= 4 * error[name]
        assert covered[name] / len(found[name]) >= 0.85
    assert abs(np.mean(found["ips"]) - TRUTH) > 8 * error["ips"]
    assert np.std(found["cascade-dr"]) < 0.9 * np.std(found["plain"])  # what is expected is no noise any more


def test_a_slate_of_one_place_weighs_as_ever():
    rng = np.random.default_rng(0)
    weight, slate = rng.uniform(0, 3, 50), rng.permutation(50)
    found = prefixes(weight, slate, np.zeros(50, np.int64))
    assert np.array_equal(found.weight, weight)
    assert (found.before == 1).all()
    assert np.array_equal(slate[found.last], np.arange(50))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_weights_multiply_down_each_slate_in_whatever_order_the_rows_come(seed, sizes):
    rng = np.random.default_rng(seed)
    slate = np.repeat(np.arange(len(sizes)), sizes)
    position = np.concatenate([np.sort(rng.permutation(9)[:size]) for size in sizes])
    weight = rng.uniform(0, 2, len(slate))
    order = rng.permutation(len(slate))
    found = prefixes(weight[order], slate[order], position[order])
    for row, (of, at) in enumerate(zip(slate[order], position[order], strict=True)):
        own = slate == of
        assert found.weight[row] == pytest.approx(np.prod(weight[own & (position <= at)]))
        assert found.before[row] == pytest.approx(np.prod(weight[own & (position < at)]))
    ends = [position[slate == number].max() for number in range(len(sizes))]
    assert position[order][found.last].tolist() == ends


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_with_a_reward_model_that_is_right_nothing_is_left_to_chance(seed):
    """Every item at a place earns the same: then each slate is worth exactly what the model says."""
    rng = np.random.default_rng(seed)
    slate, position = np.repeat(np.arange(30), 3), np.tile(np.arange(3), 30)
    reward, come = np.array([1.0, 0.5, 0.25])[position], np.array([1.75, 0.75, 0.25])[position]
    found = prefixes(rng.uniform(0, 3, 90), slate, position)
    rows = cascade_dr(reward, found, come, come)
    assert np.bincount(slate, weights=rows) == pytest.approx(np.full(30, 1.75))


def test_a_policy_judged_by_its_own_log_earned_what_it_earned_by_prefixes_too():
    columns, _ = log_of(np.random.default_rng(1), 2000)
    same = {**columns, "target": columns["propensity"], "target_above": columns["propensity_above"]}
    result = off_policy(same, probabilities=None)
    assert values(result)["rips"] == pytest.approx(result["logged_value"])
    assert all(gate["passed"] for gate in result["gates_above"])
    assert result["missing"]["cascade-dr"] == "it needs action and probabilities"


def test_whole_slates_that_the_log_hardly_shows_are_refused_though_single_places_are_not():
    """Six places, each shown three times in four as the target would: the places can tell, the slates cannot."""
    rng = np.random.default_rng(0)
    count, places = 1500, 6
    right = rng.random((count, places)) < 0.3
    columns = {
        "reward": (rng.random((count, places)) < 0.1).astype(float).ravel(),
        "propensity": np.where(right, 0.3, 0.7).ravel(), "target": right.astype(float).ravel(),
        "slate": np.repeat(np.arange(count), places), "position": np.tile(np.arange(places), count),
    }  # fmt: skip
    columns |= {"propensity_above": columns["propensity"], "target_above": columns["target"]}
    result = off_policy(columns)
    assert not result["refused"]
    assert "rips" not in values(result)
    assert result["missing"]["rips"].startswith("refused: of whole slates")
    assert "effective_sample_size" in result["missing"]["cascade-dr"]
    assert not all(gate["passed"] for gate in result["gates_above"])


def test_what_it_needs_is_named_where_it_is_missing_or_wrong():
    columns, table = log_of(np.random.default_rng(0), 800)
    without = {name: column for name, column in columns.items() if name != "target_above"}
    assert off_policy(without)["missing"]["rips"] == "it needs propensity_above and target_above"
    wrong = off_policy(columns, probabilities=marginal(TARGET))
    assert wrong["missing"]["cascade-dr"] == "probabilities are not those given what stands above (target_above)"
    assert "rips" in values(wrong)
    assert {"rips", "cascade-dr"} <= set(values(off_policy(columns, probabilities=table)))
    with pytest.raises(BadInput, match="propensity_above must be above 0"):
        off_policy({**columns, "propensity_above": np.zeros(len(table))})
    with pytest.raises(BadInput, match=r"\d+ rows stand at a position that another row of their slate has"):
        prefixes(np.ones(3), np.array([0, 0, 1]), np.array([0, 0, 0]))
