"""The session ranker, the default pipeline: three sources propose items, what was learned from the log ranks them.

Stage 1 (`candidates`) blends session kNN, the two-step walk and the cosine of items; stage 2 (`trees_and_network`)
ranks its best candidates by everything that is known of them. Both are tuned on this log alone, its newest sessions
being asked about after learning from the older ones (`tuning`).
"""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.array_model import PersonalModel
from thinslice.models.candidates import DEFAULTS, Candidates, Found
from thinslice.models.forest import Scored
from thinslice.models.interactions import from_columns
from thinslice.models.lambdamart import Trees, stump
from thinslice.models.people import People
from thinslice.models.people_ranking import LEAST, TIE, Asker, KnownPeople, learn_known, share_of_known, warm_people
from thinslice.models.ranking_features import EVIDENCE, FEATURES, GROUPS, TERMS
from thinslice.models.trees_and_network import ForestWithNetwork, TreesAndNetwork
from thinslice.models.tuning import SecondStage, Tuned, tune
from thinslice.records import Arrays, Interactions, Item, Reason, ScoredItems, User

BLOCKS = 4
"""When a block is not enough, as with a strict `allowed`, so many more are looked at in one go."""

MOST_LEAVES = 32
"""One compiled form of the forest serves: its leaves are bits of 32."""

KNOWN = "known_"
"""The arrays of what is known of people begin so; a log in which nobody is known has none."""


class Ranked(NamedTuple):
    """Candidates of a question, and how they were scored; None: by what stage 1 says."""

    found: Found
    score: NDArray[np.float64]
    scored: Scored | None


class SessionRanker(PersonalModel):
    """Two-stage session ranking; see `fit` for the settings. Threads may ask at the same time."""

    name = "session-ranker"
    second: ClassVar[Any] = ForestWithNetwork
    """What the second stage is."""
    begins: ClassVar[str] = "forest_"
    """The names of its arrays begin so."""
    _warm: ClassVar[bool] = False
    _warming: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._first = Candidates.from_arrays(arrays)
        begins = self.begins
        own = {name.removeprefix(begins): array for name, array in arrays.items() if name.startswith(begins)}
        self._second: SecondStage | None = self.second.from_arrays(own) if own else None
        self._note = json.loads(np.asarray(arrays["note"], dtype=np.uint8).tobytes())
        self._block = int(self._note["settings"]["candidates"])
        self._span = 0.0 if self._second is None else 1.0 + self._second.span
        known = {name.removeprefix(KNOWN): array for name, array in arrays.items() if name.startswith(KNOWN)}
        self._known = KnownPeople.from_arrays(self._first, self._second, known) if known and self._second else None
        self._scratch = threading.local()

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        candidates: int = 100,
        trees: int = 100,
        leaves: int = 31,
        holdout: float = 0.1,
        least_questions: int = 500,
        tune_cpu_s_per_million: float = 60.0,
        without: str = "none",
        users: Sequence[User] = (),
    ) -> Self:
        """Tunes both stages on the clicks, learns the ranking, and builds the index of all clicks.

        No question that the ranking is learned from can see its own future: index and graphs hold the older sessions
        only while those of the newer ones are asked.

        Args:
            interactions: The clicks.
            items: The catalog; only where items are is read, and only clicked ones are learned.
            rng: Decides which wrong candidates are learned from.
            candidates: How many candidates of a question are ranked at once.
            trees: The most trees of the second stage.
            leaves: The most leaves of a tree, at most 64.
            holdout: The share (0..1) of the sessions, the newest, that are asked about.
            least_questions: With fewer questions nothing is tuned or learned, and safe defaults serve.
            tune_cpu_s_per_million: About so many CPU seconds a million clicks may be spent; the work is counted and not
                timed, so that the same clicks always give the same model. Small logs get as much as 500,000 clicks.
            without: A group of features that is left out to see what it brings: neighbors, graphs, vectors, repeats,
                session or popularity; none leaves them all in.
            users: What the shop says of its users: tier, place, attributes; who consented to personalization counts.

        Raises:
            BadInput: A setting is out of its range.
        """
        check_ranker_settings(candidates=candidates, trees=trees, leaves=leaves, holdout=holdout,
                        least_questions=least_questions, tune_cpu_s_per_million=tune_cpu_s_per_million)  # fmt: skip
        if without not in ("none", *GROUPS):
            raise BadInput(f"without must name a group of features ({', '.join(GROUPS)}) or be none, got {without!r}.")
        seed = int(np.random.default_rng(rng).integers(2**31))
        options: dict[str, Any] = {
            "trees": trees, "leaves": leaves, "learning_rate": 0.1, "least_rows": 50, "seed": seed,
            **({} if without == "none" else {"without": without}),
        }  # fmt: skip
        budget_s = tune_cpu_s_per_million * max(0.5, len(interactions.item) / 1e6)
        return cls._learned(
            interactions, items, users, TreesAndNetwork(Trees(options)), candidates=candidates, holdout=holdout,
            least_questions=least_questions, budget_s=budget_s, seed=seed,
        )  # fmt: skip

    @classmethod
    def _learned(
        cls, interactions: Interactions, items: Sequence[Item] | None, users: Sequence[User], learner: Any, *,
        candidates: int, holdout: float, least_questions: int, budget_s: float, seed: int,
    ) -> Self:  # fmt: skip
        """Tuned and learned by a `tuning.Learner` that is a `people_ranking.Corrector`, too."""
        known_s = budget_s * share_of_known(interactions, users, holdout, least_questions)
        tuned = tune(
            interactions, candidates=candidates, holdout=holdout, least_questions=least_questions,
            budget_s=budget_s - known_s, seed=seed, learner=learner,
        )  # fmt: skip
        known, evidence = None, tuned.evidence
        if interactions.user is not None and tuned.second is not None:
            known, told = learn_known(
                interactions, items, users, tuned, holdout=holdout,
                least_questions=least_questions, budget_s=known_s, learner=learner, seed=seed,
            )  # fmt: skip
            evidence = {**evidence, "known_people": told}
        tuned = tuned._replace(evidence=evidence, past=None)
        return cls._of(interactions, tuned, known, items, users)

    def refit(
        self,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        users: Sequence[User] = (),
    ) -> Self:
        """The same settings and second stage over new clicks, for training every minute: a second a million clicks."""
        del rng
        tuned = Tuned(self._note["settings"], self._second, self._note["evidence"])
        return self._of(interactions, tuned, None if self._known is None else self._known.added, items, users)

    @classmethod
    def _of(
        cls, interactions: Interactions, tuned: Tuned, added: SecondStage | None = None,
        items: Sequence[Item] | None = None, users: Sequence[User] = (),
    ) -> Self:  # fmt: skip
        first = Candidates.build(interactions, tuned.settings)
        own = {} if tuned.second is None else tuned.second.arrays()
        named = {cls.begins + name: array for name, array in own.items()}
        if added is not None and tuned.second is not None:
            known = KnownPeople(first, tuned.second, People.build(interactions, items, users), added)
            named |= {KNOWN + name: array for name, array in known.arrays().items()}
        note = json.dumps({"settings": tuned.settings, "evidence": tuned.evidence}, sort_keys=True, allow_nan=False)
        return cls({**first.arrays(), **named, "note": np.frombuffer(note.encode(), dtype=np.uint8)})

    @classmethod
    def ready(cls) -> bool:
        """Whether the kernels are compiled, so that the first question is answered at once."""
        return cls._warm

    @classmethod
    def warm(cls) -> None:
        """Compiles the kernels, or reads them from the cache; training compiles none that serving does not need."""
        with cls._warming:
            if cls._warm:
                return
            log = from_columns(["s", "s", "t", "t"], ["0", "1", "0", "1"], [1.0, 2.0, 3.0, 4.0])
            model = cls._of(log, Tuned({**DEFAULTS, "candidates": 2}, stump(), {}))
            model.explain(["0"], model.recommend(["0", "1"], 2).item_ids[0])
            warm_people()
            cls._warm = True

    @property
    def evidence(self) -> dict[str, Any]:
        """What was tried on this log and what came of it, and the settings that were chosen: JSON values."""
        return {"settings": dict(self._note["settings"]), **self._note["evidence"]}

    def recommend_batch(self, sessions: Sequence[Sequence[str]], k: int) -> list[ScoredItems]:
        """`recommend` for many sessions."""
        return [self.recommend(session, k) for session in sessions]

    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None, *,
        user_id: str | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:  # fmt: skip
        """`recommend` without texts: item codes, oldest first, -1 for unknown; codes and scores, best first.

        Candidates are ranked a block at a time, by blended score, and each block stands before the next; so what is
        not allowed leaves the list and changes no score of the others.
        """
        if allowed is not None and len(allowed) != len(self._vocabulary):
            raise BadInput(f"allowed must have {len(self._vocabulary)} values, one an item, got {len(allowed)}.")
        codes: list[NDArray[np.int32]] = []
        scores: list[NDArray[np.float64]] = []
        first, stop, missing = 0, self._block, max(0, k)
        asker = None if self._known is None else self._known.asker(user_id, session)
        while missing > 0:
            found, score, _ = self._ranked(asker, session, first, stop)
            at = (-score).argsort(kind="stable")  # of equals that which stage 1 put first
            if allowed is not None:
                at = at[np.asarray(allowed[found.codes[at]], dtype=np.bool_)]
            at = at[:missing]
            codes.append(found.codes[at])
            scores.append(score[at])
            missing -= len(at)
            if stop >= found.candidates:
                break
            first, stop = stop, stop + BLOCKS * self._block
        if len(codes) == 1:
            return codes[0], scores[0]
        if not codes:
            return np.empty(0, np.int32), np.empty(0, np.float64)
        return np.concatenate(codes), np.concatenate(scores)

    def _ranked(self, asker: Asker | None, session: NDArray[np.int32], first: int, stop: int) -> Ranked:
        """Candidates number `first` and on, with their scores: those of stage 2 less what a later block gives away.

        Whoever was shown something is asked for again at once, for the reasons: this thread's last question is kept, as
        far as a slate mostly goes.
        """
        asked = np.asarray(session, np.int32).tobytes()
        kept: tuple[Asker | None, bytes, dict[int, Ranked]] | None = getattr(self._scratch, "last", None)
        if kept is None or kept[0] is not asker or kept[1] != asked:
            kept = self._scratch.last = (asker, asked, {})
        ranked = kept[2].get(first)
        if ranked is None:
            ranked = self._rank(asker, session, first, stop)
            if first <= self._block:
                kept[2][first] = ranked
        return ranked

    def _rank(self, asker: Asker | None, session: NDArray[np.int32], first: int, stop: int) -> Ranked:
        if asker is not None and self._known is not None:
            found = self._known.look(asker, session, first, stop)
            scored = self._known.score(found, first, self._block)
            return Ranked(found, scored.score, scored)
        found = self._first.look(session, first, stop)
        if self._second is None:
            return Ranked(found, found.blended.astype(np.float64), None)
        scored = self._second.score(found.rows, self._block)
        score = scored.score + TIE * found.blended
        if first + len(found.codes) > self._block:
            score -= self._span * ((first + np.arange(len(found.codes))) // self._block)
        return Ranked(found, score, scored)

    def explain_all(
        self, session: Sequence[str], item_ids: Sequence[str], *, user_id: str | None = None
    ) -> list[Reason]:
        """`explain` for a whole slate in one pass.

        The evidence of stage 1 is split by the session items that it came from, and what a known person did before
        by that person's items (`history`, `traits` and `distance` are the rest of it); `repeat`, `session`,
        `popularity` and `newness` are what the trees gave (or took) for those features, and `base` is where the trees
        start from.
        """
        names = self._vocabulary
        asked = self._vocabulary.codes(session)
        reasons: dict[str, Reason] = {}
        asker = None if self._known is None else self._known.asker(user_id, asked)
        wanted = {*names.codes(item_ids).tolist()}
        for (found, scores, scored), at in self._blocks_with(asked, wanted, asker):
            score = scores[at]
            known, parts = self._first.parts(asked, found.codes[at])
            gave = None if scored is None else scored.given(at, None)
            before = None
            if asker is not None and self._known is not None and gave is not None:
                before = self._known.people.terms(asker.memory, found.codes[at], gave[:, len(FEATURES) :])
            for n, code in enumerate(found.codes[at].tolist()):
                share = parts[n] / max(parts[n].sum(), 1e-30)
                evidence, terms = float(score[n]), {}
                if gave is not None:
                    evidence = float(gave[n, : len(EVIDENCE)].sum())
                    terms = _kinds(gave[n])
                    if before is not None:
                        items, gave_before, kinds = before
                        terms |= {kind: float(column[n]) for kind, column in kinds.items() if column[n] != 0}
                        for item in np.flatnonzero(gave_before[n]).tolist():
                            name = names[items[item]]
                            terms[name] = terms.get(name, 0.0) + float(gave_before[n, item])
                    terms["base"] = float(score[n]) - evidence - sum(terms.values())
                if not parts[n].sum() > 0:  # no session item proposed it
                    terms["session"] = terms.get("session", 0.0) + evidence
                for item, part in zip(known.tolist(), (evidence * share).tolist(), strict=True):
                    if part != 0:
                        terms[names[item]] = terms.get(names[item], 0.0) + part
                reasons[names[code]] = Reason(names[code], float(score[n]), terms)
        return [reasons.get(item_id, Reason(item_id, 0.0, {})) for item_id in item_ids]

    def causes(
        self, session: Sequence[str], item_ids: Sequence[str], *, user_id: str | None = None
    ) -> list[str | None]:
        """The session item that gave most of each score, where what is known of the session's items raised it.

        For somebody who is known it may be an item of the history as well.

        Args:
            session: Item ids, oldest first.
            item_ids: Items of the vocabulary; others have no cause.
            user_id: Who asks.

        Returns:
            One item an item, None where no item speaks for it: no cause has a negative term in `explain`.
        """
        names, find = self._vocabulary, self._vocabulary.code.get
        asked = names.codes(session)
        asker = None if self._known is None else self._known.asker(user_id, asked)
        codes = [find(item_id, -1) for item_id in item_ids]
        cause: dict[int, int] = {}
        for ranked, at in self._blocks_with(asked, {*codes}, asker):
            items = self._causes(asker, asked, ranked, at)
            cause.update(zip(ranked.found.codes[at].tolist(), items, strict=True))
        named = {item: names[item] for item in {*cause.values()} if item >= 0}
        return [named.get(cause.get(code, -1)) for code in codes]

    def _causes(
        self, asker: Asker | None, session: NDArray[np.int32], ranked: Ranked, at: NDArray[np.int64]
    ) -> list[int]:
        """The item that gave most of each score, -1 where none did, or the evidence of all lowered the score."""
        codes = ranked.found.codes[at]
        gave = None if ranked.scored is None else ranked.scored.given(at, len(EVIDENCE))
        if asker is not None and self._known is not None and gave is not None:
            mine: list[int] = self._known.causes(asker, session, codes, ranked.found.rows[at], gave).tolist()
            return mine
        clicked = {*session.tolist()} - {-1}
        items = [*clicked] * len(at)  # one item proposed everything
        if len(clicked) > 1:
            known, parts = self._first.parts(session, codes)
            items = known[parts.argmax(axis=1)].tolist()
        if gave is None:
            return items
        return [item if worth > LEAST else -1 for item, worth in zip(items, gave.tolist(), strict=True)]

    def bought(self, user_id: str | None, among: Iterable[str] | None = None) -> frozenset[str]:
        """What a known person bought, of some items or of all, as far as it is remembered."""
        return frozenset() if self._known is None else self._known.people.bought(user_id, self._vocabulary, among)

    def _blocks_with(
        self, session: NDArray[np.int32], wanted: Set[int], asker: Asker | None
    ) -> Iterator[tuple[Ranked, NDArray[np.int64]]]:
        """Candidates of a session in blocks, and which of each are wanted, until all wanted items came."""
        first, stop, missing = 0, self._block, len(wanted - {-1})
        while missing > 0:
            ranked = self._ranked(asker, session, first, stop)
            at = [place for place, code in enumerate(ranked.found.codes.tolist()) if code in wanted]
            yield ranked, np.array(at, np.int64)
            missing -= len(at)
            if stop >= ranked.found.candidates:
                return
            first, stop = stop, stop + BLOCKS * self._block


def _kinds(gave: NDArray[np.float64]) -> dict[str, float]:
    """Contributions of the features that are no evidence, added by the name of their kind; zeros left out."""
    kinds: dict[str, float] = {}
    for feature, value in zip(FEATURES[len(EVIDENCE) :], gave[len(EVIDENCE) : len(FEATURES)].tolist(), strict=True):
        kind = TERMS[feature]
        kinds[kind] = kinds.get(kind, 0.0) + value
    return {name: value for name, value in kinds.items() if value != 0}


def check_ranker_settings(**settings: float) -> None:
    """Refuses settings out of their range.

    Raises:
        BadInput: One is; the message says which, and the range.
    """
    for name, most in (("candidates", 1000), ("trees", 1000), ("leaves", MOST_LEAVES), ("least_questions", 2**31)):
        least = 2 if name == "leaves" else 1
        if name in settings and not (least <= settings[name] <= most and settings[name] == int(settings[name])):
            raise BadInput(f"{name} must be a whole number between {least} and {most}, got {settings[name]}.")
    if not 0 < settings["holdout"] <= 0.5:
        raise BadInput(f"holdout must be more than 0 and at most 0.5, got {settings['holdout']}.")
    if not 0 <= settings["tune_cpu_s_per_million"] <= 1e6:
        raise BadInput(
            f"tune_cpu_s_per_million must be between 0 and 1,000,000, got {settings['tune_cpu_s_per_million']}."
        )
