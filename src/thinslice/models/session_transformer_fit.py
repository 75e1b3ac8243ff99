"""How the session transformer learns: PyTorch, one thread, the same bytes each time. Imported only for learning."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import NotReady
from thinslice.records import Arrays

MIN_STEPS = 600
"""Small logs are gone through until so many steps are done, or so often as `MOST_ROUNDS` says."""

MOST_ROUNDS = 30
"""A tiny log gone through more often would be known by heart."""

TOKENS = 2048
"""About so many clicks are learned from at each step."""


def torch_or_refuse() -> Any:
    """PyTorch, or the command that brings it.

    Raises:
        NotReady: It is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError:
        hint = "`pip install 'thinslice[neural]'` brings it; serving does not need it."
        raise NotReady("this model learns with PyTorch, which is not installed.", hint=hint) from None
    return torch


def untrained(items: int, *, embedding_size: int, blocks: int, heads: int, look: int) -> Arrays:
    """Weights of the right shapes that say nothing: for a log without two clicks in a row."""
    del heads
    size = embedding_size
    square, wide = np.zeros((blocks, size, size), np.float32), np.zeros((blocks, size, 2 * size), np.float32)
    row = np.zeros((blocks, size), np.float32)
    return {
        "factors": np.zeros((size, items), np.float32), "bias": np.zeros(items, np.float32),
        "place": np.zeros((look, size), np.float32), "last_norm": np.zeros((2, size), np.float32),
        **dict.fromkeys(("query", "key", "value", "out"), square),
        "wide": wide, "wide_bias": np.zeros((blocks, 2 * size), np.float32),
        "narrow": wide.transpose(0, 2, 1).copy(), "narrow_bias": row,
        **dict.fromkeys(("norm1", "norm1_bias", "norm2", "norm2_bias"), row),
    }  # fmt: skip


def learn(
    session_ptr: NDArray[np.int64],
    item: NDArray[np.int32],
    items: int,
    *,
    seed: int,
    embedding_size: int,
    blocks: int,
    heads: int,
    look: int,
    epochs: int,
    negatives: int,
    learning_rate: float,
    dropout: float,
    spread: float,
) -> Arrays:
    """Learns the weights; see `SessionTransformer.fit` for the settings."""
    torch = torch_or_refuse()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            draw = np.random.default_rng(seed)
            near = visited_together(session_ptr, item, items, embedding_size, draw)
            weights = _started(torch, near, blocks, look)
            optimizer = torch.optim.Adam(weights.values(), lr=learning_rate, betas=(0.9, 0.98))
            windows = windows_of(session_ptr, item, look)
            count = np.bincount(item, minlength=items).astype(np.float64) ** 0.75
            chance = count / count.sum()
            heap = np.cumsum(chance)
            log_expected = torch.from_numpy(np.log(np.maximum(chance * negatives, 1e-12)).astype(np.float32))
            first = list(batches(windows, draw))
            rounds = max(epochs, min(MOST_ROUNDS, -(-MIN_STEPS // len(first))))
            total, step = rounds * len(first), 0
            for _ in range(rounds):
                for batch in batches(windows, draw):
                    step += 1
                    warm = min(1.0, step / max(0.03 * total, 1.0))
                    for group in optimizer.param_groups:
                        group["lr"] = learning_rate * warm * (1 - 0.9 * step / total)
                    drawn = np.minimum(np.searchsorted(heap, draw.random(negatives)), items - 1)
                    target = spread_targets(batch, spread, draw)
                    loss = _loss(torch, weights, batch, target, torch.from_numpy(drawn), log_expected, heads, dropout)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
            return _arrays(weights)
    finally:
        torch.set_num_threads(threads)


def windows_of(session_ptr: NDArray[np.int64], item: NDArray[np.int32], look: int) -> list[NDArray[np.int64]]:
    """Pieces of sessions, each at most `look` + 1 clicks, so that every click but a session's first is foreseen once.

    >>> [piece.tolist() for piece in windows_of(np.array([0, 1, 5]), np.array([9, 1, 2, 3, 4], np.int32), 2)]
    [[1, 2, 3], [3, 4]]
    """
    pieces = []
    for start, end in zip(session_ptr[:-1].tolist(), session_ptr[1:].tolist(), strict=True):
        pieces += [item[at : min(at + look + 1, end)].astype(np.int64) for at in range(start, end - 1, look)]
    return pieces


def batches(windows: list[NDArray[np.int64]], draw: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Batches of pieces of like length, in a drawn order; shape (pieces, longest), filled up with -1."""
    order = draw.permutation(len(windows))
    order = order[np.argsort([len(windows[n]) for n in order], kind="stable")]
    chosen: list[NDArray[np.int64]] = []
    made = []
    for number in order.tolist():
        if chosen and (len(chosen) + 1) * len(windows[number]) > TOKENS:
            made.append(chosen)
            chosen = []
        chosen.append(windows[number])
    made.append(chosen)
    for place in draw.permutation(len(made)).tolist():
        pieces = made[place]
        batch = np.full((len(pieces), max(map(len, pieces))), -1, dtype=np.int64)
        for row, piece in enumerate(pieces):
            batch[row, : len(piece)] = piece
        yield batch


def spread_targets(batch: NDArray[np.int64], spread: float, draw: np.random.Generator) -> NDArray[np.int64]:
    """What each place shall foresee: mostly the next click, at a share `spread` of places any click of the session.

    Args:
        batch: Shape (pieces, longest), filled up with -1.
        spread: 0..1.
        draw: Which places, and which clicks.

    Returns:
        Shape (pieces, longest - 1), -1 where there is nothing to foresee.
    """
    target = batch[:, 1:].copy()
    length = (batch >= 0).sum(axis=1, keepdims=True)
    other = np.take_along_axis(batch, (draw.random(target.shape) * length).astype(np.int64), axis=1)
    chosen = (target >= 0) & (draw.random(target.shape) < spread)
    target[chosen] = other[chosen]
    return target


def visited_together(
    session_ptr: NDArray[np.int64], item: NDArray[np.int32], items: int, size: int, draw: np.random.Generator
) -> NDArray[np.float32]:
    """Where the item vectors start: items of the same sessions are near each other, so that learning begins with sense.

    The leading singular vectors of the table of sessions × items, both normalized, found by a few turns of subspace
    iteration (Halko, Martinsson and Tropp, SIAM Review 2011); shape (items, size), mean length about a half.
    """
    from scipy.sparse import csr_matrix

    length = np.diff(session_ptr)
    clicks = np.bincount(item, minlength=items)
    worth = 1 / np.sqrt(np.repeat(length, length) * clicks[item])
    table = csr_matrix((worth, item, session_ptr), shape=(len(length), items))
    width = min(size, items, len(length))
    turned = np.linalg.qr(draw.standard_normal((items, width)))[0]
    for _ in range(4):
        turned = np.linalg.qr(table.T @ (table @ turned))[0]
    seen = table @ turned
    strength, axes = np.linalg.eigh(seen.T @ seen)
    near = np.zeros((items, size))
    near[:, :width] = turned @ (axes * np.sqrt(np.maximum(strength, 0)))
    near *= 0.5 / max(float(np.linalg.norm(near, axis=1).mean()), 1e-9)
    return (near + 0.002 * draw.standard_normal((items, size))).astype(np.float32)


def _started(torch: Any, vectors: NDArray[np.float32], blocks: int, look: int) -> dict[str, Any]:
    items, size = vectors.shape

    def normal(*shape: int, scale: float) -> Any:
        return torch.nn.Parameter(torch.randn(*shape) * scale)

    def same(value: float, *shape: int) -> Any:
        return torch.nn.Parameter(torch.full(shape, value))

    near = size**-0.5
    return {
        "factors": torch.nn.Parameter(torch.from_numpy(vectors)), "bias": same(0.0, items),
        "place": same(0.0, look, size),
        **{name: normal(blocks, size, size, scale=near) for name in ("query", "key", "value", "out")},
        "wide": normal(blocks, size, 2 * size, scale=near), "wide_bias": same(0.0, blocks, 2 * size),
        "narrow": normal(blocks, 2 * size, size, scale=near / 2), "narrow_bias": same(0.0, blocks, size),
        **{name: same(1.0, blocks, size) for name in ("norm1", "norm2")},
        **{name: same(0.0, blocks, size) for name in ("norm1_bias", "norm2_bias")},
        "last_norm": same(1.0, size), "last_norm_bias": same(0.0, size),
    }  # fmt: skip


def _loss(torch: Any, w: dict[str, Any], batch: NDArray[np.int64], targets: NDArray[np.int64], drawn: Any,
          log_expected: Any, heads: int, dropout: float) -> Any:  # fmt: skip
    """The sampled softmax of one batch: clicked items against the drawn ones, which all places share."""
    functional = torch.nn.functional
    before, target = torch.from_numpy(batch)[:, :-1].clamp(min=0), torch.from_numpy(targets)
    rows, length, size = before.shape[0], before.shape[1], w["factors"].shape[1]

    def split(x: Any) -> Any:
        return x.view(rows, length, heads, -1).transpose(1, 2)

    x = functional.dropout(w["factors"][before] * size**0.5 + w["place"][:length], dropout)
    for block in range(len(w["query"])):
        a = functional.layer_norm(x, (size,), w["norm1"][block], w["norm1_bias"][block])
        mixed = functional.scaled_dot_product_attention(
            split(a @ w["query"][block]), split(a @ w["key"][block]), split(a @ w["value"][block]), is_causal=True
        )
        mixed = mixed.transpose(1, 2).reshape(rows, length, size) @ w["out"][block]
        x = x + functional.dropout(mixed, dropout)
        b = functional.layer_norm(x, (size,), w["norm2"][block], w["norm2_bias"][block])
        wide = functional.relu(b @ w["wide"][block] + w["wide_bias"][block])
        x = x + functional.dropout(wide @ w["narrow"][block] + w["narrow_bias"][block], dropout)
    x = functional.layer_norm(x, (size,), w["last_norm"], w["last_norm_bias"])
    there = target >= 0
    x, target = x[there], target[there]
    clicked = (x * w["factors"][target]).sum(-1) + w["bias"][target] - log_expected[target]
    others = x @ w["factors"][drawn].T + w["bias"][drawn] - log_expected[drawn]
    others = others.masked_fill(target[:, None] == drawn[None], -1e9)
    return functional.cross_entropy(torch.cat([clicked[:, None], others], 1), torch.zeros(len(x), dtype=torch.long))


def _arrays(weights: dict[str, Any]) -> Arrays:
    arrays = {name: weight.detach().numpy().copy() for name, weight in weights.items()}
    arrays["factors"] = np.ascontiguousarray(arrays["factors"].T)
    arrays["last_norm"] = np.stack([arrays["last_norm"], arrays.pop("last_norm_bias")])
    return arrays
