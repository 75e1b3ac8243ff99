"""Who may see the console: an admin key or a one-time link becomes a signed cookie; nothing is kept on the server."""

import base64
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request

from thinslice.serving.issued import read_secret
from thinslice.settings import Workspace
from thinslice.store.keys import Keys

COOKIE = "ts_console"
COOKIE_LIFE_S = 12 * 3600
"""A login lasts half a day."""

TOKEN_LIFE_S = 3600
"""A one-time link may be used for an hour."""

_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Visitor(NamedTuple):
    """Who is logged in: whose data, as what, and by which key (its id; empty for a one-time link)."""

    tenant: str
    role: str
    key_id: str = ""


def issue_token(workspace: Workspace, tenant: str, *, role: str = "admin", now: float | None = None) -> str:
    """Makes a token for one login; only its hash is kept.

    Args:
        workspace: Where the hash is kept.
        tenant: Whose console it opens.
        role: What the login may do.
        now: Unix seconds, the clock's when None.
    """
    token = secrets.token_urlsafe(24)
    at = time.time() if now is None else now
    with _tokens(workspace) as tokens:
        tokens[_digest(token)] = (tenant, role, at + TOKEN_LIFE_S)
    return token


def redeem_token(workspace: Workspace, token: str, *, now: float | None = None) -> Visitor | None:
    """The login that a token stands for, once; None when it is unknown, used or too old."""
    at = time.time() if now is None else now
    with _tokens(workspace) as tokens:
        for digest in [digest for digest, (_, _, expires) in tokens.items() if expires < at]:
            del tokens[digest]
        found = tokens.pop(_digest(token), None)
    return None if found is None else Visitor(found[0], found[1])


def seal(workspace: Workspace, visitor: Visitor, *, now: float | None = None) -> str:
    """The cookie's value of a login."""
    expires = int((time.time() if now is None else now) + COOKIE_LIFE_S)
    content = json.dumps([visitor.tenant, visitor.role, expires, visitor.key_id]).encode()
    return _text(content) + "." + _text(_sign(workspace, content))


def unseal(workspace: Workspace, value: str, *, now: float | None = None) -> Visitor | None:
    """The login of a cookie's value; None when it is forged, broken or too old."""
    content_text, _, signature_text = value.partition(".")
    try:
        content, signature = _bytes(content_text), _bytes(signature_text)
    except ValueError:
        return None
    written_otherwise = value != f"{_text(content)}.{_text(signature)}"  # base64 takes + for -, and unused last bits
    if written_otherwise or not hmac.compare_digest(signature, _sign(workspace, content)):
        return None
    tenant, role, expires, *key_id = json.loads(content)
    at = time.time() if now is None else now
    return Visitor(tenant, role, *key_id) if at < expires else None


def visitor_of(request: Request, workspace: Workspace, keys: Keys) -> Visitor | None:
    """Who sent a request; None when nobody is logged in, or by a key that was revoked since."""
    visitor = unseal(workspace, request.cookies.get(COOKIE, ""))
    return None if visitor is None or (visitor.key_id and not keys.works(visitor.key_id)) else visitor


def same_origin(request: Request) -> bool:
    """Whether an unsafe request comes from our own page: its Origin must name the host that it was sent to."""
    if request.method not in _UNSAFE:
        return True
    origin = request.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == request.headers.get("host", "")


def _sign(workspace: Workspace, content: bytes) -> bytes:
    return hmac.digest(read_secret(workspace.root / "secret"), b"console\0" + content, "sha256")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@contextmanager
def _tokens(workspace: Workspace) -> Iterator[dict[str, tuple[str, str, float]]]:
    """The file of open tokens, for one process at a time; what is changed inside is kept."""
    path: Path = workspace.run / "login-tokens.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        tokens: dict[str, tuple[str, str, float]] = json.loads(file.read() or "{}")
        yield tokens
        file.seek(0)
        file.truncate()
        file.write(json.dumps(tokens))
