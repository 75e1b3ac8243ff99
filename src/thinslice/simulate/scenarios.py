"""The scenarios of `thinslice rehearse`: a world, what goes wrong in it, and the designs that are compared."""

import tomllib
from typing import Any

import msgspec

from thinslice.errors import BadSettings, UnknownName


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


class SameForAll(Scenario, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shoppers of whom most buy nothing and some buy much; treatment lifts clicks and payments by one share.

    Attributes:
        units: Shoppers in the experiment.
        effect: The true relative effect; 0 is an A/A test.
        cluster_size: Shoppers of one cluster, who resemble each other.
        likeness: 0..1: how much of what a shopper does is that of the cluster.
    """

    units: int = 4_000
    effect: float = 0.0
    cluster_size: int = 50
    likeness: float = 0.3


RANKERS = ("greedy", "thompson")
"""What a variant of `Learning` can rank by: what is believed best, or each item as often as it may be the best."""

_PAIR = {"pooled": "an ordinary A/B test", "isolated": "isolated training"}

SCENARIOS: dict[str, Scenario] = {
    "aa": SameForAll(
        says="Both variants are the same: how often does a test see a difference that is not there?",
        designs={
            "mean": "the test of a mean",
            "ratio": "the test of a ratio",
            "cuped": "the test with CUPED",
            "cluster": "the test of clusters",
        },
        days=14,
    ),
    "shared-training": Learning(
        says="A ranker that explores against one that does not; items live for 8 days, and each learns from both.",
        designs=_PAIR,
    ),
    "shared-training-static": Learning(
        says="A ranker that explores against one that does not; items stay, and each learns from both.",
        designs=_PAIR,
        items_at_start=300,
        new_items_per_day=0,
        item_life_days=0,
    ),
}
"""The scenarios that are shipped, in the order in which a newcomer meets them."""


def find_scenario(name: str) -> Scenario:
    """A shipped scenario.

    Raises:
        UnknownName: There is none of that name; the message lists those that exist.
    """
    if name not in SCENARIOS:
        known = ", ".join(SCENARIOS)
        hint = "A file name ends in .toml."
        raise UnknownName(f"there is no scenario {name!r} (there is: {known}).", hint=hint)
    return SCENARIOS[name]


def parse_scenario(text: str, where: str = "the scenario") -> tuple[str, Scenario]:
    r"""One's own scenario from TOML: a shipped one that it is like, and the numbers that differ.

    Args:
        text: `like = "NAME"`, perhaps a `name`, and any field of that scenario.
        where: The file's name, for messages.

    Returns:
        Its name and the scenario.

    Raises:
        BadSettings: With the field, the value and what to write instead.
        UnknownName: It is like no scenario that exists.

    >>> parse_scenario('like = "shared-training"\nvisits_per_day = 200')[1].visits_per_day
    200
    """
    try:
        fields: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{where} is not valid TOML: {error}.") from None
    like = fields.pop("like", None)
    if not isinstance(like, str):
        hint = 'Write like = "shared-training", for instance.'
        raise BadSettings(f"{where} does not say which scenario it is like.", hint=hint)
    base = find_scenario(like)
    name = str(fields.pop("name", like))
    known = {field.name for field in msgspec.structs.fields(base)} - {"designs"}
    strange = sorted(set(fields) - known)
    if strange:
        raise BadSettings(f"{where}: {like!r} has no field {strange[0]!r} (there is: {', '.join(sorted(known))}).")
    try:
        made = msgspec.convert(msgspec.to_builtins(base) | fields, type(base))
    except msgspec.ValidationError as error:
        raise BadSettings(f"{where}: {error}.") from None
    _check(made, where)
    return name, made


def _check(scenario: Scenario, where: str) -> None:
    """Refuses numbers that make no world: what counts is positive, shares lie between 0 and 1."""
    if isinstance(scenario, Learning):
        for ranker in (scenario.control, scenario.treatment):
            if ranker not in RANKERS:
                raise BadSettings(f"{where}: there is no ranker {ranker!r} (there is: {', '.join(RANKERS)}).")
    for field in msgspec.structs.fields(scenario):
        value = getattr(scenario, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        least = 0 if field.name in ZERO_IS_FINE else 1e-9
        most = 1.0 if field.name in SHARES else float("inf")
        low = -1.0 if field.name == "effect" else least
        if not low <= value <= most:
            raise BadSettings(f"{where}: {field.name} is {value:g}; it lies between {max(low, 0):g} and {most:g}.")


ZERO_IS_FINE = frozenset({"new_items_per_day", "item_life_days", "items_at_start", "effect", "likeness"})
"""Numbers of a scenario that may be zero."""

SHARES = frozenset({"click_rate", "control_expects", "treatment_expects", "likeness", "effect"})
"""Numbers of a scenario that are shares."""
