"""Off-policy evaluation: known cases, properties, simulations whose truth is known, refusals, and a public log."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput, TooFewUnits
from thinslice.evaluation.off_policy import off_policy
from thinslice.models import Vocabulary
from thinslice.recommend.explore import BetaThompson
from thinslice.recommend.explore.learn import quantiles

DATA = Path(os.environ.get("THINSLICE_DATA", Path(__file__).parents[3] / "shared" / "data"))
QUALITY = np.array([0.02, 0.05, 0.1, 0.3])
LOGGING = np.array([0.4, 0.3, 0.2, 0.1])
TARGET = np.array([0.1, 0.2, 0.3, 0.4])
TRUTH = float(QUALITY @ TARGET)


def values(result):
    return {each["name"]: each["value"] for each in result["estimates"]}


def interval(result, name):
    return next(each["ci"] for each in result["estimates"] if each["name"] == name)


def log_of(rng, rows, logging=LOGGING):
    action = rng.choice(4, rows, p=logging)
    reward = (rng.random(rows) < QUALITY[action]).astype(float)
    return {"reward": reward, "propensity": logging[action], "action": action}


def passed(result):
    return {gate["name"]: gate["passed"] for gate in result["gates"]}


def test_a_policy_evaluated_on_its_own_log_earned_what_it_earned():
    rng = np.random.default_rng(0)
    log = log_of(rng, 2000)
    result = off_policy({**log, "target": log["propensity"]}, probabilities=LOGGING)
    assert not result["refused"]
    assert result["effective_sample_size"] == pytest.approx(2000)
    for name in ("ips", "snips", "clipped"):
        assert values(result)[name] == pytest.approx(log["reward"].mean())
    assert values(result)["dr"] == pytest.approx(log["reward"].mean(), abs=0.002)


def test_weights_and_values_by_hand():
    reward = np.tile([1.0, 0.0, 0.0, 1.0], 100)
    propensity = np.tile([0.5, 0.25, 0.5, 0.25], 100)
    target = np.tile([0.25, 0.25, 0.5, 0.4], 100)
    result = off_policy({"reward": reward, "propensity": propensity, "target": target})
    # weights 0.5, 1, 1, 1.6: IPS (0.5 + 1.6) / 4, SNIPS (0.5 + 1.6) / 4.1
    assert result["mean_weight"] == pytest.approx(1.025)
    assert result["effective_sample_size"] == pytest.approx(410**2 / 481)
    assert values(result)["ips"] == pytest.approx(0.525)
    assert values(result)["snips"] == pytest.approx(2.1 / 4.1)
    assert result["missing"] == {"dr": "it needs action and probabilities, or q and q_target"}
    alike = off_policy({"reward": reward, "propensity": propensity, "target": target, "unit": np.arange(400) // 4})
    assert alike["refused"]  # every visitor has the mean weight 1.025 exactly: these are no propensities
    assert not passed(alike)["mean_weight"]


def test_clipped_weights_are_cut_where_told():
    rng = np.random.default_rng(0)
    log = log_of(rng, 4000)
    got = values(off_policy(log, probabilities=TARGET, clip=1.0))["clipped"]
    weight = np.minimum((TARGET / LOGGING)[log["action"]], 1.0)
    assert got == pytest.approx(float((weight * log["reward"]).mean()))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-3, 3))
def test_the_self_normalized_estimate_moves_with_the_rewards(seed, shift):
    log = log_of(np.random.default_rng(seed), 1500)
    before = off_policy(log, probabilities=TARGET, bootstraps=20)
    after = off_policy({**log, "reward": log["reward"] + shift}, probabilities=TARGET, bootstraps=20)
    if not before["refused"]:
        assert 0 <= values(before)["snips"] <= 1
        assert values(after)["snips"] == pytest.approx(values(before)["snips"] + shift)


def test_estimates_are_right_on_average_and_their_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    runs, covered, found = 100, {"ips": 0, "snips": 0, "dr": 0}, {"ips": [], "snips": [], "dr": []}
    for _ in range(runs):
        result = off_policy(log_of(rng, 800), probabilities=TARGET, bootstraps=100, rng=rng)
        for each in result["estimates"]:
            if each["name"] in found:
                found[each["name"]].append(each["value"])
                covered[each["name"]] += each["ci"][0] <= TRUTH <= each["ci"][1]
    for name, got in found.items():
        assert len(got) >= runs - 3  # at most 1 in 100 healthy logs is refused, by a mean weight 3 se away
        assert abs(np.mean(got) - TRUTH) <= 4 * np.std(got) / np.sqrt(len(got))
        assert covered[name] / len(got) >= 0.87
    assert np.std(found["dr"]) < np.std(found["ips"])  # what the reward model knows is no noise any more


def test_rows_of_one_visitor_are_not_taken_for_ten_visitors():
    log = log_of(np.random.default_rng(0), 1000)
    once = off_policy(log, probabilities=TARGET)
    tenfold = {name: np.repeat(column, 10) for name, column in log.items()}
    by_row = off_policy(tenfold, probabilities=TARGET)
    by_unit = off_policy({**tenfold, "unit": np.repeat(np.arange(1000), 10)}, probabilities=TARGET)
    width = [high - low for low, high in (interval(result, "snips") for result in (once, by_row, by_unit))]
    assert width[2] == pytest.approx(width[0], rel=0.15)
    assert width[1] < 0.5 * width[2]


def test_bags_of_units_give_the_interval_of_the_units(monkeypatch):
    log = log_of(np.random.default_rng(0), 6000)
    bags = interval(off_policy(log, probabilities=TARGET), "ips")
    monkeypatch.setattr("thinslice.evaluation.off_policy.BAGS", 10_000)
    units = interval(off_policy(log, probabilities=TARGET), "ips")
    assert bags[1] - bags[0] == pytest.approx(units[1] - units[0], rel=0.15)


def slates(rng, count):
    """Two positions: the second is examined half as often; items are drawn independently at each."""
    action = np.stack([rng.choice(4, count, p=LOGGING), rng.choice(4, count, p=LOGGING)], axis=1)
    chance = QUALITY[action] * np.array([1.0, 0.5])
    return {
        "reward": (rng.random((count, 2)) < chance).astype(float).ravel(),
        "propensity": LOGGING[action].ravel(),
        "action": action.ravel(),
        "position": np.tile([1, 2], count),
        "slate": np.repeat(np.arange(count), 2),
    }


def test_a_slate_is_worth_the_sum_of_its_positions_each_with_its_own_probabilities():
    rng = np.random.default_rng(0)
    target = np.stack([TARGET, LOGGING])
    truth = float(QUALITY @ TARGET + 0.5 * QUALITY @ LOGGING)
    result = off_policy(slates(rng, 20_000), probabilities=target)
    assert result["n"] == 20_000
    assert result["units"] == 20_000
    for name, value in values(result).items():
        low, high = interval(result, name)
        assert low <= truth <= high, name
        assert value == pytest.approx(truth, abs=0.02)


def test_a_bernstein_interval_is_wider_and_stands_only_where_weights_have_a_bound():
    log = log_of(np.random.default_rng(0), 20_000)
    bootstrap = interval(off_policy(log, probabilities=TARGET, clip=5.0), "clipped")
    result = off_policy(log, probabilities=TARGET, clip=5.0, interval="bernstein")
    low, high = interval(result, "clipped")
    assert [each["name"] for each in result["estimates"]] == ["clipped"]
    assert low <= bootstrap[0] < bootstrap[1] <= high
    assert low <= TRUTH <= high


def test_logged_propensities_taken_for_the_targets_are_refused_by_the_mean_weight():
    """Averaging what was logged for the chosen items is size-biased: the weights are too large on average."""
    rng = np.random.default_rng(0)
    log = log_of(rng, 5000)
    biased = TARGET**2 / LOGGING  # what averaging over the target's own log gives, too much for what it likes
    result = off_policy({**log, "target": np.minimum(biased, 1.0)[log["action"]]})
    assert result["refused"]
    assert result["estimates"] == []
    assert not passed(result)["mean_weight"]
    assert "mean_weight is" in result["sentence"]


def test_a_target_that_the_log_hardly_shows_is_refused_by_the_effective_sample_size():
    logging = np.array([0.997, 0.001, 0.001, 0.001])
    log = log_of(np.random.default_rng(3), 20_000, logging)
    result = off_policy(log, probabilities=np.array([0.0, 0.0, 0.0, 1.0]))
    assert result["refused"]
    assert not passed(result)["effective_sample_size"]
    assert result["estimates"] == []
    assert result["logged_value"] == pytest.approx(log["reward"].mean())


def test_one_weight_that_decides_alone_is_refused():
    log = {"reward": np.zeros(1000), "propensity": np.full(1000, 0.5), "target": np.full(1000, 0.4)}
    log["propensity"][0], log["target"][0] = 0.001, 0.2
    result = off_policy(log)
    assert passed(result)["effective_sample_size"] is False
    assert passed(result)["max_weight_share"] is False


def test_what_the_logging_policy_could_not_have_shown_is_refused():
    log = log_of(np.random.default_rng(0), 2000)
    assert not off_policy(log, probabilities=LOGGING)["refused"]
    result = off_policy({**log, "unsupported": np.full(2000, 0.2)}, probabilities=LOGGING)
    assert result["refused"]
    assert [name for name, fine in passed(result).items() if not fine] == ["unsupported"]


def test_a_fixed_ranking_evaluated_on_a_fixed_ranking_is_refused():
    """Both show one item in each place: no chance, nothing to learn from."""
    log = {"reward": np.ones(1000), "propensity": np.ones(1000), "target": np.zeros(1000)}
    result = off_policy(log)
    assert result["refused"]
    assert result["mean_weight"] == 0
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity": [0.0, 0.5]}, "1 of 2 propensities are not above 0 and at most 1"),
        ({"propensity": [0.5, 1.5]}, "1 of 2 propensities are not above 0 and at most 1"),
        ({"reward": [np.nan, 1.0]}, "1 of 2 values of reward are no finite numbers"),
        ({"target": [0.5]}, "the column target must have the shape"),
        ({"target": [0.5, 1.2]}, "between 0 and 1"),
    ],
)
def test_bad_columns_are_refused_with_their_numbers(change, message):
    log = {"reward": [0.0, 1.0], "propensity": [0.5, 0.5], "target": [0.5, 0.5], **change}
    with pytest.raises(BadInput, match=message):
        off_policy(log)


def test_missing_columns_and_units_are_named():
    with pytest.raises(BadInput, match="needs the column propensity"):
        off_policy({"reward": [1.0, 0.0]})
    with pytest.raises(BadInput, match="column target, or action together with probabilities"):
        off_policy({"reward": [1.0, 0.0], "propensity": [0.5, 0.5]})
    with pytest.raises(BadInput, match=r"whole numbers from 0 to 1"):
        off_policy({"reward": [1.0, 0.0], "propensity": [0.5, 0.5], "action": [0, 2]}, probabilities=[0.5, 0.5])
    with pytest.raises(BadInput, match="probabilities must have the shape"):
        off_policy({"reward": [1, 0], "propensity": [0.5, 0.5], "action": [0, 1]}, probabilities=np.ones((3, 2)) / 2)
    with pytest.raises(TooFewUnits, match="needs at least 2 units, got 1"):
        off_policy({"reward": [1, 0], "propensity": [0.5, 0.5], "target": [0.5, 0.5], "unit": ["a", "a"]})


@pytest.mark.data
@pytest.mark.parametrize(
    ("campaign", "items", "ips", "snips", "effective", "largest"),
    [
        ("all", 80, 0.00236, 0.00233, 340, 278),
        ("men", 34, 0.00301, 0.00319, 656, 178),
        ("women", 46, None, None, 2, 21_739),
    ],
)
def test_on_the_open_bandit_logs_thompson_tells_of_random_only_where_it_can(
    campaign, items, ips, snips, effective, largest
):
    """The figures are those of two other libraries on the same rows; women, Thompson to random, must be refused."""
    import pyarrow.parquet as pq

    table = pq.read_table(DATA / "open_bandit_sample" / f"bts_{campaign}.parquet")
    names = {"click": "reward", "propensity_score": "propensity", "item_id": "action", "position": "position"}
    log = {ours: table[theirs].to_numpy() for theirs, ours in names.items()}
    result = off_policy(log, probabilities=np.full(items, 1 / items))
    assert round(result["effective_sample_size"]) == effective
    assert round(result["max_weight"]) == largest
    if ips is None:
        assert result["refused"]
        assert result["estimates"] == []
        assert [name for name, fine in passed(result).items() if not fine] == [
            "effective_sample_size", "max_weight_share",
        ]  # fmt: skip
        assert result["mean_weight"] == pytest.approx(3.1, abs=0.05)
    else:
        assert round(values(result)["ips"], 5) == ips
        assert round(values(result)["snips"], 5) == snips
        assert values(result)["dr"] == pytest.approx(ips, abs=0.0008)
        random = pq.read_table(DATA / "open_bandit_sample" / f"random_{campaign}.parquet")["click"].to_numpy()
        low, high = interval(result, "snips")
        assert low <= random.mean() <= high  # what random really earned


@pytest.mark.data
@pytest.mark.parametrize(
    ("campaign", "ips", "snips"), [("all", 0.00463, 0.00486), ("men", 0.00452, 0.00460), ("women", 0.00684, 0.00684)]
)
def test_on_the_open_bandit_logs_random_tells_of_thompson(campaign, ips, snips):
    """The target's probabilities are drawn by our own Thompson ranking; the figures are those of another library."""
    import pyarrow.parquet as pq

    prior = json.loads((Path(__file__).parent / "open_bandit_prior.json").read_text())[campaign]
    belief = np.array([*zip(prior["alpha"], prior["beta"], strict=True), (1, 1)], dtype=float)
    names = [f"{at:02d}" for at in range(len(belief) - 1)]
    explorer = BetaThompson({
        **Vocabulary(names).arrays(), "quantile": quantiles(belief), "newcomer": np.empty(0, int),
        "counted": np.zeros(2, int), "until": np.zeros(2),
    })  # fmt: skip
    target = explorer.chances(names, np.ones(len(names)), 3, rng=0, rankings=20_000).T
    table = pq.read_table(DATA / "open_bandit_sample" / f"random_{campaign}.parquet")
    columns = {"click": "reward", "propensity_score": "propensity", "item_id": "action", "position": "position"}
    result = off_policy({ours: table[theirs].to_numpy() for theirs, ours in columns.items()}, probabilities=target)
    assert not result["refused"]
    assert values(result)["ips"] == pytest.approx(ips, abs=0.0001)
    assert values(result)["snips"] == pytest.approx(snips, abs=0.0001)
    earned = pq.read_table(DATA / "open_bandit_sample" / f"bts_{campaign}.parquet")["click"].to_numpy().mean()
    low, high = interval(result, "snips")
    assert low <= earned <= high  # what the Thompson policy really earned
