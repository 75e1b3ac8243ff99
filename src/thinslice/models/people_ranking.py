"""What known people's history adds to the session ranker: more candidates, and a correction of its second stage.

The second stage has learned from everybody; what is learned here (trees, or a network where the second stage is one) is
what its scores lack for people who are known, so a few questions of them are enough. It is kept only when the newest
fifth of those questions, of sessions with a click, is foreseen better than by the session alone; who is unknown is
never touched by it.
"""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.models import people
from thinslice.models.candidates import Candidates, Found, Lessons, Questions, questions_of
from thinslice.models.forest import Scored
from thinslice.models.lambdamart import CUT, figures, ranked
from thinslice.models.people import ALIKE, OWN, Memory, People
from thinslice.models.ranking_features import FEATURES
from thinslice.models.tuning import SecondStage, Tuned, ease_of, first_questions, head
from thinslice.records import Arrays, Interactions, Item, User

POPULAR = 30
"""So many items that are popular now join the candidates of somebody who has not clicked yet."""

KNOWN_SHARE = 0.25
"""The part of a training's budget that goes to what is known of people, where enough are known."""

ROWS_PER_S = 14_000
"""Rows that the trees learn from, for each CPU second of that part."""

FEWEST = 2000
"""So many questions are learned from, if there are so many, however dear they are: fewer tell nothing."""

MOST_QUESTIONS = 3000
"""By so many questions it is judged whether the history helps."""

NAMES = (*FEATURES, *people.FEATURES)
"""What the correction sees of each candidate."""

TIE = 1e-6
"""The blended score counts so much beside the trees: it decides between candidates that they find equal."""

LEAST = 1e-4
"""What gave a score less than this speaks neither for nor against an item: it may be what was rounded off."""

KEEP = (0.05, 0.3)
"""The share of wrong candidates that is learned from lies between these."""


ADDED = "added_"
"""The arrays of the correction begin so."""


class Corrector(Protocol):
    """Learns what to add to the scores of a second stage, twice: to see whether it helps, and then in earnest."""

    def trial_of_known(
        self, part: Lessons, begin: NDArray[np.float64], exam: Lessons, exam_begin: NDArray[np.float64]
    ) -> SecondStage:
        """Learns from the older lessons; `begin` are the scores that it is added to, of each row."""

    def whole_of_known(self, lessons: Lessons, begin: NDArray[np.float64], trial: Any) -> SecondStage:
        """Learns from all lessons, as the trial did."""


class Asker(NamedTuple):
    """A known person with a question: what is remembered, what that proposes, and the mean direction of it."""

    memory: Memory
    proposed: NDArray[np.int32]
    direction: NDArray[np.float32]


class KnownPeople:
    """Ranks for people who are known, over the candidates of the session ranker; threads may ask at the same time."""

    def __init__(self, first: Candidates, second: SecondStage, remembered: People, added: SecondStage) -> None:
        self.people, self.added = remembered, added
        self._second = second
        self._first = first
        self._scratch = threading.local()
        self._popular = first.popular(POPULAR)

    @classmethod
    def from_arrays(cls, first: Candidates, second: SecondStage, arrays: Arrays) -> Self:
        """The same from what `arrays` gave."""
        kind: Any = type(second)
        own = {name.removeprefix(ADDED): array for name, array in arrays.items() if name.startswith(ADDED)}
        return cls(first, second, People.from_arrays(arrays), kind.from_arrays(own))

    def arrays(self) -> Arrays:
        """Everything that it is beside the candidates."""
        return {**self.people.arrays(), **{ADDED + name: array for name, array in self.added.arrays().items()}}

    def asker(self, person: str | None, session: NDArray[np.int32]) -> Asker | None:
        """Somebody who asks in a session; None when nothing is known of them.

        Whoever was shown something is asked for again at once, for the reasons: this thread's last one is kept.
        """
        asked, kept = (person, session.tobytes()), self._scratch.__dict__.get("asker")
        if kept is not None and kept[0] == asked:
            found: Asker | None = kept[1]
            return found
        memory = self.people.memory(person)
        asker = None if memory is None else asker_of(self._first, self.people, memory.without(session), self._room())
        self._scratch.asker = (asked, asker)
        return asker

    def look(self, asker: Asker, session: NDArray[np.int32], first: int, stop: int) -> Found:
        """As `Candidates.look`, with the features of `people`; what the history proposes is in the first block."""
        more = joined(asker.proposed, self._popular, (session >= 0).any()) if first == 0 else _NONE
        found = self._first.look(session, first, stop, more)
        codes, rows, blended = found.codes, found.rows, found.blended
        if first > 0:
            other = ~np.isin(codes, asker.proposed)
            codes, rows, blended = codes[other], rows[other], blended[other]
        own = self.people.describe(asker.memory, codes, self._first.likeness(asker.direction, codes))
        return Found(codes, np.concatenate([rows, own], axis=1), blended, found.candidates)

    def causes(
        self, asker: Asker, session: NDArray[np.int32], codes: NDArray[np.int32], rows: NDArray[np.float32],
        gave: NDArray[np.float64],
    ) -> NDArray[np.int64]:  # fmt: skip
        """The item, of session or history, that gave most of each score, -1 where none gave `LEAST`.

        Args:
            asker: Who asks.
            session: Item codes, oldest first.
            codes: Of items that `look` found.
            rows: Their features.
            gave: Shape (codes,): what the evidence of the session gave to each score.
        """
        clicked, parts = self._first.parts(session, codes)
        evidence = gave / np.maximum(parts.sum(axis=1), 1e-30)
        near, _, own, _ = self.people.parts(asker.memory, codes, self.added.contributions(rows)[:, len(FEATURES) :])
        every, place = np.unique(np.concatenate([clicked, asker.memory.lead, codes]), return_inverse=True)
        if not len(every):
            return np.full(len(codes), -1)
        total = np.zeros((len(every), len(codes)))
        ends = np.cumsum([len(clicked), len(asker.memory.lead)])
        total[place[: ends[0]]] = (parts * evidence[:, None]).T  # each of the three names an item once
        total[place[ends[0] : ends[1]]] += near.T
        total[place[ends[1] :], np.arange(len(codes))] += own
        best = total.argmax(axis=0)
        return np.where(total[best, np.arange(len(codes))] > LEAST, every[best], -1)

    def score(self, found: Found, first: int, block: int) -> Scored:
        """The scores of candidates that `look` found; each block of candidates stands before the next."""
        second = self._second.score(np.ascontiguousarray(found.rows[:, : len(FEATURES)]), 0)
        added = self.added.score(found.rows, 0)
        score = second.score + added.score + TIE * found.blended
        if first > 0:
            score -= (1.0 + self._second.span + self.added.span) * ((first + np.arange(len(score))) // block)
        return Scored(score, partial(_given, second, added))

    def _room(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """This thread's scratch: 12 bytes an item."""
        room: tuple[NDArray[Any], NDArray[Any]] | None = getattr(self._scratch, "room", None)
        if room is None:
            room = self._scratch.room = room_for(self._first)
        return room


def _given(second: Scored, added: Scored, at: NDArray[np.int64], first: int | None) -> NDArray[np.float64]:
    """See `Scored.given`: of all `NAMES`."""
    gave = added.given(at, first)
    if first is None:
        gave[:, : len(FEATURES)] += second.given(at, None)
        return gave
    return gave + second.given(at, first)


def total(second: SecondStage, added: SecondStage, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The score of each row of `NAMES`: what the second stage says, and what the history adds."""
    alone = second.predict(np.ascontiguousarray(rows[:, : len(FEATURES)]))
    score: NDArray[np.float64] = alone + added.predict(rows)
    return score


def learn_known(
    interactions: Interactions,
    items: Sequence[Item] | None,
    users: Sequence[User],
    tuned: Tuned,
    *,
    holdout: float,
    least_questions: int,
    budget_s: float,
    learner: Corrector,
    seed: int,
) -> tuple[SecondStage | None, dict[str, Any]]:
    """Learns the correction for known people, unless there are too few of them or their history does not help.

    Args:
        interactions: All clicks.
        items: The catalog.
        users: What the shop says of its users.
        tuned: What `tune` made of the same clicks with the same `holdout`: its candidates of the older sessions are
            asked, and its second stage ranks by the session alone.
        holdout: Share (0..1) of the sessions, the newest, that are asked about after learning from the others.
        least_questions: With fewer questions of known people nothing is learned.
        budget_s: About so many CPU seconds.
        learner: Learns it.
        seed: Decides which wrong candidates are learned from, and which questions.

    Returns:
        The correction, and what came of it: JSON values.
    """
    first = int((1 - holdout) * (len(interactions.session_ptr) - 1))
    second, stage = tuned.second, tuned.past
    if second is None or stage is None:
        return None, {"why": "nothing was learned of the sessions"}
    if (most_asked := clicks_of_known(interactions, first, users)) < least_questions:
        return None, {"why": f"{most_asked} questions of known people, {least_questions} are needed"}
    past = head(interactions, first)
    remembered = People.build(past, items, users)
    questions, who = questions_of_people(interactions, past, remembered)
    asked = len(who)
    if asked < max(least_questions, 1):
        return None, {"why": f"{asked} questions of known people, {least_questions} are needed"}
    block = int(tuned.settings["candidates"])
    wide, rows, ease = block + OWN + ALIKE, int(ROWS_PER_S * budget_s), ease_of(questions)
    keep = float(np.clip(rows / (asked * ease * wide), *KEEP))
    most = min(asked, max(FEWEST, int(ease * rows / (1 + keep * wide))))
    taught = np.sort(np.random.default_rng([seed, 2]).permutation(asked)[:most])
    questions, who = questions.some(taught), who[taught]
    cut = int(0.8 * most)
    lessons = lessons_of(stage, remembered, questions, who, block, keep, seed)
    judged = np.arange(cut, most)[-MOST_QUESTIONS:]
    exam = lessons_of(stage, remembered, questions.some(judged), who[judged], block, 1.0, seed)
    part = first_questions(lessons, cut)
    told: dict[str, Any] = {"asked": asked, "questions": most, "rows": len(lessons.label), "kept_share": round(keep, 4)}
    if len(part.sizes) < 2 or not len(exam.sizes):
        return None, {**told, "why": "too few answers are among the candidates"}
    begin = second.predict(np.ascontiguousarray(lessons.rows[:, : len(FEATURES)]))
    exam_begin = second.predict(np.ascontiguousarray(exam.rows[:, : len(FEATURES)]))
    trial = learner.trial_of_known(part, begin[: len(part.label)], exam, exam_begin)
    clicked = questions.end[judged] > questions.begin[judged]
    alone = stage.lessons(questions.some(judged[clicked]), block, 1.0, seed)
    before = ranked(second.predict(alone.rows), alone)
    after = ranked(total(second, trial, exam.rows), exam)[clicked]
    told["exam"] = {"session": figures(before, wide), "session and history": figures(after, wide)}
    if not helps(before, after):
        return None, {**told, "why": "with the history no more is foreseen than luck explains"}
    return learner.whole_of_known(lessons, begin, trial), told


def helps(before: NDArray[Any], after: NDArray[Any]) -> bool:
    """Whether the same answers stand higher than before, by more than one standard error of hit rate and rank."""
    worth = [np.where((rank >= 0) & (rank < CUT), 1 + 1 / (np.maximum(rank, 0) + 1.0), 0.0) for rank in (before, after)]
    gain = worth[1] - worth[0]
    return bool(len(gain) and gain.mean() > gain.std() / np.sqrt(len(gain)))


def share_of_known(
    interactions: Interactions, users: Sequence[User], holdout: float, least_questions: int
) -> float:  # fmt: skip
    """The part of a training's budget (0..1) for `learn_known`: 0 where it would learn nothing."""
    first = int((1 - holdout) * (len(interactions.session_ptr) - 1))
    return KNOWN_SHARE if clicks_of_known(interactions, first, users) >= max(least_questions, 1) else 0.0


def clicks_of_known(interactions: Interactions, first: int, users: Sequence[User] = ()) -> int:
    """Clicks, from session number `first` on, of people who were there before, or of whom the shop says something."""
    user = interactions.user
    if user is None:
        return 0
    told = {each.user_id for each in users if each.consent == "personalization"}
    known = np.array([*(name in told for name in interactions.user_ids), False])
    known[user[:first]] = True
    known[-1] = False
    clicks: int = np.diff(interactions.session_ptr)[first:][known[user[first:]]].sum()
    return int(clicks)


def questions_of_people(
    interactions: Interactions, past: Interactions, remembered: People
) -> tuple[Questions, NDArray[np.int64]]:
    """What known people clicked after the past, each session's first click included, and who asked each question."""
    first = len(past.session_ptr) - 1
    known = np.zeros(len(interactions.item_ids), dtype=np.bool_)
    known[past.item] = True
    later = questions_of(interactions, first, known)
    start = int(interactions.session_ptr[first])
    session = np.repeat(np.arange(len(interactions.session_ptr) - 1), np.diff(interactions.session_ptr))[start:]
    owner = session[known[interactions.item[start:]]]
    code = np.append(remembered.codes(interactions.user_ids), -1)
    person = np.full(len(owner), -1) if interactions.user is None else code[interactions.user[owner]]
    opening = np.flatnonzero(np.append(np.ones(min(len(owner), 1), np.bool_), np.diff(owner) != 0))
    end = np.concatenate([opening, later.end])
    order = np.argsort(end, kind="stable")
    order = order[person[end[order]] >= 0]
    end = end[order]
    begin = np.concatenate([opening, later.begin])[order]
    return Questions(later.clicks, begin, end, later.clicks[end]), person[end]


def lessons_of(
    stage: Candidates, remembered: People, questions: Questions, who: NDArray[np.int64], block: int, keep: float,
    seed: int,
) -> Lessons:  # fmt: skip
    """What a ranker can learn from questions of known people; the arguments as of `Candidates.lessons`."""
    popular, room = stage.popular(POPULAR), room_for(stage)
    askers = {code: asker_of(stage, remembered, remembered.memory_of(code), room) for code in np.unique(who).tolist()}
    more = [
        joined(askers[code].proposed, popular, clicked)
        for code, clicked in zip(who.tolist(), (questions.end > questions.begin).tolist(), strict=True)
    ]
    lessons = stage.lessons(questions, block, keep, seed, more)
    person = who[lessons.question]
    rows = np.zeros((len(person), len(people.FEATURES)), np.float32)
    order = np.argsort(person, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(person[order])) + 1) if len(order) else []:
        asker, codes = askers[int(person[own[0]])], lessons.code[own]
        rows[own] = remembered.describe(asker.memory, codes, stage.likeness(asker.direction, codes))
    return lessons._replace(rows=np.concatenate([lessons.rows, rows], axis=1))


def asker_of(first: Candidates, remembered: People, memory: Memory, room: tuple[NDArray[Any], NDArray[Any]]) -> Asker:
    """What a person's memory proposes, and its direction among the vectors of items."""
    return Asker(memory, remembered.proposals(memory, room), first.direction(*memory.leads()))


def joined(proposed: NDArray[np.int32], popular: NDArray[np.int32], clicked: Any) -> NDArray[np.int32]:
    """What joins the candidates of a session: the history's, and what is popular while nothing has been clicked."""
    return proposed if clicked else np.concatenate([proposed, popular[~np.isin(popular, proposed)]])


def room_for(first: Candidates) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scratch for `People.proposals`."""
    items = len(first.knn.item_ids)
    return np.zeros(items), np.empty(items, np.int32)


def warm_people() -> None:
    """Compiles the loops that only known people need, or reads them from the cache."""
    from thinslice.models.item_to_item import ItemToItem

    ItemToItem.warm()


_NONE = np.zeros(0, np.int32)
