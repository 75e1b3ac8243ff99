"""Tunes the session ranker on the shop's own log: asks about its newest sessions after learning from the older ones.

The work is counted in questions and rows and never timed, so the same clicks give the same settings on any machine.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from thinslice.models.candidates import DEFAULTS, SOURCES, Candidates, Lessons, Questions, questions_of
from thinslice.models.forest import Scored
from thinslice.models.lambdamart import CUT, figures, ranked
from thinslice.records import Arrays, Interactions

QUESTIONS_PER_S = 50
"""Questions that one tried setting is judged by, for each CPU second of the budget; about thirty settings are tried."""

MOST_QUESTIONS = 3000
"""More would not tell settings apart that matter."""

EARLIER_QUESTIONS = (500, 1500)
"""Questions of an earlier time by which what was learned is judged, too: not by fewer, and not by more."""

ROWS_PER_S = 14_000
"""Rows that the trees learn from, for each CPU second of the budget: with the features of those rows half of it."""

KEEP = (0.05, 0.3)
"""The share of wrong candidates that is learned from lies between these; more questions teach more than more rows."""

USUAL_CLICKS = 8
"""Clicks that a question may show on average; where they are more, questions cost more and fewer are asked."""

FARTHEST = 0.5
"""The part of the log, the newest, that is asked about at most."""

FAMILIAR = 0.5
"""Where a smaller part of the newest clicks is on items known before, older stretches are asked about, too."""

GAIN = 0.0005
"""A setting must be better by this to be preferred to the one before."""

ALONE: dict[str, tuple[str, Sequence[Mapping[str, float]]]] = {
    "decay of session kNN": ("knn", [{"knn_decay": value} for value in (0.8, 3.0, 10.0)]),
    "age of session kNN": ("knn", [{"knn_age": value} for value in (0.0, 4.0)]),
    "distance of session kNN": (
        "knn", [{"knn_before": before, "knn_after": after} for before, after in ((1.0, 2.0), (6.0, 8.0), (40.0, 40.0))]
    ),
    "rareness of session kNN": ("knn", [{"knn_rare": value} for value in (0.0, 0.5)]),
    "decay of the walk": ("walk", [{"walk_decay": value} for value in (0.7, 4.0)]),
    "decay of the cosine": ("cosine", [{"cosine_decay": value} for value in (1.5, 12.0)]),
    "decay of what came next": ("next", [{"next_decay": value} for value in (0.5, 2.5)]),
}  # fmt: skip
"""What is tried for each source by itself: a word for people, the source, and the settings beside the default."""

WEIGHTS = (0.0, 0.5, 1.0, 2.0)
"""What is tried for the weight of each source in the blend."""


class SecondStage(Protocol):
    """Scores candidates by their features: trees, or a network."""

    @property
    def span(self) -> float:
        """No two scores are further apart."""

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The score of each row of features."""

    def score(self, rows: NDArray[np.float32], block: int) -> Scored:
        """The scores of one question's candidates, of which each `block` is ranked by itself; 0: those of `predict`."""

    def contributions(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each feature gave to each score, shape (rows, features); the rest of a score is the same for all."""

    def arrays(self) -> Arrays:
        """Everything that it is."""


class Learner(Protocol):
    """Learns a second stage from lessons, twice: to see whether it is worth it, and then in earnest."""

    @property
    def settings(self) -> dict[str, Any]:
        """What goes into the evidence: JSON values."""

    def trials(self, part: Lessons, exam: Lessons) -> Mapping[str, SecondStage]:
        """Learns from the older lessons what may be used, by name; what will be asked, it may only watch itself by."""

    def whole(self, lessons: Lessons, trial: Any) -> SecondStage:
        """Learns from all lessons, knowing the best trial."""


class Asked(NamedTuple):
    """Questions of one or more stretches of the log, oldest first, each of an index of what was before its stretch.

    Attributes:
        stages: One of each stretch.
        questions: As many.
    """

    stages: tuple[Candidates, ...]
    questions: tuple[Questions, ...]

    def __len__(self) -> int:
        return sum(len(each.answer) for each in self.questions)

    def some(self, chosen: NDArray[Any]) -> "Asked":
        """Those of rising numbers, counted through all stretches."""
        ends = np.cumsum([len(each.answer) for each in self.questions])
        cuts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        first = (0, *ends[:-1])
        picked = (each.some(cut - begin) for each, cut, begin in zip(self.questions, cuts, first, strict=True))
        return Asked(self.stages, tuple(picked))

    def weighted(self, settings: Mapping[str, float]) -> "Asked":
        """The same questions of the same indexes with other weights."""
        return Asked(tuple(stage.weighted(settings) for stage in self.stages), self.questions)

    def lessons(self, stop: int, keep: float, seed: int) -> Lessons:
        """See `Candidates.lessons`."""
        each = [
            stage.lessons(questions, stop, keep, seed)
            for stage, questions in zip(self.stages, self.questions, strict=True)
        ]
        if len(each) == 1:
            return each[0]
        before = np.cumsum([0, *(len(part.rank) for part in each[:-1])])
        numbered = [part._replace(question=part.question + first) for part, first in zip(each, before, strict=True)]
        return Lessons(*(np.concatenate(arrays) for arrays in zip(*numbered, strict=True)))

    @property
    def ease(self) -> float:
        """See `ease_of`."""
        shown = [each.end - each.begin for each in self.questions]
        return _ease(np.concatenate(shown))


class Tuned(NamedTuple):
    """Chosen settings (every name of `candidates.DEFAULTS`, and `candidates`), the second stage if any, evidence.

    Attributes:
        past: The candidates, by these settings, of the sessions before those that were asked about.
    """

    settings: dict[str, float]
    second: SecondStage | None
    evidence: dict[str, Any]
    past: Candidates | None = None


def tune(
    interactions: Interactions, *, candidates: int, holdout: float, least_questions: int, budget_s: float, seed: int,
    learner: Learner,
) -> Tuned:  # fmt: skip
    """Chooses settings and learns the ranking; see `SessionRanker.fit` for the arguments.

    Args:
        interactions: All that may be learned from; the newest `holdout` of the sessions are asked about.
        candidates: How many candidates are ranked.
        holdout: Share of the sessions.
        least_questions: With fewer, defaults serve.
        budget_s: About so many CPU seconds.
        seed: Decides which questions and rows are sampled.
        learner: Learns the second stage.
    """
    defaults = {**DEFAULTS, "candidates": float(candidates)}
    stretches = _stretches(interactions, holdout, least_questions)
    first, _ = stretches[-1]
    asked = sum(len(questions.answer) for _, questions in stretches)
    if asked < least_questions or budget_s <= 0:
        reason = f"{asked} questions, {least_questions} are needed" if budget_s > 0 else "no time was given"
        return Tuned(defaults, None, {"tuned": False, "why": reason})
    draw = np.random.default_rng(seed)
    stages = tuple(Candidates.build(head(interactions, cut), defaults) for cut, _ in stretches)
    questions = Asked(stages, tuple(each for _, each in stretches))
    affordable = max(1, int(QUESTIONS_PER_S * budget_s * questions.ease))
    judged = questions.some(_sample(draw, asked, min(MOST_QUESTIONS, affordable)))
    settings, tried = _settings(judged, defaults, candidates)
    questions = questions.weighted(settings)
    earlier = _earlier(interactions, holdout, settings, seed) if len(stretches) == 1 else None
    second, learned = _ranking(questions, earlier, candidates, budget_s, seed, learner)
    evidence = {
        "tuned": True,
        "learned_from": {"sessions": first, "clicks": int(interactions.session_ptr[first])},
        "asked": asked,
        "stretches": len(stretches),
        "judged_by": len(judged),
        "tried": tried,
        "ranking": learned,
    }
    return Tuned(settings, second, evidence, questions.stages[-1])


def _stretches(interactions: Interactions, holdout: float, least_questions: int) -> list[tuple[int, Questions]]:
    """What is asked about, oldest first: where a stretch of the log begins, in sessions, and its questions.

    Mostly that is the newest `holdout` alone. Where it gives too few questions, or most of its clicks are on items that
    were not known before, as in a small log or after the catalog was replaced, the stretches before it are asked about,
    too, through the newer half of the log at most: what is known of so few says little of the others.
    """
    count = len(interactions.session_ptr) - 1
    found: list[tuple[int, Questions]] = []
    end, wanted = count, least_questions
    for part in range(1, max(1, int(FARTHEST / max(holdout, 1e-9))) + 1):
        first = int((1 - part * holdout) * count)
        known = np.zeros(len(interactions.item_ids), dtype=np.bool_)
        known[interactions.item[: int(interactions.session_ptr[first])]] = True
        part_of = head(interactions, end)
        found.insert(0, (first, questions_of(part_of, first, known)))
        asked = sum(len(questions.answer) for _, questions in found)
        clicked = known[part_of.item[int(part_of.session_ptr[first]) :]]
        if end == count and clicked.sum() < FAMILIAR * len(clicked):
            wanted = asked + 1
        if asked >= wanted:
            break
        end, wanted = first, max(wanted, MOST_QUESTIONS)
    return found


def _earlier(interactions: Interactions, holdout: float, settings: Mapping[str, float], seed: int) -> Lessons | None:
    """Questions of the sessions before those that are learned from, of an index of what was before them, if any."""
    count = len(interactions.session_ptr) - 1
    first, end = int((1 - 2 * holdout) * count), int((1 - holdout) * count)
    if first <= 0:
        return None
    past = head(interactions, first)
    known = np.zeros(len(interactions.item_ids), dtype=np.bool_)
    known[past.item] = True
    questions = questions_of(head(interactions, end), first, known)
    if len(questions.answer) < EARLIER_QUESTIONS[0]:
        return None
    taken = _sample(np.random.default_rng([seed, 3]), len(questions.answer), EARLIER_QUESTIONS[1])
    found = Candidates.build(past, settings).lessons(questions.some(taken), int(settings["candidates"]), 1.0, seed)
    return found if len(found.sizes) else None


def head(interactions: Interactions, sessions: int) -> Interactions:
    """The oldest sessions; the vocabulary stays whole."""
    end = int(interactions.session_ptr[sessions])
    cut: dict[str, Any] = {"session_ptr": interactions.session_ptr[: sessions + 1], "item": interactions.item[:end],
                           "time": interactions.time[:end]}  # fmt: skip
    if interactions.action is not None:
        cut["action"] = interactions.action[:end]
    if interactions.user is not None:
        cut["user"] = interactions.user[:sessions]
    return interactions._replace(**cut)


def ease_of(questions: Questions) -> float:
    """The share of the usual number of questions that costs as much as they do, long sessions being dear; at most 1."""
    return _ease(questions.end - questions.begin)


def _ease(clicks: NDArray[np.int64]) -> float:
    return float(min(1.0, USUAL_CLICKS / max(float(np.minimum(clicks, DEFAULTS["look"]).mean()), 1.0)))


def _sample(draw: np.random.Generator, size: int, wanted: int) -> NDArray[np.int64]:
    """So many different numbers below `size`, rising."""
    return np.sort(draw.permutation(size)[:wanted])


def _settings(judged: Asked, start: dict[str, float], candidates: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Tries one setting after the other; each source by itself, then the weights of the blend."""
    tried: list[dict[str, Any]] = []

    def judge(what: str, settings: Mapping[str, float], change: Mapping[str, float], only: str | None) -> float:
        weights = {} if only is None else {f"weight_{source}": float(source == only) for source in SOURCES}
        asked = judged.weighted({**settings, **change, **weights})
        told = figures(asked.lessons(candidates, -1.0, 0).rank, candidates)
        tried.append({"what": what, "settings": dict(change), **told})
        return told["hr"] + told["mrr"] + (told["recall"] if only is None else 0.0)

    best = dict(start)
    for what, (source, changes) in ALONE.items():
        names = changes[0].keys()
        reached = judge(what, best, {name: best[name] for name in names}, source)
        for change in changes:
            found = judge(what, best, change, source)
            if found > reached + GAIN:
                best, reached = {**best, **change}, found
    reached = judge("blend", best, {}, None)
    for source in SOURCES:
        name = f"weight_{source}"
        for weight in [each for each in WEIGHTS if each != best[name]]:
            found = judge("blend", best, {name: weight}, None)
            if found > reached + GAIN:
                best, reached = {**best, name: weight}, found
    return best, tried


def _ranking(
    questions: Asked, earlier: Lessons | None, candidates: int, budget_s: float, seed: int, learner: Learner
) -> tuple[SecondStage | None, dict[str, Any]]:
    """Learns the second stage, unless it foresees the newest fifth of the questions worse than the blend does.

    Trees can learn by heart which items the time after the index liked, by the popularity that each has in the index;
    that helps with the newest questions, too, and never again. So what puts the answers of an `earlier` time lower than
    the blend does, by more than luck explains, is not used either.
    """
    asked, ease = len(questions), questions.ease
    rows = int(ROWS_PER_S * budget_s)
    keep = float(np.clip(rows / (asked * ease * candidates), *KEEP))
    most = min(asked, max(1, int(ease * rows / (1 + keep * candidates))))
    draw = np.random.default_rng([seed, 1])
    taught = questions.some(_sample(draw, asked, most))
    cut = int(0.8 * most)
    lessons = taught.lessons(candidates, keep, seed)
    told: dict[str, Any] = {"questions": most, "rows": len(lessons.label), "kept_share": round(keep, 4)}
    if len(lessons.sizes) < 2:
        return None, {**told, "why": "too few answers are among the candidates"}
    exam = taught.some(np.arange(cut, most)[-MOST_QUESTIONS:])
    whole = exam.lessons(candidates, 1.0, seed)
    part = first_questions(lessons, cut)
    if len(part.sizes) < 2 or not len(whole.sizes):
        return None, {**told, "why": "too few answers are among the candidates"}
    trials = learner.trials(part, whole)
    exams = {"exam": whole} | ({} if earlier is None else {"exam_of_earlier": earlier})  # the last one may forbid
    lower = set()
    for which, asked_of in exams.items():
        ranks: dict[str, NDArray[Any]] = {"blend": asked_of.rank}
        ranks |= {name: ranked(trial.predict(asked_of.rows), asked_of) for name, trial in trials.items()}
        told[which] = {name: figures(rank, candidates) for name, rank in ranks.items()}
        lower = {name for name, rank in ranks.items() if shown_lower(rank, ranks["blend"])}
    told |= learner.settings
    reached = {name: -1.0 if name in lower else each["hr"] + each["mrr"] for name, each in told["exam"].items()}
    best = max(trials, key=reached.__getitem__)  # of equals the first, which is the simplest
    if reached[best] < reached["blend"]:
        return None, {**told, "why": "the blend alone foresees better"}
    return learner.whole(lessons, trials[best]), {**told, "ranks": best}


def shown_lower(ranks: NDArray[Any], than: NDArray[Any]) -> bool:
    """Whether the same answers stand lower than by other ranks: in MRR, by more than two standard errors."""
    mine, other = (np.where((rank >= 0) & (rank < CUT), 1 / (np.maximum(rank, 0) + 1.0), 0.0) for rank in (ranks, than))
    gain = mine - other
    return bool(len(gain) and gain.mean() < -2 * gain.std() / np.sqrt(len(gain)))


def first_questions(lessons: Lessons, cut: int) -> Lessons:
    """The lessons of the first questions only."""
    answered = int((lessons.rank[:cut] >= 0).sum())
    sizes = lessons.sizes[:answered]
    rows = int(sizes.sum())
    return Lessons(
        lessons.rows[:rows], lessons.label[:rows], sizes, lessons.rank[:cut], lessons.code[:rows],
        lessons.question[:rows],
    )  # fmt: skip
