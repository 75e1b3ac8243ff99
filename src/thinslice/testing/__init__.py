"""Checks for authors of extensions: each takes your class and says, with the values, which promise it breaks."""

from thinslice.testing.check_model import check_checkerboard, check_model, checkerboard, small_world
from thinslice.testing.check_store import check_artifacts, check_intake_log, check_live_store, check_store

__all__ = [
    "check_artifacts", "check_checkerboard", "check_intake_log", "check_live_store", "check_model", "check_store",
    "checkerboard", "small_world",
]  # fmt: skip
