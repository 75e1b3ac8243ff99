"""Session kNN: equal to a slow oracle in plain Python, one compiled form, and refusals."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.models import SessionKNN, from_columns, knn_kernel
from thinslice.testing import small_world


def oracle(clicks, question, *, sample, neighbors, look, decay, reach, before, after, rare, age):
    """What the docstring of SessionKNN.fit says, written down slowly: item → score."""
    sessions = {}
    for session, item, time in clicks:
        sessions.setdefault(session, []).append((time, item))
    ordered = [
        (max(time for time, _ in rows), [item for _, item in sorted(rows, key=lambda row: row[0])])
        for _, rows in sorted(sessions.items())
    ]
    ordered.sort(key=lambda row: row[0])
    logs = [items for _, items in ordered]
    vocabulary = {item for items in logs for item in items}
    idf = {item: math.log1p(len(logs) / sum(item in items for items in logs)) for item in vocabulary}

    known = {}
    newest_first = [item for item in reversed(question) if item in vocabulary][:look]
    for step, item in enumerate(newest_first):
        if item not in known:
            known[item] = np.float32(idf[item]) * np.float32(math.exp(-step / decay))
    found = [number for number in range(len(logs) - 1, -1, -1) if known.keys() & set(logs[number])][:sample]

    def similarity(number):
        total = np.float32(0)
        for item, weight in known.items():  # newest first, as the bits of a mask
            if item in logs[number]:
                total = np.float32(total + weight)
        return total

    kept = sorted(found, key=lambda number: (-similarity(number), -number))[:neighbors]
    ended = [time for time, _ in ordered]
    span = max(ended[-1] - ended[0], 1e-9)
    scores = {}
    for number in kept:
        match = next(item for item in known if item in logs[number])
        at = len(logs[number]) - 1 - logs[number][::-1].index(match)
        old = round((ended[-1] - ended[number]) / span * 255)
        strength = float(similarity(number)) * math.exp(-age * old / 255)
        for position, item in enumerate(logs[number]):
            step = position - at
            if abs(step) <= reach:
                near = math.exp(step / before) if step < 0 else math.exp(-step / after)
                if near < 0.01:
                    continue
                scores[item] = scores.get(item, 0.0) + strength * near
    return {item: score * (1 + idf[item]) ** rare for item, score in scores.items()}


worlds = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 7)), min_size=1, max_size=60)
choices = st.fixed_dictionaries(
    {
        "sample": st.integers(1, 14),
        "neighbors": st.integers(1, 8),
        "look": st.integers(1, 10),
        "decay": st.sampled_from([0.7, 1.5, 50.0]),
        "reach": st.integers(1, 5),
        "before": st.sampled_from([0.5, 4.0]),
        "after": st.sampled_from([1.0, 6.0]),
        "rare": st.sampled_from([0.0, 1.0]),
        "age": st.sampled_from([0.0, 2.0]),
    }
)


@settings(max_examples=300, deadline=None)
@given(worlds, st.lists(st.integers(0, 9), max_size=14), choices)
def test_session_knn_equals_a_slow_oracle_in_plain_python(world, question, choice):
    clicks = [(f"s{session:02d}", f"i{item}", float(time)) for time, (session, item) in enumerate(world)]
    asked = [f"i{item}" for item in question]
    model = SessionKNN.fit(from_columns(*zip(*clicks, strict=True), order_only=False), **choice)
    expected = oracle(clicks, asked, **choice)
    found = model.recommend(asked, 100)
    assert dict(zip(found.item_ids, found.scores, strict=True)) == pytest.approx(expected, rel=1e-5)
    best = model.recommend(asked, 3)
    assert best.item_ids == found.item_ids[:3]
    for reason in model.explain_all(asked, found.item_ids):
        assert reason.score == found.scores[found.item_ids.index(reason.item_id)]
        assert sum(reason.terms.values()) == pytest.approx(reason.score, rel=1e-6)
        assert set(reason.terms) <= set(asked)


@settings(max_examples=100, deadline=None)
@given(worlds, st.lists(st.integers(0, 9), max_size=14))
def test_the_cause_of_an_item_is_the_strongest_term_of_its_explanation(world, question):
    clicks = [(f"s{session:02d}", f"i{item}", float(time)) for time, (session, item) in enumerate(world)]
    model, asked = SessionKNN.fit(from_columns(*zip(*clicks, strict=True))), [f"i{item}" for item in question]
    found = model.recommend(asked, 5).item_ids
    asked_about = [*found, "never seen", *found[:1]]
    terms = [reason.terms for reason in model.explain_all(asked, asked_about)]
    assert model.causes(asked, asked_about) == [max(each, key=each.get) if each else None for each in terms]


@settings(max_examples=50, deadline=None)
@given(worlds, st.lists(st.lists(st.integers(-1, 7), max_size=14), max_size=5), st.integers(0, 9))
def test_a_batch_gives_what_its_sessions_give_alone(world, questions, k):
    clicks = [(f"s{session:02d}", f"i{item}", float(time)) for time, (session, item) in enumerate(world)]
    model = SessionKNN.fit(from_columns(*zip(*clicks, strict=True)))
    ends = np.cumsum([len(question) for question in questions], dtype=np.int64)
    flat = np.array([code for question in questions for code in question], dtype=np.int32)
    begin = np.concatenate([np.zeros(1, dtype=np.int64), ends])[:-1] if questions else ends
    codes, scores = model.recommend_codes_batch(flat, begin, ends, k)
    for row, question in enumerate(questions):
        alone, score = model.recommend_codes(np.array(question, dtype=np.int32), k)
        assert codes[row].tolist() == alone.tolist() + [-1] * (codes.shape[1] - len(alone))
        assert scores[row, : len(alone)].tolist() == score.tolist()
    allowed = np.zeros(len(model.item_ids), dtype=np.bool_)
    assert (model.recommend_codes_batch(flat, begin, ends, k, allowed=allowed)[0] == -1).all()


@pytest.mark.parametrize(("begin", "end"), [([-1], [1]), ([0], [3]), ([2], [1]), ([0, 1], [1])])
def test_a_batch_whose_sessions_lie_outside_its_clicks_is_refused(begin, end):
    model = SessionKNN.fit(small_world())
    with pytest.raises(BadInput, match=r"must lie within the 2 clicks|must be equally long"):
        model.recommend_codes_batch(np.zeros(2, dtype=np.int32), np.array(begin), np.array(end), 5)


def test_a_neighbor_worked_out_by_hand():
    clicks = [("s1", "a", 1.0), ("s1", "b", 2.0), ("s2", "c", 3.0)]
    model = SessionKNN.fit(from_columns(*zip(*clicks, strict=True)), age=0, rare=0, after=2.0)
    idf = math.log1p(2 / 1)
    found = model.recommend(["a"], 5)
    assert found.item_ids == ["a", "b"]
    assert found.scores == pytest.approx([idf, idf * math.exp(-1 / 2)], rel=1e-6)
    assert model.explain(["a"], "b").terms == {"a": found.scores[1]}


def test_equal_scores_come_in_the_order_of_the_vocabulary():
    clicks = [("s1", "m", 1.0), ("s1", "z", 2.0), ("s2", "m", 3.0), ("s2", "b", 4.0)]
    found = SessionKNN.fit(from_columns(*zip(*clicks, strict=True)), age=0).recommend(["m"], 3)
    assert found.item_ids == ["m", "b", "z"]
    assert found.scores[1] == found.scores[2]


def test_the_newest_sessions_are_the_sample():
    rows = [(f"s{number}", item, float(number)) for number in range(10) for item in ("a", f"then-{number}")]
    found = SessionKNN.fit(from_columns(*zip(*rows, strict=True)), sample=3).recommend(["a"], 20)
    assert sorted(found.item_ids) == ["a", "then-7", "then-8", "then-9"]


def test_of_equally_similar_neighbors_the_newest_vote():
    rows = [(f"s{number}", item, float(number)) for number in range(10) for item in ("a", "b", f"then-{number}")]
    found = SessionKNN.fit(from_columns(*zip(*rows, strict=True)), neighbors=2).recommend(["b", "a"], 20)
    assert sorted(found.item_ids) == ["a", "b", "then-8", "then-9"]


def test_a_session_that_comes_later_changes_the_answer():
    rows = [("s1", "a", 1.0), ("s1", "b", 2.0)]
    before = SessionKNN.fit(from_columns(*zip(*rows, strict=True)))
    rows += [("s2", "a", 3.0), ("s2", "c", 4.0)]
    after = SessionKNN.fit(from_columns(*zip(*rows, strict=True)))
    assert before.recommend(["a"], 3).item_ids == ["a", "b"]
    assert set(after.recommend(["a"], 3).item_ids) == {"a", "b", "c"}


def test_read_only_arrays_and_fresh_ones_share_one_compiled_form():
    model = SessionKNN.fit(small_world())
    frozen = {name: array.copy() for name, array in model.arrays().items()}
    for array in frozen.values():
        array.flags.writeable = False
    again = SessionKNN.from_arrays(frozen)
    allowed = np.ones(len(model.item_ids), dtype=bool)
    assert again.recommend(["item-00"], 5, allowed=allowed) == model.recommend(["item-00"], 5)
    again.explain(["item-00"], "item-01")
    for kernel in (knn_kernel.build, knn_kernel.rank, knn_kernel.terms):
        assert len(kernel.signatures) == 1


def test_importing_the_models_compiles_nothing_and_does_not_load_the_compiler():
    code = (
        "import sys; from thinslice.models import SessionKNN; "
        "print('numba' in sys.modules, SessionKNN.ready()); SessionKNN.warm(); print(SessionKNN.ready())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.split() == ["False", "False", "True"]


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("sample", 0, "sample must be a whole number of at least 1, got 0"),
        ("neighbors", 2.5, "neighbors must be a whole number of at least 1, got 2.5"),
        ("look", 11, "look must be at most 10, got 11"),
        ("decay", 0, "decay must be between 0.1 and 1,000,000 clicks, got 0"),
        ("age", float("nan"), "age must be between 0 and 20, got nan"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_value(setting, value, says):
    with pytest.raises(BadInput, match=says):
        SessionKNN.fit(small_world(), **{setting: value})


def test_the_served_arrays_are_at_most_eleven_bytes_a_click_on_long_logs():
    draw = np.random.default_rng(0)
    world = from_columns(np.repeat(np.arange(20_000), 5), draw.integers(0, 1000, 100_000), np.arange(100_000.0))
    size = sum(array.nbytes for array in SessionKNN.fit(world).arrays().values())
    assert size / 100_000 <= 11
