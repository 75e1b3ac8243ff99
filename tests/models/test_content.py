"""Content finds what resembles the session: new items at once, bad vectors left out and counted, nothing invented."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.models import Content, from_columns
from thinslice.models.item_features import MOST_NUMBERS, features, shortened
from thinslice.records import Item
from thinslice.simulate.catalog import home_goods
from thinslice.testing import check_model

NOW = datetime(2026, 11, 1, tzinfo=UTC)
NO_CLICKS = from_columns([], [], [])


def item(name, **fields):
    return Item(tenant="shop", item_id=name, updated_at=NOW, **fields)


SHOP = [
    item("vase-1", kind="vase", title="Tall blue vase", price_minor=4000, attributes={"color": "blue"}),
    item("vase-2", kind="vase", title="Round red vase", price_minor=3500, attributes={"color": "red"}),
    item("lamp-1", kind="lamp", title="Blue desk lamp", price_minor=9000, attributes={"color": "blue"}),
    item("mug-1", kind="mug", title="Plain white mug", price_minor=900, attributes={"color": "white"}),
    item("mug-2", kind="mug", title="Plain green mug", price_minor=950, attributes={"color": "green"}),
]
VISITS = from_columns(["s", "s", "t"], ["vase-2", "mug-1", "lamp-1"], [1e9, 1e9 + 1, 1e9 + 2])


def rich_catalog(draw):
    """30 items with every kind of content."""
    return [
        item(
            f"item-{number:02d}", kind="abc"[number % 3], title=f"thing {number % 5}", price_minor=100 + 37 * number,
            attributes={"size": int(draw.integers(1, 5)), "tags": ["x", "y"][: number % 3]},
            vectors={"picture": draw.standard_normal(80).tolist()},
        )
        for number in range(30)
    ]  # fmt: skip


def test_content_keeps_what_every_model_promises_on_a_feed_with_everything_in_it():
    check_model(Content, items=rich_catalog(np.random.default_rng(0)))


def test_a_new_item_of_the_feed_is_recommended_to_a_visitor_who_viewed_a_similar_one():
    model = Content.fit(VISITS, SHOP)
    assert model.recommend(["vase-2"], 1).item_ids == ["vase-1"]  # nobody ever clicked vase-1
    assert model.recommend(["lamp-1"], 1).item_ids == ["vase-1"]  # blue as well


def test_a_session_of_nothing_but_a_new_item_gets_an_answer():
    found = Content.fit(VISITS, SHOP).recommend(["mug-2"], 2)
    assert found.item_ids[0] == "mug-1"
    assert found.source == "content"


def test_the_page_of_an_item_nobody_clicked_shows_similar_items_and_not_itself():
    assert Content.fit(NO_CLICKS, SHOP).similar("vase-1", 2).item_ids == ["vase-2", "lamp-1"]


def test_an_item_comes_back_only_when_another_click_resembles_it():
    model = Content.fit(NO_CLICKS, SHOP)
    assert "vase-1" not in model.recommend(["vase-1", "vase-1"], 5).item_ids
    assert "vase-1" in model.recommend(["vase-1", "vase-2"], 5).item_ids


def test_the_newer_click_counts_more():
    model = Content.fit(NO_CLICKS, SHOP, decay=1)
    assert model.recommend(["mug-1", "vase-2"], 1).item_ids == ["vase-1"]
    assert model.recommend(["vase-2", "mug-1"], 1).item_ids == ["mug-2"]


def test_clicked_items_that_the_feed_lacks_are_known_and_resemble_nothing():
    model = Content.fit(from_columns(["s"], ["gone"], [1e9]), SHOP)
    assert "gone" in model.item_ids
    assert model.recommend(["gone"], 3).item_ids == []
    assert model.recommend(["gone", "vase-2"], 1) == model.recommend(["vase-2"], 1)


def test_a_feed_that_emptied_overnight_leaves_a_model_that_answers_nothing():
    model = Content.fit(VISITS, [])
    assert model.recommend(["vase-2"], 3).item_ids == []
    assert model.evidence["items_with_content"] == 0


def test_prices_near_each_other_are_alike_and_far_ones_are_not():
    prices = {"a": 1000, "b": 1100, "c": 9000, "d": 8000}
    model = Content.fit(NO_CLICKS, [item(name, price_minor=price, currency="EUR") for name, price in prices.items()])
    assert model.recommend(["a"], 5).item_ids == ["b"]
    assert model.recommend(["c"], 5).item_ids == ["d"]


def test_the_similarity_of_two_items_is_the_cosine_of_what_is_said_of_them():
    feed = [item("a", brand="x"), item("b", brand="x", level="l"), item("c", level="l"), item("d", title="other other")]
    model = Content.fit(NO_CLICKS, feed)
    assert model.explain(["b"], "a").score == pytest.approx(1 / np.sqrt(2))
    assert model.explain(["b"], "a").terms == {"b": pytest.approx(1 / np.sqrt(2))}


def test_of_items_that_resemble_the_session_equally_the_one_that_is_clicked_most_comes_first_and_then_the_newer():
    feed = [item(name, brand="x") for name in ("a", "b", "c", "d")]
    feed += [item("e", brand="x", published_at=NOW), item("f", brand="y"), item("g", brand="y")]
    visits = from_columns(["s", "s", "t", "t"], ["c", "f", "c", "b"], [1e9, 1e9 + 1, 1e9 + 2, 1e9 + 3])
    model = Content.fit(visits, feed)
    found = model.recommend(["d"], 9)
    assert found.item_ids == ["c", "b", "e", "a"]  # two clicks; one; none, but a date; none
    assert np.ptp(found.scores) < 2e-3 * max(found.scores)
    for name, score in zip(found.item_ids, found.scores, strict=True):
        assert model.explain(["d"], name).score == pytest.approx(score, rel=1e-9)


def test_what_resembles_the_session_more_comes_before_what_is_clicked_more():
    feed = [item(name, brand="x", level="l") for name in ("a", "b")]
    feed += [item("c", brand="x"), item("d", level="m"), item("e", level="m")]
    model = Content.fit(from_columns([str(n) for n in range(50)], ["c"] * 50, np.arange(50) + 1e9), feed)
    assert model.recommend(["a"], 2).item_ids == ["b", "c"]


def test_what_only_one_item_or_every_item_says_counts_nothing():
    feed = [item("a", brand="x", title="shop", attributes={"ean": "1"}), item("b", brand="x", title="shop")]
    assert features(feed, attributes=1, text=1).size == 0


def test_vectors_of_the_shop_decide_where_nothing_is_said():
    vectors = {"a": [1.0, 0.1], "b": [0.9, 0.2], "c": [-1.0, 0.3]}
    model = Content.fit(NO_CLICKS, [item(name, vectors={"v": vector}) for name, vector in vectors.items()])
    found = model.recommend(["a"], 3)
    assert found.item_ids == ["b"]
    cosine = np.dot([1, 0.1], [0.9, 0.2]) / np.linalg.norm([1, 0.1]) / np.linalg.norm([0.9, 0.2])
    assert found.scores == pytest.approx([cosine], rel=1e-6)


def test_vectors_of_changing_length_or_without_a_number_are_left_out_and_counted():
    nan, infinite = float("nan"), float("inf")
    vectors = [[1.0, 0.0], [0.9, 0.1], [1.0], [1.0, 0.0, 0.0], [nan, 1.0], [infinite, 0.0], [0.0, 0.0], []]
    feed = [item(f"i{number}", vectors={"v": vector}) for number, vector in enumerate(vectors)]
    model = Content.fit(NO_CLICKS, feed)
    report = {"length": 2, "used": 2, "wrong_length": 3, "not_finite": 2, "all_zero": 1}
    assert model.evidence["vectors"] == {"v": report}
    assert Content.from_arrays(model.arrays()).evidence == model.evidence
    assert model.recommend(["i0"], 9).item_ids == ["i1"]
    assert model.recommend(["i4"], 9).item_ids == []


def test_long_vectors_keep_their_cosines_on_their_main_directions():
    draw = np.random.default_rng(0)
    table = draw.standard_normal((300, 20)) @ draw.standard_normal((20, 200))
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    short = shortened(table)
    assert short.shape == (300, MOST_NUMBERS)
    assert short @ short.T == pytest.approx(table @ table.T, abs=1e-9)


texts = st.text(max_size=30)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "title": st.none() | texts,
                "categories": st.lists(texts, max_size=3),
                "price_minor": st.none() | st.integers(-3, 10**12),
                "attributes": st.dictionaries(texts, anything, max_size=3),
                "vectors": st.dictionaries(st.sampled_from("vw"), st.lists(st.floats(), max_size=3), max_size=2),
            }
        ),
        max_size=6,
    )
)
def test_whatever_a_feed_says_the_model_is_built_and_its_scores_are_finite(feed):
    model = Content.fit(NO_CLICKS, [item(str(number), **fields) for number, fields in enumerate(feed)])
    for name in model.item_ids:
        found = model.recommend([name], 10)
        assert np.isfinite(found.scores).all()
        for other, score in zip(found.item_ids, found.scores, strict=True):
            assert model.explain([name], other).score == pytest.approx(score, rel=1e-6)


def test_in_the_demo_shop_what_resembles_a_product_is_of_its_kind_and_color():
    shop = home_goods("shop", size=300)
    model = Content.fit(NO_CLICKS, shop)
    by_id = {each.item_id: each for each in shop}
    same = [
        by_id[other].attributes["kind"] == each.attributes["kind"]
        for each in shop[::10]
        for other in model.similar(each.item_id, 3).item_ids
    ]
    assert np.mean(same) > 0.7


@pytest.mark.parametrize("setting", [{"attributes": 0, "text": 0}, {"vectors": -1}, {"decay": 0}])
def test_a_weight_of_content_out_of_range_is_refused(setting):
    with pytest.raises(BadInput, match="must not be below 0"):
        Content.fit(NO_CLICKS, SHOP, **setting)
