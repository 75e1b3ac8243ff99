"""The keys that let a page, a server or a person in; only their hashes are kept."""

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from thinslice.errors import BadInput, Corrupt, NotAllowed, UnknownName
from thinslice.settings import NAME_PATTERN

PREFIXES = {"publishable": "ts_pub_", "secret": "ts_sec_", "admin": "ts_adm_"}
"""How the keys of each kind begin, so that a person sees which one she pastes into a page."""

SHOWN = 12
"""So many first characters of a key are kept, so that a person can tell her keys apart; the rest is 27 random ones."""

ID_DIGITS = 12
"""A key's id is so many hex digits of its hash."""

SHORTEST = 8
"""A key is not revoked by less than so many characters."""


class KeyInfo(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a key allows: whose data, which kind, and from which pages (empty: the tenant's settings say).

    `start` is how the key begins; it is empty, and `created_at` None, for keys older than these fields.
    """

    tenant: str
    kind: str
    origins: tuple[str, ...] = ()
    revoked: bool = False
    start: str = ""
    created_at: datetime | None = None


class NamedKey(NamedTuple):
    """A key as a person may name it: its id, and what it allows."""

    id: str
    info: KeyInfo

    @property
    def start(self) -> str:
        """How the key begins, as far as that is known."""
        return self.info.start or PREFIXES.get(self.info.kind, "")


_decoder = msgspec.json.Decoder(dict[str, KeyInfo])


class Keys:
    """The keys of one workspace, in one file of mode 600; another process's change is seen at the next look-up.

    Args:
        path: The file; made with the first key.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._name = str(path)
        self._seen: tuple[int, int, int] | None = None
        self._known: dict[str, KeyInfo] = {}
        self._asked: dict[str, KeyInfo] = {}

    def create(self, tenant: str, kind: str, origins: Sequence[str] = (), *, now: datetime | None = None) -> str:
        """Makes a key and returns it; nobody can read it out again.

        Args:
            tenant: Whose data it opens.
            kind: `publishable`, `secret` or `admin`.
            origins: Pages that may use it, such as `https://shop.example`; empty leaves it to the tenant's settings.
            now: When it is made; aware, the clock when None.

        Raises:
            BadInput: The kind or the tenant's name is none.
        """
        if kind not in PREFIXES:
            raise BadInput(f"{kind!r} is no kind of key.", hint=f"There is {', '.join(PREFIXES)}.")
        if not re.fullmatch(NAME_PATTERN, tenant):
            raise BadInput(f"{tenant!r} cannot name a tenant.", hint="Use 1 to 64 of a-z, 0-9, underscore and hyphen.")
        key = PREFIXES[kind] + secrets.token_urlsafe(24)
        with self._changing() as known:
            known[digest(key)] = KeyInfo(
                tenant=tenant, kind=kind, origins=tuple(origins), start=key[:SHOWN],
                created_at=now or datetime.now(UTC),
            )  # fmt: skip
        return key

    def lookup(self, key: str | None) -> KeyInfo:
        """What a key allows.

        Raises:
            NotAllowed: `missing_key`, `unknown_key` or `revoked_key`.
        """
        if not key:
            raise NotAllowed("missing_key", "this needs a key.", hint="Send `Authorization: Bearer KEY`.")
        self._refresh()
        info = self._asked.get(key)  # the same few come with every request
        if info is None:
            info = self._known.get(digest(key))
        if info is None:
            raise NotAllowed("unknown_key", "this key is not known here.", hint="`thinslice keys create` makes one.")
        if info.revoked:
            raise NotAllowed("revoked_key", "this key was revoked.", hint="Use a newer key.")
        self._asked[key] = info
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

    def revoke_named(self, name: str, tenant: str | None = None) -> NamedKey:
        """Takes the rights of the one key away that a name stands for; a key that has none any more stays so.

        Args:
            name: The key, at least its first 8 characters, or its id (the beginning is enough).
            tenant: Only a key of this tenant.

        Raises:
            BadInput: The name is too short, or several keys go by it.
            UnknownName: No key does.
        """
        if len(name) < SHORTEST:
            raise BadInput(
                f"{name!r} is too short to name a key.",
                hint=f"Give at least {SHORTEST} characters of the key or of its id; `thinslice keys list` shows both.",
            )
        with self._changing() as known:
            hashes = [
                each for each, info in known.items() if tenant in (None, info.tenant) and _goes_by(name, each, info)
            ]
            if not hashes:
                raise UnknownName(f"no key begins with {name[:SHOWN]!r} or has such an id.",
                                  hint="`thinslice keys list` shows every key.")  # fmt: skip
            if len(hashes) > 1:
                found = ", ".join(f"{known[each].start or '?'}… (id {each[:ID_DIGITS]})" for each in hashes)
                raise BadInput(f"{len(hashes)} keys go by {name[:SHOWN]!r}: {found}.", hint="Name one by its id.")
            known[hashes[0]] = msgspec.structs.replace(known[hashes[0]], revoked=True)
            return NamedKey(hashes[0][:ID_DIGITS], known[hashes[0]])

    def works(self, key_id: str) -> bool:
        """Whether there is a key with this id that was not revoked."""
        self._refresh()
        return any(each.startswith(key_id) and not info.revoked for each, info in self._known.items())

    def named(self) -> list[NamedKey]:
        """Every key by its id, revoked ones too, in the order of their making."""
        self._refresh()
        return [NamedKey(each[:ID_DIGITS], info) for each, info in self._known.items()]

    def all(self) -> list[KeyInfo]:
        """What every key allows, revoked ones too, in the order of their making."""
        self._refresh()
        return list(self._known.values())

    def _refresh(self) -> None:
        try:
            state = os.stat(self._name)  # noqa: PTH116 (at every request)
        except FileNotFoundError:
            self._seen, self._known, self._asked = None, {}, {}
            return
        mark = (state.st_mtime_ns, state.st_size, state.st_ino)
        if mark != self._seen:
            self._known, self._asked = self._read(), {}
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


def key_id(key: str) -> str:
    """The id of a key, which gives nothing of it away."""
    return digest(key)[:ID_DIGITS]


def _goes_by(name: str, hashed: str, info: KeyInfo) -> bool:
    if hashed == digest(name) or hashed.startswith(name):
        return True
    return bool(info.start) and (info.start.startswith(name) or name.startswith(info.start))


def digest(key: str) -> str:
    """What is kept of a key: its SHA-256 in hex. Keys are long and random, so a slow hash would add nothing."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
