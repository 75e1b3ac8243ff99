"""Thinslice: recommendations from a thin slice of behavior, and the experiments that prove they help."""

__version__ = "0.1.0"
