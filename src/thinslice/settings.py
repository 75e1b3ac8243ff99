"""Settings: one TOML file in the workspace, checked at the door and passed on as arguments."""

import shlex
import tomllib
from pathlib import Path

import msgspec

from thinslice.errors import BadSettings, UnknownName

NAME_PATTERN = r"^[a-z0-9_-]{1,64}$"
"""Names of tenants, policies, experiments and metrics."""


class Serve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the service runs."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 2


class Lake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the logs become lake tables: after so many seconds or megabytes, whichever comes first."""

    commit_every_s: float = 60.0
    commit_mb: int = 64


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When models are trained inside `serve`: not more often than `every_s` seconds, and only when there is news."""

    every_s: float = 60.0


class Live(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The live sessions shared by all workers; `map_mb` bounds their memory map."""

    map_mb: int = 256


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A recipe from session to slate: a model's name and its settings; `none` shows nothing.

    `explore` names how it tries what it does not know yet (`none`, `epsilon-slot`, `position-thompson`,
    `cascade-thompson`, `linear-thompson`), with its settings in `exploration`; `diversity` is a dial from 0 (the
    ranking as it is) to 1; `objectives` weighs predicted actions (purchase = 1.0, report = -5.0); empty: clicks.
    """

    model: str = "session-knn"
    settings: dict[str, float | int | str | bool] = {}
    explore: str = "none"
    exploration: dict[str, float | int | str | bool] = {}
    diversity: float = 0.0
    objectives: dict[str, float] = {}


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


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file `thinslice.toml`."""

    serve: Serve = Serve()
    lake: Lake = Lake()
    training: Training = Training()
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


BUILT_IN_POLICIES = {
    "session-knn": Policy(model="session-knn"),
    "popular": Policy(model="popular"),
    "newest": Policy(model="newest"),
    "none": Policy(model="none"),
}
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
        return msgspec.convert(tomllib.loads(text), Settings)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{where} is not valid TOML: {error}.") from None
    except msgspec.ValidationError as error:
        raise BadSettings(f"{where}: {error}.", hint="docs/reference/settings.md lists every setting.") from None
