"""What a policy does with its candidates: objectives, diversity, exploration, alone and together."""

import numpy as np
import pytest

from thinslice.errors import BadSettings
from thinslice.recommend import Availability, Rung, climb
from thinslice.recommend.arrangement import arranger, fresh
from thinslice.recommend.explore import BetaThompson, Shown, learn, seed_of
from thinslice.recommend.ladder import Candidates
from thinslice.recommend.objectives import ActionRates
from thinslice.records import ACTIONS, Item, Reason, ScoredItems
from thinslice.settings import Policy, parse_settings

IDS = [f"i{code:02d}" for code in range(30)]
FOUND = Candidates(IDS, [30.0 - code for code in range(30)], ["m"] * 30, [0] * 30, 30)


def rates(**bought):
    did = np.zeros((30, len(ACTIONS)))
    for item_id, share in bought.items():
        did[IDS.index(item_id), ACTIONS.index("purchase")] = 1000 * share
    return ActionRates.from_counts(IDS, np.full(30, 1000), did, pseudo_count=1e-6)


def explorer(**clicks):
    """Beliefs after 500 slates of each item alone; newcomers: one item that was never shown."""
    ids = np.repeat(IDS, 500)
    clicked = np.concatenate([np.arange(500) < 500 * clicks.get(item_id, 0.02) for item_id in IDS])
    rows = Shown(ids, np.zeros(len(ids), int), clicked, np.arange(len(ids)), np.zeros(len(ids)))
    at = "2026-09-01T00:00:00Z"
    import msgspec

    new = msgspec.convert({"tenant": "t", "item_id": "brand-new", "updated_at": at}, Item)
    return BetaThompson(learn("position-thompson", rows, items=[new]))


def arrange(policy, found=FOUND, places=5, seed=1, **given):
    made = arranger(policy, explorer=given.get("explorer"), rates=given.get("rates"),
                    likeness=lambda ids: np.eye(len(ids)), seed=seed)  # fmt: skip
    return None if made is None else made(found, places)


def test_a_policy_that_only_ranks_arranges_nothing():
    assert arrange(Policy()) is None
    assert arrange(Policy(explore="position-thompson")) is None  # nothing learned yet: nothing is left to chance
    assert arrange(Policy(objectives={"purchase": 1.0})) is None


def test_objectives_rescore_and_reorder_and_stand_in_the_exposure():
    got = arrange(Policy(objectives={"click": 0.01, "purchase": 1.0}), rates=rates(i20=0.9))
    assert got.order[0] == 20
    assert list(got.order[1:]) == [0, 1, 2, 3]
    assert got.objectives == {"click": 0.01, "purchase": 1.0}
    assert got.scores[20] == max(got.scores)
    assert got.propensities is None


def test_epsilon_slots_explore_what_the_objectives_ranked():
    policy = Policy(explore="epsilon-slot", exploration={"slots": 1, "candidates": 10}, objectives={"purchase": 1.0})
    known = rates(i20=0.9, i21=0.8, i22=0.7, i23=0.6)
    seen = set()
    for seed in range(200):
        got = arrange(policy, seed=seed, rates=known)
        assert list(got.order[:4]) == [20, 21, 22, 23]
        assert list(got.propensities) == pytest.approx([1, 1, 1, 1, 1 / 6])
        seen.add(got.order[4])
    assert seen == {0, 1, 2, 3, 4, 5}  # the 10 best by the objectives, without those above


def test_diversity_stands_before_the_chance():
    alike = np.ones((30, 30))
    alike[7, :] = alike[:, 7] = 0.0
    policy = Policy(diversity=0.9, explore="epsilon-slot")
    made = arranger(policy, explorer=None, rates=None, likeness=lambda ids: alike, seed=3)
    got = made(FOUND, 4)
    assert list(got.order[:2]) == [0, 7]
    assert len(set(got.order)) == 4


def test_thompson_weighs_belief_by_relevance_as_far_as_it_is_trusted():
    learned = explorer(i25=0.6)
    apart = arrange(Policy(explore="position-thompson", exploration={"trust": 0.0}), explorer=learned)
    assert apart.order[0] == 25
    ranked = arrange(Policy(explore="position-thompson", exploration={"trust": 10.0}), explorer=learned)
    assert ranked.order[0] == 0
    assert len(set(apart.order)) == 5
    assert all(0 < each <= 1 for each in apart.propensities)


def test_thompson_and_objectives_rank_by_clicks_times_what_a_click_is_worth():
    policy = Policy(explore="position-thompson", exploration={"trust": 0.0}, objectives={"purchase": 1.0})
    got = arrange(policy, explorer=explorer(i25=0.6), rates=rates(i20=0.9, i25=0.001))
    assert got.order[0] == 20
    assert got.objectives == {"purchase": 1.0}


class Ranked:
    name = "m"
    item_ids = IDS

    def recommend(self, session, k, *, allowed=None):
        chosen = [i for n, i in enumerate(IDS) if allowed is None or allowed[n]][:k]
        return ScoredItems(chosen, [float(len(chosen) - n) for n in range(len(chosen))], self.name)

    def explain(self, session, item_id):
        return Reason(item_id, 1.0, {})

    def arrays(self):
        return {}


def slate_of(policy, seed, *, available=None, **given):
    made = arranger(policy, explorer=given.get("explorer"), rates=given.get("rates"),
                    likeness=lambda ids: np.eye(len(ids)), seed=seed)  # fmt: skip
    new = fresh(given.get("explorer"), seed)
    rung = Rung(Ranked(), Availability(IDS, available or {}))
    return climb([], 5, rungs=[rung], depth=30, arrange=made, fresh=new, most_fresh=1, without={"i01"})


@pytest.mark.parametrize("explore", ["epsilon-slot", "position-thompson"])
def test_exploration_shows_nothing_that_is_not_allowed(explore):
    available = {item_id: item_id not in ("i00", "i05") for item_id in IDS}
    learned = explorer(i00=0.9, i01=0.9, i05=0.9)
    for seed in range(100):
        slate = slate_of(Policy(explore=explore), seed, available=available, explorer=learned)
        shown = [item.item_id for item in slate.items]
        assert not {"i00", "i01", "i05"} & set(shown)
        assert len(shown) == len(set(shown)) == len(slate.propensities) == 5


def test_a_new_item_reaches_slates_by_its_prior_and_says_so():
    learned = explorer()
    policy = Policy(explore="position-thompson", exploration={"trust": 0.0})
    slates = [slate_of(policy, seed_of(f"r{n}"), explorer=learned) for n in range(60)]
    new = [item for slate in slates for item in slate.items if item.item_id == "brand-new"]
    assert len(new) > 5
    assert {item.source for item in new} == {"newcomer"}
    assert {item.reason for item in new} == {"New in the catalog"}


def test_a_slate_is_drawn_again_from_its_id():
    learned, policy = explorer(), Policy(explore="position-thompson", exploration={"trust": 0.2})
    one, two = (slate_of(policy, seed_of("r-7"), explorer=learned) for _ in range(2))
    assert one == two
    assert len({tuple(i.item_id for i in slate_of(policy, seed_of(f"r{n}"), explorer=learned).items)
                for n in range(20)}) > 10  # fmt: skip


def test_what_was_weighed_becomes_the_score_that_is_shown():
    policy = Policy(objectives={"click": 0.01, "purchase": 1.0})
    slate = slate_of(policy, 1, rates=rates(i20=0.9))
    assert slate.items[0].item_id == "i20"
    assert slate.items[0].score == max(item.score for item in slate.items)
    assert slate.objectives == {"click": 0.01, "purchase": 1.0}
    assert slate.propensities == [1.0] * 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('explore = "greedy"', r"no way to explore 'greedy' \(there is: none, epsilon-slot"),
        ('explore = "epsilon-slot"\nexploration = {slots = 0}', "slots must be between 1 and 100, got 0"),
        ('explore = "epsilon-slot"\nexploration = {rankings = 90}', r"takes no 'rankings' \(it takes: slots, epsilon"),
        ('explore = "position-thompson"\ndiversity = 0.3', "diversity and 'position-thompson' cannot go together"),
        ("diversity = 1.5", "diversity must be between 0 and 1, got 1.5"),
        ("objectives = {sell = 1.0}", r"no objective 'sell' \(there is: click, view_item"),
        ("objectives = {purchase = inf}", "must weigh between -1e6 and 1e6, got inf"),
    ],
)
def test_a_policy_that_does_not_hold_together_is_refused_at_the_door(text, message):
    with pytest.raises(BadSettings, match=message):
        parse_settings(f"[tenants.shop.policies.mine]\n{text}")
