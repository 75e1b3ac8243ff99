"""Offline figures: what models would have foreseen of the newest sessions, having learned from the older ones."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.evaluation import Replay, clustered_mean, hits, reciprocal_ranks, replay
from thinslice.jobs.training_data import Clicks, askers_of, interactions_of
from thinslice.records import Interactions, Model

HOLDOUT_SHARE = 0.1
"""Share of the newest sessions that the figures are measured on."""

MAX_QUERIES = 2000
"""More queries than this are not asked: training comes each minute."""

HEAD_SHARE = 0.2
"""The most clicked items, this share of all, are the head."""

K = 20


class Exam(NamedTuple):
    """Questions about the newest sessions, and what may be learned from before they are asked.

    Attributes:
        past: What the models learn from.
        sessions: Item ids, oldest first: each click but the first is looked for.
        users: Who asks in each session, as the service knew it when it began; None where nobody did.
        queries: How many questions that makes.
        head: Shape (queries,), whether the clicked item is one of the most clicked.
    """

    past: Interactions
    sessions: list[list[str]]
    users: list[str | None]
    queries: int
    head: NDArray[np.bool_]

    def ask(self, model: Model) -> Replay:
        """The answers of a model that learned from `past`, ties against it; its kernels are compiled before."""
        warm = getattr(model, "warm", None)
        if warm is not None:
            warm()
        return replay(model, self.sessions, K, users=self.users)


def exam_of(clicks: Clicks, *, queries: int = MAX_QUERIES) -> Exam | None:
    """The newest tenth of the sessions, the newest of them first; None where nothing can be asked.

    Args:
        clicks: All of a tenant.
        queries: About so many questions at most.
    """
    cut = int(len(clicks.started) * (1 - HOLDOUT_SHARE))
    as_of = float(clicks.started[cut - 1]) if cut else -np.inf
    past = interactions_of(clicks, np.arange(len(clicks.started)) < cut, as_of=as_of)
    numbers = range(len(clicks.started) - 1, cut - 1, -1)
    chosen = sessions_of(clicks, numbers, set(past.item_ids), queries)
    if not chosen:
        return None
    return _exam(clicks, past, chosen)


def seen_exam(clicks: Clicks, until: float, *, queries: int = MAX_QUERIES) -> Exam | None:
    """Questions about the newest sessions that had ended at a moment: what every model made since then has seen.

    Two models that have both seen the answers are compared fairly with each other, and with nothing else.

    Args:
        clicks: All of a tenant.
        until: Unix seconds.
        queries: About so many questions at most.
    """
    numbers = np.flatnonzero(clicks.ended <= until)[::-1].tolist()
    chosen = sessions_of(clicks, numbers, None, queries)
    if not chosen:
        return None
    past = interactions_of(clicks, clicks.ended <= until, as_of=until)
    return _exam(clicks, past, chosen)


def unseen_exam(clicks: Clicks, until: float, *, queries: int = MAX_QUERIES) -> Exam | None:
    """Questions about the sessions that began after a moment, the newest first: no model made before has seen them.

    Args:
        clicks: All of a tenant.
        until: Unix seconds.
        queries: About so many questions at most.
    """
    numbers = np.flatnonzero(clicks.started > until)[::-1].tolist()
    past = interactions_of(clicks, clicks.ended <= until, as_of=until)
    chosen = sessions_of(clicks, numbers, set(past.item_ids), queries)
    return _exam(clicks, past, chosen) if chosen else None


def sessions_of(
    clicks: Clicks, numbers: Sequence[int], known: set[str] | None, queries: int | None, *, least: int = 2
) -> list[tuple[int, list[str]]]:
    """Sessions with something to ask, until there are enough questions: (number, item ids that are known).

    Args:
        clicks: All of a tenant.
        numbers: Which sessions may be taken, in this order.
        known: Items that a model can know; None takes all.
        queries: About so many questions at most; None takes all.
        least: A session with fewer known clicks is passed over.
    """
    order = np.argsort(clicks.session, kind="stable")
    ptr = np.searchsorted(clicks.session[order], np.arange(len(clicks.started) + 1))
    found: list[tuple[int, list[str]]] = []
    asked = 0
    for number in numbers:
        if queries is not None and asked >= queries:
            break
        items = clicks.items_of(order[ptr[number] : ptr[number + 1]])
        steps = items if known is None else [item for item in items if item in known]
        if len(steps) >= least:
            found.append((number, steps))
            asked += len(steps) - 1
    return found


def _exam(clicks: Clicks, past: Interactions, chosen: Sequence[tuple[int, list[str]]]) -> Exam:
    counts = np.bincount(past.item, minlength=len(past.item_ids))
    order = np.argsort(-counts, kind="stable")
    head = {past.item_ids[code] for code in order[: max(1, round(HEAD_SHARE * len(order)))].tolist()}
    asked = np.array([item in head for _, steps in chosen for item in steps[1:]], dtype=np.bool_)
    askers = askers_of(clicks)
    users = [askers[number] or None for number, _ in chosen]
    return Exam(past, [steps for _, steps in chosen], users, len(asked), asked)


def figures_of(answers: Replay) -> dict[str, Any]:
    """n, hr, hr_se, mrr, mrr_se at 20, with standard errors clustered by session."""
    hr, hr_se = clustered_mean(hits(answers.rank), answers.session)
    mrr, mrr_se = clustered_mean(reciprocal_ranks(answers.rank), answers.session)
    return {"n": len(answers.rank), "hr": hr, "hr_se": hr_se, "mrr": mrr, "mrr_se": mrr_se}


def changes_of(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[str]:
    """What is different between two manifests, a sentence each: data, settings, code, figures.

    Args:
        new: The one that was made later.
        old: The one before; None when there is none.
    """
    if old is None:
        return ["the first model of this slot."]
    found = []
    for name, word in (("sessions", "sessions"), ("clicks", "clicks"), ("rows", "rows in the lake")):
        before, after = old.get(name), new.get(name)
        if isinstance(before, int) and isinstance(after, int) and before != after:
            found.append(f"data: {before:,} to {after:,} {word}.")
    if not found and "rows" not in old and old.get("lake_version") != new.get("lake_version"):
        found.append(f"data: version {old.get('lake_version')} to {new.get('lake_version')} of the events.")
    if "feed" in old and old["feed"] != new.get("feed"):
        found.append("data: the catalog changed.")
    found += _settings_changes(new, old)
    if old.get("code") != new.get("code"):
        found.append(f"code: {old.get('code', 'an earlier release')} to {new.get('code')}.")
    if "wheels" in old and old["wheels"] != new.get("wheels"):
        moved = sorted(name for name, at in new.get("wheels", {}).items() if old["wheels"].get(name) != at)
        found.append(f"code: other versions of {', '.join(moved)}.")
    for name, figures in new.get("offline", {}).items():
        before = old.get("offline", {}).get(name)
        if before and (before["hr"], before["mrr"]) != (figures["hr"], figures["mrr"]):
            found.append(
                f"figures: {name} HR@20 {before['hr']:.3f} to {figures['hr']:.3f}, "
                f"MRR@20 {before['mrr']:.3f} to {figures['mrr']:.3f} (each on the newest sessions of its time)."
            )
    return found or ["nothing: the same data, settings and code."]


def _settings_changes(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    found = []
    kinds = {side: manifest.get("policies", {}) for side, manifest in (("old", old), ("new", new))}
    for name in sorted({*kinds["old"], *kinds["new"]}):
        if name not in kinds["old"] or name not in kinds["new"]:
            found.append(f"settings: {name} {'came' if name in kinds['new'] else 'went'}.")
            continue
        if kinds["old"][name] != kinds["new"][name]:
            found.append(f"settings: {name} is {kinds['new'][name]}, it was {kinds['old'][name]}.")
        before, after = (manifest.get("settings", {}).get(name, {}) for manifest in (old, new))
        found += [
            f"settings: {name}.{key} {before.get(key, 'default')} to {after.get(key, 'default')}."
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        ]
        was, now = (manifest.get("tuned", {}).get(name) or {} for manifest in (old, new))
        if was.get("name") != now.get("name"):
            found.append(f"settings: {name} was tuned anew on {now.get('clicks', 0):,} clicks.")
    return found
