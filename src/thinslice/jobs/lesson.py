"""A lesson: one training's exam before anything is published, and what goes into the bundles after it.

Each named policy's model learns from the older sessions and is asked about the newest ones, beside popularity and,
where its recipe changed, beside the recipe that serves now. Who passes learns from all sessions; who does not stays
out: the recipe that serves now goes on, or popularity answers.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thinslice.errors import BadSettings, Corrupt, UnknownName
from thinslice.evaluation import Replay, simplest
from thinslice.evaluation.gates import MIN_QUERIES, better_than_popular, failures, gates, not_worse, segments_hold
from thinslice.jobs.offline import MAX_QUERIES, Exam, K, exam_of, figures_of, seen_exam
from thinslice.jobs.recipes import (
    Recipe,
    Tuning,
    code_version,
    read_model,
    tunes_itself,
    tuning_due,
    tuning_in,
    tuning_of,
)
from thinslice.jobs.training_data import TrainingData
from thinslice.models import MODELS, goes_together
from thinslice.records import Arrays, Interactions
from thinslice.settings import AUTO, Policy
from thinslice.store.artifacts import FileArtifacts

IMPERSONAL = ("popular", "newest", "trending")
"""Models that are the same for everybody: they are what others are measured against, and pass no gate."""

GROWN = 1.05
"""Trainings on a schedule ask again when there are so many times the clicks of the last exam."""

THOROUGH = 3
"""Where a model tuned itself, so many times the questions are asked: that is seldom."""

Bundle = dict[str, tuple[Arrays, Recipe]]
"""Policy → its arrays, and the recipe that made them."""


@dataclass(frozen=True)
class Stored:
    """The live bundle of a slot before a training: its manifest and arrays, empty when there is none."""

    version: str | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Arrays] = field(default_factory=dict)

    def policy(self, name: str) -> Policy | None:
        """The model and settings by which a policy serves now; None when it does not, or its model is gone."""
        kind = self.manifest.get("policies", {}).get(name)
        if name not in self.arrays or kind not in MODELS:
            return None
        return Policy(model=kind, settings=self.manifest.get("settings", {}).get(name, {}))

    def recipe(self, name: str) -> Recipe | None:
        """How the model that serves now is made of other clicks, with the tuning that it has."""
        policy = self.policy(name)
        if policy is None:
            return None
        tuning = tuning_in(self.manifest, name)
        model = read_model(name, self.arrays[name], self.manifest) if tuning is not None else None
        if model is not None and hasattr(model, "refit"):
            return Recipe(policy, model, tuning)
        return Recipe(policy, quick=tunes_itself(policy.model))

    def unreadable(self, name: str, policy: Policy) -> bool:
        """Whether a policy serves with a tuning that this release cannot read."""
        serving = self.recipe(name)
        if serving is None or not same(serving.policy, policy):
            return False
        return serving.previous is None and tuning_in(self.manifest, name) is not None

    def made_by(self, name: str) -> str:
        """Which code made the stored model of a policy."""
        return str(self.manifest.get("made_by", {}).get(name, ""))

    def tried(self, name: str, policy: Policy) -> Tuning | None:
        """On what a policy with these settings was tuned last, even when the model did not pass."""
        tried = self.manifest.get("tried", {}).get(name)
        if tried is not None and (tried["model"], tried["settings"]) == (policy.model, policy.settings):
            return tuning_in({"tuned": {name: tried["tuning"]}}, name)
        return tuning_in(self.manifest, name) if same(self.policy(name), policy) else None


def stored(artifacts: FileArtifacts, tenant: str, slot: str) -> Stored:
    """What is live in a slot now; what lies there broken is as good as nothing, so that a training mends it."""
    version = artifacts.live(tenant).get(slot)
    if version is None:
        return Stored()
    try:
        arrays, manifest = artifacts.load(tenant, version)
    except (Corrupt, UnknownName) as error:
        _log.warning("%s What is learned now does not go on from it.", error.message)
        return Stored()
    return Stored(version, manifest, arrays)


def same(one: Policy | None, other: Policy) -> bool:
    """Whether two policies have the same model with the same settings."""
    return one is not None and (one.model, one.settings) == (other.model, other.settings)


_log = logging.getLogger("thinslice.jobs")

ONLY_POPULAR = (
    "popular is enough: no session holds two different items and the catalog describes none, so that there is nothing "
    "else to learn."
)
"""Why the simplest model serves where there is nothing to choose by."""


def alike(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes make the same model: then one is learned, and the other's policy has it, too."""
    return (
        same(one.policy, other.policy)
        and (one.quick, one.tuning) == (other.quick, other.tuning)
        and (one.previous is None) == (other.previous is None)
    )


class Lesson:
    """One training of one tenant.

    Args:
        data: What there is to learn from.
        before: The live bundle.
        policies: What the live bundle is to hold, the simplest model first.
        rng: The seed.
        told: Is told what begins, in words for a person who waits.
    """

    def __init__(
        self, data: TrainingData, before: Stored, policies: Mapping[str, Policy], rng: int,
        told: Callable[[str], object] = str,
    ) -> None:  # fmt: skip
        self._told = told
        self._clicks, self._everyone, self._items, self._users = data.clicks, data.everyone, data.items, data.users
        self._before, self._policies, self._rng = before, policies, rng
        self._recipes: dict[str, Recipe] = {}
        self._kept: dict[str, Recipe | None] = {}
        self._answers: dict[str, Replay] = {}
        self.refused: dict[str, list[str]] = {}
        self.tuned: list[str] = []
        self.due: dict[str, str] = {}
        self.forced: dict[str, list[str]] = {}
        self._examined: int | None = None

    def plan(self, chosen: Collection[str], full: bool | None) -> None:
        """Decides how each chosen policy's model is made: freshened, tuned anew, or by defaults until there is time."""
        for name, policy in self._policies.items():
            if name not in chosen:
                continue
            recipe = Recipe(policy)
            if tunes_itself(policy.model):
                due = tuning_due(self._before.tried(name, policy), self._everyone)
                serving = self._before.recipe(name)
                if not due and self._before.unreadable(name, policy):
                    due = "this release cannot read what was tuned"
                if not (full or (full is None and due)):
                    fresh = serving is not None and serving.previous is not None and same(serving.policy, policy)
                    recipe = serving if fresh and serving is not None else Recipe(policy, quick=True)
                    if due:
                        self.due[name] = due
            self._recipes[name] = next((each for each in self._recipes.values() if alike(each, recipe)), recipe)

    def examine(self, named: Collection[str], *, force: bool, margin: float) -> None:
        """Asks the planned models about the newest sessions, and lets through who passes the gates.

        Args:
            named: The policies that somebody names; their fallbacks are not examined.
            force: Whether to let through also who does not pass.
            margin: Relative loss that is accepted.
        """
        tuning = any(
            tunes_itself(r.policy.model) and r.previous is None and not r.quick for r in self._recipes.values()
        )
        self._examined = len(self._everyone.item)
        exam = exam_of(self._clicks, queries=MAX_QUERIES * (THOROUGH if tuning else 1))
        if exam is None:
            self._recipes = {name: recipe._replace(quick=True) for name, recipe in self._recipes.items()}
            return
        planned = dict(self._recipes)
        for name, policy in self._policies.items():
            if name in planned and (name in named or name == "popular"):
                twin = next((each for each in self._answers if planned.get(each) is planned[name]), None)
                if twin is None:
                    self._answers[name] = self._learned(name, exam)
                else:
                    self._answers[name], self._recipes[name] = self._answers[twin], self._recipes[twin]
                    self.tuned += [name] if twin in self.tuned else []
            elif name == "popular":
                self._answers[name] = exam.ask(Recipe(policy).make(exam.past, self._items, self._rng, self._users))
        for name in [name for name in self._answers if self._policies[name].model not in IMPERSONAL]:
            live = self._live_answers(name, exam)
            popular = self._answers.get("popular")
            why = failures(gates(self._answers[name], popular=popular, live=live, margin=margin, head=exam.head))
            if why and force:
                self.forced[name] = why
            elif why:
                self.refused[name] = why
                fit = live is not None and (popular is None or better_than_popular(live, popular).passed)
                if fit:
                    self._kept[name] = self._before.recipe(name)

    def settled(self) -> bool:
        """Whether an exam would say what the last one said: the same recipes, the same code, hardly more clicks."""
        before = self._before.manifest
        asked = before.get("examined")
        if asked is None or before.get("code") != code_version() or len(self._everyone.item) >= GROWN * asked:
            return False
        return all(
            name in before.get("refused", {})
            if (serving := self._before.recipe(name)) is None
            else same(serving.policy, recipe.policy) and serving.tuning == recipe.tuning
            for name, recipe in self._recipes.items()
        )

    def carry_over(self) -> None:
        """What the last exam said holds on."""
        before = self._before.manifest
        self.refused = {name: why for name, why in before.get("refused", {}).items() if name in self._policies}
        self._kept = {name: self._before.recipe(name) for name in before.get("kept", []) if name in self.refused}
        self.forced = {name: why for name, why in before.get("forced", {}).items() if name in self._policies}
        self._examined = before.get("examined")

    def _learned(self, name: str, exam: Exam) -> Replay:
        """The answers of a planned model that learned from the past; if it tuned itself, it stays tuned so."""
        recipe = self._recipes[name]
        tunes = recipe.previous is None and not recipe.quick and tunes_itself(recipe.policy.model)
        self._told(f"{name} {'tunes itself' if tunes else 'learns'} to be asked about the newest sessions")
        model = recipe.make(exam.past, self._items, self._rng, self._users)
        if tunes:
            self._recipes[name] = recipe.freshened(model, tuning_of(model, self._everyone))
            self.tuned.append(name)
        return exam.ask(model)

    def _live_answers(self, name: str, exam: Exam) -> Replay | None:
        """The answers of the recipe that serves now; None where it is the same one, or there is none."""
        serving, new = self._before.recipe(name), self._recipes.get(name)
        if serving is None or new is None or (same(serving.policy, new.policy) and serving.tuning == new.tuning):
            return None
        try:
            return exam.ask(serving.make(exam.past, self._items, self._rng, self._users))
        except BadSettings:
            return None  # this release does not take the settings of that one

    def auto(self, lineup: Sequence[str], margin: float) -> tuple[str, str]:
        """What the policy `auto` stands for, and the sentence that says why.

        The choice is made anew whenever a model tuned itself, not each minute: it would flicker with the noise. By few
        questions it is not made at all: then the whole pipeline serves, or popularity where nothing else was learned.

        Args:
            lineup: The policies that it may stand for, the simplest first.
            margin: Relative loss that is accepted for the sake of a simpler model.
        """
        if self._nothing_but_popular():
            return "popular", ONLY_POPULAR
        before = self._before.manifest
        choice, sentence = before.get("aliases", {}).get(AUTO, ""), before.get("simplest", "")
        if self._kept.get(choice) is not None:
            return choice, sentence  # what is withheld is only the new model: the one that was chosen goes on
        if not self.tuned and sentence != ONLY_POPULAR and choice in self._policies and choice not in self.refused:
            return choice, sentence
        among: dict[str, Replay] = {}
        for name in lineup:
            answers = self._answers.get(name)
            if answers is not None and not any(answers is other for other in among.values()):
                among[name] = answers
        asked = len(next(iter(among.values())).rank) if among else 0
        if len(among) > 1 and asked >= MIN_QUERIES:
            found = simplest(among, margin=margin, k=K)
            if found.name in self.refused:
                found = simplest({n: each for n, each in among.items() if n not in self.refused}, margin=margin, k=K)
            return found.name, found.sentence
        if len(lineup) > 1 and asked:
            sentence = f"{asked:,} questions are too few to say which model is enough; from {MIN_QUERIES} on they do."
        fit = [name for name in lineup if name in self._policies and name not in self.refused]
        return fit[-1] if fit else "popular", sentence

    def _nothing_but_popular(self) -> bool:
        """Whether sessions and catalog say nothing of what goes with what."""
        return not goes_together(self._everyone) and not any(
            item.title or item.description or item.categories or item.brand or item.attributes or item.vectors
            for item in self._items
        )

    def renew(self, data: TrainingData) -> None:
        """What came while the exam was taken: the bundles learn from it, too."""
        self._clicks, self._everyone, self._items, self._users = data.clicks, data.everyone, data.items, data.users

    def findings(self) -> dict[str, Any]:
        """What the exam said, for the manifest; of policies that were not examined what was said before."""
        before = self._before.manifest
        gone = set(self._answers)
        old = {name: figures for name, figures in before.get("offline", {}).items() if name not in self._answers}
        refused = {name: why for name, why in before.get("refused", {}).items() if name not in gone}
        tried = {
            name: {"model": recipe.policy.model, "settings": recipe.policy.settings, "tuning": recipe.tuning._asdict()}
            for name, recipe in self._recipes.items()
            if name in self.refused and recipe.tuning is not None
        }
        refused = {**refused, **self.refused}
        return {
            "offline": {
                **{name: figures for name, figures in old.items() if name in self._policies},
                **{name: figures_of(answers) for name, answers in self._answers.items()},
            },
            "withheld": sorted(refused),
            "refused": refused,
            "tried": {**{n: t for n, t in before.get("tried", {}).items() if n in self._policies}, **tried},
            "forced": self.forced,
            "tuning_due": self.due,
            "examined": self._examined,
        }

    def bundle(self, interactions: Interactions, wanted: Mapping[str, Policy], old: Stored) -> Bundle:
        """The models of one slot.

        Args:
            interactions: What this slot learns from.
            wanted: Its policies.
            old: What is live in it. A variant of an experiment keeps the tuning that it began with.
        """
        found: Bundle = {}
        for name, policy in wanted.items():
            serving = old.recipe(name)
            if name not in self._recipes and serving is not None:
                found[name] = old.arrays[name], serving
                continue
            planned = self._recipes.get(name, Recipe(policy, quick=True))
            recipe = self._kept.get(name) if name in self.refused else planned
            if recipe is None:
                if serving is not None and old is self._before and old.made_by(name) != code_version():
                    found[name] = old.arrays[name], serving  # perhaps the fault is this release's
                continue
            if old is not self._before and serving is not None and serving.previous is not None:
                recipe = serving
            arrays = next((arrays for arrays, other in found.values() if other is recipe), None)
            if arrays is None:
                self._told(f"{name} learns from {len(interactions.item):,} clicks")
                arrays = recipe.make(interactions, self._items, self._rng, self._users).arrays()
            found[name] = arrays, recipe
        return found

    def spoiled(self, bundle: Bundle, margin: float) -> dict[str, list[str]]:
        """Where other code made the models, those that answer worse than the stored ones about what both have seen.

        A model that tuned itself in this lesson was examined on what it had not seen, which says more: who remembers
        best what was seen foresees no better.
        """
        manifest = self._before.manifest
        doubtful = [
            name
            for name, (arrays, recipe) in bundle.items()
            if name in self._before.arrays
            and name not in self.tuned
            and arrays is not self._before.arrays[name]
            and recipe.policy.model not in IMPERSONAL
            and not getattr(MODELS[recipe.policy.model], "shelf", False)
            and self._before.made_by(name) != code_version()
        ]
        exam = seen_exam(self._clicks, float(manifest.get("until", 0.0))) if doubtful else None
        worse: dict[str, list[str]] = {}
        for name in doubtful if exam is not None else []:
            assert exam is not None
            arrays, recipe = bundle[name]
            old = read_model(name, self._before.arrays[name], manifest)
            new = read_model(name, arrays, {"policies": {name: recipe.policy.model}})
            if old is None or new is None or exam.queries < MIN_QUERIES:
                continue
            answers, live = exam.ask(new), exam.ask(old)
            why = failures([not_worse(answers, live, margin), segments_hold(answers, live, exam.head)])
            if why:
                worse[name] = [f"{each} (on sessions that both have seen)" for each in why]
        return worse
