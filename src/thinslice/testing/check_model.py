"""Proves that a recommender keeps its promises: what you run on your own model before you plug it in."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from thinslice.models import from_columns
from thinslice.records import Arrays, Interactions, Item, Model, ScoredItems
from thinslice.settings import NAME_PATTERN

DAY_S = 86_400.0
START_S = 1_700_000_000.0


def check_model(
    kind: Any, *, items: Sequence[Item] | None = None, settings: Mapping[str, Any] | None = None, personal: bool = True
) -> None:
    """Fits a model class on small worlds and holds it to what every model promises.

    The same data and rng give the same arrays; arrays survive disk and memory mapping; unknown items are passed over;
    `allowed` is obeyed and changes no score; lists fall, name no item twice, and shorter ones start longer ones;
    many threads get what one gets; a score is the sum of its terms, and a cause that `causes` names is a term that
    raised it; an empty log is no error; and in the checkerboard world, where each session stays on one color, the one
    item of that color that is left is recommended first.

    Args:
        kind: The class, with `fit` and `from_arrays`.
        items: A catalog handed to `fit`.
        settings: More arguments of `fit`.
        personal: False for models that give everyone the same: then that is checked instead of the checkerboard.

    Raises:
        AssertionError: A promise is broken; the message says which, with the values.
    """
    more = dict(settings or {})
    world = small_world()
    model = kind.fit(world, items, rng=np.random.default_rng(0), **more)
    _require(isinstance(model, Model), f"{kind.__name__} lacks something of the protocol thinslice.records.Model")
    _require(bool(re.match(NAME_PATTERN, model.name)), f"the name {model.name!r} does not match {NAME_PATTERN}")
    sessions = _questions(world)
    twin = kind.fit(world, items, rng=np.random.default_rng(0), **more)
    _same_arrays(model.arrays(), twin.arrays(), "the same data and rng gave other arrays")
    _survives_disk(kind, model, sessions)
    _passes_over_unknown(model, sessions)
    _obeys_allowed(model, sessions)
    _ranks(model, sessions)
    _answers_many_at_once(model, sessions)
    _explains(model, sessions)
    empty = kind.fit(from_columns([], [], []), None, rng=np.random.default_rng(0), **more)
    _require(empty.recommend(["item-00"], 5).item_ids == [], "fitted on nothing, it recommends something")
    if personal:
        check_checkerboard(kind, settings=more)
    else:
        answers = [model.recommend(session, 10) for session in sessions]
        _require(all(answer == answers[0] for answer in answers), "it is not personal, but its answers differ")


def small_world(rng: int = 0) -> Interactions:
    """200 sessions of 1 to 8 clicks among 30 items, popular ones first, over ten days, with repeats."""
    draw = np.random.default_rng(rng)
    session, item, time = [], [], []
    for number in range(200):
        begun = START_S + float(draw.uniform(0, 10 * DAY_S))
        for click in range(int(draw.integers(1, 9))):
            session.append(f"s{number:03d}")
            item.append(f"item-{min(int(draw.geometric(0.12)) - 1, 29):02d}")
            time.append(begun + 20.0 * click)
    return from_columns(session, item, time)


def checkerboard(size: int = 10) -> tuple[Interactions, list[tuple[list[str], str]]]:
    """Sessions that stay on one color of a board and leave out one item of it; and the questions with their answers.

    Args:
        size: Items of each color.
    """
    colors = {color: [f"{color}-{number:02d}" for number in range(size)] for color in ("black", "white")}
    session, item, time, questions = [], [], [], []
    for left_out in range(size):
        for color, names in colors.items():
            rest = names[left_out + 1 :] + names[:left_out]
            for click, name in enumerate(rest):
                session.append(f"{color}-{left_out}")
                item.append(name)
                time.append(START_S + left_out * 1000.0 + click)
            questions.append((rest, names[left_out]))
    return from_columns(session, item, time), questions


def check_checkerboard(kind: Any, *, settings: Mapping[str, Any] | None = None) -> None:
    """In the checkerboard world the items of the session's color must come first, and the left out one before all.

    The feed says each item's color in its title, for models that read it.
    """
    world, questions = checkerboard()
    board = [
        Item(tenant="board", item_id=name, updated_at=datetime.fromtimestamp(START_S, UTC), title=name.split("-")[0])
        for name in world.item_ids
    ]
    model = kind.fit(world, board, rng=np.random.default_rng(0), **dict(settings or {}))
    for session, answer in questions:
        fresh = np.array([item_id not in session for item_id in model.item_ids])
        found = model.recommend(session, 3, allowed=fresh).item_ids
        _require(found[:1] == [answer], f"checkerboard: after {session} came {found}, expected {answer} first")
        color = answer.split("-")[0]
        first = model.recommend(session, len(session)).item_ids
        wrong = [item_id for item_id in first if not item_id.startswith(color)]
        _require(not wrong, f"checkerboard: a session all {color} got {wrong}")


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


def _questions(world: Interactions) -> list[list[str]]:
    ends = world.session_ptr.tolist()
    some = [[world.item_ids[code] for code in world.item[ends[s] : ends[s + 1]].tolist()] for s in range(0, 200, 9)]
    return [[], *some, [world.item_ids[0]] * 3, list(world.item_ids)]


def _same_arrays(left: Arrays, right: Arrays, otherwise: str) -> None:
    _require(left.keys() == right.keys(), f"{otherwise}: {sorted(left)} and {sorted(right)}")
    for name, array in left.items():
        same = array.dtype == right[name].dtype and array.shape == right[name].shape
        _require(same and array.tobytes() == right[name].tobytes(), f"{otherwise}: {name}")


def _survives_disk(kind: Any, model: Model, sessions: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, array in model.arrays().items():
            _require(bool(re.match(NAME_PATTERN, name)), f"the array name {name!r} does not match {NAME_PATTERN}")
            _require(not array.dtype.hasobject, f"the array {name} holds Python objects; plain numbers are needed")
            np.save(Path(folder) / f"{name}.npy", array, allow_pickle=False)
        loaded: Arrays = {
            path.stem: np.load(path, mmap_mode="r" if path.stat().st_size > 128 else None, allow_pickle=False)
            for path in Path(folder).iterdir()
        }
        again: Model = kind.from_arrays(loaded)
        _require(list(again.item_ids) == list(model.item_ids), "item_ids changed on the way to the disk and back")
        _same_arrays(model.arrays(), again.arrays(), "the arrays changed on the way to the disk and back")
        for session in sessions:
            before, after = model.recommend(session, 10), again.recommend(session, 10)
            _require(before == after, f"after {session}, before the disk: {before}, and after: {after}")
        del again, loaded


def _passes_over_unknown(model: Model, sessions: list[list[str]]) -> None:
    for session in sessions:
        strange = [item_id for known in session for item_id in ("never-seen", known)] + ["", "also never seen ü"]
        plain, mixed = model.recommend(session, 10), model.recommend(strange, 10)
        _require(plain == mixed, f"unknown items changed the answer to {session}: {plain} became {mixed}")
    _require(model.explain(["item-00"], "never-seen").terms == {}, "an item that it never saw has terms")


def _obeys_allowed(model: Model, sessions: list[list[str]]) -> None:
    size = len(model.item_ids)
    every_third = np.arange(size) % 3 == 0
    for session in sessions:
        whole = model.recommend(session, size)
        kept = model.recommend(session, size, allowed=every_third)
        allowed = {model.item_ids[code] for code in np.flatnonzero(every_third).tolist()}
        expected = [pair for pair in zip(whole.item_ids, whole.scores, strict=True) if pair[0] in allowed]
        got = list(zip(kept.item_ids, kept.scores, strict=True))
        _require(got == expected, f"allowed must only leave items out: after {session} expected {expected}, got {got}")
        _require(
            model.recommend(session, 10, allowed=np.zeros(size, dtype=bool)).item_ids == [],
            "nothing was allowed, and something was recommended",
        )


def _ranks(model: Model, sessions: list[list[str]]) -> None:
    known = set(model.item_ids)
    _require(len(known) == len(model.item_ids), "item_ids names an item twice")
    for session in sessions:
        long = model.recommend(session, len(known) + 5)
        _require(set(long.item_ids) <= known, f"it recommends items that are not in item_ids: {long.item_ids}")
        _require(len(set(long.item_ids)) == len(long.item_ids), f"an item stands twice in {long.item_ids}")
        _require(bool(np.isfinite(long.scores).all()), f"scores must be finite: {long.scores}")
        _require(long.scores == sorted(long.scores, reverse=True), f"scores must fall: {long.scores}")
        for k in (0, 1, 4):
            short = model.recommend(session, k)
            _require(
                short.item_ids == long.item_ids[:k], f"the best {k} are not the first {k} of the best {len(known)}"
            )


def _answers_many_at_once(model: Model, sessions: list[list[str]]) -> None:
    def ask(session: list[str]) -> ScoredItems:
        return model.recommend(session, 10)

    alone = [ask(session) for session in sessions]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(ask, sessions * 5))
    _require(together == alone * 5, "asked from four threads it answers otherwise than alone")
    batch = getattr(model, "recommend_batch", None)
    if batch is not None:
        _require(list(batch(sessions, 10)) == alone, "recommend_batch answers otherwise than recommend")


def _explains(model: Model, sessions: list[list[str]]) -> None:
    for session in sessions:
        found = model.recommend(session, 10)
        causes = model.causes(session, found.item_ids) if hasattr(model, "causes") else [None] * len(found.item_ids)
        for item_id, score, cause in zip(found.item_ids, found.scores, causes, strict=True):
            reason = model.explain(session, item_id)
            _require(reason.item_id == item_id, f"asked why {item_id}, it explains {reason.item_id}")
            close = abs(reason.score - score) <= 1e-6 * max(abs(score), 1e-9)
            _require(close, f"{item_id} after {session}: recommend says {score}, explain says {reason.score}")
            total = sum(reason.terms.values())
            adds = abs(total - score) <= 1e-6 * max(abs(score), 1e-9)
            _require(adds, f"{item_id} after {session}: the terms {reason.terms} sum to {total}, the score is {score}")
            raised = cause is None or reason.terms.get(cause, 0.0) > 0
            _require(raised, f"{item_id} after {session}: causes names {cause}, in the terms {reason.terms}")
