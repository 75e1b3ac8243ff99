"""Buy again: what is due by its own interval comes first, strangers get nothing, nobody sees another's purchases."""

import numpy as np
import pytest

from thinslice.errors import BadInput
from thinslice.models import from_columns
from thinslice.models.bought_together import PURCHASE
from thinslice.models.buy_again import BuyAgain
from thinslice.testing import check_model

DAY_S = 86_400.0
START_S = 1.7e9


def world(purchases, *, until=100.0):
    """Purchases of (user, item, day), and one view at the end of the log by somebody unknown."""
    rows = [(f"{user}.{day}", item, START_S + day * DAY_S, PURCHASE, user) for user, item, day in purchases]
    rows.append(("end", purchases[0][1], START_S + until * DAY_S, 0, ""))
    session, item, time, action, user = zip(*rows, strict=True)
    return from_columns(session, item, time, actions=np.array(action, dtype=np.uint8), users=user)


def every(user, item, step, until):
    return [(user, item, float(day)) for day in np.arange(until % step, until, step)]


def test_it_keeps_what_every_model_promises():
    check_model(BuyAgain, personal=False)


def test_what_is_due_stands_above_what_was_just_bought_and_above_what_is_long_over():
    due = [("u", "coffee", day) for day in (10.0, 40.0, 70.0)]
    fresh = [("u", "soap", day) for day in (38.0, 68.0, 98.0)]
    over = [("u", "paint", 0.0), ("u", "paint", 3.0)]
    clicks = world(due + fresh + over)
    found = BuyAgain.fit(clicks).recommend([], 5, user_id="u")
    assert found.item_ids[0] == "coffee"


def test_what_others_buy_again_soon_is_offered_to_who_bought_it_once():
    regulars = [each for n in range(20) for each in every(f"r{n}", "coffee", 20, 90 + n % 5)]
    once = [(f"o{n}", "sofa", float(n)) for n in range(30)]
    mine = [("me", "coffee", 80.0), ("me", "sofa", 80.0)]
    found = BuyAgain.fit(world(regulars + once + mine)).recommend([], 5, user_id="me")
    assert found.item_ids[0] == "coffee"
    scores = dict(zip(found.item_ids, found.scores, strict=True))
    assert scores["coffee"] > 5 * scores.get("sofa", 0.0)


def test_the_truth_is_found_again_from_intervals_that_scatter():
    rng = np.random.default_rng(0)
    purchases = []
    for user in range(200):
        for item, step in (("weekly", 7.0), ("monthly", 30.0)):
            day = rng.uniform(0, step)
            while day < 100:
                purchases.append((f"u{user}", item, float(day)))
                day += step * np.exp(rng.normal(0, 0.2))
    model = BuyAgain.fit(world(purchases))
    last = {}
    for user, item, day in purchases:
        last[user, item] = max(day, last.get((user, item), 0.0))
    agreed = total = 0
    for user in range(200):
        due = {item: abs(np.log((100 - last[f"u{user}", item]) / step))
               for item, step in (("weekly", 7.0), ("monthly", 30.0))}  # fmt: skip
        if abs(due["weekly"] - due["monthly"]) > 0.7:
            total += 1
            first = model.recommend([], 1, user_id=f"u{user}").item_ids[0]
            agreed += first == min(due, key=due.__getitem__)
    assert total > 50
    assert agreed / total > 0.8


def test_strangers_get_nothing_and_a_user_only_their_own():
    model = BuyAgain.fit(world(every("u", "coffee", 10, 100) + every("v", "tea", 10, 100)))
    assert model.recommend(["coffee"], 5).item_ids == []
    assert model.recommend(["coffee"], 5, user_id="nobody").item_ids == []
    assert model.recommend([], 5, user_id="v").item_ids == ["tea"]
    assert model.explain([], "coffee", user_id="v").terms == {}
    reason = model.explain([], "tea", user_id="v")
    assert reason.terms == {"tea": reason.score}


def test_what_may_not_be_shown_is_left_out_and_it_survives_its_arrays():
    model = BuyAgain.fit(world(every("u", "coffee", 10, 100) + every("u", "tea", 10, 100)))
    mask = np.array([name != "tea" for name in model.item_ids])
    again = BuyAgain.from_arrays(model.arrays())
    assert again.recommend([], 5, allowed=mask, user_id="u").item_ids == ["coffee"]
    assert again.recommend([], 5, user_id="u") == model.recommend([], 5, user_id="u")


def test_where_nothing_was_ever_bought_twice_nothing_is_offered():
    assert BuyAgain.fit(world([("u", "sofa", 1.0), ("v", "lamp", 2.0)])).recommend([], 5, user_id="u").item_ids == []


@pytest.mark.parametrize("wrong", [{"shrinkage": 0.0}, {"width": -1.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(BadInput, match="must be positive"):
        BuyAgain.fit(world([("u", "a", 1.0)]), **wrong)
