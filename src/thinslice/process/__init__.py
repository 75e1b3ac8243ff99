"""The process tree of `serve`: a small parent, N web workers, one jobs process, and training in a child of its own."""

from thinslice.process.parent import Service

__all__ = ["Service"]
