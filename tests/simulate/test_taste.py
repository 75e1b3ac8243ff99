"""What the demo promises: after three views of like-colored things the slate turns to that color."""

from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest

from thinslice.models import Popular, SessionKNN, from_columns
from thinslice.simulate import COLORS, PATTERNS, history, home_goods

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SHOP = home_goods("shop")


@pytest.fixture(scope="module")
def learned():
    views = [event for event in history(SHOP, 4000, 0, NOW) if event.name == "view_item"]
    clicks = from_columns(
        [view.session_id for view in views],
        [view.item_id for view in views],
        [view.occurred_at.timestamp() for view in views],
    )
    return SessionKNN.fit(clicks, SHOP, rng=0), Popular.fit(clicks, SHOP, rng=0)


def slate_of(model, session, k=6):
    allowed = np.array([item_id not in session for item_id in model.item_ids])
    return model.recommend(session, k, allowed=allowed).item_ids


def shares(model, name, values, rng):
    """Per value, how much of the slate has it after three views of random things that have it."""
    found = {}
    look = {item.item_id: item.attributes[name] for item in SHOP}
    for value in values:
        alike = [item_id for item_id, seen in look.items() if seen == value]
        slates = [slate_of(model, rng.choice(alike, 3, replace=False).tolist()) for _ in range(20)]
        assert all(len(slate) == 6 for slate in slates)
        found[value] = np.mean([look[item_id] == value for slate in slates for item_id in slate])
    return found


def test_after_three_views_of_one_color_the_slate_turns_to_that_color(learned):
    turned = shares(learned[0], "color", COLORS, np.random.default_rng(0))
    assert min(turned.values()) > 0.8, turned
    assert np.mean(list(turned.values())) > 0.9, turned


def test_three_views_of_one_pattern_and_color_bring_more_of_that_pattern(learned):
    rng = np.random.default_rng(0)
    more = []
    for color in COLORS:
        for pattern in PATTERNS:
            alike = [
                item.item_id
                for item in SHOP
                if (item.attributes["color"], item.attributes["pattern"]) == (color, pattern)
            ]
            if len(alike) < 6:
                continue
            slate = slate_of(learned[0], rng.choice(alike, 3, replace=False).tolist())
            more.append(np.mean([item_id in alike for item_id in slate]))
    assert np.mean(more) > 0.3  # by chance, among items of the same color: 0.25


def test_the_popular_slate_stays_the_same_whatever_is_viewed(learned):
    look = {item.item_id: item.attributes["color"] for item in SHOP}
    slates = []
    for color in COLORS:
        session = [item_id for item_id, seen in look.items() if seen == color][:3]
        slates.append(set(learned[1].recommend(session, 6).item_ids))
    assert all(slate == slates[0] for slate in slates)
    assert max(Counter(look[item_id] for item_id in slates[0]).values()) < 6
