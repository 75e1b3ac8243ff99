"""The generated shop: what stands on its shelves."""

from collections import Counter

import pytest

from thinslice.simulate import COLORS, KINDS, PATTERNS, SHAPES, home_goods


def test_the_shop_has_600_different_products_of_every_kind_shape_pattern_and_color():
    shop = home_goods("shop")
    assert len({item.item_id for item in shop}) == len({item.title for item in shop}) == 600
    for name, scale in (("kind", KINDS), ("shape", SHAPES), ("pattern", PATTERNS), ("color", COLORS)):
        counts = Counter(item.attributes[name] for item in shop)
        assert set(counts) == set(scale)
        assert min(counts.values()) > 600 / len(scale) / 2


def test_the_same_seed_gives_the_same_shop_and_another_seed_another():
    assert home_goods("shop", 3) == home_goods("shop", 3)
    assert {item.item_id for item in home_goods("shop", 3)} != {item.item_id for item in home_goods("shop", 4)}


def test_titles_say_what_the_picture_shows_and_addresses_stay_in_the_shop():
    for item in home_goods("shop"):
        look = item.attributes
        assert item.title is not None
        assert item.title.endswith(f"{look['kind']}, {look['color']}")
        assert (look["pattern"] in item.title) == (look["pattern"] != "plain")
        assert item.categories == [f"{look['kind']}s"]
        assert (item.url, item.image_url) == (f"/shop/item/{item.item_id}", f"/shop/picture/{item.item_id}.svg")


def test_prices_are_cents_of_euros_and_chairs_cost_more_than_candles():
    shop = home_goods("shop")
    prices = {
        kind: [item.price_minor for item in shop if item.attributes["kind"] == kind] for kind in ("chair", "candle")
    }
    assert all(item.currency == "EUR" and item.price_minor % 100 == 95 for item in shop)
    assert min(prices["chair"]) > max(prices["candle"]) > 0


@pytest.mark.parametrize("size", [0, -1, 961])
def test_a_size_that_cannot_be_is_refused_with_its_number(size):
    with pytest.raises(ValueError, match=f"1..960, got {size}"):
        home_goods("shop", size=size)
