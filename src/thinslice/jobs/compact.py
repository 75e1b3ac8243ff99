"""Compaction: the workers' logs become lake tables, soon enough for reports and in files large enough to read."""

from thinslice.settings import Lake as LakeSettings
from thinslice.settings import Workspace


def log_bytes(workspace: Workspace) -> int:
    """How many bytes the intake log holds on the disk, whether or not they are in the lake already."""
    total = 0
    if workspace.log.is_dir():
        for path in workspace.log.iterdir():
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue  # compacted and deleted between the two looks
    return total


def is_due(settings: LakeSettings, *, waited_s: float, grown_bytes: int) -> bool:
    """Whether it is time: after `commit_every_s` seconds or `commit_mb` megabytes, whichever comes first."""
    return waited_s >= settings.commit_every_s or grown_bytes >= settings.commit_mb * 1_000_000
