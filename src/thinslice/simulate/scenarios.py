"""The scenarios of `thinslice rehearse`: a world, what goes wrong in it, and the designs that are compared."""

import tomllib
from typing import Any

import msgspec

from thinslice.errors import BadSettings, UnknownName
from thinslice.simulate.scenario import (
    RANKERS,
    RULES,
    Fading,
    Harming,
    Learning,
    LostLogs,
    Meeting,
    Peeking,
    Program,
    Replaying,
    SameForAll,
    Scenario,
    Stealing,
    Switching,
)

_PAIR = {"pooled": "an ordinary A/B test", "isolated": "isolated training"}

SCENARIOS: dict[str, Scenario] = {
    "aa": SameForAll(
        says="Both variants are the same: how often does a test see a difference that is not there?",
        designs={
            "mean": "the test of a mean",
            "ratio": "the test of a ratio",
            "cuped": "the test with CUPED",
            "cluster": "the test of clusters",
            "switchback": "the test of a switchback",
            "bandit": "the test under a bandit",
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
    "shared-training-detected": Learning(
        says="The same rankers in six small markets: how does a report notice that training is shared?",
        designs={
            "pooled-ramp": "an ordinary A/B test, ramped up",
            "isolated-ramp": "isolated training, ramped up",
            "cells": "own and pooled models side by side",
        },
        days=28,
        days_before=21,
        markets=6,
        visits_per_day=300,
        visitors=2_000,
    ),
    "adaptive-allocation": Switching(
        says="Both variants are the same, but who looks better gets more shoppers, and later everybody buys more.",
        designs={"naive": "an ordinary A/B test", "aipw": "the test by logged probabilities"},
        days=20,
    ),
    "sample-ratio": LostLogs(
        says="Both variants are the same, but in one browser the logs of one variant get lost.",
        designs={"unchecked": "a test without checks", "checked": "the test with checks"},
        days=14,
    ),
    "peeking": Peeking(
        says="Both variants are the same, and somebody looks every day and stops as soon as there is a difference.",
        designs={
            "naive": "looking every day at an ordinary test",
            "sequence": "the interval that is always valid",
            "planned": "the test with planned looks",
        },
        days=14,
    ),
    "novelty": Fading(
        says="Visitors click because it is new; after a week that is over.",
        designs={"whole": "an ordinary A/B test", "steady": "the effect from day 7 on"},
        days=14,
    ),
    "cold-start": Learning(
        says="A ranker that was better offline starts without the clicks that the old one has learned from.",
        designs={
            "cold": "a test of the ranker that starts cold",
            "late": "the same test without its first week",
            "warm": "the test after shadow serving",
        },
        days=14,
        days_before=14,
        control="thompson",
        control_expects=0.05,
        treatment_knows=0.2,
        items_at_start=400,
        new_items_per_day=20,
        item_life_days=20,
    ),
    "harmed-segment": Harming(
        says="The treatment helps most shoppers and harms some.",
        designs={"overall": "a test that looks at all alone", "segments": "the test that looks at segments"},
        days=14,
    ),
    "stealing-shelf": Stealing(
        says="A new shelf gets more clicks, all of them from the shelves beside it: the page gets no more.",
        designs={"shelf": "a test of the shelf's own clicks", "page": "the test of the page's clicks"},
        days=14,
    ),
    "interference": Meeting(
        says="Treatment sells more, but from the stock that control sells from too: what it gains, control loses.",
        designs={"visitors": "an ordinary A/B test", "cities": "the test by city"},
        days=14,
        cities=300,
        shoppers_per_day=8,
        conversion=0.4,
        effect=0.5,
    ),
    "interference-social": Meeting(
        says="Shoppers do what their neighbors do: what treatment brings, control's neighbors get too.",
        designs={"visitors": "an ordinary A/B test", "cities": "the test by city"},
        days=14,
        cities=120,
        effect=0.1,
        stock=0.0,
        social=0.5,
        circle=5,
    ),
    "winners-curse": Program(
        says="Of 60 experiments those that look good are shipped; some of them were only lucky.",
        designs={"sum": "adding up what was measured", "hierarchy": "the program's report"},
        days=14,
    ),
    "feedback-loop": Replaying(
        says="A ranker that only learns from its own slates is compared with one that explores: on its log, and live.",
        designs={"log": "a look at the log", "isolated": "the experiment with isolated training"},
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
    if isinstance(scenario, Meeting) and scenario.circle and scenario.shoppers_per_day % scenario.circle:
        raise BadSettings(
            f"{where}: {scenario.shoppers_per_day} shoppers a day make no whole circles of {scenario.circle}."
        )
    if isinstance(scenario, Switching) and scenario.rule not in RULES:
        raise BadSettings(f"{where}: there is no rule {scenario.rule!r} (there is: {', '.join(RULES)}).")
    for field in msgspec.structs.fields(scenario):
        value = getattr(scenario, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        low = -0.99 if field.name in EFFECTS else 0.0 if field.name in ZERO_IS_FINE else 1e-9
        high = 1.0 if field.name in SHARES else 1e9
        if not low <= value <= high:
            raise BadSettings(f"{where}: {field.name} is {value:g}; it lies between {low:g} and {high:g}.")


EFFECTS = frozenset({"effect", "harm", "steady"})
"""Numbers of a scenario that may be negative: relative changes."""

ZERO_IS_FINE = frozenset(
    {"new_items_per_day", "item_life_days", "likeness", "days_before", "treatment_knows", "lost", "floor", "decay",
     "stock", "social", "stolen", "circle", "mood", "spread"}
)  # fmt: skip
"""Numbers of a scenario that may be zero."""

SHARES = frozenset(
    {"click_rate", "control_expects", "treatment_expects", "treatment_knows", "likeness", "floor", "base_start",
     "base_end", "lost", "stolen", "browser_share", "harmed_share", "conversion"}
)  # fmt: skip
"""Numbers of a scenario that are shares."""
