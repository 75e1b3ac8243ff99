"""Recipes: which models a tenant needs, and how each is made: learned anew, or freshened with its tuning."""

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from thinslice.errors import BadSettings
from thinslice.models import MODELS
from thinslice.records import Arrays, Interactions, Item, Model, User
from thinslice.settings import AUTO, BUILT_IN_POLICIES, Policy, Settings

FALLBACKS = (
    "popular", "newest", "trending", "buy-again", "user-history", "bought-together", "content", "implicit-cosine",
    "session-knn",
)  # fmt: skip
"""Models that stand behind every policy and behind the shelves that need not be written down."""

LINEUP = ("popular", "markov", "implicit-cosine", "session-knn")
"""What `auto` may stand for besides the default pipeline, the simplest first: each learns within seconds."""

FEED = ("content", "newest")
"""Models that know an item before anybody clicked it: a change of the catalog is a reason to make them again."""

GROWN = 1.2
"""Settings are tuned again when there are so many times the clicks."""

TUNED_FOR_S = 86_400.0
"""Or when the newest click is so many seconds (a day) newer than those that they were tuned on."""

BUDGET = "tune_cpu_s_per_million"
"""The setting by which a model that tunes itself is told not to."""


class Tuning(NamedTuple):
    """On what a model tuned its settings.

    Attributes:
        name: Says which tuning it is: 16 hex digits of what was tuned and learned.
        clicks: How many clicks there were.
        until: Unix seconds of the newest of them.
        release: The release of Thinslice that tuned it; empty: an early one.
    """

    name: str
    clicks: int
    until: float
    release: str = ""


class Recipe(NamedTuple):
    """How one policy's model is made.

    Attributes:
        policy: The model's kind and its settings.
        previous: The model that is freshened; None when everything is learned anew.
        tuning: Of `previous`, and of the model that is made from it.
        quick: Whether a model that would tune itself starts with safe defaults instead.
    """

    policy: Policy
    previous: Model | None = None
    tuning: Tuning | None = None
    quick: bool = False

    def make(self, interactions: Interactions, items: list[Item], rng: int, users: Sequence[User] = ()) -> Model:
        """The model.

        Args:
            interactions: What it learns from.
            items: The catalog.
            rng: The seed.
            users: What the shop says of its users, for a model that takes that.

        Raises:
            BadSettings: The model does not take these settings.
        """
        draw = np.random.default_rng(rng)
        previous: Any = self.previous
        if previous is not None:
            told = {"users": users} if "users" in inspect.signature(previous.refit).parameters else {}
            refitted: Model = previous.refit(interactions, items, rng=draw, **told)
            return refitted
        kind: Any = MODELS[self.policy.model]
        settings = dict(self.policy.settings)
        known = {"users": users} if "users" in inspect.signature(kind.fit).parameters else {}
        if self.quick and tunes_itself(self.policy.model):
            settings[BUDGET] = 0.0
        try:
            fitted: Model = kind.fit(interactions, items, rng=draw, **{**known, **settings})
        except TypeError as error:
            if not settings:
                raise
            raise BadSettings(
                f"the model {self.policy.model!r} does not take these settings: {error}.",
                hint="Look at [tenants.NAME.policies] in thinslice.toml.",
            ) from None
        return fitted

    def freshened(self, model: Model, tuning: Tuning | None) -> "Recipe":
        """The recipe that makes the same model of other clicks: what was tuned stays as it is."""
        return self._replace(previous=model, tuning=tuning) if hasattr(model, "refit") else self


def named_policies(settings: Settings, tenant: str, variants: Iterable[str] = ()) -> dict[str, Policy]:
    """The policies that somebody names: the default, placements, experiments, and those that are written down.

    For `auto` these are the default pipeline and what is simpler: training chooses among them.
    """
    shop = settings.tenant(tenant)
    known = {**BUILT_IN_POLICIES, **shop.policies}
    names = [shop.default_policy, *shop.placements.values(), *variants, *shop.policies]
    if AUTO in names:
        names += [*LINEUP, pipeline()]
    return _in_order({name: known[name] for name in names if name in known and known[name].model in MODELS})


def needed_policies(settings: Settings, tenant: str, variants: Iterable[str] = ()) -> dict[str, Policy]:
    """Every policy that has a model to train, by its name in the bundle, the simplest model first."""
    fallbacks = {name: Policy(model=name) for name in FALLBACKS if name in MODELS}
    return _in_order({**fallbacks, **named_policies(settings, tenant, variants)})


def pipeline() -> str:
    """The default pipeline: the most elaborate model."""
    return list(MODELS)[-1]


def _in_order(policies: Mapping[str, Policy]) -> dict[str, Policy]:
    places = list(MODELS)
    return dict(
        sorted(policies.items(), key=lambda each: (places.index(each[1].model), each[0] != each[1].model, each[0]))
    )


def tunes_itself(kind: str) -> bool:
    """Whether a model tunes its settings when it is fitted, which takes minutes."""
    model: Any = MODELS[kind]
    return BUDGET in inspect.signature(model.fit).parameters


def tuning_of(model: Model, interactions: Interactions) -> Tuning | None:
    """What a model that has just tuned itself was tuned on; None for one that has nothing to tune."""
    if not tunes_itself(model.name):
        return None
    arrays = {name: array for name, array in model.arrays().items() if name == "note" or name.startswith("forest_")}
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    until = float(interactions.time.max()) if len(interactions.time) else 0.0
    return Tuning(digest.hexdigest()[:16], len(interactions.item), until, version("thinslice"))


def tuning_due(tuning: Tuning | None, interactions: Interactions) -> str:
    """Why a model should tune itself again, in words; empty while what it has is good enough."""
    if tuning is None:
        return "it was never tuned"
    if tuning.release != version("thinslice"):
        return f"it was tuned by {f'release {tuning.release}' if tuning.release else 'an earlier release'}"
    clicks = len(interactions.item)
    if clicks >= GROWN * tuning.clicks and clicks > tuning.clicks:
        return f"there are {clicks:,} clicks, it was tuned on {tuning.clicks:,}"
    if clicks and float(interactions.time.max()) >= tuning.until + TUNED_FOR_S:
        return "it was tuned on clicks of more than a day before"
    return ""


def tuning_in(manifest: Mapping[str, Any], name: str) -> Tuning | None:
    """The tuning of a policy as a manifest says it."""
    found = manifest.get("tuned", {}).get(name)
    return Tuning(**found) if isinstance(found, dict) else None


def read_model(name: str, arrays: Arrays, manifest: Mapping[str, Any]) -> Model | None:
    """A stored model; None where this release has no such kind, or reads it differently."""
    kind = manifest.get("policies", {}).get(name, name)
    if kind not in MODELS:
        return None
    try:
        return cast(Model, MODELS[kind].from_arrays(arrays))
    except (KeyError, ValueError):
        return None


@cache
def code_version() -> str:
    """Which code makes the models: the release, and a digest of the files that learn."""
    root = Path(inspect.getfile(Recipe)).parent.parent
    digest = hashlib.sha256()
    for path in sorted([*(root / "models").glob("*.py"), *(root / "sessions").glob("*.py")]):
        digest.update(path.name.encode() + path.read_bytes())
    return f"{version('thinslice')}+{digest.hexdigest()[:12]}"


@cache
def wheels() -> dict[str, str]:
    """The versions of the libraries that decide about the bytes of a model."""
    return {name: version(name) for name in ("implicit", "lightgbm", "numba", "numpy", "scipy")}
