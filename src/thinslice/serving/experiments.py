"""The experiments that run now: their files are read again when they change, so that start and stop need no restart."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thinslice.errors import BadInput, BadRecord, BadSettings, Corrupt
from thinslice.experiments import assign, is_running, is_shadowed, parse_experiment, unit_id_of
from thinslice.experiments.assign import UNCHANGED, Lookup, is_pooled, leaf_of, period_of
from thinslice.experiments.item_deal import ItemDeal, KnownItems
from thinslice.experiments.lineage import POOLED_LEAF
from thinslice.experiments.unit_map import FirstSeen, UnitMap
from thinslice.records import SESSION_GAP_S, Experiment, ExperimentExposure
from thinslice.serving.models import LIVE, slot_of
from thinslice.serving.unit_maps import (
    COUNTRY,
    GRAPH,
    ITEMS,
    KEPT,
    SEEN,
    VISITORS,
    read_first_seen,
    read_known_items,
    read_unit_map,
    unit_map_file,
)

REFRESH_S = 0.5
"""So often (seconds) the folder is looked at."""

LEAF = "context_leaf"
"""The segment under which a unit's leaf is logged too, so that a report can look at leaves apart."""

_log = logging.getLogger("thinslice.serving")


class BrokenExperiment(NamedTuple):
    """An experiment's file that cannot be read: whose it is, the name it would have, where it lies, and why not."""

    tenant: str
    name: str
    file: str
    reason: str


def read_experiment_file(path: Path, tenant: str) -> Experiment:
    """The experiment in one file.

    Raises:
        BadSettings: The file cannot be read or does not hold together; the message names it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror or error}.") from None
    return parse_experiment(content, tenant, where=str(path))


def read_experiments(folder: Path, tenant: str | None = None) -> tuple[list[Experiment], list[BrokenExperiment]]:
    """The experiments of one tenant or of all, and the files that are none, each by tenant and name.

    One broken file hides no other.

    Args:
        folder: `workspace.experiments`.
        tenant: Whose; None is everybody's.
    """
    found: list[Experiment] = []
    broken: list[BrokenExperiment] = []
    for path in sorted(folder.glob(f"{tenant}/*.toml" if tenant else "*/*.toml")):
        of = path.parent.name
        try:
            found.append(read_experiment_file(path, of))
        except BadInput as error:
            broken.append(BrokenExperiment(of, path.stem, str(path), str(error)))
    return found, broken


class Visit(NamedTuple):
    """Who asks, for which place, and what else of the request may decide about a variant.

    Attributes:
        placement: Where on the page.
        visitor_id: The anonymous browser.
        session_id: Its session.
        user_id: The known person.
        item_id: The item of the page.
        context: The request's context.
        trusted: Whether a secret or admin key asks, which may force a variant (`context.force`).
        user_agent: Tells the device.
        began: When the session began, unix seconds; None: now.
    """

    placement: str
    visitor_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    item_id: str | None = None
    context: Mapping[str, Any] = {}
    trusted: bool = False
    user_agent: str = ""
    began: float | None = None


class Choice(NamedTuple):
    """What the running experiments say of one request.

    Attributes:
        policy: Which policy answers; None is the placement's own.
        slot: From which models.
        exposed: Under which variants this is logged: of a holdout and of at most one other experiment.
        segments: Names of segments that are to be logged with it.
        deal: Which items its variant may show, where items are dealt out.
        known: Segment → value of what this service knows of the visitor by itself, and the leaf.
        forced: `experiment:variant` when a tester asked for it: logged in the segments, and in no experiment.
    """

    policy: str | None
    slot: str
    exposed: tuple[ExperimentExposure, ...] = ()
    segments: tuple[str, ...] = ()
    forced: str = ""
    deal: ItemDeal | None = None
    known: Mapping[str, str] = {}


NO_EXPERIMENT = Choice(None, LIVE)
"""Nobody experiments with this request."""


class _Maps(NamedTuple):
    kept: Lookup | None = None
    graph: Lookup | None = None


_NO_MAPS = _Maps()


class ExperimentFiles:
    """The running experiments of every tenant.

    A file that does not hold together is passed over and named in the log; the version read before stays in force.

    Args:
        folder: `workspace.experiments`: one folder a tenant, one TOML file an experiment.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looked_at: dict[str, float] = {}
        self._stamps: dict[str, dict[str, tuple[int, int]]] = {}
        self._read: dict[str, dict[str, Experiment]] = {}
        self._running: dict[str, list[Experiment]] = {}
        self._maps: dict[str, dict[str, _Maps]] = {}
        self._testers: dict[str, dict[str, list[tuple[Experiment, str]]]] = {}
        self._shadowed: dict[str, list[Experiment]] = {}
        self._deals: dict[tuple[str, str, str], ItemDeal] = {}
        self._seen: dict[str, FirstSeen] = {}
        self._country: dict[str, UnitMap] = {}

    def running(self, tenant: str, now: float) -> list[Experiment]:
        """A tenant's running experiments, the one that started first first.

        Args:
            tenant: Whose.
            now: Unix seconds.
        """
        looked_at = self._looked_at.get(tenant)
        if looked_at is None or not 0 <= now - looked_at < REFRESH_S:
            self._looked_at[tenant] = now
            self._look(tenant)
        return self._running.get(tenant, [])

    def shadowed(self, tenant: str) -> list[Experiment]:
        """A tenant's experiments that are in shadow, as of the last look at the folder (`running` looks)."""
        return self._shadowed.get(tenant, [])

    def choose(self, tenant: str, now: float, visit: Visit) -> Choice:
        """Which policy answers a request, and under which variants it is logged.

        A tester's variant comes first. Who is in the global holdout is in nothing else; its measured control lives like
        everybody. Of the others the first experiment that includes the unit decides, the one that started first first.

        Args:
            tenant: Whose.
            now: Unix seconds.
            visit: Who asks and where.

        Raises:
            BadRecord: A secret key forces a variant that there is not.
        """
        running = self.running(tenant, now)
        if not running:
            return NO_EXPERIMENT
        forced = self._forced(tenant, visit)
        if forced is not None:
            return forced
        exposed: tuple[ExperimentExposure, ...] = ()
        segments: tuple[str, ...] = ()
        leaf: dict[str, str] = {}
        for experiment in running:
            if experiment.placement not in ("*", visit.placement):
                continue
            one = self.exposure(experiment, now, visit)
            if one is None:
                continue
            exposed, segments = (*exposed, one), (*segments, *experiment.segments)
            if experiment.leaves:
                segments, leaf = (*segments, LEAF), {LEAF: one.context_leaf}
            policy = policy_of(experiment, one.variant)
            if experiment.kind == "holdout" and policy == UNCHANGED:
                continue
            isolated = experiment.training == "isolated" and one.context_leaf != POOLED_LEAF
            slot = slot_of(experiment.name, one.variant) if isolated else LIVE
            deal = self._deal(experiment, one.variant)
            known = self.known(tenant, segments, visit, now) | leaf
            return Choice(None if policy == UNCHANGED else policy, slot, exposed, segments, deal=deal, known=known)
        known = self.known(tenant, segments, visit, now) | leaf
        return Choice(None, LIVE, exposed, segments, known=known) if exposed else NO_EXPERIMENT

    def known(self, tenant: str, names: Sequence[str], visit: Visit, now: float) -> dict[str, str]:
        """What this service knows of a visitor by itself, of the segments that are asked for.

        `returning` is `returning` when the visitor was first seen more than half an hour before this session began,
        else `new`; `country` is that of the user's feed. What the request's context says goes before both.

        Args:
            tenant: Whose visitor.
            names: Segments.
            visit: Who asks.
            now: Unix seconds.
        """
        found: dict[str, str] = {}
        if "returning" in names and visit.visitor_id:
            seen = self._seen.get(tenant)
            if seen is not None:
                first = seen.at(visit.visitor_id)
                began = now if visit.began is None else visit.began
                found["returning"] = "new" if first is None or first > began - SESSION_GAP_S else "returning"
        if "country" in names and visit.user_id:
            country = self._country.get(tenant)
            value = None if country is None else country.get(visit.user_id)
            if value is not None:
                found["country"] = value
        return found

    def exposure(self, experiment: Experiment, now: float, visit: Visit) -> ExperimentExposure | None:
        """What is logged of a request under one experiment, with the full vector of probabilities; None outside."""
        maps = self._maps.get(experiment.tenant, {}).get(experiment.name, _NO_MAPS)
        unit_id = unit_id_of(
            experiment, visitor_id=visit.visitor_id, session_id=visit.session_id, user_id=visit.user_id,
            item_id=visit.item_id, context=visit.context, at=now, communities=maps.graph,
        )  # fmt: skip
        if unit_id is None:
            return None
        if not experiment.leaves:
            return exposure_of(experiment, unit_id, now, maps.kept)
        known = {**self.known(experiment.tenant, experiment.leaves, visit, now), **visit.context}
        leaf = leaf_of(experiment, segments_of(experiment.leaves, known, visit.user_agent, None))
        return exposure_of(experiment, unit_id, now, maps.kept, leaf)

    def _forced(self, tenant: str, visit: Visit) -> Choice | None:
        """The variant that a tester is to see: by a secret key's word, or by the list in an experiment's file."""
        testers = self._testers.get(tenant, {})
        wanted = visit.context.get("force") if visit.trusted and visit.context else None
        found: list[tuple[Experiment, str]] = []
        if isinstance(wanted, dict) and wanted:
            running = {experiment.name: experiment for experiment in self._running[tenant]}
            for name, variant in wanted.items():
                there = [each.name for each in running[name].variants] if name in running else []
                if variant not in there:
                    known = ", ".join(there) if there else ", ".join(running)
                    raise BadRecord(
                        "unknown_value", f"{name}: {variant} cannot be forced.", field="context.force",
                        hint=f"There is: {known}.",
                    )  # fmt: skip
                found.append((running[name], variant))
        elif testers:
            for unit in (visit.visitor_id, visit.user_id, visit.session_id):
                found += testers.get(unit or "", ())
        for experiment, variant in found:
            if experiment.placement in ("*", visit.placement):
                policy = policy_of(experiment, variant)
                slot = slot_of(experiment.name, variant) if experiment.training == "isolated" else LIVE
                return Choice(
                    None if policy == UNCHANGED else policy, slot, forced=f"{experiment.name}:{variant}",
                    deal=self._deal(experiment, variant),
                )  # fmt: skip
        return None

    def _deal(self, experiment: Experiment, variant: str) -> ItemDeal | None:
        return self._deals.get((experiment.tenant, experiment.name, variant))

    def assignments(
        self,
        tenant: str,
        now: float,
        *,
        visitor_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> dict[str, str]:
        """Experiment → variant of one visitor, over all running experiments that include them.

        Those whose leaves have weights of their own are left out: what is known of the visitor comes with the request.
        """
        assigned: dict[str, str] = {}
        visit = Visit("*", visitor_id, session_id, user_id)
        for experiment in self.running(tenant, now):
            if experiment.leaves:
                continue
            exposed = self.exposure(experiment, now, visit)
            if exposed is not None:
                assigned[experiment.name] = exposed.variant
        return assigned

    def _look(self, tenant: str) -> None:
        stamps: dict[str, tuple[int, int]] = {}
        old_stamps = self._stamps.get(tenant, {})
        paths: dict[str, Path] = {}
        folder = self._folder / tenant
        for path in sorted([*folder.glob("*.toml"), *folder.glob("*.npz")]):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            stamps[path.name] = (stat.st_mtime_ns, stat.st_ino)
            if path.suffix == ".toml":
                paths[path.stem] = path
        if stamps == old_stamps:
            return
        for kind, read, into in ((SEEN, read_first_seen, self._seen), (COUNTRY, read_unit_map, self._country)):
            path = unit_map_file(folder, VISITORS, kind)
            if stamps.get(path.name) != old_stamps.get(path.name):
                _take(path, read, into, tenant)
        old = self._read.get(tenant, {})
        self._read[tenant] = {
            name: experiment for name, path in paths.items() if (experiment := _read(path, tenant, old)) is not None
        }
        self._stamps[tenant] = stamps
        running = [experiment for experiment in self._read[tenant].values() if is_running(experiment)]
        running.sort(key=lambda each: (each.kind != "holdout", each.started_at is None, each.started_at, each.name))
        self._maps[tenant] = {
            each.name: _Maps(*(_lookup(unit_map_file(folder, each.name, kind)) for kind in (KEPT, GRAPH)))
            for each in running
        }
        self._deals = {place: deal for place, deal in self._deals.items() if place[0] != tenant}
        for each in running:
            if each.deal_items != "none":
                known = _known(unit_map_file(folder, each.name, ITEMS))
                if known is None and each.deal_items == "new":
                    _log.warning("%s: the items of its start are not there, so all items are dealt out.", each.name)
                for variant in each.variants:
                    self._deals[tenant, each.name, variant.name] = ItemDeal(each, variant.name, known)
        testers: dict[str, list[tuple[Experiment, str]]] = {}
        for each in running:
            for variant in each.variants:
                for unit in variant.forced:
                    testers.setdefault(unit, []).append((each, variant.name))
        self._testers[tenant] = testers
        self._running[tenant] = running
        self._shadowed[tenant] = [each for each in self._read[tenant].values() if is_shadowed(each)]


def _read(path: Path, tenant: str, old: Mapping[str, Experiment]) -> Experiment | None:
    try:
        return parse_experiment(path.read_text(encoding="utf-8"), tenant, where=path.name)
    except (BadSettings, OSError, UnicodeDecodeError) as error:
        _log.warning("%s: %s", path.name, error)
        return old.get(path.stem)


def _lookup(path: Path) -> Lookup | None:
    try:
        return read_unit_map(path).get if path.is_file() else None
    except Corrupt as error:
        _log.warning("%s", error)
        return None


def _take(path: Path, read: Callable[[Path], Any], into: dict[str, Any], tenant: str) -> None:
    """Reads a tenant's map anew; what cannot be read is named, and what was read before stays."""
    try:
        into[tenant] = read(path)
    except Corrupt as error:
        _log.warning("%s", error)


def _known(path: Path) -> KnownItems | None:
    try:
        return read_known_items(path) if path.is_file() else None
    except Corrupt as error:
        _log.warning("%s", error)
        return None


def exposure_of(
    experiment: Experiment, unit_id: str, at: float = 0.0, kept: Lookup | None = None, leaf: str = ""
) -> ExperimentExposure | None:
    """What is logged of a unit under an experiment, with the full vector of probabilities; None when it is outside.

    Args:
        experiment: Which.
        unit_id: As `unit_id_of` gives it.
        at: Unix seconds.
        kept: First variants of units that a change of weights would move.
        leaf: What is known of the unit, where results steer leaves apart.
    """
    assigned = assign(experiment, unit_id, at, kept, leaf)
    if assigned.variant is None:
        return None
    if is_pooled(experiment, unit_id):
        leaf = POOLED_LEAF
    elif experiment.rerandomize_days is not None:
        leaf = f"period-{period_of(experiment, at)}"
    else:
        leaf = assigned.leaf
    return ExperimentExposure(
        experiment=experiment.name,
        variant=assigned.variant,
        unit=experiment.unit,
        unit_id=unit_id,
        allocation_version=assigned.allocation_version,
        propensities=assigned.propensities,
        context_leaf=leaf,
    )


def policy_of(experiment: Experiment, variant: str) -> str:
    """The policy of a variant."""
    return next(each.policy for each in experiment.variants if each.name == variant)


def segments_of(
    names: Sequence[str], context: Mapping[str, Any], user_agent: str, first_item: str | None
) -> dict[str, str]:
    """The declared segments of one request, as far as they are known: all of it is known before the slate is made.

    Args:
        names: As experiments declare them.
        context: The request's; what it names goes before what is found here.
        user_agent: Tells the device: `phone`, `tablet` or `desktop`.
        first_item: Where the session came in.
    """
    found: dict[str, str] = {}
    for name in names:
        value = context.get(name)
        if value is None and name == "device":
            value = device_of(user_agent)
        elif value is None and name == "browser":
            value = browser_of(user_agent)
        elif value is None and name == "entry_page":
            value = first_item
        if isinstance(value, str | int | float) and value != "":
            found[name] = str(value)[:64]
    return found


def device_of(user_agent: str) -> str | None:
    """What kind of device a browser says it is on; None without a word of it.

    >>> device_of("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Mobile/15E148")
    'phone'
    """
    if not user_agent:
        return None
    if "iPad" in user_agent or ("Android" in user_agent and "Mobile" not in user_agent):
        return "tablet"
    return "phone" if "Mobi" in user_agent else "desktop"


BROWSERS = (
    ("Edg", "edge"), ("OPR/", "opera"), ("SamsungBrowser", "samsung"), ("Firefox/", "firefox"), ("FxiOS", "firefox"),
    ("Chrome/", "chromium"), ("CriOS", "chromium"), ("AppleWebKit/", "webkit"),
)  # fmt: skip
"""What a browser's words hold, the telling ones first (most say Chrome and AppleWebKit too), and what it is called."""


def browser_of(user_agent: str) -> str | None:
    """Which browser it is; None without a word of it.

    >>> browser_of("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
    'firefox'
    """
    if not user_agent:
        return None
    return next((name for mark, name in BROWSERS if mark in user_agent), "other")
