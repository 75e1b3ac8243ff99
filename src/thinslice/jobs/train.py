"""Training: the lake's sessions become models, published without a restart; each variant learns from its own sessions.

Each generation is a bundle of models in one slot: `live` learns from everybody, `exp.NAME.VARIANT` from the sessions
of one variant of an isolating experiment and from those before it began. A model goes live when it passes the gates;
else what serves now goes on. The manifest names the lake version, the settings, the tuning, the code, the seed, how the
models ranked on the newest tenth of the sessions before they learned from it, what was withheld and why, and how much
of what a variant's models learned other variants had brought.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from thinslice.errors import BadInput, NotReady, UnknownName
from thinslice.experiments import is_running, is_shadowed, parse_experiment
from thinslice.experiments.isolation import training_filter
from thinslice.jobs.bandits import warm_of
from thinslice.jobs.lesson import Lesson, stored
from thinslice.jobs.origins import foreign_clicks, lineage_of, shared_lineage, without
from thinslice.jobs.publication import Publication, Trained
from thinslice.jobs.recipes import FEED, LINEUP, named_policies, needed_policies, pipeline
from thinslice.jobs.training_data import assigned, interactions_of, read_training_data
from thinslice.models import MODELS
from thinslice.records import Experiment
from thinslice.settings import AUTO, BUILT_IN_POLICIES, Policy, Settings, Workspace, read_settings
from thinslice.store.artifacts import LIVE_SLOT, FileArtifacts
from thinslice.store.lake import Lake


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
    is_asked = AUTO in {shop.default_policy, *shop.placements.values(), *variants}
    choice, sentence = lesson.auto([*LINEUP, pipeline()] if is_asked else list(policies), shop.margin)
    publication = Publication(
        lake=lake, artifacts=artifacts, tenant=tenant, shop=shop, lesson=lesson, data=data, before=before,
        choice=choice if is_asked else "", warm=warm_of([*experiments, *shadowed]), now=now, rng=rng,
        rows=before.manifest.get("rows", 0) if feed else data.counted.rows, force=force, scheduled=scheduled,
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
        own = needed_policies(settings, tenant, {variant.policy for variant in experiment.variants})
        apart += _publish_variants(publication, workspace, experiment, own)
    shared = {each.name: shared_lineage(lake, data, each) for each in experiments if each.training == "shared"}
    findings = lesson.findings() | ({"lineage": shared} if shared else {})
    live = publication.publish(LIVE_SLOT, data.everyone, policies, before, simplest=sentence, **findings)
    lake.append("models", publication.published)
    if unreadable is not None:
        raise unreadable
    took_s = round(time.perf_counter() - began, 3)
    return [replace(live, tuned=lesson.tuned, simplest=sentence, seconds=took_s), *apart]


def _publish_variants(
    publication: Publication, workspace: Workspace, experiment: Experiment, own: Mapping[str, Policy]
) -> list[Trained]:
    """Publishes a bundle for each variant of an isolating experiment, which learns from its own sessions alone."""
    data, lake = publication.data, publication.lake
    labels = assigned(lake, data.clicks, experiment)
    found = []
    for number, variant in enumerate(experiment.variants):
        mask = training_filter(
            experiment, variant.name, labels, data.clicks.started, rng=np.random.default_rng([publication.rng, number])
        )
        clicks = without(data.clicks, foreign_clicks(workspace, data.clicks, experiment, variant.name))
        origin = lineage_of(data, experiment, variant.name, labels, mask, clicks=clicks)
        slot = f"exp.{experiment.name}.{variant.name}"
        found.append(
            publication.publish(
                slot, interactions_of(clicks, mask), own, stored(publication.artifacts, publication.tenant, slot),
                experiment=experiment.name, variant=variant.name,
                lineage={experiment.name: {variant.name: origin}},
            )
        )  # fmt: skip
    return found


def _known(settings: Settings, tenant: str, name: str) -> Policy:
    every = {**BUILT_IN_POLICIES, **settings.tenant(tenant).policies}
    there = {name: policy for name, policy in every.items() if policy.model in MODELS}
    if name not in there:
        known = ", ".join(sorted(there))
        raise UnknownName(f"there is no policy {name!r} of {tenant!r} that has a model (there is: {known}).")
    return there[name]


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
