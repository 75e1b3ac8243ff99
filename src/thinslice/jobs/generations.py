"""Generations in hand: which models there are, how two of them differ, and which one is live."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from thinslice.errors import Corrupt, NotReady, UnknownName
from thinslice.evaluation import Replay, difference
from thinslice.evaluation.gates import MIN_QUERIES, failures, gates
from thinslice.jobs.offline import Exam, K, changes_of, figures_of, seen_exam, sessions_of, unseen_exam
from thinslice.jobs.recipes import named_policies, read_model
from thinslice.jobs.training_data import Clicks, read_clicks
from thinslice.records import Model
from thinslice.settings import Workspace, read_settings
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake

OVERLAP_SESSIONS = 10_000
"""So many of the newest sessions are answered by both generations."""

MAX_QUERIES = 5000
"""So many questions at most are asked for the figures."""

IMPERSONAL = ("popular", "newest", "trending")
"""Models that are the same for everybody: against them others are judged."""


class Loaded(NamedTuple):
    """One generation: its manifest and the models that this release can read."""

    version: str
    manifest: dict[str, Any]
    models: dict[str, Model]


def listed(workspace: Workspace, tenant: str) -> list[dict[str, Any]]:
    """Every kept generation, newest first.

    Returns:
        name (the slot), version, sha256, lake_version, live, and: held, stored_at, models, sessions, clicks, offline,
        withheld, refused, forced, tuned, default, code, notes.
    """
    read_settings(workspace).tenant(tenant)
    artifacts = FileArtifacts(workspace.models)
    held, notes = artifacts.held(tenant), artifacts.notes(tenant)
    rows = []
    for row in artifacts.versions(tenant):
        try:
            manifest = artifacts.manifest(tenant, row["version"])
        except (Corrupt, UnknownName):
            manifest = {}  # it is listed all the same; training makes it anew
        rows.append(
            {
                **row,
                "held": row["live"] and held.get(row["name"]) == row["version"],
                **{key: manifest.get(key) for key in ("sessions", "clicks", "code")},
                **{key: manifest.get(key, {}) for key in ("offline", "refused", "forced", "tuned")},
                "withheld": manifest.get("withheld", []),
                "default": manifest.get("aliases", {}).get("auto"),
                "notes": [
                    {"at": note.at, "action": note.action, "why": note.why}
                    for note in notes
                    if (note.slot, note.version) == (row["name"], row["version"])
                ],
            }
        )
    return rows


def find(workspace: Workspace, tenant: str, slot: str, name: str) -> str:
    """The version that is meant: `live`, `previous` (before the live one), or its first letters.

    Raises:
        UnknownName: None or several are meant.
    """
    read_settings(workspace).tenant(tenant)
    artifacts = FileArtifacts(workspace.models)
    there = [row["version"] for row in artifacts.versions(tenant) if row["name"] == slot]
    if not there:
        raise UnknownName(f"tenant {tenant!r} has no models in slot {slot!r}.", hint="`thinslice train` makes some.")
    if name == "live":
        return artifacts.live(tenant)[slot]
    if name == "previous":
        history = artifacts.history(tenant, slot)
        if len(history) < 2:
            raise UnknownName(f"slot {slot!r} of tenant {tenant!r} has no version before the live one.")
        return history[-2]
    meant = [version for version in there if version.startswith(name)]
    if len(meant) != 1:
        raise UnknownName(
            f"{name!r} names {len(meant)} versions in slot {slot!r} (there is: {', '.join(there)}).",
            hint="`thinslice models list` shows them.",
        )
    return str(meant[0])


def diff(
    workspace: Workspace,
    tenant: str,
    one: str,
    other: str,
    *,
    slot: str = "live",
    policies: Sequence[str] = (),
    now: datetime,
) -> dict[str, Any]:
    """What is different between two generations, in what they were made of and in what they answer.

    Args:
        workspace: Whose lake and models.
        tenant: Whose.
        one: The generation that is compared with; see `find`.
        other: The one that is looked at.
        slot: In which both are.
        policies: Whose models are asked; empty takes those that the settings name, and `popular`.
        now: Aware UTC.

    Returns:
        a, b, changes (sentences), questions (how they were chosen), policies: one row each with figures of both, paired
        differences with 95 % intervals, and the overlap of their slates on the same newest sessions.
    """
    first, second = (_loaded(workspace, tenant, find(workspace, tenant, slot, name)) for name in (one, other))
    clicks = read_clicks(Lake(workspace.lake), tenant, now)
    named = list(policies) or ["popular", *named_policies(read_settings(workspace), tenant)]
    both = [name for name in dict.fromkeys(named) if name in first.models and name in second.models]
    if policies and not both:
        raise UnknownName(f"not both generations have a model of {', '.join(policies)}.")
    exam, words = _exam(clicks, first, second)
    rows = []
    for name in both:
        row: dict[str, Any] = {"policy": name, "a": None, "b": None, "difference": {}}
        if exam is not None:
            answers = [exam.ask(each.models[name]) for each in (first, second)]
            row["a"], row["b"] = figures_of(answers[0]), figures_of(answers[1])
            row["difference"] = {metric: _difference(answers[1], answers[0], metric) for metric in ("hr", "mrr")}
        rows.append({**row, **_overlap(clicks, first.models[name], second.models[name])})
    return {
        "tenant": tenant, "slot": slot, "a": first.version, "b": second.version,
        "changes": changes_of(second.manifest, first.manifest), "questions": words, "policies": rows,
        "only_a": sorted(set(first.models) - set(second.models)),
        "only_b": sorted(set(second.models) - set(first.models)),
    }  # fmt: skip


def promote(
    workspace: Workspace, tenant: str, name: str, *, slot: str = "live", force: bool = False, now: datetime
) -> dict[str, Any]:
    """Makes a stored version live, if it passes the gates against the one that is live now.

    Args:
        workspace: Whose models.
        tenant: Whose.
        name: The version; see `find`.
        slot: In which.
        force: Also when it does not pass; the registry notes why it should not have been.
        now: Aware UTC.

    Returns:
        version, slot, before (the version that was live), why (what speaks against it; empty when it passed), forced.

    Raises:
        NotReady: It does not pass.
    """
    version = find(workspace, tenant, slot, name)
    artifacts = FileArtifacts(workspace.models)
    before = artifacts.live(tenant).get(slot)
    why = against(workspace, tenant, version, before, now=now) if before not in (None, version) else []
    if why and not force:
        raise NotReady(
            f"version {version} is not promoted: {'; '.join(why)}.",
            hint="`thinslice models diff` shows the figures; --force makes it live all the same and notes it.",
        )
    artifacts.promote(tenant, slot, version)
    artifacts.note(tenant, "promote", slot, version, why)
    return {"version": version, "slot": slot, "before": before, "why": why, "forced": bool(why)}


def rollback(workspace: Workspace, tenant: str, *, slot: str = "live") -> dict[str, Any]:
    """Makes the version before the live one live again; trainings on a schedule leave the slot there.

    Returns:
        version, slot, before (the version that was live).

    Raises:
        UnknownName: There is none before it.
    """
    read_settings(workspace).tenant(tenant)
    artifacts = FileArtifacts(workspace.models)
    before = artifacts.live(tenant).get(slot)
    version = artifacts.rollback(tenant, slot)
    artifacts.note(tenant, "rollback", slot, version)
    return {"version": version, "slot": slot, "before": before}


def against(workspace: Workspace, tenant: str, version: str, live: str | None, *, now: datetime) -> list[str]:
    """What speaks against making a version live, in words; both generations are asked the same questions."""
    settings = read_settings(workspace)
    new, old = _loaded(workspace, tenant, version), _loaded(workspace, tenant, live or version)
    named = named_policies(settings, tenant)
    why = [f"{name} is live and this version has no model of it" for name in named
           if name in old.models and name not in new.models]  # fmt: skip
    exam, words = _exam(read_clicks(Lake(workspace.lake), tenant, now), new, old)
    if exam is None:
        return why
    answers = {name: exam.ask(model) for name, model in new.models.items() if name in named or name == "popular"}
    for name, found in answers.items():
        if named.get(name) is None or named[name].model in IMPERSONAL:
            continue
        serving = exam.ask(old.models[name]) if name in old.models else None
        failed = failures(
            gates(found, popular=answers.get("popular"), live=serving, margin=settings.tenant(tenant).margin,
                  head=exam.head)
        )  # fmt: skip
        why += [f"{name}: {each} ({words})" for each in failed]
    return why


def _loaded(workspace: Workspace, tenant: str, version: str) -> Loaded:
    arrays, manifest = FileArtifacts(workspace.models).load(tenant, version)
    models = {name: read_model(name, each, manifest) for name, each in arrays.items()}
    return Loaded(version, manifest, {name: model for name, model in models.items() if model is not None})


def _exam(clicks: Clicks, one: Loaded, other: Loaded) -> tuple[Exam | None, str]:
    """Questions that are fair to both: sessions that neither has seen, else those that both have."""
    moments = [float(each.manifest.get("until", 0.0)) for each in (one, other)]
    exam = unseen_exam(clicks, max(moments), queries=MAX_QUERIES)
    if exam is not None and exam.queries >= MIN_QUERIES:
        return exam, f"{exam.queries:,} questions of sessions that neither had seen"
    exam = seen_exam(clicks, min(moments), queries=MAX_QUERIES)
    if exam is None:
        return None, "no session can be asked about"
    return exam, f"{exam.queries:,} questions of sessions that both had seen: fair to both, too good by themselves"


def _difference(new: Replay, old: Replay, metric: str) -> dict[str, Any]:
    found = difference(new, old, metric)
    return {"value": found.value, "ci": found.interval()}


def _overlap(clicks: Clicks, one: Model, other: Model) -> dict[str, Any]:
    """How much of their slates is the same, on the newest sessions as they ended."""
    numbers = range(len(clicks.started) - 1, max(-1, len(clicks.started) - 1 - OVERLAP_SESSIONS), -1)
    shares, equal = [], 0
    for items in (clicks_of for _, clicks_of in sessions_of(clicks, numbers, None, None, least=1)):
        slates = [model.recommend(items, K).item_ids for model in (one, other)]
        longest = max(len(slate) for slate in slates)
        shares.append(len(set(slates[0]) & set(slates[1])) / longest if longest else 1.0)
        equal += slates[0] == slates[1]
    count = len(shares)
    return {"sessions": count, "overlap": float(np.mean(shares)) if count else None,
            "identical": equal / count if count else None}  # fmt: skip
