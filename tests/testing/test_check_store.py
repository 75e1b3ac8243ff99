"""The public checks find a store that breaks its promises."""

import numpy as np
import pytest

from thinslice.records import Item
from thinslice.store.artifacts import MemoryArtifacts
from thinslice.store.live import MemoryLive
from thinslice.store.log import SegmentWriter, read_frames, segments
from thinslice.testing.check_store import check_artifacts, check_intake_log, check_live_store, check_store


class Forgetful(MemoryLive):
    def edit(self, keys, change, *, now):
        changes = change([None for _ in keys])
        self.update(changes, now=now)
        return changes


class Leaky(MemoryLive):
    def sessions(self, keys):
        return [next(iter(self._shared.values()), None) if hasattr(self, "_shared") else None for _ in keys]


class Old(MemoryLive):
    def put_items(self, items):
        return super().put_items([Item(tenant=i.tenant, item_id=i.item_id, updated_at=i.updated_at) for i in items])


@pytest.mark.parametrize(
    ("store", "promise"),
    [
        (Forgetful, "edit returns what it stored"),
        (Leaky, "sessions come back"),
        (Old, "all items come back"),
    ],
)
def test_a_live_store_that_breaks_a_promise_is_named(store, promise):
    with pytest.raises(AssertionError, match=f"broken promise: {promise}"):
        check_live_store(store)


class Rounding(MemoryArtifacts):
    def put(self, tenant, slot, models, manifest):
        halves = {m: {n: a.astype("f2") if a.dtype == "f8" else a for n, a in v.items()} for m, v in models.items()}
        return super().put(tenant, slot, halves, manifest)


class Writable(MemoryArtifacts):
    def load(self, tenant, version):
        models, manifest = super().load(tenant, version)
        return {model: {n: np.array(a) for n, a in arrays.items()} for model, arrays in models.items()}, manifest


@pytest.mark.parametrize(
    ("store", "promise"), [(Rounding, "array weights comes back"), (Writable, "cannot be written")]
)
def test_an_artifact_store_that_breaks_a_promise_is_named(store, promise):
    with pytest.raises(AssertionError, match=promise):
        check_artifacts(store)


class ListLog:
    """A log in a list; `frames` outlives it, as a disk would."""

    def __init__(self, frames, *, lost=0):
        self.frames = frames
        self.lost = lost
        self.open = True

    def append(self, kind, payload):
        if len(self.frames) != self.lost - 1 or not self.lost:
            self.frames.append((kind, payload))
        return len(self.frames)

    def flush(self):
        return len(self.frames)

    def close(self):
        self.open = False


def test_a_log_in_memory_keeps_the_promises_of_a_log():
    frames = []
    check_intake_log(lambda: ListLog(frames), lambda: frames)


def test_a_log_that_loses_a_frame_is_named():
    frames = []
    with pytest.raises(AssertionError, match="broken promise"):
        check_intake_log(lambda: ListLog(frames, lost=20), lambda: frames)


def test_a_store_is_checked_by_the_promise_that_it_makes(tmp_path):
    def frames():
        return [(kind, payload) for path in segments(tmp_path) for kind, payload, _ in read_frames(path)]

    check_store(MemoryLive)
    check_store(MemoryArtifacts)
    check_store(lambda: SegmentWriter(tmp_path, "w"), read=frames)
    with pytest.raises(AssertionError, match="broken promise: edit"):
        check_store(Forgetful)
    with pytest.raises(AssertionError, match="checked with `read`"):
        check_store(lambda: SegmentWriter(tmp_path, "x"))
    with pytest.raises(AssertionError, match="dict is a live store, an intake log or an artifact store"):
        check_store(dict)
