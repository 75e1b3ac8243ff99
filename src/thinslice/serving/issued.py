"""Recommendation ids carry our own seal, so that any worker knows an invented one without looking anywhere."""

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from thinslice.errors import Corrupt

SECRET_FILE = "secret"
"""The file of a workspace with which recommendation ids are sealed."""

_RANDOM = 10
_SEAL = 6
_SHAPE = re.compile(r"[0-9a-f]{32}")


class RecommendationIds:
    """Issues recommendation ids and tells them from invented ones.

    An id is 32 characters: 10 random bytes and 6 bytes of keyed BLAKE2b over tenant and random bytes, in hexadecimal.

    Args:
        secret: The workspace's secret, the same in every worker.
    """

    def __init__(self, secret: bytes) -> None:
        self._sealed = hashlib.blake2b(key=secret, digest_size=_SEAL)

    def issue(self, tenant: str) -> str:
        """A new id of this tenant."""
        random = os.urandom(_RANDOM)
        return (random + self._seal(tenant, random)).hex()

    def issued(self, tenant: str, recommendation_id: str) -> bool:
        """Whether this workspace issued an id for this tenant."""
        if _SHAPE.fullmatch(recommendation_id) is None:
            return False
        content = bytes.fromhex(recommendation_id)
        return hmac.compare_digest(content[_RANDOM:], self._seal(tenant, content[:_RANDOM]))

    def _seal(self, tenant: str, random: bytes) -> bytes:
        seal = self._sealed.copy()
        seal.update(tenant.encode() + b"\0" + random)
        return seal.digest()


def read_secret(path: Path) -> bytes:
    """The workspace's secret; the first process to ask makes it, readable by the owner alone.

    Raises:
        Corrupt: The file is not 32 bytes long.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first; its secret holds
        finally:
            draft.unlink()
    secret = path.read_bytes()
    if len(secret) != 32:
        raise Corrupt(f"{path} has {len(secret)} bytes instead of 32.", hint="Restore it from a backup.")
    return secret
