"""The keys that let a page, a server or a person in; only their hashes are kept."""

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from thinslice.errors import BadInput, Corrupt, NotAllowed
from thinslice.settings import NAME_PATTERN

PREFIXES = {"publishable": "ts_pub_", "secret": "ts_sec_", "admin": "ts_adm_"}
"""How the keys of each kind begin, so that a person sees which one she pastes into a page."""


class KeyInfo(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a key allows: whose data, which kind, and from which pages (empty: the tenant's settings say)."""

    tenant: str
    kind: str
    origins: tuple[str, ...] = ()
    revoked: bool = False


_decoder = msgspec.json.Decoder(dict[str, KeyInfo])


class Keys:
    """The keys of one workspace, in one file of mode 600; another process's change is seen at the next look-up.

    Args:
        path: The file; made with the first key.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._known: dict[str, KeyInfo] = {}

    def create(self, tenant: str, kind: str, origins: Sequence[str] = ()) -> str:
        """Makes a key and returns it; nobody can read it out again.

        Args:
            tenant: Whose data it opens.
            kind: `publishable`, `secret` or `admin`.
            origins: Pages that may use it, such as `https://shop.example`; empty leaves it to the tenant's settings.

        Raises:
            BadInput: The kind or the tenant's name is none.
        """
        if kind not in PREFIXES:
            raise BadInput(f"{kind!r} is no kind of key.", hint=f"There is {', '.join(PREFIXES)}.")
        if not re.fullmatch(NAME_PATTERN, tenant):
            raise BadInput(f"{tenant!r} cannot name a tenant.", hint="Use 1 to 64 of a-z, 0-9, underscore and hyphen.")
        key = PREFIXES[kind] + secrets.token_urlsafe(24)
        with self._changing() as known:
            known[digest(key)] = KeyInfo(tenant=tenant, kind=kind, origins=tuple(origins))
        return key

    def lookup(self, key: str | None) -> KeyInfo:
        """What a key allows.

        Raises:
            NotAllowed: `missing_key`, `unknown_key` or `revoked_key`.
        """
        if not key:
            raise NotAllowed("missing_key", "this needs a key.", hint="Send `Authorization: Bearer KEY`.")
        self._refresh()
        info = self._known.get(digest(key))
        if info is None:
            raise NotAllowed("unknown_key", "this key is not known here.", hint="`thinslice init` shows keys once.")
        if info.revoked:
            raise NotAllowed("revoked_key", "this key was revoked.", hint="Use a newer key.")
        return info

    def revoke(self, key: str) -> None:
        """Takes a key's rights away, in every process from its next look-up on.

        Raises:
            NotAllowed: The key is not known.
        """
        name = digest(key)
        with self._changing() as known:
            if name not in known:
                raise NotAllowed("unknown_key", "this key is not known here.")
            known[name] = msgspec.structs.replace(known[name], revoked=True)

    def all(self) -> list[KeyInfo]:
        """What every key allows, revoked ones too, in the order of their making."""
        self._refresh()
        return list(self._known.values())

    def _refresh(self) -> None:
        try:
            state = self.path.stat()
        except FileNotFoundError:
            self._seen, self._known = None, {}
            return
        mark = (state.st_mtime_ns, state.st_size, state.st_ino)
        if mark != self._seen:
            self._known = self._read()
            self._seen = mark

    def _read(self) -> dict[str, KeyInfo]:
        try:
            return _decoder.decode(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except msgspec.DecodeError as error:
            raise Corrupt(f"{self.path} cannot be read: {error}.", hint="Restore it from a backup.") from error

    @contextmanager
    def _changing(self) -> Iterator[dict[str, KeyInfo]]:
        """The keys to change, under a lock; written as a whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        guard = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            known = self._read()
            yield known
            draft = self.path.with_suffix(".draft")
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(known), indent=1))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        finally:
            os.close(guard)


def digest(key: str) -> str:
    """What is kept of a key: its SHA-256 in hex. Keys are long and random, so a slow hash would add nothing."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
