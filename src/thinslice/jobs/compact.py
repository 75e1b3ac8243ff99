"""Compaction: the workers' logs become lake tables, soon enough for reports and in files large enough to read."""

import msgspec

from thinslice.settings import Lake as LakeSettings
from thinslice.settings import Workspace
from thinslice.store.log import segments

ITEMS_WAIT_S = 15.0
"""New items wait at most so long (seconds) in the log."""


def log_bytes(workspace: Workspace) -> int:
    """How many bytes of the intake log are not in the lake yet."""
    total = 0
    covered = covered_bytes(workspace)
    if workspace.log.is_dir():
        for path in segments(workspace.log):
            try:
                total += max(0, path.stat().st_size - covered.get(path.name, 0))
            except FileNotFoundError:
                continue  # compacted and deleted between the two looks
    return total


def covered_bytes(workspace: Workspace) -> dict[str, int]:
    """Segment → how many of its bytes the lake holds, as the compactor noted."""
    try:
        return msgspec.json.decode((workspace.log / "covered.json").read_bytes(), type=dict[str, int])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def is_due(settings: LakeSettings, *, waited_s: float, grown_bytes: int, new_items: bool = False) -> bool:
    """Whether it is time: after `commit_every_s` seconds or `commit_mb` megabytes, whichever comes first.

    With new items in the log it is time after `ITEMS_WAIT_S`: within a minute they are to be recommended.
    """
    if new_items and waited_s >= ITEMS_WAIT_S:
        return True
    return waited_s >= settings.commit_every_s or grown_bytes >= settings.commit_mb * 1_000_000
