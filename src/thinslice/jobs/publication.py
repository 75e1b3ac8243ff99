"""Publication: a training's models and what their manifest says of them become a version of a slot, and serve."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from thinslice.jobs.bandits import Extras, Warm, content_of, learn_extras, variant_of
from thinslice.jobs.lesson import Bundle, Lesson, Stored
from thinslice.jobs.offline import changes_of
from thinslice.jobs.recipes import code_version, wheels
from thinslice.jobs.training_data import TrainingData, people_in
from thinslice.records import Interactions
from thinslice.settings import AUTO, Policy, Tenant
from thinslice.store.artifacts import LIVE_SLOT, FileArtifacts
from thinslice.store.lake import Lake
from thinslice.store.schemas import TrainedModel

FINDINGS = {"offline": dict, "withheld": list, "refused": dict, "tuning_due": dict}
"""What only the live slot's manifest says, with what stands for nothing."""


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


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What the slots of one training have in common when they are published.

    Attributes:
        lake: Holds the slates that explorers learn from.
        artifacts: Takes the versions.
        tenant: Whose models.
        shop: The tenant's settings.
        lesson: Makes the models.
        data: What they learn from.
        before: The live bundle.
        choice: What the policy `auto` stands for; empty when nobody asks for it.
        warm: Policy → what it learns from besides its own slates.
        now: Aware UTC.
        rng: The seed.
        rows: Rows of the lake that the models have seen, for the manifest.
        force: Publish also what other code made worse than what serves.
        scheduled: A slot that a person rolled back stays as it is.
        published: A row for the lake of each version so far.
    """

    lake: Lake
    artifacts: FileArtifacts
    tenant: str
    shop: Tenant
    lesson: Lesson
    data: TrainingData
    before: Stored
    choice: str
    warm: Mapping[str, Warm]
    now: datetime
    rng: int
    rows: int
    force: bool
    scheduled: bool
    published: list[TrainedModel] = field(default_factory=list)

    def publish(
        self, slot: str, interactions: Interactions, wanted: Mapping[str, Policy], old: Stored, **findings: Any
    ) -> Trained:
        """Makes the bundle of one slot, stores it as a version, and serves it.

        Args:
            slot: `live` or `exp.NAME.VARIANT`.
            interactions: What it learns from.
            wanted: Its policies.
            old: What is live in it.
            findings: What else the manifest says: of the exam, of the experiment, of the lessons' lineage.
        """
        began = time.perf_counter()
        bundle = self.lesson.bundle(interactions, wanted, old)
        if old is self.before and not self.force:
            findings = self._without_spoiled(findings, bundle)
        manifest = self._manifest(bundle, interactions, old, findings)
        models = {name: arrays for name, (arrays, _) in bundle.items()}
        own = {name: each for name, each in self.shop.policies.items() if slot == LIVE_SLOT or name in wanted}
        extras = learn_extras(
            self.lake, self.tenant, own, interactions, self.data.items, now=self.now, rng=self.rng,
            variant=variant_of(findings), warm=self.warm,
            before=Extras(old.arrays, old.manifest.get("extras", {})), content=content_of(models, manifest),
        )  # fmt: skip
        if extras.arrays:
            manifest["extras"] = extras.kinds
        version = self.artifacts.put(self.tenant, slot, {**models, **extras.arrays}, manifest)
        held = self.artifacts.held(self.tenant).get(slot) if self.scheduled else None
        self.artifacts.promote(self.tenant, slot, held or version)
        sha256 = next(row["sha256"] for row in self.artifacts.versions(self.tenant) if row["version"] == version)
        self.published.append(
            TrainedModel(tenant=self.tenant, slot=slot, version=version, trained_at=self.now, sha256=sha256,
                         lake_version=manifest["lake_version"], manifest=manifest)
        )  # fmt: skip
        return Trained(
            slot=slot, version=version, live=held is None, models=list(bundle), items=len(interactions.item_ids),
            default=manifest["aliases"].get(AUTO, ""),
            changes=changes_of(manifest, old.manifest if old.version is not None else None),
            seconds=round(time.perf_counter() - began, 3),
            **{name: manifest[name] for name in ("sessions", "clicks", "people", "kept", "lake_version")},
            **{name: manifest.get(name, type()) for name, type in FINDINGS.items()},
        )  # fmt: skip

    def _manifest(
        self, bundle: Bundle, interactions: Interactions, old: Stored, findings: Mapping[str, Any]
    ) -> dict[str, Any]:
        recipes = {name: recipe for name, (_, recipe) in bundle.items()}
        return {
            "rng": self.rng,
            "lake_version": self.data.versions["events"],
            "lake_versions": self.data.versions,
            "rows": self.rows,
            "feed": self.data.counted.feed,
            "code": code_version(),
            "wheels": wheels(),
            **findings,
            "policies": {name: recipe.policy.model for name, recipe in recipes.items()},
            "settings": {name: recipe.policy.settings for name, recipe in recipes.items()},
            "tuned": {name: recipe.tuning._asdict() for name, recipe in recipes.items() if recipe.tuning is not None},
            "aliases": {AUTO: self.choice} if self.choice in bundle else {},
            "kept": sorted(set(findings.get("refused", {})) & set(bundle)),
            "made_by": {
                name: old.made_by(name) if arrays is old.arrays.get(name) else code_version()
                for name, (arrays, _) in bundle.items()
            },
            "sessions": len(interactions.session_ptr) - 1,
            "clicks": len(interactions.item),
            "people": people_in(interactions),
            "until": float(interactions.time.max()) if len(interactions.time) else 0.0,
        }

    def _without_spoiled(self, findings: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
        """Puts the stored arrays back where another release made worse ones, and says so in the findings."""
        worse = self.lesson.spoiled(bundle, self.shop.margin)
        for name in worse:
            recipe = self.before.recipe(name)
            if recipe is not None:
                bundle[name] = self.before.arrays[name], recipe
        refused = {**findings["refused"], **worse}
        return {**findings, "refused": refused, "withheld": sorted(refused)}
