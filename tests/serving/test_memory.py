"""Many tenants share the memory: who is asked is held as a whole, the others answer what is popular with them."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.models import MODELS, Vocabulary, from_columns
from thinslice.serving import ModelHost
from thinslice.serving.memory import SETTLED_TURNS, SMALL, Budget, bytes_of, small_popular
from thinslice.serving.models import KEEP_S
from thinslice.store.artifacts import FileArtifacts, MemoryArtifacts

NAMES = ("popular", "newest", "session-knn")


def arrays_of(items, sessions=3):
    rows = [(f"s{n}", item, 1e9 + n) for n in range(sessions) for item in items]
    clicks = from_columns(*[list(column) for column in zip(*rows, strict=True)])
    return {name: MODELS[name].fit(clicks, rng=0).arrays() for name in NAMES}


def publish(artifacts, tenant, items, slot="live"):
    version = artifacts.put(tenant, slot, arrays_of(items), {"for": tenant})
    artifacts.promote(tenant, slot, version)
    return version


@pytest.fixture
def crowd():
    """Three tenants of one size, and room for two of them."""
    artifacts = MemoryArtifacts()
    for tenant in ("a", "b", "c"):
        publish(artifacts, tenant, [f"{tenant}{number}" for number in range(50)])
    size = bytes_of(arrays_of([f"a{number}" for number in range(50)]))
    return artifacts, ModelHost(artifacts, ["a", "b", "c"], memory_mb=2.5 * size / 1e6)


def test_who_has_no_room_answers_what_is_popular(crowd):
    _, host = crowd
    host.refresh(0.0)
    assert [host.bundle(tenant).whole for tenant in "abc"] == [True, True, False]
    assert host.gave_way == ["c"]
    assert set(host.bundle("a").models) == set(NAMES)
    assert set(host.bundle("c").models) == {"popular"}
    assert host.bundle("c").models["popular"].recommend([], 3).item_ids == ["c0", "c1", "c10"]


def test_who_was_not_asked_longest_gives_way_and_comes_back_when_it_is_asked(crowd):
    _, host = crowd
    host.refresh(0.0)
    for turn in range(SETTLED_TURNS + 2):
        host.bundle("b")
        host.refresh(turn)
    host.bundle("c")
    host.refresh(100.0)
    assert [host._slots[tenant]["live"].whole for tenant in "abc"] == [False, True, True]
    for turn in range(SETTLED_TURNS + 2):
        host.bundle("a")
        host.bundle("b")
        host.refresh(100.0 + turn)
    assert [host._slots[tenant]["live"].whole for tenant in "abc"] == [True, True, False]


def test_nobody_gives_way_who_was_asked_a_moment_ago(crowd):
    _, host = crowd
    host.refresh(0.0)
    for turn in range(2 * SETTLED_TURNS):
        for tenant in "abc":
            host.bundle(tenant)
        host.refresh(turn)
    assert [host.bundle(tenant).whole for tenant in "abc"] == [True, True, False]


def test_a_small_tenant_follows_new_generations_of_its_popularity(crowd):
    artifacts, host = crowd
    host.refresh(0.0)
    version = publish(artifacts, "c", ["new"])
    host.refresh(1.0)
    assert host.bundle("c").version == version
    assert host.bundle("c").models["popular"].recommend([], 3).item_ids == ["new"]


def test_a_tenant_larger_than_everything_is_never_held():
    artifacts = MemoryArtifacts()
    publish(artifacts, "a", [str(number) for number in range(50)])
    host = ModelHost(artifacts, ["a"], memory_mb=0.001)
    for turn in range(3):
        host.bundle("a")
        host.refresh(turn)
    assert not host.bundle("a").whole


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1, 50),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 20), st.integers(0, 90)), max_size=40),
)
def test_what_is_held_never_exceeds_what_is_allowed(allowed, happenings):
    budget, held = Budget(allowed), {}
    for tenant, size, turns in happenings:
        for _ in range(turns):
            budget.next_turn()
        budget.ask(tenant)
        leaving = budget.give_way(tenant, size)
        if leaving is None:
            budget.let_go(tenant)
            held.pop(tenant, None)
            continue
        for other in leaving:
            budget.let_go(other)
            del held[other]
        budget.hold(tenant, size)
        held[tenant] = size
        assert sum(held.values()) <= allowed


def test_the_head_of_popular_is_popular_itself():
    whole = MODELS["popular"].from_arrays(arrays_of([f"ü{number}" for number in range(SMALL + 10)])["popular"])
    head = MODELS["popular"].from_arrays(small_popular(whole.arrays()))
    assert len(head.item_ids) == SMALL
    assert head.recommend([], 20) == whole.recommend([], 20)


def test_an_old_generation_goes_after_a_minute(tmp_path):
    artifacts = FileArtifacts(tmp_path)
    host = ModelHost(artifacts, ["a"])
    publish(artifacts, "a", ["x"])
    host.refresh(0.0)
    publish(artifacts, "a", ["x", "y"])
    host.refresh(1.0)
    assert len(host._retired) == 1
    host.refresh(2.0 + KEEP_S)
    assert not host._retired


@given(st.lists(st.text(max_size=8), max_size=30, unique=True))
def test_a_vocabulary_reads_what_it_wrote_whatever_the_letters(names):
    read = Vocabulary.from_arrays(Vocabulary(names).arrays())
    assert list(read) == names
    assert read.code == {name: number for number, name in enumerate(names)}


def test_a_new_generation_of_a_large_shop_lets_the_answers_go_on(tmp_path):
    """Between two turns of the answering thread the loader computes a few milliseconds at most, not all of its time."""
    artifacts = FileArtifacts(tmp_path)
    items = [f"item-{number}" for number in range(40_000)]
    host = ModelHost(artifacts, ["shop"])
    publish(artifacts, "shop", items[1:])
    host.refresh(0.0)
    publish(artifacts, "shop", items)
    clock: list[int] = []
    go, spent = threading.Event(), []

    def load():
        clock.append(time.pthread_getcpuclockid(threading.get_ident()))
        go.wait()
        began = time.thread_time()
        host.refresh(1.0)
        spent.append(time.thread_time() - began)
        go.clear()
        done.wait()

    done = threading.Event()
    loader = threading.Thread(target=load)
    loader.start()
    while not clock:
        time.sleep(0.001)
    turns = []
    go.set()
    while go.is_set():
        before = time.clock_gettime(clock[0])
        time.sleep(50e-6)
        turns.append(time.clock_gettime(clock[0]) - before)
    done.set()
    loader.join()
    assert host.bundle("shop").version == artifacts.live("shop")["live"]
    assert len(turns) > 20
    assert np.quantile(turns, 0.95) < 0.002
    assert max(turns) < 0.5 * spent[0]
