"""Objectives: what a click on an item is worth, when a purchase counts more than a look and a report counts against it.

The worth of an item for this visitor is its relevance (0.05 to 1, the model's scores scaled within the slate) times the
sum over the objectives of weight × the predicted chance of that action when the item is clicked. The chances come from
what visitors did with the item, drawn towards the mean of the shop where little is known.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models import Vocabulary
from thinslice.records import ACTIONS, Arrays, Interactions

CLICK = "click"
"""The action that is certain: an objective for what the ranking itself predicts."""

REFUSALS = frozenset({"refund", "report", "hide"})
"""Actions that are no look at an item: they happen later, or without one."""

RATES = "action-rates"
"""What the chances of actions are called in a bundle of models."""

PSEUDO_COUNT = 50.0
"""The shop's mean weighs as many sessions as this in each item's chances."""


class ActionRates:
    """How often a session with an item goes on to each action with it.

    Its arrays: the vocabulary, `rate` (items, actions), `mean` (actions,), `looks` (items,) and `pseudo_count`.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._vocabulary = Vocabulary.from_arrays(arrays)
        self._rate = np.asarray(arrays["rate"])
        self._looks = np.asarray(arrays["looks"])
        self.mean = np.asarray(arrays["mean"])
        self.pseudo_count = float(arrays["pseudo_count"][0])

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        *,
        refusals: Mapping[str, Mapping[str, int]] | None = None,
        pseudo_count: float = PSEUDO_COUNT,
    ) -> Self:
        """Counts sessions: those that looked at an item, and those that did each action with it.

        Args:
            interactions: The clicks with their actions; without actions every chance is 0.
            refusals: Action → item → sessions that did it, for actions that are no part of the clicks.
            pseudo_count: How many sessions the mean of the shop weighs.

        Raises:
            BadInput: `pseudo_count` is not positive.
        """
        items = len(interactions.item_ids)
        lengths = np.diff(interactions.session_ptr)
        session = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
        action = interactions.action if interactions.action is not None else np.zeros(len(session), dtype=np.uint8)
        pair = session * items + interactions.item
        refusal = np.array([name in REFUSALS for name in ACTIONS])

        def sessions(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
            return np.bincount(np.unique(pair[rows]) % max(items, 1), minlength=items)

        did = np.stack([sessions(action == code) for code in range(len(ACTIONS))], axis=1)
        for name, counts in (refusals or {}).items():
            told = [counts.get(item_id, 0) for item_id in interactions.item_ids]
            did[:, ACTIONS.index(name)] += np.array(told, dtype=np.int64)
        return cls.from_counts(interactions.item_ids, sessions(~refusal[action]), did, pseudo_count=pseudo_count)

    @classmethod
    def from_counts(
        cls, item_ids: Sequence[str], looks: NDArray[Any], did: NDArray[Any], *, pseudo_count: float = PSEUDO_COUNT
    ) -> Self:
        """From counted sessions.

        Args:
            item_ids: What was counted.
            looks: Shape (items,): sessions that looked at each.
            did: Shape (items, actions), in the order of `records.ACTIONS`: sessions that did each action with it.
            pseudo_count: How many sessions the mean of the shop weighs.
        """
        if not pseudo_count > 0:
            raise BadInput(f"pseudo_count must be positive, got {pseudo_count}.")
        mean = np.minimum(1.0, did.sum(axis=0) / max(float(looks.sum()), 1.0))
        rate = np.minimum(1.0, (did + pseudo_count * mean) / (looks + pseudo_count)[:, None])
        return cls(
            {
                **Vocabulary(item_ids).arrays(),
                "rate": rate.astype(np.float32),
                "mean": mean,
                "looks": np.asarray(looks, dtype=np.float32),
                "pseudo_count": np.array([pseudo_count]),
            }
        )

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """The same rates from what `arrays` gave."""
        return cls(arrays)

    def arrays(self) -> Arrays:
        """Everything that they are."""
        return {**self._vocabulary.arrays(), "rate": self._rate, "mean": self.mean, "looks": self._looks,
                "pseudo_count": np.array([self.pseudo_count])}  # fmt: skip

    @property
    def item_ids(self) -> Sequence[str]:
        """The items that anything is known of."""
        return self._vocabulary

    def chances(self, item_ids: Sequence[str], objectives: Sequence[str]) -> NDArray[np.float64]:
        """The chance of each action when an item is clicked, shape (items, objectives), 1 for `click`.

        An item that nothing is known of has the shop's mean.

        Raises:
            BadInput: An objective is no action.
        """
        unknown = [name for name in objectives if name != CLICK and name not in ACTIONS]
        if unknown:
            raise BadInput(f"{unknown[0]!r} is no objective (there is: {CLICK}, {', '.join(ACTIONS)}).")
        find = self._vocabulary.code.get
        code = np.array([find(item_id, -1) for item_id in item_ids], dtype=np.int64)
        found = np.ones((len(item_ids), len(objectives)))
        for column, name in enumerate(objectives):
            if name != CLICK:
                action = ACTIONS.index(name)
                known = self._rate[code, action] if len(self._rate) else np.zeros(len(code))
                found[:, column] = np.where(code >= 0, known, self.mean[action])
        return found


class Worth(NamedTuple):
    """What items are worth.

    Attributes:
        value: Shape (items,): relevance × worth of a click.
        terms: Shape (items, objectives): the parts of each value, which sum to it.
        per_click: Shape (items,): the worth of a click on each.
    """

    value: NDArray[np.float64]
    terms: NDArray[np.float64]
    per_click: NDArray[np.float64]


def worth(
    item_ids: Sequence[str], relevance: NDArray[np.float64], rates: ActionRates, objectives: Mapping[str, float]
) -> Worth:
    """Relevance × Σ weight × chance, for each item.

    Args:
        item_ids: Candidates.
        relevance: Shape (items,), positive.
        rates: Of the shop.
        objectives: Action (or `click`) → weight; negative ones count against an item.

    Raises:
        BadInput: An objective is no action.
    """
    weight = np.array(list(objectives.values()), dtype=np.float64)
    parts = rates.chances(item_ids, list(objectives)) * weight
    terms = parts * np.asarray(relevance, dtype=np.float64)[:, None]
    return Worth(terms.sum(axis=1), terms, parts.sum(axis=1))


def terms_of(score: float, item_id: str, rates: ActionRates, objectives: Mapping[str, float]) -> dict[str, float]:
    """What each objective adds to a score that `worth` made: objective → part; the parts sum to the score."""
    part = rates.chances([item_id], list(objectives))[0] * np.array(list(objectives.values()))
    total = float(part.sum())
    return {name: score * float(each) / total for name, each in zip(objectives, part, strict=True)} if total else {}
