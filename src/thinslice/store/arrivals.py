"""Which files brought rows to a table of the lake between two versions: each row once, also where files were joined."""

import hashlib
import json
from pathlib import Path
from urllib.parse import unquote


def arrivals(folder: Path, since: int, until: int) -> list[str] | None:
    """The files that were appended after one version, up to and with another.

    Joining small files moves rows and brings none: what it wrote is passed over, and what it replaced is read as it was
    appended, as long as it is there.

    Args:
        folder: The table's.
        since: The older version.
        until: The newer one.

    Returns:
        Paths in order of their commits; None when that cannot be told any more: a commit or a file is gone, or rows
        were taken away or written anew.
    """
    found = []
    for version in range(since + 1, until + 1):
        try:
            lines = _commit(folder, version).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return None
        for line in lines:
            action = json.loads(line)
            if action.get("remove", {}).get("dataChange", False):
                return None
            if action.get("add", {}).get("dataChange", False):
                found.append(folder / unquote(action["add"]["path"]))
    if not all(path.is_file() for path in found):
        return None
    return [str(path) for path in found]


def commit_digest(folder: Path, version: int) -> str | None:
    """What tells a commit from another one of the same number; None when it is gone.

    A lake that was restored has other commits under numbers that were there before.
    """
    try:
        return hashlib.sha256(_commit(folder, version).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _commit(folder: Path, version: int) -> Path:
    return folder / "_delta_log" / f"{version:020d}.json"
