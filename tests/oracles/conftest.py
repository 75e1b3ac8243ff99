"""The scripts here need packages of virtual environments of their own: they are no tests and hold no doctests."""

collect_ignore_glob = ["*_numbers.py"]
