"""Keeps what a rehearsal found beside a tenant's reports, so that the console shows it."""

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from thinslice.settings import Workspace, read_settings


def whose(workspace: Workspace, tenant: str | None) -> str | None:
    """Whose rehearsal it is: the tenant that was named, or the workspace's only one; None where there is none."""
    if not workspace.settings_file.is_file():
        return None
    tenants = list(read_settings(workspace).tenants)
    if tenant is not None:
        return tenant if tenant in tenants else None
    return tenants[0] if len(tenants) == 1 else None


def keep_rehearsal(workspace: Workspace, tenant: str, found: dict[str, Any], sentence: str, now: datetime) -> Path:
    """Writes a rehearsal so that a reader sees the old one or the new one, never half of it.

    Args:
        workspace: Whose `reports` folder it goes to.
        tenant: Whose it is; what an experiment's file says is nobody else's business.
        found: As `thinslice rehearse --json` prints it.
        sentence: What it comes down to.
        now: Aware.
    """
    folder = workspace.reports / f"{tenant}.rehearsals"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found['scenario']}.json"
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_bytes(msgspec.json.encode({**found, "sentence": sentence, "as_of": now}))
    draft.replace(path)
    return path
