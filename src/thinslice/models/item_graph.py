"""Graphs over items, learned from sessions in about a second per million: what follows what, what goes with what.

Each graph is three arrays (compressed rows); only the strongest edges of an item are kept, so its size is bounded by
the catalog and not by the log.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput


class CSR(NamedTuple):
    """Weighted edges from item to item: the row of item i is `item[ptr[i]:ptr[i + 1]]`, in rising order."""

    ptr: NDArray[np.int32]
    """Shape (items + 1,)."""
    item: NDArray[np.int32]
    """Shape (edges,)."""
    weight: NDArray[np.float32]
    """Shape (edges,), positive."""


def transitions(
    session_ptr: NDArray[Any],
    item: NDArray[Any],
    n_items: int,
    *,
    decay: float = 2.0,
    window: int = 10,
    backward: float = 0.0,
    top: int = 200,
    loops: bool = True,
    normalize: bool = False,
) -> CSR:
    """What is clicked soon after an item: a click d clicks later adds exp((1 - d) / decay).

    Args:
        session_ptr: Shape (sessions + 1,): where each session begins, rising.
        item: Shape (clicks,): item codes below `n_items`.
        n_items: Size of the catalog.
        decay: Clicks after which a step counts 1/e.
        window: Clicks apart that still count.
        backward: What the same step counts for what was clicked before; 0 leaves that out.
        top: The longest row; of equally strong edges those to smaller codes are kept.
        loops: Whether an item may follow itself.
        normalize: Whether a row is divided by its sum (before it is cut at `top`).

    Raises:
        BadInput: A setting is out of its range, or the arrays do not fit together.

    >>> graph = transitions(np.array([0, 3]), np.array([0, 1, 2]), 3, decay=1.0)
    >>> graph.ptr.tolist(), graph.item.tolist(), np.round(graph.weight.astype(float), 3).tolist()
    ([0, 2, 3, 3], [1, 2, 2], [1.0, 0.368, 1.0])
    """
    ptr, item = _checked(session_ptr, item, n_items)
    if not 0.1 <= decay <= 1e6:
        raise BadInput(f"decay must be between 0.1 and 1,000,000 clicks, got {decay}.")
    if not 0 <= backward <= 1e6:
        raise BadInput(f"backward must be between 0 and 1,000,000, got {backward}.")
    if not 1 <= window <= 1000:
        raise BadInput(f"window must be between 1 and 1,000 clicks, got {window}.")
    step = np.exp(-np.arange(window) / decay)
    ahead = step[step > 1e-12].astype(np.float32)
    back = (backward * step[step > 1e-12]).astype(np.float32) if backward > 1e-12 else np.empty(0, np.float32)
    return CSR(*_kernel().transitions(ptr, item, n_items, ahead, back, _most(top), loops, normalize))


def walk(graph: CSR, top: int = 100, *, normalize: bool = True) -> CSR:
    """Two steps through a graph: what is near to what is near.

    Args:
        graph: What one step is.
        top: The longest row.
        normalize: Whether the rows of `graph` are divided by their sums first.

    >>> one = transitions(np.array([0, 3]), np.array([0, 1, 2]), 3, window=1)
    >>> two = walk(one)
    >>> two.ptr.tolist(), two.item.tolist(), two.weight.tolist()
    ([0, 1, 1, 1], [2], [1.0])
    """
    return CSR(*_kernel().walk(*map(_plain, graph), _most(top), normalize))


def transposed(graph: CSR, top: int = 200) -> CSR:
    """The same edges turned around; rows are cut at `top`."""
    return CSR(*_kernel().transposed(*map(_plain, graph), _most(top)))


def cosine(
    session_ptr: NDArray[Any],
    item: NDArray[Any],
    n_items: int,
    *,
    top: int = 200,
    idf: bool = True,
    own: bool = True,
    longest: int = 500,
) -> CSR:
    """Which items share sessions: the cosine of their vectors over sessions.

    Without `idf` an entry is how often the session clicked the item. With it the entry is the root of that times
    log(1 + items / (1 + distinct items of the session)): a session of many items says less of each pair.

    Args:
        session_ptr: Shape (sessions + 1,): where each session begins, rising.
        item: Shape (clicks,): item codes below `n_items`.
        n_items: Size of the catalog.
        top: The longest row.
        idf: Whether short sessions count more.
        own: Whether an item belongs to its own row, with weight 1: sessions come back to the same item often.
        longest: Only so many newest clicks of a session count, so that a robot's endless session costs little.

    Raises:
        BadInput: A setting is out of its range, or the arrays do not fit together.

    >>> graph = cosine(np.array([0, 2, 3]), np.array([0, 1, 1]), 2, idf=False)
    >>> graph.item.tolist(), np.round(graph.weight.astype(float), 3).tolist()
    ([0, 1, 0, 1], [1.0, 0.707, 0.707, 1.0])
    """
    ptr, item = _checked(session_ptr, item, n_items)
    if not 1 <= longest <= 100_000:
        raise BadInput(f"longest must be between 1 and 100,000 clicks, got {longest}.")
    kernel = _kernel()
    ptr, item, value = kernel.distinct(ptr, item, n_items, longest)
    if idf:
        size = np.diff(ptr)
        np.sqrt(value, out=value)
        value *= np.repeat(np.log1p(n_items / (1 + size)).astype(np.float32), size)
    return CSR(*kernel.cosine(ptr, item, value, n_items, _most(top), own))


def company(
    session_ptr: NDArray[Any], item: NDArray[Any], n_items: int, graph: CSR, *, longest: int = 500
) -> NDArray[np.float32]:
    """How much company two items keep: the sessions of both, short ones counting more, for each edge of a graph.

    A session of d distinct items counts 1/sqrt(d), an edge from a rare item more: log(1 + sessions / its sessions),
    squared. Unlike the cosine it is not divided by how often the other item is clicked, so it says how likely that one
    comes rather than how peculiar it is. Counted in clicks / items, it means the same when the log has grown.

    Args:
        session_ptr: Shape (sessions + 1,): where each session begins, rising.
        item: Shape (clicks,): item codes below `n_items`.
        n_items: Size of the catalog.
        graph: Its edges are weighed.
        longest: Only so many newest clicks of a session count.

    Returns:
        A weight an edge, beside `graph.item`.

    >>> sessions = np.array([0, 2, 3]), np.array([0, 1, 1]), 2
    >>> np.round(company(*sessions, cosine(*sessions)).astype(float), 3).tolist()
    [0.569, 0.569, 0.226, 0.547]
    """
    ptr, item = _checked(session_ptr, item, n_items)
    if not 1 <= longest <= 100_000:
        raise BadInput(f"longest must be between 1 and 100,000 clicks, got {longest}.")
    kernel, clicks = _kernel(), max(len(item), 1)
    ptr, item, _ = kernel.distinct(ptr, item, n_items, longest)
    sessions = np.maximum(np.bincount(item, minlength=n_items), 1)
    rare = np.log1p((len(ptr) - 1) / sessions) ** 2 * (n_items / clicks)
    worth = (1 / np.sqrt(np.maximum(np.diff(ptr), 1))).astype(np.float32)
    weight: NDArray[np.float32] = kernel.company(ptr, item, worth, rare.astype(np.float32), *map(_plain, graph[:2]))
    return weight


def _checked(session_ptr: NDArray[Any], item: NDArray[Any], n_items: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as int32, plain."""
    if len(item) >= 2**31 - 1 or n_items >= 2**31 - 1:
        raise BadInput(f"at most {2**31 - 2} clicks and items fit, got {len(item)} and {n_items}.")
    if len(session_ptr) == 0 or session_ptr[0] != 0 or session_ptr[-1] != len(item) or (np.diff(session_ptr) < 0).any():
        raise BadInput(f"session_ptr must rise from 0 to the number of clicks, {len(item)}.")
    if len(item) and not 0 <= item.min() <= item.max() < n_items:
        raise BadInput(f"item codes must be from 0 to {n_items - 1}, got {item.min()} to {item.max()}.")
    return _plain(session_ptr, np.int32), _plain(item, np.int32)


def _most(top: int) -> int:
    if top < 1 or top != int(top):
        raise BadInput(f"top must be a whole number of at least 1, got {top}.")
    return int(top)


def _plain(array: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
    """A read-only view, so that memory-mapped arrays and those in memory share one compiled kernel."""
    view = np.ascontiguousarray(np.asarray(array, dtype=dtype)).view()
    view.flags.writeable = False
    return view


def _kernel() -> Any:
    """The compiled loops, imported late."""
    from thinslice.models import item_graph_kernel

    return item_graph_kernel
