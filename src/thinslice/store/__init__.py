"""The store: intake log, lake, live state, artifacts, keys. Import the file you need; the lake is heavy."""
