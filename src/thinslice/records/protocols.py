"""The promises that rooms make to each other: a model, a live store, an intake log, an artifact store."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from thinslice.records.item import Item
from thinslice.records.session import LiveSession

Arrays = dict[str, NDArray[Any]]
"""What a model is made of on disk: names to arrays, no objects inside."""


ACTIONS = ("view_item", "select_item", "add_to_cart", "add_to_wishlist", "purchase", "refund", "report", "hide")
"""What a click of `Interactions.action` may be, the weakest interest first and the refusals last."""


class Interactions(NamedTuple):
    """What a model learns from: clicks grouped by session, sessions oldest first by the time of their last click.

    Attributes:
        session_ptr: Shape (sessions + 1,), int64; clicks of session s are `item[session_ptr[s]:session_ptr[s + 1]]`.
        item: Shape (clicks,), int32, codes into `item_ids`, oldest first inside a session.
        time: Shape (clicks,), float64, unix seconds; an order index when `order_only`.
        item_ids: The vocabulary, one text id a code.
        order_only: True when `time` only tells the order, so that decays count positions instead of seconds.
        action: Shape (clicks,), uint8, codes into `records.ACTIONS`; None when every click is a view.
        user: Shape (sessions,), int32, codes into `user_ids`, -1 for anonymous sessions; None when nobody is known.
        user_ids: The known users, one text id a code.
    """

    session_ptr: NDArray[np.int64]
    item: NDArray[np.int32]
    time: NDArray[np.float64]
    item_ids: list[str]
    order_only: bool = False
    action: NDArray[np.uint8] | None = None
    user: NDArray[np.int32] | None = None
    user_ids: Sequence[str] = ()


class ScoredItems(NamedTuple):
    """A ranking with its scores, best first; `source` names the model that made it."""

    item_ids: list[str]
    scores: list[float]
    source: str


class Reason(NamedTuple):
    """Why an item was ranked: its terms (session item id → share of the score), which sum to `score`."""

    item_id: str
    score: float
    terms: dict[str, float]


@runtime_checkable
class Model(Protocol):
    """A recommender: arrays in, ranked items out; knows nothing of tenants, experiments, rules or disks.

    Every model class also has a classmethod `fit(interactions, items, *, rng, **settings) -> Model` and a classmethod
    `from_arrays(arrays) -> Model`. `allowed` is a boolean mask over `item_ids`; None allows all. A model that also
    knows users has the attribute `knows_users = True`, and its `recommend` and `explain` take `user_id` as a keyword.
    """

    name: str
    item_ids: Sequence[str]

    def recommend(self, session: Sequence[str], k: int, *, allowed: NDArray[np.bool_] | None = None) -> ScoredItems:
        """The best `k` items for a session (item ids, oldest first, unknown ones are passed over)."""
        ...

    def explain(self, session: Sequence[str], item_id: str) -> Reason:
        """The terms that made the score of one item."""
        ...

    def arrays(self) -> Arrays:
        """What `from_arrays` needs to make the same model again."""
        ...


class LiveStore(Protocol):
    """What request time shares between workers: live sessions and the catalog as it is this second."""

    def sessions(self, keys: Sequence[tuple[str, str]]) -> list[LiveSession | None]:
        """Live sessions by (tenant, visitor or session id); None where there is none or it has expired."""
        ...

    def update(self, changes: Mapping[tuple[str, str], LiveSession], *, now: float) -> None:
        """Stores sessions in one write transaction; they expire by their `last_at`."""
        ...

    def edit(
        self,
        keys: Sequence[tuple[str, str]],
        change: Callable[[list[LiveSession | None]], Mapping[tuple[str, str], LiveSession]],
        *,
        now: float,
    ) -> Mapping[tuple[str, str], LiveSession]:
        """Reads sessions, changes and stores them with no other writer in between; returns what `change` returned."""
        ...

    def put_items(self, items: Iterable[Item]) -> int:
        """Stores catalog items and returns the new catalog sequence number."""
        ...

    def item_changes(self, tenant: str, after: int, most: int | None = None) -> tuple[int, list[Item]]:
        """The sequence number up to which a tenant's changes after `after` are told, and those items, oldest first.

        At most `most` of them are told: ask again from that number for the rest.
        """
        ...

    def forget(self, tenant: str, visitor_id: str) -> None:
        """Drops one visitor at once."""
        ...

    def sweep(self, *, now: float, limit: int = 1000) -> int:
        """Drops what has expired, at most `limit` rows, and returns how many."""
        ...


class IntakeLog(Protocol):
    """An append log of frames: durable before it is acknowledged, readable up to the first torn frame."""

    def append(self, kind: int, payload: bytes) -> int:
        """Writes one frame and returns a ticket; the frame survives a crash of the process."""
        ...

    def flush(self) -> int:
        """Makes everything written so far survive a power loss and returns the newest durable ticket."""
        ...

    def close(self) -> None:
        """Flushes and closes."""
        ...


class Artifacts(Protocol):
    """Immutable named arrays by content hash, and the pointers that say which of them is live."""

    def put(self, tenant: str, slot: str, models: Mapping[str, Arrays], manifest: Mapping[str, Any]) -> str:
        """Stores one trained generation and returns its version (the hash of its content)."""
        ...

    def promote(self, tenant: str, slot: str, version: str) -> None:
        """Makes a version the live one of a slot."""
        ...

    def live(self, tenant: str) -> dict[str, str]:
        """Slot → live version."""
        ...

    def load(self, tenant: str, version: str) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """Memory-mapped arrays of each model and the manifest; raises Corrupt when a checksum does not match."""
        ...

    def versions(self, tenant: str) -> Iterator[dict[str, Any]]:
        """Every kept version, newest first: name, version, sha256, lake_version, live."""
        ...
