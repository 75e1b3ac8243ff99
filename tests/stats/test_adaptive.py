import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import StatisticsError, TooFewUnits
from thinslice.stats import (
    SCORE_WEIGHT,
    Cell,
    Moments,
    Quotient,
    Sample,
    adaptive_scores,
    cells_of,
    effect,
    merge,
    moments,
    paired_effect,
    sample,
    score_column,
    unit_scores,
)

NAMES = ["old", "new"]


def steered(rng, effect_size=0.0, batches=20, size=500, arms=2):
    """Thompson sampling with a floor of 5 %, while the base rate drifts from 5 % to 10 %: rows of units."""
    wins, losses, share = np.ones(arms), np.ones(arms), np.full(arms, 1 / arms)
    rows = []
    for batch in range(batches):
        arm = np.searchsorted(share.cumsum()[:-1], rng.random(size))
        before = rng.normal(size=size)
        rate = 0.05 + 0.05 * batch / (batches - 1) + effect_size * (arm == 1) + 0.02 * (before > 0)
        visits = 1 + rng.poisson(1, size)
        y = rng.random(size) < rate
        rows.append((np.full(size, batch), arm, np.tile(share, (size, 1)), y.astype(float), visits, before))
        wins += np.bincount(arm, weights=y, minlength=arms)
        losses += np.bincount(arm, weights=~y, minlength=arms)
        best = rng.beta(wins, losses, (200, arms)).argmax(axis=1)
        share = np.bincount(best, minlength=arms) / 200 * (1 - 0.05 * arms) + 0.05
    return [np.concatenate(part) for part in zip(*rows, strict=True)]


def cells(rows, names=NAMES):
    batch, arm, share, y, visits, before = rows
    return cells_of({"y": y, "visits": visits, "before": before}, np.array(names)[arm], share, batch, names)


def compared(of, column="y", weight=None, *, denominator=None):
    sides = [
        Quotient(score_column(column, name), weight or (denominator and score_column(denominator, name)))
        for name in NAMES
    ]
    return paired_effect(of, *sides)


def naive(rows):
    return effect(*(sample(moments({"y": rows[3][rows[1] == arm]}), Quotient("y")) for arm in (0, 1)))


def by_hand(rows):
    """The scores unit by unit, from the formula."""
    batch, arm, share, y, _, _ = rows
    scores = np.zeros((y.size, 2))
    for now in np.unique(batch):
        here, earlier = batch == now, batch < now
        for a in (0, 1):
            known = y[earlier & (arm == a)] if earlier.any() else y[here]
            mu = known.mean()
            scores[here, a] = mu + (arm[here] == a) * (y[here] - mu) / share[here, a]
    return scores


def calmer(rows):
    """What is added to the variance of each variant's scores: it varies as much as both do, as far as chance goes."""
    batch, arm, share, y, _, _ = rows
    own, freedom, apart = [], [], 0.0
    for a in (0, 1):
        groups = [y[(batch == now) & (arm == a)] for now in np.unique(batch)]
        sizes, inside = np.array([g.size - 1 for g in groups]), np.array([g.var(ddof=1) for g in groups])
        own.append(sizes @ inside / sizes.sum())
        freedom.append(sizes.sum())
        apart += sizes @ (inside / own[-1] - 1) ** 2
    noise = np.sqrt(apart / (2 * len(np.unique(batch)) - 2) / np.array(freedom))
    short = np.clip(1 - np.array(own) / np.mean(own), 0, noise)
    return short * np.mean(own) * (1 / share).mean(axis=0)


def test_the_scores_are_those_of_the_formula_unit_by_unit():
    rows = steered(np.random.default_rng(0), batches=5, size=200)
    scores, of = by_hand(rows), adaptive_scores(cells(rows), ["y"], NAMES)
    assert of.n == 1_000
    assert of.mean == pytest.approx(scores.mean(axis=0))
    more = np.diag(calmer(rows))
    assert more.any()
    assert of.cov == pytest.approx(np.cov(scores.T) + more)
    got, gap = compared(of), scores[:, 1] - scores[:, 0]
    assert got.effect_size == pytest.approx(gap.mean())
    assert got.se == pytest.approx(np.sqrt((gap.var(ddof=1) + more.sum()) / gap.size))


def test_where_probabilities_never_changed_nothing_is_added():
    rng = np.random.default_rng(0)
    batch, arm, _, y, visits, before = steered(rng, batches=4, size=300)
    arm = (rng.random(arm.size) < 0.3).astype(int)
    rows = [batch, arm, np.tile([0.7, 0.3], (arm.size, 1)), y, visits, before]
    assert adaptive_scores(cells(rows), ["y"], NAMES).cov == pytest.approx(np.cov(by_hand(rows).T))


def test_a_variant_that_never_sold_is_not_sure_of_it():
    """All that is known of how its units vary comes from the other variant."""
    rng = np.random.default_rng(0)
    shares = {0: (0.5, 0.5), 1: (0.9, 0.1)}
    groups = [
        Cell(batch, dict(zip(NAMES, share, strict=True)),
             {"old": moments({"y": rng.random(100) < 0.1}), "new": moments({"y": np.zeros(round(200 * share[1]))})})
        for batch, share in shares.items()
    ]  # fmt: skip
    of = adaptive_scores(groups, ["y"], NAMES)
    more = of.var_of(score_column("y", "new")) / of.var_of(score_column("y", "old"))
    assert more > 0.05


def test_what_is_added_to_a_calm_variant_goes_where_there_are_many_units():
    """The new one truly varies half as much: with 100 times as many units that is known."""
    added = []
    for size in (200, 20_000):
        rng = np.random.default_rng(0)
        groups = []
        for batch in range(10):
            second = 0.5 if batch == 0 else 0.2
            sides = {
                "old": rng.normal(size=round(size * (1 - second))),
                "new": rng.normal(size=round(size * second)) / 2,
            }
            parts = {name: moments({"y": side}) for name, side in sides.items()}
            groups.append(Cell(batch, {"old": 1 - second, "new": second}, parts))
        of = adaptive_scores(groups, ["y"], NAMES)
        plain = [cell._replace(propensities=groups[-1].propensities) for cell in groups]
        added.append(of.var_of(score_column("y", "new")) / adaptive_scores(plain, ["y"], NAMES).var_of("y@new"))
    assert added[0] > added[1]


def test_with_one_constant_allocation_it_is_the_difference_of_means():
    rng = np.random.default_rng(0)
    arm = rng.integers(0, 2, 4_000)
    y = rng.normal(10 + arm, 1)
    rows = [np.zeros(4_000), arm, np.full((4_000, 2), 0.5), y, np.ones(4_000), y]
    got, plain = compared(adaptive_scores(cells(rows), ["y"], NAMES)), naive(rows)
    assert got.effect_size == pytest.approx(plain.effect_size, abs=0.05)
    assert got.se == pytest.approx(plain.se, rel=0.1)


def test_scores_of_units_and_of_cells_are_the_same():
    rows = steered(np.random.default_rng(0), batches=6, size=300)
    batch, arm, share, y, visits, _ = rows
    alone = unit_scores({"y": y, "visits": visits}, np.array(NAMES)[arm], share, batch, NAMES)
    of, together = moments(alone), adaptive_scores(cells(rows), ["y", "visits"], NAMES)
    for name in together.names:
        assert of.mean_of(name) == pytest.approx(together.mean_of(name))
        assert of.var_of(name) <= together.var_of(name) * (1 + 1e-12) < 1.5 * of.var_of(name)


def test_probabilities_that_follow_a_context_fake_no_effect():
    """Who buys more gets the new one more often: the plain difference is the context's, the scores know it."""
    rng = np.random.default_rng(0)
    sure, naively = [], []
    for _ in range(200):
        context = rng.random(1_500)
        arm = (rng.random(1_500) < 0.1 + 0.8 * context).astype(int)
        y = 2 * context + rng.normal(size=1_500)
        shares = np.column_stack([0.9 - 0.8 * context, 0.1 + 0.8 * context])
        batch = np.arange(1_500) // 300
        of = moments(unit_scores({"y": y}, np.array(NAMES)[arm], shares, batch, NAMES))
        sure.append(compared(of).pvalue < 0.05)
        naively.append(naive([batch, arm, shares, y]).pvalue < 0.05)
    assert 0.015 <= np.mean(sure) <= 0.095
    assert np.mean(naively) == 1


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_the_order_of_cells_and_units_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    rows = steered(rng, batches=3, size=40)
    order = rng.permutation(rows[0].size)
    whole = adaptive_scores(cells(rows), ["y"], NAMES)
    mixed = adaptive_scores(cells([part[order] for part in rows])[::-1], ["y"], NAMES)
    assert np.allclose(whole.mean, mixed.mean)
    assert np.allclose(whole.cov, mixed.cov)


def test_a_ratio_of_scores_is_the_ratio_of_means_if_everybody_had_been_there():
    rows = steered(np.random.default_rng(0), effect_size=0.02, size=2_000)
    of = adaptive_scores(cells(rows), ["y", "visits"], NAMES)
    got = compared(of, denominator="visits")
    assert got.mean_treatment - got.mean_control == pytest.approx(got.effect_size)
    assert got.mean_control == pytest.approx(0.085 / 2, abs=0.004)
    assert got.rel_effect_size_ci[0] < 0.02 / 0.085 < got.rel_effect_size_ci[1]


def test_the_relative_interval_of_scores_knows_that_control_varies_too():
    """The delta method on the logarithm of the ratio of the two sides' mean scores."""
    of = adaptive_scores(cells(steered(np.random.default_rng(0), effect_size=0.03)), ["y"], NAMES)
    got, (old, new) = compared(of), of.mean
    slope = np.array([-1 / old, 1 / new])
    half = scipy.stats.t.ppf(0.975, of.n - 1) * np.sqrt(slope @ of.cov @ slope / of.n)
    assert got.rel_effect_size_ci == pytest.approx([new / old * np.exp(side * half) - 1 for side in (-1, 1)], rel=1e-6)


def test_a_covariate_makes_the_interval_narrower_and_bends_nothing():
    rng = np.random.default_rng(0)
    gaps, widths = [], []
    for _ in range(30):
        batch, arm, share, _, visits, before = steered(rng, size=200)
        rows = [batch, arm, share, 3 * before + rng.normal(size=before.size) + 0.1 * arm, visits, before]
        plain = compared(adaptive_scores(cells(rows), ["y"], NAMES))
        helped = compared(adaptive_scores(cells(rows), ["y"], NAMES, covariate="before"))
        gaps.append(helped.effect_size - 0.1)
        widths.append(helped.se / plain.se)
    assert np.mean(widths) < 0.45
    assert abs(np.mean(gaps)) < 4 * np.std(gaps) / np.sqrt(30)


def test_times_when_one_of_the_two_was_impossible_are_left_out():
    full = Cell(0, {"old": 0.5, "new": 0.5}, {name: moments({"y": [1, 2, 3.0]}) for name in NAMES})
    closed = Cell(1, {"old": 1.0, "new": 0.0}, {"old": moments({"y": [50.0, 60]})})
    assert adaptive_scores([full, closed], ["y"], NAMES).n == 6
    with pytest.raises(StatisticsError, match="while old, new were all possible"):
        adaptive_scores([closed], ["y"], NAMES)


def plainly(groups):
    arms = [merge([cell.variants[name] for cell in groups]) for name in NAMES]
    return effect(*(sample(arm, Quotient("y")) for arm in arms))


def rates(runs):
    """Share of runs in which a method finds an effect where there is none; ours for a mean and for a ratio."""
    rng = np.random.default_rng(0)
    found = dict.fromkeys(("naive", "mean", "ratio"), 0)
    for _ in range(runs):
        groups = cells(steered(rng))
        of = adaptive_scores(groups, ["y", "visits"], NAMES)
        found["naive"] += plainly(groups).pvalue < 0.05
        found["mean"] += compared(of).pvalue < 0.05
        found["ratio"] += compared(of, denominator="visits").pvalue < 0.05
    return {name: count / runs for name, count in found.items()}


def test_a_bandit_fakes_an_effect_in_the_naive_test_and_none_in_ours():
    sure = rates(150)
    assert sure["naive"] >= 0.5
    assert all(0.005 <= sure[name] <= 0.1 for name in ("mean", "ratio")), sure


@pytest.mark.slow
def test_over_2000_bandits_without_effect_ours_is_wrong_in_5_percent():
    sure = rates(2_000)
    assert sure["naive"] >= 0.5
    assert all(0.037 <= sure[name] <= 0.063 for name in ("mean", "ratio")), sure


def test_every_kind_of_score_finds_an_effect_without_bias():
    rng = np.random.default_rng(1)
    found = {name: [] for name in ("naive", "augmented", "plain", "stabilized")}
    for _ in range(50):
        groups = cells(steered(rng, effect_size=0.03))
        found["naive"].append(plainly(groups).effect_size)
        found["augmented"].append(compared(adaptive_scores(groups, ["y"], NAMES)).effect_size)
        found["plain"].append(compared(adaptive_scores(groups, ["y"], NAMES, augmented=False)).effect_size)
        weighted = adaptive_scores(groups, ["y"], NAMES, stabilized=True)
        found["stabilized"].append(compared(weighted, weight=SCORE_WEIGHT).effect_size)
    for name in ("augmented", "plain", "stabilized"):
        assert np.mean(found[name]) == pytest.approx(0.03, abs=3.5 * np.std(found[name]) / 50**0.5)
    assert abs(np.mean(found["naive"]) - 0.03) > 3.5 * np.std(found["naive"]) / 50**0.5


def test_with_three_variants_any_two_are_compared():
    rng = np.random.default_rng(0)
    names = ["old", "new", "bold"]
    gaps = {name: [] for name in names[1:]}
    for _ in range(40):
        groups = cells(steered(rng, effect_size=0.02, arms=3), names)
        of = adaptive_scores(groups, ["y"], names)
        for name in gaps:
            got = paired_effect(of, *(Quotient(score_column("y", side)) for side in ("old", name)))
            gaps[name].append(got.effect_size)
    for name, truth in (("new", 0.02), ("bold", 0.0)):
        assert np.mean(gaps[name]) == pytest.approx(truth, abs=3.5 * np.std(gaps[name]) / 40**0.5)


def test_paired_columns_give_the_paired_test():
    rng = np.random.default_rng(0)
    before, after = rng.normal(5, 1, 300), rng.normal(5.2, 1, 300)
    got = paired_effect(moments({"a": before, "b": after}), Quotient("a"), Quotient("b"))
    gap = after - before
    assert got.se == pytest.approx(gap.std(ddof=1) / 300**0.5)
    alone = effect(Sample(300, before.mean(), before.var(ddof=1)), Sample(300, after.mean(), after.var(ddof=1)))
    assert got.se == pytest.approx(alone.se, rel=0.1)
    same = paired_effect(moments({"a": before}), Quotient("a"), Quotient("a"))
    assert (same.effect_size, same.pvalue, same.effect_size_ci) == (0.0, None, None)


def test_what_cannot_be_scored_is_refused():
    shares = [[0.5, 0.5]] * 2
    with pytest.raises(StatisticsError, match="'third' has no propensity"):
        cells_of({"y": [1, 2]}, ["old", "third"], shares, [0, 0], NAMES)
    with pytest.raises(StatisticsError, match="1 units were served a variant that had probability 0"):
        cells_of({"y": [1, 2]}, ["old", "new"], [[0.5, 0.5], [1, 0]], [0, 0], NAMES)
    with pytest.raises(StatisticsError, match="sum to 1"):
        cells_of({"y": [1, 2]}, ["old", "new"], [[0.5, 0.6], [1, 0]], [0, 0], NAMES)
    with pytest.raises(StatisticsError, match="2 units and 2 variants"):
        cells_of({"y": [1, 2]}, ["old", "new"], [0.5, 0.5], [0, 0], NAMES)
    for scored in (cells_of, unit_scores):
        with pytest.raises(StatisticsError, match=r"'y' has shape \(3,\), but there are 2 units"):
            scored({"y": [1, 2, 3]}, ["old", "new"], shares, [0, 0], NAMES)
    wrong = Cell(0, {"old": 1.0, "new": 0.0}, {"new": moments({"y": [1.0]})})
    with pytest.raises(StatisticsError, match="had probability 0"):
        adaptive_scores([wrong], ["y"], NAMES)
    with pytest.raises(StatisticsError, match=r"batch 0 is 1\.5"):
        adaptive_scores([Cell(0, {"old": 1.5, "new": 0.5}, {})], ["y"], NAMES)
    lone = Moments(("a", "b"), 1, np.zeros(2), np.zeros((2, 2)))
    with pytest.raises(TooFewUnits, match="needs at least 2 units, got 1"):
        paired_effect(lone, Quotient("a"), Quotient("b"))
