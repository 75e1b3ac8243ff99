"""The session transformer learns order with PyTorch, and is served from plain arrays that give the same numbers."""

import subprocess
import sys

import numpy as np
import pytest

from thinslice.errors import BadInput
from thinslice.models import SessionTransformer, from_columns
from thinslice.models.session_transformer_fit import batches, windows_of

STEPS = [["a", "b", "c", "d"], ["d", "c", "b", "a"]]


def world():
    """Two walks over the same items in opposite directions: only order tells what comes next."""
    rows = [(f"s{n}", item, 10.0 * n + step) for n in range(40) for step, item in enumerate(STEPS[n % 2])]
    return from_columns(*zip(*rows, strict=True))


@pytest.mark.neural
def test_it_learns_the_order_that_counting_pairs_cannot():
    model = SessionTransformer.fit(world(), rng=0, embedding_size=16, epochs=200, spread=0.0)
    assert model.recommend(["a", "b"], 1).item_ids == ["c"]
    assert model.recommend(["d", "c", "b"], 1).item_ids == ["a"]


@pytest.mark.neural
@pytest.mark.parametrize("blocks", [1, 2])
def test_the_served_vector_is_that_of_pytorch(blocks):
    import torch

    model = SessionTransformer.fit(world(), rng=0, embedding_size=16, blocks=blocks, epochs=3)
    arrays = {
        name: torch.from_numpy(np.array(array)) for name, array in model.arrays().items() if array.dtype.kind == "f"
    }
    clicks = np.array([0, 1, 2, 0], dtype=np.int32)
    functional, size = torch.nn.functional, 16
    x = arrays["factors"].T[torch.from_numpy(clicks).long()] * 4.0 + arrays["place"][:4]
    for block in range(blocks):
        a = functional.layer_norm(x, (size,), arrays["norm1"][block], arrays["norm1_bias"][block])
        q, k, v = ((a @ arrays[name][block]).view(4, 2, 8).transpose(0, 1) for name in ("query", "key", "value"))
        mixed = functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        x = x + mixed.transpose(0, 1).reshape(4, size) @ arrays["out"][block]
        b = functional.layer_norm(x, (size,), arrays["norm2"][block], arrays["norm2_bias"][block])
        wide = functional.relu(b @ arrays["wide"][block] + arrays["wide_bias"][block])
        x = x + wide @ arrays["narrow"][block] + arrays["narrow_bias"][block]
    expected = functional.layer_norm(x, (size,), arrays["last_norm"][0], arrays["last_norm"][1])[-1]
    np.testing.assert_allclose(model._vector(clicks), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.neural
def test_serving_does_not_import_pytorch(tmp_path):
    model = SessionTransformer.fit(world(), rng=0, embedding_size=16, epochs=200, spread=0.0)
    for name, array in model.arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    code = f"""
import pathlib, sys, numpy
from thinslice.models import SessionTransformer
arrays = {{path.stem: numpy.load(path) for path in pathlib.Path({str(tmp_path)!r}).iterdir()}}
model = SessionTransformer.from_arrays(arrays)
assert model.recommend(["a", "b"], 1).item_ids == ["c"]
assert model.causes(["a", "b"], ["c"])[0] in ("a", "b")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_log_without_two_clicks_in_a_row_needs_no_learning():
    model = SessionTransformer.fit(from_columns(["s", "t"], ["a", "b"], [1.0, 2.0]))
    assert set(model.recommend(["a"], 5).scores) <= {0.0}


def test_every_click_but_the_first_is_foreseen_exactly_once():
    ptr, items = np.array([0, 7, 8, 11]), np.arange(11, dtype=np.int32)
    pieces = windows_of(ptr, items, 3)
    assert sorted(click for piece in pieces for click in piece[1:].tolist()) == [1, 2, 3, 4, 5, 6, 9, 10]
    found = [row[row >= 0].tolist() for batch in batches(pieces, np.random.default_rng(0)) for row in batch]
    assert sorted(found) == sorted(piece.tolist() for piece in pieces)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"embedding_size": 15}, "multiple of heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"look": 0}, "look"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings, says):
    with pytest.raises(BadInput, match=says):
        SessionTransformer.fit(world(), **settings)


def test_without_pytorch_learning_is_refused_with_the_command_that_brings_it():
    code = """
import sys
sys.modules["torch"] = None
from thinslice.errors import NotReady
from thinslice.models import SessionTransformer, from_columns
try:
    SessionTransformer.fit(from_columns(["s", "s"], ["a", "b"], [1.0, 2.0]))
except NotReady as error:
    assert "thinslice[neural]" in str(error) + error.hint
else:
    raise SystemExit("not refused")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
