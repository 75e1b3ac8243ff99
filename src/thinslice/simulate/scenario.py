"""The kinds of scenario that can be rehearsed: which numbers a world has, and what its designs are called."""

import msgspec

RULES = ("means", "weighted")
"""By what results can steer allocation."""

RANKERS = ("greedy", "thompson")
"""What a variant of `Learning` can rank by: what is believed best, or each item as often as it may be the best."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every scenario says of itself.

    Attributes:
        says: What it shows, one sentence.
        designs: Design → how it is called in a sentence; the first is the ordinary one, the last is ours.
        days: How long the experiment runs.
    """

    says: str
    designs: dict[str, str]
    days: int = 30


class Learning(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two rankers that learn every night from what was clicked; each visit is shown one slate.

    Attributes:
        visits_per_day: Visits of both variants together.
        visitors: So many people visit; they are what is randomized.
        places: Length of a slate.
        items_at_start: Items on the first day.
        new_items_per_day: Items that come every day.
        item_life_days: How long each stays; 0: forever.
        click_rate: Mean of the items' true click rates.
        evenness: The larger, the more alike the items are.
        control: The ranker of control: `greedy` or `thompson`.
        treatment: The other one.
        control_expects: The click rate that control's ranker expects of an item it does not know.
        treatment_expects: The same of treatment's.
        pseudo_count: That expectation weighs as many looks.
        days_before: So long control's ranker has served everybody before the experiment.
        treatment_knows: 0..1: how much of an item's true click rate treatment's ranker reads from its content.
        markets: So many markets, each with its own items, visits (`visits_per_day` of them), visitors and models.
    """

    visits_per_day: int = 1_000
    visitors: int = 6_000
    places: int = 3
    items_at_start: int = 320
    new_items_per_day: int = 40
    item_life_days: int = 8
    click_rate: float = 0.05
    evenness: float = 20.0
    control: str = "greedy"
    treatment: str = "thompson"
    control_expects: float = 0.04
    treatment_expects: float = 0.05
    pseudo_count: float = 20.0
    days_before: int = 0
    treatment_knows: float = 0.0
    markets: int = 1


class SameForAll(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shoppers of whom most buy nothing and some buy much; treatment lifts clicks and payments by one share.

    Attributes:
        units: Shoppers in the experiment.
        effect: The true relative effect; 0 is an A/A test.
        cluster_size: Shoppers of one cluster, who resemble each other.
        likeness: 0..1: how much of what a shopper does is that of the cluster.
        bandit_units: Shoppers in the experiment under a bandit, which needs many buyers in each of its 20 batches.
    """

    units: int = 4_000
    bandit_units: int = 20_000
    effect: float = 0.0
    cluster_size: int = 50
    likeness: float = 0.3


class Switching(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Results steer who gets what: each batch, the variant that looks better gets more.

    Attributes:
        units: Shoppers in the experiment.
        batches: So often the shares change.
        floor: No variant gets less than this share.
        rule: `means`: a bandit that steers by plain means; `weighted`: `allocation = "thompson"` of an experiment's
            file, which steers by reports that weigh with the logged probabilities.
        base_start: Share of shoppers who buy at the beginning; it moves evenly to `base_end`.
        base_end: At the end.
        effect: The true relative effect.
    """

    units: int = 10_000
    batches: int = 20
    floor: float = 0.05
    rule: str = "means"
    base_start: float = 0.05
    base_end: float = 0.10
    effect: float = 0.0


class LostLogs(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The logs of some of treatment's shoppers get lost, all in one browser.

    Attributes:
        units: Shoppers in the experiment before the loss.
        lost: Share of treatment's shoppers whose logs get lost.
        browser_share: Share of shoppers with that browser.
        browser_clicks: How much they click, compared with all.
        effect: The true relative effect.
    """

    units: int = 60_000
    lost: float = 0.05
    browser_share: float = 0.2
    browser_clicks: float = 0.5
    effect: float = 0.0


class Peeking(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody looks at the test again and again and stops as soon as there is a difference.

    Attributes:
        units: Shoppers at the planned end.
        looks: How often one looks, the last time at the end.
        effect: The true relative effect.
    """

    units: int = 14_000
    looks: int = 14
    effect: float = 0.0


class Fading(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The effect is large while the treatment is new.

    Attributes:
        units: Visitors of both variants; all come on the first day and every day.
        decay: What is lost of the effect from a visitor's first three days to those after the first week, in standard
            deviations of what a visitor does in a day; it goes with the logarithm of the days.
        steady: What is left after the first week, in the same unit.
        likeness: 0..1: share of the variance that belongs to the visitor and not to the day.
    """

    units: int = 40_000
    decay: float = 0.02
    steady: float = 0.0
    likeness: float = 0.3


class Harming(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A treatment that helps most and harms some.

    Attributes:
        units: Shoppers in the experiment.
        effect: The relative effect on most.
        harm: The relative effect on those of the harmed segment.
        harmed_share: Their share.
    """

    units: int = 50_000
    effect: float = 0.06
    harm: float = -0.15
    harmed_share: float = 0.15


class Stealing(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A shelf that gets more clicks because its neighbors on the page get fewer.

    Attributes:
        units: Shoppers in the experiment.
        effect: How many more clicks, relative, the shelf gets.
        stolen: The share of these that its neighbors lose.
    """

    units: int = 20_000
    effect: float = 0.2
    stolen: float = 1.0


class Meeting(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Units meet: they buy from one stock, or do what their neighbors do.

    Attributes:
        cities: Markets with a stock and a neighborhood of their own.
        shoppers_per_day: Shoppers of one city in a day.
        conversion: Share of control's shoppers who want to buy.
        effect: How many more of treatment's want to.
        stock: What a city has in a day, as a share of the sales that control would make; 0: without limit.
        social: How many more want to buy, relative, where all of a shopper's neighbors are in treatment.
        circle: Shoppers of one circle of friends, who are each other's neighbors; shoppers of a city's day come in
            whole circles. 0: all shoppers of a city's day are one circle.
        mood: Standard deviation, relative, of how much is bought in one city and another.
    """

    cities: int = 60
    shoppers_per_day: int = 40
    conversion: float = 0.1
    effect: float = 0.3
    stock: float = 1.0
    social: float = 0.0
    circle: int = 0
    mood: float = 0.1


class Program(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Many experiments, one after the other; those that look good are shipped.

    Attributes:
        experiments: How many.
        spread: Standard deviation of their true relative effects; the mean is zero.
        noise: Standard error of each estimate.
    """

    experiments: int = 60
    spread: float = 0.005
    noise: float = 0.005


class Replaying(Learning, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two rankers are compared on the log that one of them made, and by an experiment."""
