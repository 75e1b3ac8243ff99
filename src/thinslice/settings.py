"""Settings: one TOML file in the workspace, checked at the door and passed on as arguments."""

import difflib
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from thinslice.errors import BadSettings, UnknownName

NAME_PATTERN = r"^[a-z0-9_-]{1,64}$"
"""Names of tenants, policies, experiments and metrics."""


def _check_ranges(settings: msgspec.Struct, ranges: Mapping[str, tuple[float, float]]) -> None:
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ValueError(f"{name} must be between {low:g} and {high:g}, got {value}")


class Serve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the service runs."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 2

    def __post_init__(self) -> None:
        """Refuses what no machine has."""
        _check_ranges(self, {"port": (0, 65_535), "workers": (1, 1024)})


class Lake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the logs become lake tables: after so many seconds or megabytes, whichever comes first."""

    commit_every_s: float = 60.0
    commit_mb: int = 64

    def __post_init__(self) -> None:
        """Refuses less than nothing."""
        _check_ranges(self, {"commit_every_s": (0, 86_400), "commit_mb": (1, 65_536)})


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When models are trained inside `serve`: not more often than `every_s` seconds, and only when there is news."""

    every_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuses less than nothing."""
        _check_ranges(self, {"every_s": (0, 31_536_000)})


class Models(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much memory (megabytes) the models of all tenants may take in each web worker."""

    memory_mb: int = 2048

    def __post_init__(self) -> None:
        """Refuses less than nothing."""
        _check_ranges(self, {"memory_mb": (0, 1e9)})


class Live(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The live sessions shared by all workers; `map_mb` bounds their memory map."""

    map_mb: int = 256

    def __post_init__(self) -> None:
        """Refuses a map that holds nothing."""
        _check_ranges(self, {"map_mb": (1, 1e9)})


EXPLORATION = {
    "none": (),
    "epsilon-slot": ("slots", "epsilon", "candidates"),
    "position-thompson": ("candidates", "rankings", "trust", "half_life_days", "pseudo_count", "newcomers", "settle_s"),
    "cascade-thompson": ("candidates", "rankings", "trust", "half_life_days", "pseudo_count", "newcomers", "settle_s"),
    "linear-thompson": (
        "candidates", "rankings", "trust", "half_life_days", "pseudo_count", "newcomers", "settle_s", "features",
    ),
}  # fmt: skip
"""Ways to explore, and the settings that each takes."""


class Exploration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of `exploration`, checked; docs/reference/settings.md says what each means."""

    slots: int = 1
    epsilon: float = 1.0
    candidates: int = 60
    rankings: int = 200
    trust: float = 1.0
    half_life_days: float = 30.0
    pseudo_count: float = 50.0
    newcomers: int = 2
    settle_s: float = 1800.0
    features: int = 32

    def __post_init__(self) -> None:
        """Refuses what is out of range."""
        ranges = {
            "slots": (1, 100), "epsilon": (0.0, 1.0), "candidates": (2, 1000), "rankings": (20, 2000),
            "trust": (0.0, 10.0), "half_life_days": (0.01, 36_500.0), "pseudo_count": (0.1, 1e6), "newcomers": (0, 50),
            "settle_s": (0.0, 604_800.0), "features": (2, 256),
        }  # fmt: skip
        _check_ranges(self, ranges)


DIVERSITY = ("mmr", "calibrated")
"""What the dial of diversity moves towards: items unlike each other, or the mix that the visitor looks at."""

OBJECTIVES = (
    "click", "view_item", "select_item", "add_to_cart", "add_to_wishlist", "purchase", "refund", "report", "hide",
)  # fmt: skip
"""What a policy may weigh: a click as such, and the actions that are predicted from what visitors did."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A recipe from session to slate: a model's name and its settings; `none` shows nothing.

    `explore` names how it tries what it does not know yet (`none`, `epsilon-slot`, `position-thompson`,
    `cascade-thompson`, `linear-thompson`), with its settings in `exploration`; `diversity` is a dial from 0 (the
    ranking as it is) to 1, by `diversity_by` (`mmr`, `calibrated`); `objectives` weighs predicted actions (purchase =
    1.0, report = -5.0); empty: clicks.
    """

    model: str = "session-knn"
    settings: dict[str, float | int | str | bool] = {}
    explore: str = "none"
    exploration: dict[str, float | int | str | bool] = {}
    diversity: float = 0.0
    diversity_by: str = "mmr"
    objectives: dict[str, float] = {}

    def __post_init__(self) -> None:
        """Refuses what does not hold together."""
        if self.explore not in EXPLORATION:
            raise ValueError(f"there is no way to explore {self.explore!r} (there is: {', '.join(EXPLORATION)})")
        takes = EXPLORATION[self.explore]
        for name in self.exploration:
            if name not in takes:
                raise ValueError(f"explore = {self.explore!r} takes no {name!r} (it takes: {', '.join(takes) or '-'})")
        _ = self.chance
        if not 0.0 <= self.diversity <= 1.0:
            raise ValueError(f"diversity must be between 0 and 1, got {self.diversity}")
        if self.diversity_by not in DIVERSITY:
            raise ValueError(f"there is no diversity by {self.diversity_by!r} (there is: {', '.join(DIVERSITY)})")
        if self.diversity > 0 and self.explore.endswith("-thompson"):
            raise ValueError(f"diversity and {self.explore!r} cannot go together: what diversity moves afterwards would"
                             " not have the probabilities that are logged")  # fmt: skip
        for name, weight in self.objectives.items():
            if name not in OBJECTIVES:
                raise ValueError(f"there is no objective {name!r} (there is: {', '.join(OBJECTIVES)})")
            if not -1e6 <= weight <= 1e6:
                raise ValueError(f"the objective {name!r} must weigh between -1e6 and 1e6, got {weight}")

    @property
    def chance(self) -> Exploration:
        """The settings of `exploration` with their defaults."""
        try:
            return msgspec.convert(self.exploration, Exploration)
        except msgspec.ValidationError as error:
            raise ValueError(f"exploration: {error}") from None


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """A rule of slates, one table `[[tenants.NAME.rules]]`; `name` stands in reports, `placement` `*` means all."""

    name: str = ""
    placement: str = "*"


class Selection(Rule, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule about chosen items: those that match every field that is given, and any entry of each list."""

    items: list[str] = []
    categories: list[str] = []
    brands: list[str] = []
    creators: list[str] = []
    kinds: list[str] = []
    attributes: dict[str, str | int | float | bool] = {}
    sponsored: bool | None = None

    def __post_init__(self) -> None:
        """Refuses a selection that names nothing."""
        lists = (self.items, self.categories, self.brands, self.creators, self.kinds, self.attributes)
        if not any(lists) and self.sponsored is None:
            raise ValueError("it chooses no items: give items, categories, brands, creators, kinds, attributes"
                             " or sponsored")  # fmt: skip


class IncludeRule(Selection, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="include"):
    """Only the chosen items; `hard` holds even when nothing else is left to show."""

    hard: bool = False


class ExcludeRule(Selection, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="exclude"):
    """None of the chosen items, ever."""


class PriceRule(Rule, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="price"):
    """Only items whose price is known and in range: in minor units, or as shares of the price of the page's item."""

    min_minor: int | None = None
    max_minor: int | None = None
    min_share: float | None = None
    max_share: float | None = None
    hard: bool = False

    def __post_init__(self) -> None:
        """Refuses a range that is missing, mixed or empty."""
        absolute, relative = (self.min_minor, self.max_minor), (self.min_share, self.max_share)
        given = [pair for pair in (absolute, relative) if pair != (None, None)]
        if len(given) != 1:
            raise ValueError("it needs min_minor or max_minor, or min_share or max_share, and not both kinds")
        low, high = given[0]
        if min(low or 0, high or 0) < 0 or (low is not None and high is not None and low > high):
            raise ValueError(f"its range {low} to {high} holds nothing")

    @property
    def relative(self) -> bool:
        """Whether the range follows the price of the page's item."""
        return self.min_share is not None or self.max_share is not None


class DistanceRule(Rule, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="distance"):
    """Only items within `max_km` of the request's `latitude` and `longitude`; an item without a place is everywhere."""

    max_km: float

    def __post_init__(self) -> None:
        """Refuses a distance that is not positive."""
        if not self.max_km > 0:
            raise ValueError(f"max_km must be positive, got {self.max_km}")


class AgeRule(Rule, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="age"):
    """No item whose `attribute` (years) is above the request's `age`; without an age no such item at all."""

    attribute: str = "min_age"


class SeenRule(Rule, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="seen"):
    """Which of the visitor's own items are left out: bought or hidden ones, viewed ones, those in the cart."""

    bought: bool = True
    viewed: bool = False
    cart: bool = False


class BoostRule(Selection, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="boost"):
    """Multiplies the scores of the chosen items by `factor`; below 1 it holds them back."""

    factor: float

    def __post_init__(self) -> None:
        """Refuses a factor that is not positive and finite."""
        Selection.__post_init__(self)
        if not 0 < self.factor < float("inf"):
            raise ValueError(f"factor must be positive, got {self.factor}")


class PinRule(Rule, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="pin"):
    """Puts one item at a position (counted from 0), as long as it may be shown."""

    item_id: str
    position: int = 0

    def __post_init__(self) -> None:
        """Refuses a negative position."""
        if self.position < 0:
            raise ValueError(f"position counts from 0, got {self.position}")


class QuotaRule(Rule, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="quota"):
    """At most `most` items of one `by` in a slate: `brand`, `creator`, `category`, `kind`, `group` or an attribute."""

    most: int
    by: str = "brand"

    def __post_init__(self) -> None:
        """Refuses a quota that lets nothing through."""
        if self.most < 1:
            raise ValueError(f"most must be at least 1, got {self.most}")


AnyRule = (
    IncludeRule | ExcludeRule | PriceRule | DistanceRule | AgeRule | SeenRule | BoostRule | PinRule | QuotaRule
)  # fmt: skip
"""Every kind of rule."""

PRESETS = ("shop", "media", "ugc", "jobs", "people", "skills")
"""What a tenant may recommend."""

CONSENTS = ("none", "measurement", "personalization")
"""What a visitor may agree to; `records` has the same words."""

MAX_RULES = 64
"""So many rules may one tenant have: each is one bit of an item."""


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One customer: what its shop is called, where its pages may come from, which policy serves by default."""

    title: str = ""
    currency: str = "EUR"
    preset: str = "shop"
    origins: list[str] = []
    consent_publishable: str = "none"
    consent_secret: str = "personalization"
    default_policy: str = "session-knn"
    policies: dict[str, Policy] = {}
    placements: dict[str, str] = {}
    rules: list[AnyRule] = []
    margin: float = 0.02

    def __post_init__(self) -> None:
        """Refuses words that stand for nothing, policies that there are not, and more rules than an item has bits."""
        for field, known in (("preset", PRESETS), ("consent_publishable", CONSENTS), ("consent_secret", CONSENTS)):
            word = getattr(self, field)
            if word not in known:
                raise ValueError(f"{field} is {word!r} (there is: {', '.join(known)})")
        if not re.fullmatch("[A-Z]{3}", self.currency):
            raise ValueError(f"currency is {self.currency!r}, it must be three capital letters such as 'EUR'")
        _check_ranges(self, {"margin": (0, 0.99)})
        policies = {*BUILT_IN_POLICIES, *self.policies}
        asked = {"default_policy": self.default_policy} | {f"placements.{at}": it for at, it in self.placements.items()}
        for field, policy in asked.items():
            if policy not in policies:
                raise ValueError(f"{field} is {policy!r}, and there is no such policy{_meant(policy, policies)}")
        if len(self.rules) > MAX_RULES:
            raise ValueError(f"at most {MAX_RULES} rules, got {len(self.rules)}")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file `thinslice.toml`."""

    serve: Serve = Serve()
    lake: Lake = Lake()
    training: Training = Training()
    models: Models = Models()
    live: Live = Live()
    tenants: dict[str, Tenant] = {}

    def tenant(self, name: str) -> Tenant:
        """One tenant's settings.

        Raises:
            UnknownName: There is no such tenant; the message lists those that exist.
        """
        if name not in self.tenants:
            known = ", ".join(sorted(self.tenants)) or "none"
            raise UnknownName(f"there is no tenant {name!r} (there is: {known}).", hint="`thinslice init` makes one.")
        return self.tenants[name]


AUTO = "auto"
"""The policy that stands for the simplest model that is not worse than the best: training chooses it."""

BUILT_IN_POLICIES = {
    name: Policy(model=name)
    for name in (
        "session-ranker", "session-knn", "implicit-bpr", "implicit-als", "ease", "implicit-tfidf", "implicit-cosine",
        "markov", "content", "trending", "newest", "popular", AUTO, "none",
        "similar", "bought-together", "complete-cart", "recently-viewed", "trending-in-category", "buy-again",
        "user-history",
    )
}  # fmt: skip
"""Policies that every tenant has without writing them down."""


class Workspace(msgspec.Struct, frozen=True):
    """Where everything of one installation lies on the disk."""

    root: Path

    @property
    def settings_file(self) -> Path:
        """thinslice.toml."""
        return self.root / "thinslice.toml"

    @property
    def keys_file(self) -> Path:
        """Hashes of the keys, readable by the owner alone."""
        return self.root / "keys.json"

    @property
    def log(self) -> Path:
        """The intake log's segments."""
        return self.root / "log"

    @property
    def lake(self) -> Path:
        """The Delta tables, one folder each."""
        return self.root / "lake"

    @property
    def live(self) -> Path:
        """The live store."""
        return self.root / "live"

    @property
    def models(self) -> Path:
        """Artifacts and the registry."""
        return self.root / "models"

    @property
    def experiments(self) -> Path:
        """Experiment files, one folder a tenant."""
        return self.root / "experiments"

    @property
    def reports(self) -> Path:
        """What jobs computed for the pages, JSON, one folder a tenant."""
        return self.root / "reports"

    @property
    def run(self) -> Path:
        """Process ids, health and counters of a running service."""
        return self.root / "run"


def read_settings(workspace: Workspace) -> Settings:
    """Reads and checks a workspace's settings.

    Raises:
        BadSettings: The file is missing, is no text, is no TOML, or has a field that is unknown or of the wrong type.
    """
    path = workspace.settings_file
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = f"`thinslice init --workspace {shlex.quote(str(workspace.root))}` makes one."
        raise BadSettings(f"{workspace.root} is not a workspace: {path.name} is missing.", hint=hint) from None
    except UnicodeDecodeError as error:
        raise BadSettings(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}.") from None
    return parse_settings(text, where=str(path))


def parse_settings(text: str, *, where: str = "thinslice.toml") -> Settings:
    r"""Settings from TOML text.

    >>> parse_settings("[serve]\nport = 9000").serve.port
    9000
    """
    try:
        table = tomllib.loads(text)
        return msgspec.convert(table, Settings)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{where} is not valid TOML: {error}.") from None
    except msgspec.ValidationError as error:
        said = _wrong(table, Settings, "", error)
        raise BadSettings(f"{where}: {said}.", hint="docs/reference/settings.md lists every setting.") from None


_NAMED: dict[type[msgspec.Struct], tuple[str, type[msgspec.Struct]]] = {
    Settings: ("tenants", Tenant),
    Tenant: ("policies", Policy),
}
_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
          "object": "a table", "null": "nothing"}  # fmt: skip


def _wrong(table: Mapping[str, Any], kind: type[msgspec.Struct], place: str, error: msgspec.ValidationError) -> str:
    """What does not fit, in words, with the whole way to it: the decoder does not say which tenant or policy it was."""
    field, inner = _NAMED.get(kind, ("", Settings))
    held = table.get(field) if field else None
    for name, value in held.items() if isinstance(held, dict) else ():
        try:
            msgspec.convert(value, inner)
        except msgspec.ValidationError as nested:
            at = f"{place}{field}.{name}"
            return _wrong(value, inner, f"{at}.", nested) if isinstance(value, dict) else f"{at} must be a table"
    what, _, at = str(error).partition(" - at `$")
    at = (place + at.strip("`.")).rstrip(".")
    unknown = re.match(r"Object contains unknown field `(.*)`", what)
    if unknown:
        fields = kind.__struct_fields__ if at == place.rstrip(".") else _fields_at(at.removeprefix(place), kind)
        return f"there is no setting {f'{at}.' if at else ''}{unknown[1]}{_meant(unknown[1], fields)}"
    missing = re.match(r"Object missing required field `(.*)`", what)
    if missing:
        return f"{at} needs {missing[1]}"
    wrong = re.match(r"Expected `(.*)`, got `(.*)`", what)
    if wrong:
        wanted, got = (" or ".join(_WORDS.get(each, each) for each in words.split(" | ")) for words in wrong.groups())
        return f"{at} must be {wanted}, it is {got}"
    return f"{at}: {what}" if at else what


def _fields_at(field: str, kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields of a table such as `serve`; those of a rule depend on its kind, and are not guessed."""
    inner = type(getattr(kind(), field, None))
    return inner.__struct_fields__ if issubclass(inner, msgspec.Struct) else ()


def _meant(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), 1)
    return f"; {near[0]!r} perhaps?" if near else ""
