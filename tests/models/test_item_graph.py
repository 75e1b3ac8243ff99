"""Item graphs: equal to sparse matrix products of SciPy, cut at the strongest edges, refusals."""

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.models import item_graph_kernel
from thinslice.models.item_graph import CSR, company, cosine, transitions, transposed, walk

ITEMS = 9


def as_arrays(sessions):
    ptr = np.concatenate([[0], np.cumsum([len(session) for session in sessions])]).astype(np.int64)
    return ptr, np.array([code for session in sessions for code in session], dtype=np.int64)


def matrix(graph):
    return sparse.csr_matrix((graph.weight, graph.item, graph.ptr), shape=(len(graph.ptr) - 1,) * 2).toarray()


def near(sessions, decay, window, backward, loops):
    """Counts of pairs as matrix products: clicks × a band of weights × clicks."""
    ptr, item = as_arrays(sessions)
    clicked = sparse.csr_matrix((np.ones(len(item)), (np.arange(len(item)), item)), shape=(len(item), ITEMS))
    session = np.repeat(np.arange(len(sessions)), np.diff(ptr))
    apart = np.arange(len(item))[None, :] - np.arange(len(item))[:, None]
    band = np.where((apart > 0) & (apart <= window), np.exp((1 - apart) / decay), 0.0)
    band *= session[:, None] == session[None, :]
    total = clicked.T @ (band + backward * band.T) @ clicked
    return total if loops else total - np.diag(np.diag(total))


def assert_strongest(graph, expected, top):
    """Each row has its strongest edges, in rising order, with the oracle's weights."""
    assert graph.ptr[0] == 0
    assert graph.ptr[-1] == len(graph.item) == len(graph.weight)
    for row in range(len(expected)):
        part = slice(graph.ptr[row], graph.ptr[row + 1])
        codes, weights = graph.item[part], graph.weight[part]
        assert (np.diff(codes) > 0).all()
        np.testing.assert_allclose(weights, expected[row, codes], rtol=2e-5)
        strongest = np.sort(expected[row][expected[row] > 1e-12])[::-1][:top]
        np.testing.assert_allclose(np.sort(weights)[::-1], strongest, rtol=2e-5)


worlds = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=8), min_size=1, max_size=12)
tops = st.sampled_from([1, 2, 4, 20])


@settings(max_examples=150, deadline=None)
@given(worlds, st.sampled_from([0.5, 2.0]), st.integers(1, 9), st.sampled_from([0.0, 0.7]), st.booleans(), tops)
def test_transitions_equal_a_matrix_product(sessions, decay, window, backward, loops, top):
    ptr, item = as_arrays(sessions)
    found = transitions(ptr, item, ITEMS, decay=decay, window=window, backward=backward, loops=loops, top=top)
    assert_strongest(found, near(sessions, decay, window, backward, loops), top)


@settings(max_examples=50, deadline=None)
@given(worlds, tops)
def test_normalized_rows_are_divided_before_they_are_cut(sessions, top):
    whole = near(sessions, 2.0, 10, 0.7, True)
    share = whole / np.maximum(whole.sum(axis=1, keepdims=True), 1e-12)
    assert_strongest(transitions(*as_arrays(sessions), ITEMS, backward=0.7, normalize=True, top=top), share, top)


@settings(max_examples=100, deadline=None)
@given(worlds, tops, st.booleans())
def test_a_walk_is_the_square_of_the_rows(sessions, top, normalize):
    one = transitions(*as_arrays(sessions), ITEMS, backward=0.7)
    step = sparse.csr_matrix(matrix(one).astype(np.float64))
    if normalize:
        step = sparse.diags(1 / np.maximum(np.asarray(step.sum(axis=1)).ravel(), 1e-12)) @ step
    assert_strongest(walk(one, top, normalize=normalize), (step @ step).toarray(), top)


@settings(max_examples=100, deadline=None)
@given(worlds, tops, st.booleans(), st.booleans())
def test_the_cosine_equals_a_product_of_unit_vectors(sessions, top, idf, own):
    ptr, item = as_arrays(sessions)
    session = np.repeat(np.arange(len(sessions)), np.diff(ptr))
    times = sparse.csr_matrix((np.ones(len(item)), (session, item)), shape=(len(sessions), ITEMS))
    times.sum_duplicates()
    if idf:
        times = sparse.diags(np.log1p(ITEMS / (1 + np.diff(times.indptr)))) @ times.sqrt()
    length = np.sqrt(np.asarray(times.multiply(times).sum(axis=0)).ravel())
    unit = times @ sparse.diags(1 / np.maximum(length, 1e-12))
    expected = (unit.T @ unit).toarray()
    if not own:
        np.fill_diagonal(expected, 0)
    assert_strongest(cosine(ptr, item, ITEMS, idf=idf, own=own, top=top), expected, top)


@settings(max_examples=50, deadline=None)
@given(worlds, tops)
def test_transposed_edges_point_the_other_way(sessions, top):
    one = transitions(*as_arrays(sessions), ITEMS)
    assert_strongest(transposed(one, top), matrix(one).T, top)


def test_a_row_of_thousands_keeps_its_strongest_and_of_equal_ones_the_smaller_codes():
    rng = np.random.default_rng(0)
    weight = rng.choice([0.5, 1.0, 1.0 + 1e-6, 3.0, 1e-20], 4000).astype(np.float32)
    ptr = np.zeros(4001, dtype=np.int32)
    ptr[1:] = 4000
    graph = CSR(ptr, np.arange(4000, dtype=np.int32), weight)
    column = CSR(*map(np.asarray, transposed(graph, 1)))
    assert column.weight.tolist() == weight.tolist()
    for top in (1, 100, 900, 2000, 3999):
        back = transposed(column, top)
        expected = np.sort(np.lexsort((np.arange(4000), -weight))[:top])
        assert back.item.tolist() == expected.tolist()
        assert back.weight.tolist() == weight[expected].tolist()


@settings(max_examples=60, deadline=None)
@given(worlds)
def test_company_is_a_weighted_product_of_sessions_told_for_the_edges_of_a_graph(sessions):
    ptr, item = as_arrays(sessions)
    graph = cosine(ptr, item, ITEMS, top=4)
    holds = np.array([[code in session for code in range(ITEMS)] for session in sessions], dtype=float)
    both = holds.T / np.sqrt(holds.sum(axis=1)) @ holds
    rare = np.log1p(len(sessions) / np.maximum(holds.sum(axis=0), 1)) ** 2
    expected = rare[:, None] * both * ITEMS / len(item)
    owner = np.repeat(np.arange(ITEMS), np.diff(graph.ptr))
    assert company(ptr, item, ITEMS, graph).tolist() == pytest.approx(expected[owner, graph.item].tolist(), rel=1e-5)


def test_only_the_newest_clicks_of_an_endless_session_count_for_the_cosine():
    ptr, item = as_arrays([[0, 1, 2, 3, 4, 5]])
    assert cosine(ptr, item, ITEMS, longest=2).item.tolist() == [4, 5, 4, 5]


def test_no_clicks_give_empty_rows():
    ptr, item = as_arrays([])
    for graph in (transitions(ptr, item, 4), cosine(ptr, item, 4), walk(transitions(ptr, item, 4))):
        assert graph.ptr.tolist() == [0, 0, 0, 0, 0]
        assert len(graph.item) == len(graph.weight) == 0


def test_the_same_clicks_give_the_same_bytes_and_the_arrays_are_narrow():
    rng = np.random.default_rng(0)
    ptr, item = np.arange(0, 5001, 5), rng.integers(0, 300, 5000)
    for build in (transitions, cosine):
        graph, again = build(ptr, item, 300, top=20), build(ptr.astype(np.int32), item.astype(np.int32), 300, top=20)
        assert [array.tobytes() for array in graph] == [array.tobytes() for array in again]
        assert [array.dtype.name for array in graph] == ["int32", "int32", "float32"]
        assert np.diff(graph.ptr).max() == 20
    for kernel in (item_graph_kernel.transitions, item_graph_kernel.cosine, item_graph_kernel.walk):
        assert len(kernel.signatures) == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"item": [0, 9]}, "item codes must be from 0 to 8, got 0 to 9"),
        ({"item": [-1, 0]}, "item codes must be from 0 to 8, got -1 to 0"),
        ({"session_ptr": [0, 1]}, "must rise from 0 to the number of clicks, 2"),
        ({"session_ptr": [0, 2, 1, 2]}, "must rise from 0 to the number of clicks, 2"),
        ({"session_ptr": []}, "must rise from 0 to the number of clicks, 2"),
        ({"decay": float("nan")}, "decay must be between 0.1 and 1,000,000 clicks, got nan"),
        ({"backward": -1}, "backward must be between 0 and 1,000,000, got -1"),
        ({"window": 0}, "window must be between 1 and 1,000 clicks, got 0"),
        ({"top": 0}, "top must be a whole number of at least 1, got 0"),
    ],
)
def test_transitions_refuse_what_does_not_fit(wrong, says):
    given = {"session_ptr": [0, 2], "item": [0, 1], "n_items": 9} | wrong
    arrays = {name: np.array(given.pop(name), dtype=np.int64) for name in ("session_ptr", "item")}
    with pytest.raises(BadInput, match=says):
        transitions(**arrays, **given)


def test_cosine_and_company_refuse_a_length_of_nothing():
    with pytest.raises(BadInput, match=r"longest must be between 1 and 100,000 clicks, got 0"):
        cosine(*as_arrays([[0, 1]]), ITEMS, longest=0)
    with pytest.raises(BadInput, match=r"longest must be between 1 and 100,000 clicks, got 0"):
        company(*as_arrays([[0, 1]]), ITEMS, cosine(*as_arrays([[0, 1]]), ITEMS), longest=0)
