"""Exploration: exact and drawn probabilities, beliefs from batches, and simulated shoppers whose truth is known."""

import itertools
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadInput
from thinslice.models import Popular, Vocabulary, from_columns
from thinslice.recommend.explore import (
    EXPLORERS,
    BetaThompson,
    LinearThompson,
    Shown,
    attention,
    cascaded,
    epsilon_slots,
    explorer_from_arrays,
    hashed,
    learn,
    seed_of,
    similar_prior,
)
from thinslice.recommend.explore.clicks import add, no_clicks, usual_attention
from thinslice.recommend.explore.learn import quantiles
from thinslice.records import Item, ScoredItems

AT = datetime(2026, 9, 1, tzinfo=UTC)


def item(item_id, **fields):
    return Item(tenant="shop", item_id=item_id, updated_at=AT, **fields)


def shown(orders, clicked, *, start=0.0, step=60.0, names=None):
    """Slates as rows: orders and clicked are of the shape (slates, places)."""
    orders, clicked = np.asarray(orders), np.asarray(clicked, dtype=bool)
    slates, places = orders.shape
    ids = orders.ravel() if names is None else names[orders.ravel()]
    return Shown(
        ids.astype(str), np.tile(np.arange(places), slates), clicked.ravel(),
        np.repeat(np.arange(slates), places), np.repeat(start + step * np.arange(slates), places),
    )  # fmt: skip


def world(seed=0, items=30, slates=400, places=5):
    rng = np.random.default_rng(seed)
    names = np.array([f"i{code:02d}" for code in range(items)])
    quality = rng.beta(2, 12, items)
    orders = np.stack([rng.permutation(items)[:places] for _ in range(slates)])
    clicked = rng.random((slates, places)) < quality[orders] * usual_attention(places)
    return names, quality, shown(orders, clicked, names=names)


class TestEpsilonSlots:
    def test_only_the_last_places_are_left_to_chance(self):
        explored = epsilon_slots(60, 10, slots=2, rng=5)
        assert explored.order[:8].tolist() == list(range(8))
        assert explored.propensities.tolist() == pytest.approx([1.0] * 8 + [1 / 52] * 2)
        assert len(set(explored.order.tolist())) == 10

    @pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
    def test_the_propensities_are_what_happens(self, epsilon):
        """Each candidate at each place, over many slates, as often as its propensity says."""
        rng, runs, counts = np.random.default_rng(0), 20_000, np.zeros((6, 4))
        said = np.full((6, 4), np.nan)
        for _ in range(runs):
            explored = epsilon_slots(6, 4, slots=2, epsilon=epsilon, rng=rng)
            counts[explored.order, np.arange(4)] += 1
            said[explored.order, np.arange(4)] = explored.propensities
        truth = np.nan_to_num(said)
        assert np.allclose(truth.sum(axis=0), 1.0)
        error = np.sqrt(truth * (1 - truth) / runs)
        assert (np.abs(counts / runs - truth) <= 4 * error + 1e-12).all()

    def test_a_seed_gives_one_slate_and_another_seed_another(self):
        once, again = (epsilon_slots(500, 5, rng=seed_of("r-1")) for _ in range(2))
        assert once.order.tolist() == again.order.tolist()
        assert len({int(epsilon_slots(500, 5, rng=seed_of(f"r-{n}")).order[-1]) for n in range(50)}) > 30

    @settings(max_examples=50, deadline=None)
    @given(
        candidates=st.integers(0, 12), k=st.integers(0, 15), slots=st.integers(0, 15), epsilon=st.floats(0, 1),
        seed=st.integers(0, 2**64 - 1),
    )  # fmt: skip
    def test_whatever_is_asked_every_place_holds_another_candidate(self, candidates, k, slots, epsilon, seed):
        explored = epsilon_slots(candidates, k, slots=slots, epsilon=epsilon, rng=seed)
        assert len(explored.order) == len(explored.propensities) == min(k, candidates)
        assert len(set(explored.order.tolist())) == len(explored.order)
        assert ((explored.propensities > 0) & (explored.propensities <= 1)).all()


class TestDrawing:
    def test_the_share_of_the_rankings_is_what_happens_over_many_slates(self):
        names, _, rows = world()
        explorer = BetaThompson(learn("position-thompson", rows))
        candidates, runs = names[:12].tolist(), 4000
        relevance = np.linspace(1.0, 0.4, 12)
        truth = explorer.chances(candidates, relevance, 4, rng=1, rankings=100_000)
        assert np.allclose(truth.sum(axis=0), 1.0)
        counts, unbiased = np.zeros((12, 4)), np.zeros((12, 4))
        for seed in range(runs):
            explored = explorer.arrange(candidates, relevance, 4, rng=seed)
            counts[explored.order, np.arange(4)] += 1
            unbiased[explored.order, np.arange(4)] += explored.propensities
        error = np.sqrt(truth * (1 - truth) / runs) + np.sqrt(truth * (1 - truth) / 100_000)
        assert (np.abs(counts / runs - truth) <= 4.5 * error + 1e-4).all()

    def test_what_was_served_and_its_propensity_make_unbiased_weights(self):
        """The mean weight of a policy within reach is 1, so that the gate of off-policy evaluation holds."""
        names, _, rows = world()
        explorer = BetaThompson(learn("position-thompson", rows))
        candidates = names[:8].tolist()
        target = explorer.chances(candidates, np.ones(8), 3, rng=0) ** 1.5  # likes the same, but more so
        target /= target.sum(axis=0)
        weights = []
        for seed in range(4000):
            explored = explorer.arrange(candidates, np.ones(8), 3, rng=seed)
            weights.append(target[explored.order, np.arange(3)] / explored.propensities)
        mean, error = np.mean(weights, axis=0), np.std(weights, axis=0) / np.sqrt(4000)
        assert (np.abs(mean - 1) <= 4 * error + 0.005).all()

    def test_the_tables_draw_as_the_beta_itself_does(self):
        """Also among a few surely good items and many wide beliefs, whose tails decide who comes first."""
        rng = np.random.default_rng(0)
        wide = np.stack([rng.gamma(2, 2, 18) + 0.2, rng.gamma(4, 60, 18)], axis=1)
        shape = np.concatenate([[[400.0, 9600.0], [300.0, 9700.0]], wide])
        draws = rng.beta(shape[:, 0], shape[:, 1], (200_000, 20))
        truth = np.bincount(draws.argmax(axis=1), minlength=20) / 200_000
        arrays = {**learn("position-thompson", world()[2]), **Vocabulary([f"n{at:02d}" for at in range(20)]).arrays()}
        tables = quantiles(np.vstack([shape, [1, 1]]))
        explorer = BetaThompson({**arrays, "newcomer": np.empty(0, int), "quantile": tables})
        found = explorer.chances(explorer.item_ids, np.ones(20), 1, rng=1, rankings=200_000)[:, 0]
        assert np.abs(found - truth).max() < 0.012

    def test_a_propensity_is_never_below_one_ranking(self):
        names, _, rows = world()
        explorer = BetaThompson(learn("position-thompson", rows))
        for seed in range(200):
            explored = explorer.arrange(names.tolist(), np.ones(30), 10, rng=seed, rankings=50)
            assert explored.propensities.min() >= 1 / 50

    @pytest.mark.parametrize("explore", sorted(EXPLORERS))
    def test_a_slate_can_be_drawn_again_from_its_id(self, explore):
        names, _, rows = world()
        arrays = learn(explore, rows, items=[item(name, brand=name[-1]) for name in names.tolist()])
        explorer = explorer_from_arrays(arrays)
        again = explorer_from_arrays(explorer.arrays())
        for name in ("r-1", "r-2", "r-3"):
            one, two = (each.arrange(names.tolist(), np.ones(30), 6, rng=seed_of(name)) for each in (explorer, again))
            assert one.order.tolist() == two.order.tolist()
            assert one.propensities.tolist() == two.propensities.tolist()

    def test_a_generator_is_as_good_as_a_seed(self):
        names, _, rows = world()
        explorer = BetaThompson(learn("position-thompson", rows))
        explored = explorer.arrange(names.tolist(), np.ones(30), 6, rng=np.random.default_rng(0))
        assert len(set(explored.order.tolist())) == 6

    @pytest.mark.parametrize("explore", sorted(EXPLORERS))
    def test_only_candidates_are_served_and_each_once(self, explore):
        names, _, rows = world()
        explorer = explorer_from_arrays(learn(explore, rows))
        candidates = [*names[:4].tolist(), "never-seen"]
        for seed in range(50):
            explored = explorer.arrange(candidates, np.ones(5), 9, rng=seed)
            assert sorted(explored.order.tolist()) == [0, 1, 2, 3, 4]
        assert len(explorer.arrange([], np.ones(0), 5, rng=0).order) == 0

    def test_relevance_decides_where_it_is_overwhelming(self):
        names, _, rows = world()
        explorer = BetaThompson(learn("position-thompson", rows))
        relevance = 10.0 ** -np.arange(0, 60, 6)
        explored = explorer.arrange(names[:10].tolist(), relevance, 10, rng=0)
        assert explored.order.tolist() == list(range(10))
        assert (explored.propensities == 1).all()


class TestLearning:
    @pytest.mark.parametrize("explore", sorted(EXPLORERS))
    def test_batches_give_what_all_rows_at_once_give(self, explore):
        names, _, rows = world()
        items = [item(name, brand=name[-1]) for name in names.tolist()]
        at_once = learn(explore, rows, items=items, half_life_days=0.5)
        arrays = None
        cuts = [0, 400, 405, 1200, len(rows.slot)]
        for low, high in itertools.pairwise(cuts):
            part = Shown(*(column[low:high] for column in rows))
            arrays = learn(explore, part, before=arrays, items=items, half_life_days=0.5)
        assert arrays["counted"].tolist() == [4, at_once["counted"][1]]
        for name in ("shows", "clicks", "attention", "belief"):
            assert np.allclose(arrays[name], at_once[name]), name
        if explore == "linear-thompson":
            for name in ("gram", "moment", "mean", "bank"):
                assert np.allclose(arrays[name], at_once[name], atol=1e-5), name

    def test_a_batch_that_comes_late_counts_as_what_it_is(self):
        _, _, rows = world()
        early, late = (Shown(*(column[part] for column in rows)) for part in (slice(0, 900), slice(900, None)))
        one = add(add(no_clicks(), early, half_life_days=1.0), late, half_life_days=1.0)
        two = add(add(no_clicks(), late, half_life_days=1.0), early, half_life_days=1.0)
        assert np.allclose(one.shows, two.shows)
        assert one.at == two.at

    def test_what_is_old_fades(self):
        rows = Shown(np.array(["a", "a"]), np.zeros(2, int), np.array([True, False]), np.arange(2),
                     np.array([0.0, 86_400.0]))  # fmt: skip
        counts = add(no_clicks(), rows, half_life_days=1.0)
        assert counts.shows.tolist() == [[1.5]]
        assert counts.clicks.tolist() == [[0.5]]

    def test_the_attention_of_places_is_found_though_items_differ(self):
        rng = np.random.default_rng(0)
        truth = np.array([1.0, 0.4, 0.7, 0.2])
        quality = rng.beta(2, 6, 20)
        orders = np.stack([np.argsort(-quality * rng.gamma(3, 1, 20))[:4] for _ in range(20_000)])
        clicked = rng.random(orders.shape) < quality[orders] * truth
        names = np.array([f"i{code:02d}" for code in range(20)])
        counts = add(no_clicks(), shown(orders, clicked, step=0.0, names=names), half_life_days=np.inf)
        assert np.abs(attention(counts) - truth).max() < 0.05

    def test_a_cascade_counts_down_to_the_first_click(self):
        rows = cascaded(shown([["a", "b", "c"], ["c", "b", "a"]], [[0, 1, 1], [0, 0, 0]]))
        assert rows.item_id.tolist() == ["a", "b", "c", "b", "a"]
        assert rows.clicked.tolist() == [False, True, False, False, False]
        assert set(rows.slot.tolist()) == {0}

    def test_beliefs_are_beta_with_looks_weighed_by_attention(self):
        rows = shown([["a", "b"]] * 40, [[1, 0]] * 20 + [[0, 0]] * 20, step=0.0)
        arrays = learn("position-thompson", rows, pseudo_count=10.0)
        looks = 40 * arrays["attention"]
        mean = 21 / (looks.sum() + 50)
        assert arrays["belief"][0] == pytest.approx([10 * mean + 20, 10 * (1 - mean) + looks[0] - 20])
        assert arrays["belief"][1] == pytest.approx([10 * mean, 10 * (1 - mean) + looks[1]])
        assert arrays["belief"][2] == pytest.approx([10 * mean, 10 * (1 - mean)])

    def test_an_empty_batch_is_a_start(self):
        empty = Shown(np.array([], dtype=str), np.array([], int), np.array([], bool), np.array([], int), np.array([]))
        explorer = BetaThompson(learn("position-thompson", empty, items=[item("a"), item("b")]))
        assert explorer.newcomers == ["a", "b"]
        assert len(explorer.arrange(["a", "b", "c"], np.ones(3), 2, rng=0).order) == 2

    def test_columns_that_do_not_fit_are_refused(self):
        _, _, rows = world()
        with pytest.raises(BadInput, match="equally long"):
            learn("position-thompson", rows._replace(slot=rows.slot[:-1]))
        with pytest.raises(BadInput, match="1 of 2000 times are no finite numbers"):
            learn("position-thompson", rows._replace(time=np.r_[np.nan, rows.time[1:]]))
        with pytest.raises(BadInput, match=r"there is no 'greedy' that learns \(there is: position-thompson"):
            learn("greedy", rows)
        with pytest.raises(BadInput, match="do not have 16 linear features"):
            learn("linear-thompson", rows, before=learn("position-thompson", rows), features=16)
        with pytest.raises(BadInput, match="at least 2 features"):
            hashed(None, 1)


class Lookalikes:
    """A model of content: items are alike when their ids begin with the same letter."""

    name = "lookalikes"

    def __init__(self, item_ids):
        self.item_ids = item_ids

    def recommend(self, session, k, *, allowed=None):
        found = [each for at, each in enumerate(self.item_ids)
                 if each[0] == session[0][0] and each != session[0] and (allowed is None or allowed[at])]  # fmt: skip
        return ScoredItems(found[:k], [1.0] * len(found[:k]), self.name)


class TestNewItems:
    def test_a_new_item_is_expected_to_be_like_those_most_like_it(self):
        orders = [["good1", "bad1"], ["bad2", "good2"]] * 300
        clicked = [[1, 0], [0, 1]] * 150 + [[0, 0], [0, 0]] * 150
        items = [item(name) for name in ("good1", "good2", "goodnew", "bad1", "bad2", "badnew", "odd")]
        model = Lookalikes([each.item_id for each in items])
        arrays = learn("position-thompson", shown(orders, clicked, step=0.0), items=items, prior=similar_prior(model))
        explorer = BetaThompson(arrays)
        belief = dict(zip(explorer.item_ids, arrays["belief"][:-1, 0] / arrays["belief"][:-1].sum(axis=1), strict=True))
        assert belief["goodnew"] > 5 * belief["badnew"]
        assert belief["goodnew"] == pytest.approx((belief["good1"] + belief["good2"]) / 2, rel=0.01)
        assert belief["badnew"] < belief["odd"] < belief["goodnew"]  # nothing is like it: as all together
        assert explorer.newcomers == ["goodnew", "odd", "badnew"]

    def test_a_new_item_gets_shown_thanks_to_its_prior(self):
        names, _, rows = world(slates=4000)
        items = [item(name) for name in [*names.tolist(), "new"]]
        shares = {}
        for prior in (0.002, 0.3):
            rate = np.full(31, np.nan)
            rate[-1] = prior
            explorer = BetaThompson(learn("position-thompson", rows, items=items, prior=rate))
            assert explorer.newcomers[0] == "new"
            chances = explorer.chances([*names.tolist(), "new"], np.ones(31), 5, rng=0)
            shares[prior] = chances[-1].sum()
        assert shares[0.3] > 0.5
        assert shares[0.002] < 0.05

    def test_a_prior_of_another_length_is_refused(self):
        _, _, rows = world()
        with pytest.raises(BadInput, match=r"one rate an item of the catalog \(1\), got 2"):
            learn("position-thompson", rows, items=[item("a")], prior=np.array([0.1, 0.2]))

    def test_a_model_of_the_shop_serves_as_prior(self):
        """Any model does: what it answers to an item alone is what it takes for alike."""
        model = Popular.fit(from_columns(["s", "s", "t"], ["i00", "i01", "i00"], [1.0, 2.0, 3.0]))
        _, _, rows = world()
        explorer = BetaThompson(learn("position-thompson", rows, items=[item("new")], prior=similar_prior(model)))
        assert "new" in explorer.newcomers

    def test_linear_weights_carry_over_to_items_never_shown(self):
        rng = np.random.default_rng(0)
        names = np.array([f"i{code:02d}" for code in range(20)])
        brand = np.where(np.arange(20) % 2 == 0, "liked", "shunned")
        quality = np.where(brand == "liked", 0.3, 0.05)
        orders = np.stack([rng.permutation(20)[:4] for _ in range(2000)])
        clicked = rng.random(orders.shape) < quality[orders]
        items = [item(name, brand=str(each)) for name, each in zip(names.tolist(), brand, strict=True)]
        items += [item("new-liked", brand="liked"), item("new-shunned", brand="shunned")]
        explorer = LinearThompson(learn("linear-thompson", shown(orders, clicked, step=0.0, names=names), items=items))
        chances = explorer.chances(["new-shunned", "new-liked"], np.ones(2), 1, rng=0)
        assert chances[1, 0] > 0.95


def play(explore, truth, batches, size, places, *, cascade=False, seed=0):
    """Expected clicks of each slate that a way to explore shows to shoppers whose truth is known."""
    rng = np.random.default_rng(seed)
    names = np.array([f"i{code:02d}" for code in range(len(truth))])
    look = usual_attention(places)
    arrays, earned = None, []
    shows, clicks = np.zeros(len(truth)), np.zeros(len(truth))
    for batch in range(batches):
        orders = np.empty((size, places), dtype=np.int64)
        explorer = None if arrays is None else explorer_from_arrays(arrays)
        for slate in range(size):
            if explorer is not None:
                orders[slate] = explorer.arrange(names.tolist(), np.ones(len(truth)), places, rng=rng, rankings=20)[0]
            elif explore == "epsilon-greedy" and batch and rng.random() >= 0.1:
                orders[slate] = np.argsort(-(clicks + 0.1) / (shows + 1), kind="stable")[:places]
            else:
                orders[slate] = rng.permutation(len(truth))[:places]
        chance = truth[orders]
        if cascade:
            clicked = rng.random(orders.shape) < chance
            clicked &= np.cumsum(np.cumsum(clicked, axis=1), axis=1) == 1
            earned.extend((1 - np.prod(1 - chance, axis=1)).tolist())
        else:
            clicked = rng.random(orders.shape) < chance * look
            earned.extend((chance @ look).tolist())
        np.add.at(shows, orders, 1)
        np.add.at(clicks, orders, clicked)
        if explore in EXPLORERS:
            rows = shown(orders, clicked, start=batch * size * 60.0, names=names)
            arrays = learn(explore, rows, before=arrays, half_life_days=np.inf, pseudo_count=5.0)
    return np.array(earned)


class TestRegret:
    TRUTH = np.random.default_rng(3).beta(1, 8, 40)

    def test_position_thompson_loses_less_than_epsilon_greedy_and_chance(self):
        best = float(np.sort(self.TRUTH)[::-1][:5] @ usual_attention(5))
        lost = {each: best - play(each, self.TRUTH, 60, 100, 5)
                for each in ("position-thompson", "epsilon-greedy", "random")}  # fmt: skip
        in_all = {name: float(each.mean()) for name, each in lost.items()}
        assert in_all["position-thompson"] < in_all["epsilon-greedy"]
        assert in_all["position-thompson"] < 0.2 * in_all["random"]
        at_last = {name: float(each[-2000:].mean()) for name, each in lost.items()}
        assert at_last["position-thompson"] < 0.5 * at_last["epsilon-greedy"]

    def test_what_is_lost_falls_as_batches_come(self):
        best = float(np.sort(self.TRUTH)[::-1][:5] @ usual_attention(5))
        lost = (best - play("position-thompson", self.TRUTH, 40, 100, 5, seed=1)).reshape(4, -1).mean(axis=1)
        assert (np.diff(lost) < 0).all()
        assert lost[-1] < 0.2 * lost[0]

    def test_cascade_thompson_finds_the_best_list_of_shoppers_who_stop_at_the_first_click(self):
        best = float(1 - np.prod(1 - np.sort(self.TRUTH)[::-1][:5]))
        earned = play("cascade-thompson", self.TRUTH, 20, 100, 5, cascade=True)
        chance = play("random", self.TRUTH, 20, 100, 5, cascade=True)
        assert (best - earned[-500:]).mean() < 0.15 * (best - chance).mean()
