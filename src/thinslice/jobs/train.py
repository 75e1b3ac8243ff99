"""Training: the lake's sessions become models, published without a restart; each variant learns from its own sessions.

Each generation is a bundle of models in one slot: `live` learns from everybody, `exp.NAME.VARIANT` from the sessions
of one variant of an isolating experiment and from those before it began. A model goes live when it passes the gates;
else what serves now goes on. The manifest names the lake version, the settings, the tuning, the code, the seed, how the
models ranked on the newest tenth of the sessions before they learned from it, what was withheld and why, and how much
of what a variant's models learned other variants had brought.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import BadInput, NotReady, UnknownName
from thinslice.experiments import is_running, is_shadowed, parse_experiment
from thinslice.experiments.isolation import training_filter
from thinslice.experiments.item_deal import ItemDeal, foreign_rows
from thinslice.experiments.lineage import lineage
from thinslice.jobs.bandits import Extras, Warm, content_of, learn_extras, variant_of
from thinslice.jobs.lesson import Lesson, Stored, stored
from thinslice.jobs.offline import changes_of
from thinslice.jobs.recipes import FEED, code_version, named_policies, needed_policies, wheels
from thinslice.jobs.schedule import Attempt, News
from thinslice.jobs.training_data import (
    Clicks,
    Counted,
    TrainingData,
    assigned,
    count_all,
    interactions_of,
    people_in,
    read_clicks,
    read_items,
    read_training_data,
)
from thinslice.models import MODELS
from thinslice.records import Experiment, Interactions
from thinslice.serving.unit_maps import ITEMS, read_known_items, unit_map_file
from thinslice.settings import AUTO, BUILT_IN_POLICIES, Policy, Settings, Workspace, read_settings
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake
from thinslice.store.schemas import TrainedModel

__all__ = [
    "Trained", "interactions_of", "isolating", "last_training", "news_of_tenants", "read_clicks", "read_items",
    "rows_of", "train",
]  # fmt: skip

LIVE_SLOT = "live"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What one training published.

    Attributes:
        slot: `live` or `exp.NAME.VARIANT`.
        version: The hash of the content.
        models: The names in the bundle.
        withheld: Policies whose new model did not pass the gates; see `refused`.
        sessions: Learned from.
        clicks: Learned from.
        items: Known to the models.
        people: Who is known: users, visitors whom no login names, and how many of both came more than once.
        offline: Policy → n, hr, hr_se, mrr, mrr_se at 20.
        lake_version: Of the table `events`.
        seconds: Wall time.
        refused: Policy → why its new model was withheld.
        kept: Of those, the policies whose model before goes on answering; the others are answered by popularity.
        tuned: Policies whose model tuned itself on these clicks.
        tuning_due: Policy → why it should tune itself, which was put off.
        simplest: One sentence: the simplest model that is not worse than the best.
        default: What the policy `auto` stands for; empty when nobody asks for it.
        changes: What is different since the last model, a sentence each.
        live: Whether it went live; False in a slot that was rolled back.
    """

    slot: str
    version: str
    models: list[str]
    withheld: list[str]
    sessions: int
    clicks: int
    items: int
    offline: dict[str, dict[str, Any]] = field(default_factory=dict)
    lake_version: int = 0
    seconds: float = 0.0
    refused: dict[str, list[str]] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    tuned: list[str] = field(default_factory=list)
    tuning_due: dict[str, str] = field(default_factory=dict)
    simplest: str = ""
    default: str = ""
    changes: list[str] = field(default_factory=list)
    live: bool = True
    people: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As `train --json` prints it."""
        return asdict(self)


def train(
    workspace: Workspace,
    tenant: str,
    policy: str | None = None,
    *,
    now: datetime,
    rng: int = 0,
    full: bool | None = None,
    feed: bool = False,
    force: bool = False,
    scheduled: bool = False,
    told: Callable[[str], object] = str,
) -> list[Trained]:
    """Trains and publishes one tenant's models: the live bundle, then one for each variant of isolating experiments.

    Args:
        workspace: Whose lake is read and whose models are written.
        tenant: Whose models.
        policy: Only this policy's model is trained anew, the others keep their arrays; None trains all.
        now: Aware UTC; clicks after it (of clocks that run ahead) are learned from later.
        rng: The seed: same data, settings and seed give the same bytes.
        full: Whether models tune themselves anew, which takes about a minute a million clicks: True always, False
            never, None when it is due.
        feed: Only what knows items before anybody clicked them is made anew: the catalog has changed.
        force: Publish also what does not pass the gates.
        scheduled: Nobody asked for it now: a slot that a person rolled back stays as it is.
        told: Is told what begins, in words for a person who waits.

    Returns:
        What was published, the live bundle first.

    Raises:
        UnknownName: There is no such tenant or policy.
        NotReady: There is neither an event nor an item to learn from.
    """
    settings = read_settings(workspace)
    shop = settings.tenant(tenant)
    experiments = running(workspace, tenant)
    shadowed = running(workspace, tenant, which=is_shadowed)
    variants = {variant.policy for experiment in [*experiments, *shadowed] for variant in experiment.variants}
    policies = needed_policies(settings, tenant, variants)
    named = set(named_policies(settings, tenant, variants))
    if policy is not None:
        policies |= {policy: _known(settings, tenant, policy)}
        named.add(policy)
    began = time.perf_counter()
    lake, artifacts = Lake(workspace.lake), FileArtifacts(workspace.models)
    told("the log is read")
    data = read_training_data(lake, tenant, now)
    if not len(data.clicks.item) and not data.items:
        raise NotReady(
            f"tenant {tenant!r} has no events and no items yet.",
            hint=f"`thinslice import events FILE --tenant {tenant}` brings some.",
        )
    before = stored(artifacts, tenant, LIVE_SLOT)
    feed = feed and before.version is not None
    chosen = set(FEED) & set(policies) if feed else set(policies) if policy is None else {policy}
    lesson = Lesson(data, before, policies, rng, told)
    lesson.plan(chosen, full)
    if feed or (scheduled and lesson.settled()):
        lesson.carry_over()
    else:
        lesson.examine(named, force=force, margin=shop.margin)
    if lesson.tuned and any(lake.version(name) != version for name, version in data.versions.items()):
        data = read_training_data(lake, tenant, now + timedelta(seconds=time.perf_counter() - began))
        lesson.renew(data)  # that took minutes, and visitors came meanwhile
    choice, sentence = lesson.auto(shop.margin)
    common = {
        "rng": rng, "lake_version": data.versions["events"], "lake_versions": data.versions,
        "rows": before.manifest.get("rows", 0) if feed else data.counted.rows,
        "feed": data.counted.feed, "code": code_version(), "wheels": wheels(),
    }  # fmt: skip
    rows: list[TrainedModel] = []

    def publish(
        slot: str, interactions: Interactions, wanted: Mapping[str, Policy], old: Stored, **extra: Any
    ) -> Trained:
        start = time.perf_counter()
        bundle = lesson.bundle(interactions, wanted, old)
        if old is before and not force:
            extra = _without_spoiled(extra, bundle, lesson.spoiled(bundle, shop.margin), before)
        aliases = {AUTO: choice} if choice in bundle and AUTO in policies_asked(settings, tenant, variants) else {}
        manifest = {
            **common,
            **extra,
            "policies": {name: recipe.policy.model for name, (_, recipe) in bundle.items()},
            "settings": {name: recipe.policy.settings for name, (_, recipe) in bundle.items()},
            "tuned": {
                name: recipe.tuning._asdict() for name, (_, recipe) in bundle.items() if recipe.tuning is not None
            },
            "aliases": aliases,
            "kept": sorted(set(extra.get("refused", {})) & set(bundle)),
            "made_by": {
                name: old.made_by(name) if arrays is old.arrays.get(name) else code_version()
                for name, (arrays, _) in bundle.items()
            },
            "sessions": len(interactions.session_ptr) - 1,
            "clicks": len(interactions.item),
            "people": people_in(interactions),
            "until": float(interactions.time.max()) if len(interactions.time) else 0.0,
        }
        models = {name: arrays for name, (arrays, _) in bundle.items()}
        asked = shop.policies if slot == LIVE_SLOT else {n: each for n, each in shop.policies.items() if n in wanted}
        extras = learn_extras(
            lake, tenant, asked, interactions, data.items, now=now, rng=rng, variant=variant_of(extra),
            warm=warm_of([*experiments, *shadowed]),
            before=Extras(old.arrays, old.manifest.get("extras", {})), content=content_of(models, manifest),
        )  # fmt: skip
        if extras.arrays:
            manifest["extras"] = extras.kinds
        version = artifacts.put(tenant, slot, {**models, **extras.arrays}, manifest)
        held = artifacts.held(tenant).get(slot) if scheduled else None
        artifacts.promote(tenant, slot, held or version)
        sha256 = next(row["sha256"] for row in artifacts.versions(tenant) if row["version"] == version)
        rows.append(
            TrainedModel(tenant=tenant, slot=slot, version=version, trained_at=now, sha256=sha256,
                         lake_version=data.versions["events"], manifest=manifest)
        )  # fmt: skip
        return Trained(
            slot=slot, version=version, live=held is None, models=list(bundle),
            withheld=list(extra.get("withheld", [])),
            sessions=manifest["sessions"], clicks=manifest["clicks"], items=len(interactions.item_ids),
            people=manifest["people"],
            offline=extra.get("offline", {}), lake_version=data.versions["events"], refused=extra.get("refused", {}),
            kept=manifest["kept"], tuning_due=extra.get("tuning_due", {}), default=aliases.get(AUTO, ""),
            changes=changes_of(manifest, old.manifest if old.version is not None else None),
            seconds=round(time.perf_counter() - start, 3),
        )  # fmt: skip

    # First the variants that learn apart: until they have models of their own the live ones serve them, and those that
    # are published below have learned from everybody.
    apart: list[Trained] = []
    isolated: list[Experiment] = []
    unreadable: BadInput | None = None
    try:
        isolated = isolating(workspace, tenant)
    except BadInput as error:
        unreadable = error  # it is raised when the live models, which need no such file, are published
    for experiment in isolated:
        labels = assigned(lake, data.clicks, experiment)
        own = needed_policies(settings, tenant, {variant.policy for variant in experiment.variants})
        for number, variant in enumerate(experiment.variants):
            mask = training_filter(
                experiment, variant.name, labels, data.clicks.started, rng=np.random.default_rng([rng, number])
            )
            slot = f"exp.{experiment.name}.{variant.name}"
            foreign = foreign_clicks(workspace, data.clicks, experiment, variant.name)
            clicks = without(data.clicks, foreign)
            origin = {variant.name: lineage_of(data, experiment, variant.name, labels, mask, clicks=clicks)}
            apart.append(
                publish(slot, interactions_of(clicks, mask), own, stored(artifacts, tenant, slot),
                        experiment=experiment.name, variant=variant.name, lineage={experiment.name: origin})
            )  # fmt: skip
    shared = {each.name: shared_lineage(lake, data, each) for each in experiments if each.training == "shared"}
    first = publish(
        LIVE_SLOT, data.everyone, policies, before, simplest=sentence, **lesson.findings(),
        **({"lineage": shared} if shared else {}),
    )  # fmt: skip
    took_s = round(time.perf_counter() - began, 3)
    results = [replace(first, tuned=lesson.tuned, simplest=sentence, seconds=took_s), *apart]
    if unreadable is not None:
        raise unreadable
    lake.append("models", rows)
    return results


def warm_of(experiments: Sequence[Experiment]) -> dict[str, Warm]:
    """Policy → what it may learn from besides its own slates: where it stood in shadow, what others showed until then.

    Args:
        experiments: Those that run, and those in shadow.
    """
    return {
        variant.policy: Warm(each.placement, None if each.started_at is None else each.started_at.timestamp())
        for each in experiments if each.shadow_at is not None
        for variant in each.variants
    }  # fmt: skip


def lineage_of(
    data: TrainingData, experiment: Experiment, variant: str, labels: ArrayLike, mask: NDArray[np.bool_], *,
    clicks: Clicks | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Where the lessons of a variant's model came from, as manifests hold it: `clicks` by origin, `contamination`.

    Args:
        data: What was learned from.
        experiment: Whose variants.
        variant: Whom the model serves.
        labels: Shape (sessions,), each session's variant as of its start, or "".
        mask: Shape (sessions,), the sessions that were learned from.
        clicks: Those of their clicks that were learned from, where items are dealt out too; None: all.
    """
    kept = data.clicks if clicks is None else clicks
    rows = np.bincount(kept.session, minlength=len(kept.started))
    found = lineage(experiment, variant, labels, kept.started, rows, mask)
    return {"clicks": found.clicks, "contamination": found.contamination}


def foreign_clicks(workspace: Workspace, clicks: Clicks, experiment: Experiment, variant: str) -> NDArray[np.bool_]:
    """Shape (clicks,): clicks since the start on items that belong to another variant, which teach this one nothing.

    Args:
        workspace: Keeps which items were there at the start.
        clicks: All of a tenant.
        experiment: A running one; without `deal_items` no click is foreign.
        variant: Who is to learn.

    Raises:
        Corrupt: What was there at the start cannot be read.
    """
    if experiment.deal_items == "none" or experiment.started_at is None:
        return np.zeros(len(clicks.item), dtype=np.bool_)
    path = unit_map_file(workspace.experiments / experiment.tenant, experiment.name, ITEMS)
    known = read_known_items(path) if path.is_file() else None
    deal = ItemDeal(experiment, variant, known)
    names = np.array(clicks.item_ids, dtype=np.object_)[clicks.item]
    return foreign_rows(deal, names, clicks.time, experiment.started_at.timestamp())


def without(clicks: Clicks, some: NDArray[np.bool_]) -> Clicks:
    """The clicks without some of them; sessions stay, also those that have none left."""
    if not some.any():
        return clicks
    return replace(
        clicks, session=clicks.session[~some], item=clicks.item[~some], time=clicks.time[~some],
        action=clicks.action[~some],
    )  # fmt: skip


def shared_lineage(lake: Lake, data: TrainingData, experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Variant → `lineage_of` the live models, which serve every variant of an experiment that shares training."""
    labels = assigned(lake, data.clicks, experiment)
    everyone = np.ones(len(data.clicks.started), dtype=np.bool_)
    return {each.name: lineage_of(data, experiment, each.name, labels, everyone) for each in experiment.variants}


def _known(settings: Settings, tenant: str, name: str) -> Policy:
    every = {**BUILT_IN_POLICIES, **settings.tenant(tenant).policies}
    there = {name: policy for name, policy in every.items() if policy.model in MODELS}
    if name not in there:
        known = ", ".join(sorted(there))
        raise UnknownName(f"there is no policy {name!r} of {tenant!r} that has a model (there is: {known}).")
    return there[name]


def policies_asked(settings: Settings, tenant: str, variants: set[str]) -> set[str]:
    """The names by which policies are asked for: the default, placements and experiments."""
    shop = settings.tenant(tenant)
    return {shop.default_policy, *shop.placements.values(), *variants}


def _without_spoiled(
    extra: Mapping[str, Any], bundle: dict[str, Any], worse: Mapping[str, list[str]], before: Stored
) -> dict[str, Any]:
    """Puts the stored arrays back where another release made worse ones, and says so in the findings."""
    for name in worse:
        recipe = before.recipe(name)
        if recipe is not None:
            bundle[name] = before.arrays[name], recipe
    refused = {**extra["refused"], **worse}
    return {**extra, "refused": refused, "withheld": sorted(refused)}


def running(workspace: Workspace, tenant: str, *, which: Callable[[Experiment], bool] = is_running) -> list[Experiment]:
    """The running experiments of a tenant whose files can be read, or those of another stage (`is_shadowed`)."""
    found = []
    for path in sorted((workspace.experiments / tenant).glob("*.toml")):
        try:
            experiment = parse_experiment(path.read_bytes(), tenant, where=path.name)
        except BadInput:
            continue  # `isolating` refuses it by name
        if which(experiment):
            found.append(experiment)
    return found


def isolating(workspace: Workspace, tenant: str) -> list[Experiment]:
    """The running experiments whose variants learn apart, oldest start first."""
    found = []
    for path in sorted((workspace.experiments / tenant).glob("*.toml")):
        experiment = parse_experiment(path.read_bytes(), tenant, where=path.name)
        if is_running(experiment) and experiment.training == "isolated":
            found.append(experiment)
    return sorted(found, key=lambda each: (each.started_at or datetime.min.replace(tzinfo=UTC), each.name))


class State(NamedTuple):
    """What the live models of a tenant have seen.

    Attributes:
        at: Unix seconds when they were stored.
        rows: Events and items that the lake had for them.
        feed: What `count_all` said of the catalog then.
        tuning_due: Policy → why it should tune itself, which was put off.
    """

    at: float
    rows: int
    feed: str
    tuning_due: dict[str, str]


def state_of(artifacts: FileArtifacts, tenant: str) -> State | None:
    """What the live models of a tenant have seen; None when there are none."""
    for row in artifacts.versions(tenant):
        if row["name"] == LIVE_SLOT and row["live"]:
            manifest = artifacts.manifest(tenant, row["version"])
            due = manifest.get("tuning_due", {})
            return State(float(row["stored_at"]), int(manifest.get("rows", 0)), manifest.get("feed", ""), due)
    return None


def news_of_tenants(
    lake: Lake, artifacts: FileArtifacts, tenants: Sequence[str], attempts: Mapping[str, Attempt]
) -> list[News]:
    """What each tenant's models have not seen yet.

    Args:
        lake: Counts the rows.
        artifacts: Their manifests say how much was there when the models were trained.
        tenants: Whose.
        attempts: Tenant → the last training started by this process, even when it failed.
    """
    counted = count_all(lake)
    news = []
    for tenant in tenants:
        there = counted.get(tenant, Counted(0, ""))
        state, tried = state_of(artifacts, tenant), attempts.get(tenant)
        seen = max(state.rows if state is not None else 0, tried.rows if tried is not None else 0)
        feed = tried.feed if tried is not None else state.feed if state is not None else ""
        at = tried.at if tried is not None else state.at if state is not None else None
        news.append(
            News(
                tenant,
                max(0, there.rows - seen),
                at,
                feed=state is not None and there.feed != feed,
                tuning=bool(state is not None and state.tuning_due),
            )
        )
    return news


def rows_of(lake: Lake) -> dict[str, int]:
    """Tenant → rows of events and items in the lake."""
    return {tenant: counted.rows for tenant, counted in count_all(lake).items()}


def last_training(artifacts: FileArtifacts, tenant: str) -> tuple[float, int] | None:
    """When the live models of a tenant were stored (unix seconds), and how many rows the lake had for them."""
    state = state_of(artifacts, tenant)
    return None if state is None else (state.at, state.rows)
