import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import StatisticsError
from thinslice.experiments.communities import communities, labels_of, seen_together


def rings(count=20, size=25, bridges=30, seed=0):
    """Villages: within one everybody knows many, between them hardly anybody does."""
    rng = np.random.default_rng(seed)
    near = [(v * size + a, v * size + b) for v in range(count) for a in range(size) for b in rng.choice(size, 6)]
    far = rng.integers(0, count * size, (bridges, 2)).tolist()
    first, second = np.array(near + far).T
    return count * size, (first, second)


def test_villages_are_found():
    nodes, ends = rings()
    found = communities(nodes, ends, rng=np.random.default_rng(0))
    village = np.arange(nodes) // 25
    same = village[ends[0]] == village[ends[1]]
    assert found.within > 0.9
    assert (found.label[ends[0]] == found.label[ends[1]])[same].mean() > 0.9
    assert 15 <= len(found.sizes) <= 30


def test_what_is_not_tied_is_alone_and_what_is_tied_is_together():
    found = communities(5, ([0, 1], [1, 2]), rng=np.random.default_rng(0))
    assert found.sizes.tolist() == [3, 1, 1]
    assert len(set(found.label[:3].tolist())) == 1
    assert found.within == 1.0
    assert labels_of(list("abcde"), found) == dict.fromkeys("abc", "community-0")


def test_weights_decide_between_neighbors():
    ends = ([0, 0, 1, 3], [1, 2, 4, 2])
    found = communities(5, ends, [9.0, 1.0, 9.0, 9.0], rng=np.random.default_rng(0))
    assert found.label[0] == found.label[1]
    assert found.label[2] == found.label[3]


def test_no_community_is_larger_than_it_may_be():
    nodes, ends = rings(count=2, size=200)
    found = communities(nodes, ends, rng=np.random.default_rng(0), largest=50)
    assert found.sizes.max() <= 50
    assert found.sizes.sum() == nodes
    assert len(found.sizes) <= 10  # pieces are as large as they may be


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=60))
    ),
    st.integers(1, 10),
)
def test_every_node_has_one_community_and_ties_across_are_counted(graph, largest):
    nodes, ties = graph
    first, second = [a for a, _ in ties], [b for _, b in ties]
    found = communities(nodes, (first, second), rng=np.random.default_rng(0), largest=largest)
    assert found.label.shape == (nodes,)
    assert np.bincount(found.label, minlength=len(found.sizes)).tolist() == found.sizes.tolist()
    assert found.sizes.max() <= largest
    assert (np.diff(found.sizes) <= 0).all()
    assert 0 <= found.within <= 1


def test_the_same_seed_gives_the_same_communities():
    nodes, ends = rings()
    one, two = (communities(nodes, ends, rng=np.random.default_rng(3)) for _ in range(2))
    assert one.label.tolist() == two.label.tolist()


@pytest.mark.parametrize(
    ("ends", "weights", "words"),
    [
        (([0, 1], [1]), None, "different lengths: 2, 1 and 2"),
        (([0], [9]), None, "beyond the 3 that there are"),
        (([0], [-1]), None, "beyond the 3 that there are"),
        (([0], [1]), [0.0], "above 0 and finite"),
        (([0], [1]), [float("nan")], "above 0 and finite"),
    ],
    ids=["lengths", "beyond", "below", "zero", "nan"],
)
def test_a_graph_that_does_not_hold_together_is_refused(ends, weights, words):
    with pytest.raises(StatisticsError, match=words):
        communities(3, ends, weights, rng=np.random.default_rng(0))


def test_items_of_one_session_are_tied_to_their_neighbors():
    first, second, count = seen_together(["s", "s", "s", "t", "t"], [1, 2, 2, 2, 1])
    assert list(zip(first.tolist(), second.tolist(), count.tolist(), strict=True)) == [(1, 2, 2)]
    assert [each.tolist() for each in seen_together(["s"], [1])] == [[], [], []]
    endless = seen_together(["s"] * 100, np.arange(100), most=50)
    assert len(endless[0]) == 49
