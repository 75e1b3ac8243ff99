"""The order in which candidates are shown: what they are worth, how unlike they are, and what is left to chance."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from thinslice.recommend.diversity import calibrated, mmr, relevance_of
from thinslice.recommend.explore import Explorer, epsilon_slots
from thinslice.recommend.ladder import Arrange, Arrangement, Candidates
from thinslice.recommend.objectives import ActionRates, worth
from thinslice.settings import Policy

NEWCOMER = "newcomer"
"""The source of candidates that are there because hardly anything is known of them."""

Likeness = Callable[[Sequence[str]], NDArray[np.floating]]
"""From item ids to how alike they are, shape (items, items)."""

Mix = Callable[[Sequence[str]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""From item ids to their shares of categories, shape (items, categories), and the wanted mix, shape (categories,)."""


def arranger(
    policy: Policy, *, explorer: Explorer | None, rates: ActionRates | None, likeness: Likeness, seed: int,
    mix: Mix | None = None,
) -> Arrange | None:  # fmt: skip
    """What a policy does with its candidates; None when it shows them as they are ranked.

    The objectives re-score the candidates, diversity orders them, and chance has the last word: so each probability
    is that of the slate which is shown.

    Args:
        policy: Its `objectives`, `diversity`, `explore` and `exploration`.
        explorer: What a Thompson ranking has learned; None: nothing yet, then nothing is left to chance.
        rates: The chances of actions; None: nothing is known yet, then a click is all that counts.
        likeness: For diversity.
        seed: Of this slate.
        mix: For diversity by the mix of categories; None: nothing is known of it, and the order stays as it is.
    """
    thompson = explorer is not None and policy.explore.endswith("-thompson")
    weighs = bool(policy.objectives) and rates is not None
    if policy.explore != "epsilon-slot" and not thompson and not weighs and policy.diversity <= 0:
        return None
    chance = policy.chance

    def arrange(found: Candidates, places: int) -> Arrangement:
        relevance = relevance_with_newcomers(found)
        per_click = np.ones(len(relevance))
        scores: Sequence[float] | None = None
        objectives: Mapping[str, float] = {}
        order = np.arange(len(relevance))
        if weighs and rates is not None:
            valued = worth(found.item_ids, relevance, rates, policy.objectives)
            per_click, objectives = valued.per_click, policy.objectives
            scores = valued.value.tolist()
            order = np.argsort(-valued.value, kind="stable")
        if policy.diversity > 0:
            value = relevance if scores is None else relevance_of(scores, [0] * len(scores))
            item_ids = [found.item_ids[at] for at in order.tolist()]
            if policy.diversity_by == "mmr":
                chosen = mmr(value[order], likeness(item_ids), places, policy.diversity)
            else:
                shares, wanted = (np.zeros((len(order), 0)), np.zeros(0)) if mix is None else mix(item_ids)
                chosen = calibrated(value[order], shares, wanted, places, policy.diversity)
            first = order[chosen]
            order = np.concatenate([first, order[~np.isin(order, first)]])
        if thompson and explorer is not None:
            factor = relevance**chance.trust * per_click
            drawn = explorer.arrange(found.item_ids, factor, places, rng=seed, rankings=chance.rankings)
            return Arrangement(drawn.order.tolist(), drawn.propensities.tolist(), objectives, scores)
        if policy.explore == "epsilon-slot":
            pool = order[: max(chance.candidates, places)]
            drawn = epsilon_slots(len(pool), places, slots=chance.slots, epsilon=chance.epsilon, rng=seed)
            return Arrangement(pool[drawn.order].tolist(), drawn.propensities.tolist(), objectives, scores)
        return Arrangement(order[:places].tolist(), None, objectives, scores)

    return arrange


def relevance_with_newcomers(found: Candidates) -> NDArray[np.float64]:
    """Relevance of each candidate; newcomers, of whom the model says nothing, are as relevant as the middle one."""
    new = np.array([source == NEWCOMER for source in found.sources], dtype=np.bool_)
    relevance = relevance_of(found.scores, found.rungs)
    if new.any() and not new.all():
        relevance[new] = float(np.median(relevance[~new]))
    elif new.any():
        relevance[:] = 1.0
    return relevance


def fresh(explorer: Explorer | None, seed: int) -> list[str]:
    """The explorer's newcomers in an order of this slate's own, so that all have their turn."""
    there = [] if explorer is None else list(explorer.newcomers)
    return [there[at] for at in np.random.Generator(np.random.SFC64(seed)).permutation(len(there)).tolist()]
