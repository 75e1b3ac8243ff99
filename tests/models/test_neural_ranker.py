"""The neural ranker: the same lessons as the trees, explanations that add up, served without PyTorch."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.models import NeuralRanker, SessionRanker, from_columns
from thinslice.models.candidates import Lessons
from thinslice.models.neural_ranker_fit import learn, slopes
from thinslice.models.neural_ranker_kernel import chord
from thinslice.models.neural_ranker_network import FARTHEST, PIECE, Network, widened
from thinslice.models.ranking_features import FEATURES
from thinslice.testing import check_model, small_world


def world(sessions=900, items=60):
    """Sessions that walk along a ring of items, mostly one step on, and sometimes come back."""
    draw = np.random.default_rng(0)
    session, item = [], []
    for number in range(sessions):
        at = int(draw.integers(items))
        for _ in range(int(draw.integers(2, 7))):
            session.append(number)
            item.append(at)
            at = (at + int(draw.choice([0, 1, 1, 1, 2, 7]))) % items
    return from_columns(session, item, np.arange(len(item), dtype=float))


@pytest.fixture(scope="module")
def log():
    return world()


@pytest.fixture(scope="module")
def model(log):
    fitted = NeuralRanker.fit(log, rng=0, least_questions=100, candidates=20)
    assert fitted.evidence["tuned"]
    assert "network_hidden" in fitted.arrays()
    return fitted


def network(rng=0, features=5, hidden=8):
    """A network of drawn weights."""
    draw = np.random.default_rng(rng)
    sizes = {
        "per_unit": (features,), "gain": (2 * features,), "shift": (2 * features,), "hidden": (2 * features, hidden),
        "hidden_bias": (hidden,), "narrow": (hidden, hidden // 2), "narrow_bias": (hidden // 2,), "out": (hidden // 2,),
    }  # fmt: skip
    drawn = {name: draw.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    return Network({**drawn, "per_unit": np.abs(drawn["per_unit"])})


def test_with_a_network_it_keeps_what_every_model_promises():
    check_model(NeuralRanker, settings={"least_questions": 20, "candidates": 8, "hidden": 16})


def test_the_network_ranks_better_than_the_blend_where_there_is_something_to_learn(model):
    exam = model.evidence["ranking"]["exam"]
    assert exam["network"]["mrr"] > 1.2 * exam["blend"]["mrr"]
    assert model.recommend(["5", "6"], 1).item_ids == ["7"]


def test_stage_one_and_its_lessons_are_those_of_the_session_ranker(log, model):
    trees = SessionRanker.fit(log, rng=0, least_questions=100, candidates=20, trees=3)
    told, other = model.evidence, trees.evidence
    assert told["settings"] == other["settings"]
    assert told["tried"] == other["tried"]
    assert told["ranking"]["rows"] == other["ranking"]["rows"]
    assert told["ranking"]["exam"]["blend"] == other["ranking"]["exam"]["blend"]
    mine, theirs = model.arrays(), trees.arrays()
    same = [name for name in theirs if not name.startswith(("forest_", "note"))]
    assert [name for name in mine if not name.startswith(("network_", "note"))] == same
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in same)


def test_the_same_clicks_give_the_same_bytes_and_another_rng_another_network(log, model):
    again = NeuralRanker.fit(log, rng=0, least_questions=100, candidates=20)
    assert {name: array.tobytes() for name, array in again.arrays().items()} == {
        name: array.tobytes() for name, array in model.arrays().items()
    }
    other = NeuralRanker.fit(log, rng=1, least_questions=100, candidates=20)
    assert other.arrays()["network_hidden"].tobytes() != model.arrays()["network_hidden"].tobytes()


def test_refit_keeps_the_network_and_knows_the_new_clicks(log, model):
    more = from_columns(
        [f"s{number:05d}" for number in np.repeat(np.arange(len(log.session_ptr) - 1), np.diff(log.session_ptr))]
        + [f"t{number}" for number in range(30) for _ in "ab"],
        [log.item_ids[code] for code in log.item.tolist()] + ["5", "new"] * 30,
        [*log.time.tolist(), *np.arange(60) + 1e6],
    )
    again = model.refit(more, rng=0)
    assert again.evidence == model.evidence
    assert "new" in again.recommend(["5"], 10).item_ids
    assert again.arrays()["network_hidden"].tobytes() == model.arrays()["network_hidden"].tobytes()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 70), max_size=90), st.integers(1, 70))
def test_scores_fall_explanations_add_up_and_one_block_stands_before_the_next(model, question, k):
    asked = [str(item) for item in question]
    found = model.recommend(asked, k)
    assert found.item_ids == model.recommend(asked, 200).item_ids[:k]
    for reason, score in zip(model.explain_all(asked, found.item_ids), found.scores, strict=True):
        assert reason.score == score
        assert sum(reason.terms.values()) == pytest.approx(score, rel=1e-9, abs=1e-9)
    blended = model._first.look(model._vocabulary.codes(asked), 0, 20).codes.tolist()
    assert {model.item_ids[code] for code in blended} == set(model.recommend(asked, len(blended)).item_ids)


@pytest.mark.neural
def test_the_served_scores_are_those_of_pytorch(log, model):
    import torch

    arrays = {
        name.removeprefix("network_"): torch.from_numpy(np.array(array))
        for name, array in model.arrays().items()
        if name.startswith("network_")
    }
    rows = model._first.look(np.array([5, 6], dtype=np.int32), 0, 20).rows
    given = torch.from_numpy(rows)
    x = torch.cat([given, torch.sign(given) * torch.log1p(given.abs() * arrays["per_unit"])], 1)
    x = (x * arrays["gain"] + arrays["shift"]).clamp(-FARTHEST, FARTHEST)
    relu = torch.nn.functional.relu
    x = relu(relu(x @ arrays["hidden"] + arrays["hidden_bias"]) @ arrays["narrow"] + arrays["narrow_bias"])
    np.testing.assert_allclose(model._second.predict(rows), (x @ arrays["out"]).numpy(), rtol=1e-4, atol=1e-4)


def test_a_feature_that_never_changes_in_the_lessons_counts_nothing():
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((800, len(FEATURES))).astype(np.float32)
    rows[:, 3] = 7.0
    label = (rows[:, 0].reshape(200, 4) == rows[:, 0].reshape(200, 4).max(axis=1, keepdims=True)).ravel()
    lessons = Lessons(
        rows=rows, label=label.astype(np.uint8), sizes=np.full(200, 4, np.int32), rank=np.zeros(200, np.int32),
        code=np.tile(np.arange(4, dtype=np.int32), 200), question=np.repeat(np.arange(200, dtype=np.int32), 4),
    )  # fmt: skip
    learned = Network(learn(lessons, None, hidden=16, epochs=8, learning_rate=0.01, seed=0)[0])
    scores = learned.predict(rows)
    assert (scores.reshape(200, 4).argmax(axis=1) == label.reshape(200, 4).argmax(axis=1)).mean() > 0.9
    moved = rows.copy()
    moved[:, 3] = -50.0
    assert learned.predict(moved).tolist() == scores.tolist()
    assert not learned.contributions(moved)[:, 3].any()


def test_serving_imports_neither_pytorch_nor_lightgbm(model, tmp_path):
    for name, array in model.arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    code = f"""
import pathlib, sys, numpy
from thinslice.models import MODELS
arrays = {{path.stem: numpy.load(path, mmap_mode="r") for path in pathlib.Path({str(tmp_path)!r}).iterdir()}}
kind = MODELS["neural-ranker"]
kind.warm()
model = kind.from_arrays(arrays)
assert kind.ready()
assert model.recommend(["5", "6"], 1).item_ids == ["7"]
assert model.explain(["5", "6"], "7").terms
print("torch" in sys.modules, "lightgbm" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_it_learns_where_there_is_no_pytorch():
    code = """
import sys
sys.modules["torch"] = None
from thinslice.models import NeuralRanker
from thinslice.testing import small_world
model = NeuralRanker.fit(small_world(), least_questions=20, hidden=8, candidates=8)
assert model.evidence["ranking"]["rows"], model.evidence
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


def test_slopes_are_what_the_loss_does_when_a_weight_moves():
    draw = np.random.default_rng(0)
    sizes = np.array([3, 1, 5])
    begins, right = np.cumsum(sizes) - sizes, np.array([2, 0, 1])
    inputs = draw.standard_normal((9, 6))
    before = draw.standard_normal(9)
    weights = [draw.standard_normal(shape) for shape in ((6, 4), (4,), (4, 2), (2,), (2,))]

    def loss():
        hidden, hidden_bias, narrow, narrow_bias, out = weights
        two = np.maximum(np.maximum(inputs @ hidden + hidden_bias, 0) @ narrow + narrow_bias, 0)
        pieces = np.split(two @ out + before, begins[1:])
        return -np.mean([part[one] - np.log(np.exp(part).sum()) for part, one in zip(pieces, right, strict=True)])

    for weight, rises in zip(weights, slopes(weights, inputs, begins, right, before), strict=True):
        for at in np.ndindex(weight.shape):
            was, step = weight[at], 1e-6
            weight[at] = was + step
            above = loss()
            weight[at] = was - step
            below = loss()
            weight[at] = was
            assert rises[at] == pytest.approx((above - below) / (2 * step), abs=1e-7)


def rows_of(draw, count, features=5):
    return (draw.standard_normal((count, features)) * draw.choice([0.0, 1e-4, 1.0, 99.0], (count, features))).astype(
        np.float32
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 130))
def test_what_the_features_gave_adds_up_to_the_score_and_no_score_leaves_the_span(seed, count):
    net, rows = network(seed), rows_of(np.random.default_rng(seed), count)
    scores = net.predict(rows)
    rest = scores - net.contributions(rows).sum(axis=1)
    assert np.ptp(rest) <= 1e-4 * (1 + np.abs(scores).max())
    assert np.ptp(scores) <= net.span


def test_a_row_is_scored_alike_whatever_stands_beside_it():
    net, rows = network(), rows_of(np.random.default_rng(1), 3 * PIECE + 7)
    assert net.predict(rows)[:PIECE].tolist() == net.predict(rows[:PIECE]).tolist()
    assert net.predict(rows[:0]).shape == (0,)
    np.testing.assert_allclose([net.predict(row[None])[0] for row in rows], net.predict(rows), rtol=1e-4, atol=1e-4)


def test_logarithms_and_chords_worked_out_by_hand():
    rows = np.array([[0.0, -3.0], [1.0, 2.0]], dtype=np.float32)
    wide = widened(rows, np.array([1.0, 2.0], dtype=np.float32))
    assert wide == pytest.approx(np.array([[0, -3, 0, -np.log(7)], [1, 2, np.log(2), np.log(5)]]), rel=1e-6)
    pairs = np.array([[2.0, 1.0], [-1.0, 3.0], [3.0, -1.0], [-2.0, -5.0], [1.0, 1.0]], dtype=np.float32)
    assert [chord(before, usual) for before, usual in pairs] == [1.0, 0.75, 0.75, 0.0, 1.0]


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"hidden": 15}, "hidden must be an even number of at least 2, got 15"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"candidates": 0}, "candidates must be a whole number between 1 and 1000, got 0"),
        ({"holdout": 0.9}, "holdout must be more than 0 and at most 0.5, got 0.9"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(chosen, says):
    with pytest.raises(BadInput, match=says):
        NeuralRanker.fit(small_world(), **chosen)


def test_rows_of_another_length_are_refused_with_both():
    with pytest.raises(BadInput, match=r"rows must have the shape \(rows, 5\), got \(2, 4\)"):
        network().predict(np.zeros((2, 4), np.float32))
