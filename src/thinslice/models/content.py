"""Content: what resembles the items of this session in attributes, words, price and the vectors that the shop supplies.

It knows every item of the feed, clicked or not, so a new item is recommendable as soon as the model is built again, and
a session of nothing but new items gets an answer. Building reads the feed only: seconds for 100,000 items.
"""

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadInput
from thinslice.models.array_model import ArrayModel
from thinslice.models.item_features import Features, features, supplied
from thinslice.models.item_to_item import checked_mask, kernel, plain, terms_by_item
from thinslice.models.popular import Popular
from thinslice.models.vocabulary import Vocabulary
from thinslice.records import Arrays, Interactions, Item, Reason, ScoredItems

LOOK = 10
"""A session's newest known clicks that make its profile."""

NOTHING_ALIKE = 1e-6
"""A similarity up to this is none."""

LIKED = 1e-3
"""What is clicked most counts so much (a share) more than what is clicked least: of items that resemble the session
equally, as all of a category do where a feed says little else, the liked one comes first, and then the newer."""


class Content(ArrayModel):
    """Cosine of features plus cosine of supplied vectors, added over the session's clicks, newer ones counting more.

    An item is no evidence for itself: what was viewed comes again only if other clicks resemble it.
    """

    name = "content"
    _warm: ClassVar[bool] = False

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._rows = tuple(plain(arrays[name]) for name in ("item_ptr", "feature", "feature_weight"))
        self._postings = tuple(plain(arrays[name]) for name in ("posting_ptr", "posting", "posting_weight"))
        self._vectors = plain(arrays["vectors"])
        self._liked = 1 + LIKED * np.asarray(arrays["liked"], dtype=np.float64)
        self._share, self._decay = (float(value) for value in arrays["limits"])

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        items: Sequence[Item] | None = None,
        *,
        rng: np.random.Generator | int | None = None,
        attributes: float = 1.0,
        text: float = 1.0,
        vectors: float = 1.0,
        decay: float = 3.0,
    ) -> Self:
        """Reads the feed.

        Args:
            interactions: Clicked items that the feed lacks are known, and resemble nothing; how often an item was
                clicked lately decides between those that resemble the session equally.
            items: The feed: kind, categories, brand, level, creator_id, price_minor, currency, attributes, title,
                description and vectors are read; of equals, those published later come first.
            rng: Not needed: nothing is random.
            attributes: Weight of attributes, price among them.
            text: Weight of the words of title and description.
            vectors: Weight of supplied vectors beside attributes and text together, which weigh 1.
            decay: Clicks after which a click of the session counts 1/e as much as the newest.

        Raises:
            BadInput: A setting is out of its range.
        """
        del rng
        if min(attributes, text, vectors) < 0 or max(attributes, text) <= 0 or not 0.1 <= decay <= 1e6:
            raise BadInput(
                "attributes, text and vectors must not be below 0, attributes or text above 0, and decay from 0.1, "
                f"got {attributes}, {text}, {vectors} and {decay}."
            )
        feed = {item.item_id: item for item in items or []}
        names = sorted(feed.keys() | set(interactions.item_ids))
        each = [feed.get(name) for name in names]
        table = features(each, attributes=attributes, text=text)
        given, report = supplied(each)
        posting_ptr, posting, posting_weight = _turned(table)
        described = (np.diff(table.ptr) > 0) | (np.abs(given).sum(axis=0) > 0)
        evidence = {
            "items": len(names),
            "items_in_feed": len(feed),
            "items_with_content": int(described.sum()),
            "features": table.size,
            "vectors": report,
        }
        return cls(
            {
                "item_ptr": table.ptr,
                "feature": table.feature,
                "feature_weight": table.weight,
                "posting_ptr": posting_ptr,
                "posting": posting,
                "posting_weight": posting_weight,
                "vectors": given,
                "liked": _liked(names, interactions, each),
                "limits": np.array([vectors, decay]),
                "evidence": np.frombuffer(json.dumps(evidence, sort_keys=True).encode(), dtype=np.uint8),
                **Vocabulary(names).arrays(),
            }
        )

    @classmethod
    def ready(cls) -> bool:
        """Whether a question is answered at once."""
        return cls._warm

    @classmethod
    def warm(cls) -> None:
        """Compiles the kernels, or reads them from the cache of an earlier run."""
        if not cls._warm:
            ones, codes = plain(np.ones(1, np.float32)), plain(np.zeros(1, np.int32))
            ptr, vectors = plain(np.array([0, 1])), plain(np.zeros((0, 1), np.float32))
            _kernel().score_all(codes, np.ones(1), ptr, codes, ones, np.zeros(0), vectors)
            _kernel().pairs(codes, codes, ptr, codes, ones, vectors, 1.0)
            kernel().best(np.zeros(1, np.int32), np.ones(1), 1)
            Content._warm = True

    @property
    def evidence(self) -> dict[str, Any]:
        """What was read and what was left out: items, items_with_content, and per name of vectors used and refused."""
        found: dict[str, Any] = json.loads(np.asarray(self._arrays["evidence"]).tobytes())
        return found

    def similar(self, item_id: str, k: int, *, allowed: NDArray[np.bool_] | None = None) -> ScoredItems:
        """The `k` items that resemble one most, itself left out: for its page, also when nobody has clicked it yet."""
        return self.recommend([item_id], k, allowed=allowed)

    def recommend_codes(
        self, session: NDArray[np.int32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """`recommend` without texts: item codes, oldest first, -1 for unknown; codes and scores, best first."""
        mask = checked_mask(allowed, len(self._vocabulary))
        clicks, worth = self._clicks(session)
        if not len(clicks):
            return np.empty(0, np.int32), np.empty(0, np.float64)
        ptr, feature, weight = self._rows
        inside = [slice(ptr[code], ptr[code + 1]) for code in clicks.tolist()]
        profile, place = np.unique(np.concatenate([feature[each] for each in inside]), return_inverse=True)
        parts = np.concatenate([weight[each] * value for each, value in zip(inside, worth.tolist(), strict=True)])
        vector = (self._vectors[:, clicks].astype(np.float64) * worth).sum(axis=1) * self._share
        score = _kernel().score_all(
            profile, np.bincount(place, parts, len(profile)), *self._postings, vector, self._vectors
        )
        seen = np.unique(clicks)
        score[seen] = self._similar(seen, clicks) @ worth
        score *= self._liked
        good = score > NOTHING_ALIKE
        if mask.size:
            good &= mask
        codes = np.flatnonzero(good).astype(np.int32)
        found: tuple[NDArray[np.int32], NDArray[np.float64]] = kernel().best(codes, score[codes], max(k, 0))
        return found

    def explain_all(self, session: Sequence[str], item_ids: Sequence[str]) -> list[Reason]:
        """`explain` for a whole slate in one pass."""
        clicks, worth = self._clicks(self._vocabulary.codes(session))
        codes = self._vocabulary.codes(item_ids)
        parts = self._similar(np.maximum(codes, 0), clicks) * worth * self._liked[np.maximum(codes, 0), None]
        names = [self._vocabulary[code] for code in clicks.tolist()]
        return [
            Reason(item_id, float(parts[n].sum()), terms_by_item(names, parts[n]))
            if codes[n] >= 0 and parts[n].sum() > NOTHING_ALIKE
            else Reason(item_id, 0.0, {})
            for n, item_id in enumerate(item_ids)
        ]

    def _clicks(self, session: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """The newest known clicks, oldest first, and what each counts."""
        clicks = np.ascontiguousarray(session[session >= 0][-LOOK:], dtype=np.int32)
        return clicks, np.exp(-np.arange(len(clicks) - 1, -1, -1) / self._decay)

    def _similar(self, left: NDArray[np.int32], right: NDArray[np.int32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = _kernel().pairs(plain(left), plain(right), *self._rows, self._vectors, self._share)
        return found


def _liked(names: Sequence[str], interactions: Interactions, items: Sequence[Item | None]) -> NDArray[np.float32]:
    """Shape (items,): the share (0 to below 1) of the items that are clicked less these days, or as much and older."""
    popular = Popular.fit(interactions)
    clicks = dict(zip(popular.item_ids, popular.arrays()["score"].tolist(), strict=True))
    clicked = np.array([clicks.get(name, 0.0) for name in names])
    published = np.array([
        item.published_at.timestamp() if item is not None and item.published_at is not None else -np.inf
        for item in items
    ])  # fmt: skip
    order = np.lexsort((published, clicked))
    same = (np.diff(clicked[order]) == 0) & (published[order][1:] == published[order][:-1])
    place = np.arange(len(order))
    place[1:][same] = 0
    share = np.empty(len(order), dtype=np.float32)
    share[order] = np.maximum.accumulate(place) / max(len(order), 1)
    return share


def _turned(table: Features) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """The same entries by feature instead of by item: where each feature starts, its items, their weights."""
    from scipy.sparse import csr_matrix

    shape = (len(table.ptr) - 1, table.size)
    turned = csr_matrix((table.weight, table.feature, table.ptr), shape=shape).tocsc()
    return turned.indptr.astype(np.int64), turned.indices.astype(np.int32), turned.data


def _kernel() -> Any:
    """The compiled loops; imported late, because the compiler takes half a second that `thinslice --help` has not."""
    from thinslice.models import content_kernel

    return content_kernel
