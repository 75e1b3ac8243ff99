"""Popular counts clicks with decay, newest orders by date, trending by growth; all the same for everyone."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from thinslice.errors import BadInput
from thinslice.models import Newest, Popular, Trending, from_columns
from thinslice.records import Item

DAY_S = 86_400.0
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def log(*rows, order_only=None):
    return from_columns([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows],
                        order_only=order_only)  # fmt: skip


def test_a_click_counts_half_after_a_half_life():
    start = NOW.timestamp()
    model = Popular.fit(log(("s", "old", start), ("t", "new", start + 3 * DAY_S)), half_life_days=3)
    assert model.recommend([], 5).item_ids == ["new", "old"]
    assert model.recommend([], 5).scores == pytest.approx([1.0, 0.5])


def test_one_fresh_click_does_not_beat_many_yesterday():
    start = NOW.timestamp()
    rows = [(f"s{number}", "many", start) for number in range(5)] + [("t", "one", start + DAY_S)]
    assert Popular.fit(log(*rows)).recommend([], 1).item_ids == ["many"]


def test_in_a_log_that_only_tells_the_order_age_is_counted_in_clicks():
    rows = [(f"s{number}", f"i{number}", number) for number in range(10)]
    model = Popular.fit(log(*rows), half_life_share=0.1)
    assert model.recommend([], 3).item_ids == ["i9", "i8", "i7"]
    assert model.recommend([], 3).scores == pytest.approx([1.0, 0.5, 0.25])


def test_popular_fills_the_slate_when_the_most_popular_are_not_allowed():
    rows = [("s", f"i{number:03d}", NOW.timestamp() + number) for number in range(100)]
    model = Popular.fit(log(*rows))
    allowed = [item_id < "i003" for item_id in model.item_ids]
    assert sorted(model.recommend([], 5, allowed=np.array(allowed)).item_ids) == ["i000", "i001", "i002"]


@pytest.mark.parametrize("setting", [{"half_life_days": 0}, {"half_life_share": -1.0}])
def test_a_half_life_that_is_not_positive_is_refused(setting):
    with pytest.raises(BadInput, match="must be positive"):
        Popular.fit(log(("s", "a", 1)), **setting)


def test_newest_goes_by_publication_then_by_the_first_click():
    def item(name, days):
        published = NOW - timedelta(days=days)
        return Item(tenant="shop", item_id=name, updated_at=NOW, published_at=published)

    rows = [("s", "clicked", (NOW - timedelta(days=2)).timestamp()), ("s", "old", NOW.timestamp())]
    model = Newest.fit(log(*rows), [item("old", 9), item("fresh", 1)])
    assert model.recommend([], 5).item_ids == ["fresh", "clicked", "old"]


def test_newest_serves_a_catalog_that_nobody_has_clicked():
    catalog = [Item(tenant="shop", item_id="a", updated_at=NOW), Item(tenant="shop", item_id="b", updated_at=NOW)]
    found = Newest.fit(log(), catalog).recommend(["never-seen"], 5)
    assert (found.item_ids, found.scores, found.source) == (["a", "b"], [0.5, 0.5], "newest")


def test_a_dated_item_is_newer_than_those_of_a_log_without_a_clock():
    dated = Item(tenant="shop", item_id="dated", updated_at=NOW, published_at=datetime(2001, 1, 1, tzinfo=UTC))
    found = Newest.fit(log(("s", "x", 1), ("s", "y", 2)), [dated]).recommend([], 5)
    assert found.item_ids == ["dated", "y", "x"]


def test_the_reason_of_an_item_that_is_the_same_for_all_is_its_popularity_or_newness():
    clicks = log(("s", "a", NOW.timestamp()))
    assert Popular.fit(clicks).explain(["b"], "a").terms == {"popularity": 1.0}
    assert Newest.fit(clicks).explain(["b"], "a").terms == {"newness": 1.0}


def steady_shop(*recent, days=8):
    """Each day but the last, ten sessions click `big`, two click `small`; the last day is given as counts by item."""
    rows = []
    for day in range(days):
        counts = dict(recent) if day == days - 1 else {"big": 10, "small": 2}
        for name, times in counts.items():
            for number in range(times):
                rows.append((f"{day}-{name}-{number}", name, NOW.timestamp() + DAY_S * (day + number / 100)))
    return log(*rows)


def test_what_grows_against_its_own_past_trends_and_what_is_merely_big_does_not():
    model = Trending.fit(steady_shop(("big", 10), ("small", 12)))
    assert model.recommend([], 2).item_ids == ["small", "big"]
    assert Popular.fit(steady_shop(("big", 10), ("small", 12))).recommend([], 1).item_ids == ["big"]


def test_one_click_on_an_item_without_a_past_does_not_trend():
    model = Trending.fit(steady_shop(("big", 10), ("small", 2), ("unknown", 1)))
    assert model.recommend([], 3).item_ids[0] == "big"


def test_a_visitor_who_clicks_an_item_a_hundred_times_moves_it_as_much_as_once():
    clicks = steady_shop(("big", 10), ("small", 2))
    calm = Trending.fit(clicks).explain([], "small").score
    session = clicks.session_ptr.repeat(np.diff(clicks.session_ptr, append=len(clicks.item)))
    rows = [
        (int(owner), clicks.item_ids[code], when + number * 1e-3)
        for owner, code, when in zip(session, clicks.item, clicks.time, strict=True)
        for number in range(100 if clicks.item_ids[code] == "small" and when > NOW.timestamp() + 7 * DAY_S else 1)
    ]
    assert Trending.fit(log(*rows)).explain([], "small").score == pytest.approx(calm)


def test_a_whole_shop_that_grows_makes_nothing_trend():
    calm = Trending.fit(steady_shop(("big", 10), ("small", 2)))
    busy = Trending.fit(steady_shop(("big", 90), ("small", 18)))
    assert busy.recommend([], 1).scores[0] < 1.1
    assert calm.recommend([], 1).scores[0] < 1.0


@pytest.mark.parametrize("setting", [{"recent_days": 0}, {"shrinkage": -1.0}, {"recent_share": 1.0}])
def test_a_span_that_is_not_positive_is_refused(setting):
    with pytest.raises(BadInput, match="must be positive"):
        Trending.fit(log(("s", "a", 1)), **setting)
