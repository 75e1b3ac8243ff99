"""The models that answer now: a new generation is loaded beside the old one, tried, and then swapped in at once."""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, cast

from thinslice.errors import StoreError, ThinsliceError
from thinslice.records import Artifacts, Model

POLL_S = 0.5
"""So often (seconds) the generation pointers are looked at."""

KEEP_S = 60.0
"""So long (seconds) the last generation of a slot stays after the swap; those before it go at once."""

RETRY_S = 10.0
"""So long (seconds) after a generation that could not be loaded it is tried again."""

LIVE = "live"
"""The slot of the models that learn from everybody."""

_log = logging.getLogger("thinslice.serving")


class GenerationArtifacts(Artifacts, Protocol):
    """An artifact store with a cheap pointer to poll."""

    def generation(self, tenant: str) -> int:
        """A number that changes whenever any slot of a tenant points elsewhere."""
        ...


class Bundle(NamedTuple):
    """One trained generation: its models by name, and what it was made from."""

    version: str
    models: dict[str, Model]
    manifest: dict[str, Any]


def slot_of(experiment: str, variant: str) -> str:
    """The slot of the models that one variant of an experiment trained on its own sessions."""
    return f"exp.{experiment}.{variant}"


class ModelHost:
    """Holds the live models of all tenants and follows their generation pointers in a thread of its own.

    Args:
        artifacts: Where trained models lie.
        tenants: Whose to hold.
    """

    def __init__(
        self,
        artifacts: GenerationArtifacts,
        tenants: Iterable[str],
    ) -> None:
        self._artifacts = artifacts
        self._tenants = list(tenants)
        self._generations: dict[str, int] = {}
        self._slots: dict[str, dict[str, Bundle]] = {tenant: {} for tenant in self._tenants}
        self._retired: dict[tuple[str, str], tuple[float, Bundle]] = {}
        self._retry_at: dict[str, float] = {}
        self._stop = threading.Event()
        self._looked = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts following; the first models arrive soon after, and requests are answered meanwhile."""
        self._thread = threading.Thread(target=self._follow, name="models", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)

    @property
    def looked(self) -> bool:
        """Whether every tenant has been looked at once."""
        return self._looked.is_set()

    def bundle(self, tenant: str, slot: str = LIVE) -> Bundle | None:
        """The models of a slot; None when nothing was trained for it yet."""
        return self._slots.get(tenant, {}).get(slot)

    def refresh(self, now: float) -> int:
        """Looks at every pointer once, loads what is new, swaps it in; returns how many bundles were swapped.

        Args:
            now: Seconds of a clock that only goes forward.
        """
        swapped = 0
        for tenant in self._tenants:
            generation = self._artifacts.generation(tenant)
            if generation == self._generations.get(tenant) and now < self._retry_at.get(tenant, float("inf")):
                continue
            whole = self._refresh_tenant(tenant, now)
            self._generations[tenant] = generation
            self._retry_at[tenant] = float("inf") if whole else now + RETRY_S
            swapped += whole
        self._looked.set()
        self._retired = {place: (until, bundle) for place, (until, bundle) in self._retired.items() if until > now}
        return swapped

    def _refresh_tenant(self, tenant: str, now: float) -> bool:
        old = self._slots[tenant]
        new: dict[str, Bundle] = {}
        whole = True
        for slot, version in self._artifacts.live(tenant).items():
            held = old.get(slot)
            if held is not None and held.version == version:
                new[slot] = held
                continue
            try:
                early, late = self._load(tenant, version)
                if held is None and late and early.models:
                    self._slots[tenant] = {**old, **new, slot: early}
                bundle = Bundle(version, {**early.models, **_warmed(late)}, early.manifest)
            except (ThinsliceError, OSError, ValueError, KeyError) as error:
                whole = False
                _log.error("models of %s, slot %s, version %s are not usable: %s", tenant, slot, version, error)
                if held is not None:
                    new[slot] = held
                continue
            new[slot] = bundle
        self._slots[tenant] = new
        for slot, bundle in old.items():
            if new.get(slot) is not bundle:
                self._retired[tenant, slot] = (now + KEEP_S, bundle)
        return whole

    def _load(self, tenant: str, version: str) -> tuple[Bundle, dict[str, Model]]:
        """The models of a version that can answer at once, and those whose kernels are not compiled yet."""
        from thinslice.models import MODELS  # in this thread: the first page must not wait for the kernels

        arrays, manifest = self._artifacts.load(tenant, version)
        early: dict[str, Model] = {}
        late: dict[str, Model] = {}
        for name, each in arrays.items():
            kind = MODELS[model_kind(name, manifest)]
            model = cast(Model, kind.from_arrays(each))
            if kind.ready():
                early[name] = _probed(model)
            else:
                late[name] = model
        return Bundle(version, early, manifest), late

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh(time.monotonic())
            except (StoreError, OSError) as error:
                _log.error("the registry of models cannot be read: %s", error)
            self._looked.set()  # also when it failed: the catalog answers then
            self._stop.wait(POLL_S)


def model_kind(name: str, manifest: Mapping[str, Any]) -> str:
    """Which model a name in a bundle stands for: `policies` in the manifest says, else the name is the model's own."""
    kinds = manifest.get("policies")
    kind = kinds.get(name, name) if isinstance(kinds, dict) else name
    return kind if isinstance(kind, str) else name


def _warmed(models: Mapping[str, Model]) -> dict[str, Model]:
    """The same models, their kernels compiled."""
    for model in models.values():
        warm = getattr(model, "warm", None)
        if warm is not None:
            warm()
    return {name: _probed(model) for name, model in models.items()}


def _probed(model: Model) -> Model:
    """A model that has answered before any visitor asks it: its pages are touched, its scratch is there."""
    size = len(model.item_ids)
    for probe in sorted({0, size // 2, size - 1}) if size else []:
        model.recommend([model.item_ids[probe]], min(20, size))
    return model
