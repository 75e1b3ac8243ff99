"""Checks for authors of extensions: each takes your class and says, with the values, which promise it breaks."""

from thinslice.testing.check_model import check_checkerboard, check_model, checkerboard, small_world

__all__ = ["check_checkerboard", "check_model", "checkerboard", "small_world"]
