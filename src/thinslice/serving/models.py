"""The models that answer now: a new generation is loaded beside the old one, tried, and then swapped in at once.

Many tenants share the memory: those that are asked are held as a whole, the others answer what is popular with them
until somebody asks and there is room (see `thinslice.serving.memory`).
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

from thinslice.errors import StoreError, ThinsliceError
from thinslice.recommend.explore import BANDIT
from thinslice.recommend.objectives import RATES, ActionRates
from thinslice.records import Arrays, Artifacts, Model
from thinslice.serving.memory import Budget, Bundle, bytes_of, small_popular

POLL_S = 0.5
"""So often (seconds) the generation pointers are looked at."""

KEEP_S = 60.0
"""So long (seconds) the last generation of a slot stays after the swap; those before it go at once."""

RETRY_S = 10.0
"""So long (seconds) after a generation that could not be loaded it is tried again."""

LIVE = "live"
"""The slot of the models that learn from everybody."""

PAUSE_S = 50e-6
"""A pause this long (seconds) lets a waiting thread have its turn: the one that answers pages."""

UNUSABLE = (ThinsliceError, OSError, ValueError, KeyError)
"""What a version that is damaged, or was made by another release, raises when it is loaded."""

Prepare = Callable[[str, Model, Callable[[], object]], None]
"""Called with a tenant, one of its models that is about to serve, and a pause to make after each piece of work."""

_log = logging.getLogger("thinslice.serving")


class GenerationArtifacts(Artifacts, Protocol):
    """An artifact store with a cheap pointer to poll."""

    def generation(self, tenant: str) -> int:
        """A number that changes whenever any slot of a tenant points elsewhere."""
        ...


def slot_of(experiment: str, variant: str) -> str:
    """The slot of the models that one variant of an experiment trained on its own sessions."""
    return f"exp.{experiment}.{variant}"


class ModelHost:
    """Holds the live models of all tenants and follows their generation pointers in a thread of its own.

    Args:
        artifacts: Where trained models lie.
        tenants: Whose to hold.
        memory_mb: How much the models that are held as a whole may take (megabytes).
    """

    def __init__(self, artifacts: GenerationArtifacts, tenants: Iterable[str], *, memory_mb: float = math.inf) -> None:
        self._artifacts = artifacts
        self._tenants = list(tenants)
        self._budget = Budget(memory_mb * 1e6)
        self._prepare: Prepare | None = None
        self._generations: dict[str, int] = {}
        self._slots: dict[str, dict[str, Bundle]] = {tenant: {} for tenant in self._tenants}
        self._sizes: dict[str, dict[str, int]] = {}
        self._retired: dict[tuple[str, str], tuple[float, Bundle]] = {}
        self._retry_at: dict[str, float] = {}
        self._stop = threading.Event()
        self._looked = threading.Event()
        self._thread: threading.Thread | None = None

    def before_serving(self, prepare: Prepare) -> None:
        """What is called with each loaded model, in the thread that loaded it, before a visitor can meet it."""
        self._prepare = prepare

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

    @property
    def gave_way(self) -> list[str]:
        """Tenants whose models have no room now: what is popular with them answers."""
        return sorted(name for name, slots in self._slots.items() if any(not each.whole for each in slots.values()))

    def bundle(self, tenant: str, slot: str = LIVE) -> Bundle | None:
        """The models of a slot; None when nothing was trained for it yet."""
        self._budget.ask(tenant)
        return self._slots.get(tenant, {}).get(slot)

    def refresh(self, now: float) -> int:
        """Looks at every pointer once, loads what is new, swaps it in; returns how many tenants were served anew.

        Args:
            now: Seconds of a clock that only goes forward.
        """
        swapped = 0
        self._budget.next_turn()
        for tenant in self._tenants:
            generation = self._artifacts.generation(tenant)
            news = generation != self._generations.get(tenant) or now >= self._retry_at.get(tenant, float("inf"))
            if not news and not self._may_return(tenant):
                continue
            complete = self._refresh_tenant(tenant, now)
            self._generations[tenant] = generation
            self._retry_at[tenant] = float("inf") if complete else now + RETRY_S
            swapped += complete
        self._looked.set()
        self._retired = {place: (until, bundle) for place, (until, bundle) in self._retired.items() if until > now}
        return swapped

    def _may_return(self, tenant: str) -> bool:
        """Whether a tenant that gave way is asked again and there is room for it now."""
        if self._budget.held(tenant) or not self._budget.wanted(tenant) or tenant not in self._sizes:
            return False
        return self._budget.give_way(tenant, sum(self._sizes[tenant].values())) is not None

    def _refresh_tenant(self, tenant: str, now: float) -> bool:
        """Makes a tenant's bundles what the registry says; returns False when one of them could not be loaded."""
        old, known = self._slots[tenant], self._sizes.get(tenant, {})
        live = self._artifacts.live(tenant)
        read: dict[str, tuple[dict[str, Arrays], dict[str, Any]]] = {}
        sizes: dict[str, int] = {}
        complete = True
        for slot, version in live.items():
            held = old.get(slot)
            if held is not None and held.version == version and held.whole:
                sizes[version] = known[version]
                continue
            try:
                read[slot] = self._artifacts.load(tenant, version)
            except UNUSABLE as error:
                complete = _unusable(tenant, slot, version, error)
                continue
            sizes[version] = bytes_of(read[slot][0])
        self._sizes[tenant] = sizes
        whole = self._make_room(tenant, sum(sizes.values()))
        new: dict[str, Bundle] = {}
        for slot, version in live.items():
            held = old.get(slot)
            if held is not None:
                new[slot] = held if whole or not held.whole else _head(held)
            if slot not in read or (held is not None and held.version == version and held.whole == whole):
                continue
            arrays, manifest = read[slot]
            bundle = Bundle(version, {}, manifest, whole)
            try:
                new[slot] = (
                    self._loaded(tenant, slot, bundle, arrays, {**old, **new}) if whole else _small(bundle, arrays)
                )
            except UNUSABLE as error:
                complete = _unusable(tenant, slot, version, error)
        self._slots[tenant] = new
        for slot, bundle in old.items():
            if new.get(slot) is not bundle and whole:
                self._retired[tenant, slot] = (now + KEEP_S, bundle)
        return complete

    def _make_room(self, tenant: str, size: int) -> bool:
        """Whether a tenant's models fit; others give way for them when they have not been asked for a while."""
        leaving = self._budget.give_way(tenant, size)
        if leaving is None:
            self._budget.let_go(tenant)
            return False
        for other in leaving:
            self._budget.let_go(other)
            self._slots[other] = {slot: _head(bundle) for slot, bundle in self._slots[other].items()}
            self._retired = {place: kept for place, kept in self._retired.items() if place[0] != other}
        self._budget.hold(tenant, size)
        return True

    def _loaded(
        self, tenant: str, slot: str, bundle: Bundle, arrays: Mapping[str, Arrays], serving: Mapping[str, Bundle]
    ) -> Bundle:
        """All models of a version; where nothing serves yet, those that need no compiler serve at once."""
        from thinslice.models import MODELS  # in this thread: the first page must not wait for the kernels

        early: dict[str, Model] = {}
        late: dict[str, Model] = {}
        extras = bundle.manifest.get("extras", {})
        for name, each in arrays.items():
            if name in extras:
                continue
            kind = MODELS[model_kind(name, bundle.manifest)]
            model = cast(Model, kind.from_arrays(each))
            pause()
            if kind.ready():
                early[name] = self._tried(tenant, model)
            else:
                late[name] = model
        if slot not in serving and late and early:
            self._slots[tenant] = {**serving, slot: bundle._replace(models=early)}
        for model in late.values():
            warm = getattr(model, "warm", None)
            if warm is not None:
                warm()
        bundle = _with_extras(bundle, {name: each for name, each in arrays.items() if name in extras})
        models = {**early, **{name: self._tried(tenant, model) for name, model in late.items()}}
        aliases = bundle.manifest.get("aliases", {})
        models.update({alias: models[name] for alias, name in aliases.items() if name in models})
        return bundle._replace(models=models)

    def _tried(self, tenant: str, model: Model) -> Model:
        """A model that has answered before any visitor asks it: its pages are touched, its scratch is there."""
        if self._prepare is not None:
            self._prepare(tenant, model, pause)
        size = len(model.item_ids)
        for probe in sorted({0, size // 2, size - 1}) if size else []:
            model.recommend([model.item_ids[probe]], min(20, size))
            pause()
        return model

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh(time.monotonic())
            except (StoreError, OSError) as error:
                _log.error("the registry of models cannot be read: %s", error)
            self._looked.set()  # also when it failed: the catalog answers then
            self._stop.wait(POLL_S)


def pause() -> None:
    """Lets other threads have their turn."""
    time.sleep(PAUSE_S)


def _small(bundle: Bundle, arrays: Mapping[str, Arrays]) -> Bundle:
    """What a tenant without room answers from: the head of what is popular."""
    from thinslice.models import MODELS

    if "popular" not in arrays:
        return bundle
    popular = cast(Model, MODELS["popular"].from_arrays(small_popular(arrays["popular"])))
    return bundle._replace(models={"popular": popular})


def _head(bundle: Bundle) -> Bundle:
    """What stays of a bundle that gives way."""
    arrays = {name: model.arrays() for name, model in bundle.models.items() if name == "popular"}
    return _small(bundle._replace(models={}, whole=False, explorers={}, rates=None), arrays)


def _unusable(tenant: str, slot: str, version: str, error: Exception) -> bool:
    """Says so in the log; the models before go on answering. Always False: not complete."""
    _log.error("models of %s, slot %s, version %s are not usable: %s", tenant, slot, version, error)
    return False


def _with_extras(bundle: Bundle, arrays: Mapping[str, Arrays]) -> Bundle:
    """What a generation holds beside models: what explorers learned (`bandit-POLICY`), and the chances of actions."""
    if not arrays:
        return bundle
    from thinslice.recommend.explore import explorer_from_arrays

    explorers = {}
    for name, each in arrays.items():
        if name.startswith(BANDIT):
            explorer = explorers[name.removeprefix(BANDIT)] = explorer_from_arrays(each)
            explorer.warm()
            pause()
    rates = ActionRates.from_arrays(arrays[RATES]) if RATES in arrays else None
    return bundle._replace(explorers=explorers, rates=rates)


def model_kind(name: str, manifest: Mapping[str, Any]) -> str:
    """Which model a name in a bundle stands for: `policies` in the manifest says, else the name is the model's own."""
    kinds = manifest.get("policies")
    kind = kinds.get(name, name) if isinstance(kinds, dict) else name
    return kind if isinstance(kind, str) else name
