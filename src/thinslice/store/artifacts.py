"""Trained models on disk: arrays that never change, and a pointer that says which of them serve."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from thinslice.errors import BadInput, Corrupt, UnknownName
from thinslice.records import Arrays
from thinslice.settings import NAME_PATTERN
from thinslice.store.log import sync_directory

KEPT_VERSIONS = 5
"""How many generations of a slot stay on disk beside the live one and the one to roll back to."""

LIVE_SLOT = "live"
"""The slot whose models learn from everybody, and serve who is in no experiment that learns apart."""

SLOT_PATTERN = r"^[a-z0-9_-]{1,64}(\.[a-z0-9_-]{1,64}){0,2}$"
"""`live`, or `exp.NAME.VARIANT`."""

KEPT_NOTES = 100
"""How many notes about promotions and rollbacks by hand are remembered."""

_DRAFT_AGE_S = 3600
_ARRAY_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
_VERSION_PATTERN = r"^[0-9a-f]{16}$"


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One stored version of one slot; `sha256` covers its arrays and manifest, `stored_at` is unix seconds."""

    slot: str
    version: str
    sha256: str
    stored_at: float
    lake_version: Any = None
    models: list[str] = []


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What a person did by hand: `action` is promote or rollback, `why` what the gates said against it."""

    at: float
    action: str
    slot: str
    version: str
    why: list[str] = []


class Registry(msgspec.Struct, kw_only=True):
    """What one tenant has: `generation` counts every change of what is live; `history` ends with the live version.

    `held` names the slots that were rolled back: scheduled trainings leave them as they are.
    """

    generation: int = 0
    history: dict[str, list[str]] = {}
    stored: list[Generation] = []
    held: dict[str, str] = {}
    notes: list[Note] = []

    def live(self) -> dict[str, str]:
        """Slot → live version."""
        return {slot: versions[-1] for slot, versions in self.history.items() if versions}


class FileArtifacts:
    """Artifacts as files: `TENANT/versions/VERSION/MODEL/ARRAY.npy`, a manifest beside them, one registry a tenant.

    Args:
        root: A folder of its own.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._seen: dict[str, tuple[tuple[int, int, int], Registry]] = {}

    def put(self, tenant: str, slot: str, models: Mapping[str, Arrays], manifest: Mapping[str, Any]) -> str:
        """Stores one trained generation; the same content twice is one version.

        Args:
            tenant: Whose it is.
            slot: `live` or `exp.NAME.VARIANT`.
            models: Model name → array name → array, no objects inside.
            manifest: What it was made of: JSON values. A time in it makes another version of the same arrays.

        Returns:
            The version: the first 16 hex digits of the SHA-256 of arrays and manifest.

        Raises:
            BadInput: A name is none, an array holds objects, or the manifest is no JSON.
        """
        _check_names(tenant, slot, models)
        versions = self._folder(tenant) / "versions"
        versions.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=versions))
        try:
            files = {}
            for model, arrays in sorted(models.items()):
                (draft / model).mkdir()
                for name, array in sorted(arrays.items()):
                    path = draft / model / f"{name}.npy"
                    with path.open("wb") as file:
                        np.save(file, np.ascontiguousarray(array).reshape(np.shape(array)), allow_pickle=False)
                        file.flush()
                        os.fsync(file.fileno())
                    files[f"{model}/{name}.npy"] = _sha256(path)
                sync_directory(draft / model)
            text = _manifest_text(files, models, manifest)
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            _write(draft / "manifest.json", text.encode())
            version = sha256[:16]
            draft.chmod(0o755)
            with self._changing(tenant) as registry:
                self._take_in(registry, draft, version)
                _note(registry, _generation(slot, version, sha256, models, manifest))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return version

    def promote(self, tenant: str, slot: str, version: str) -> None:
        """Makes a version the live one of a slot, and deletes generations that nobody needs any more.

        Raises:
            UnknownName: There is no such version in that slot.
        """
        with self._changing(tenant) as registry:
            _promote(registry, tenant, slot, version)
            _prune(registry)
            self._sweep(tenant, registry)

    def note(self, tenant: str, action: str, slot: str, version: str, why: Sequence[str] = ()) -> None:
        """Remembers what a person did to a slot by hand."""
        with self._changing(tenant) as registry:
            registry.notes.append(Note(at=time.time(), action=action, slot=slot, version=version, why=list(why)))
            del registry.notes[:-KEPT_NOTES]

    def notes(self, tenant: str) -> list[Note]:
        """What was done by hand, oldest first."""
        return list(self._registry(tenant).notes)

    def history(self, tenant: str, slot: str) -> list[str]:
        """The versions that were live in a slot and can be again, the live one last."""
        return list(self._registry(tenant).history.get(slot, []))

    def held(self, tenant: str) -> dict[str, str]:
        """Slot → the version that it was rolled back to: trainings on a schedule leave it alone until a promotion."""
        return dict(self._registry(tenant).held)

    def rollback(self, tenant: str, slot: str) -> str:
        """Makes the version before the live one live again, holds the slot there, and returns the version.

        Raises:
            UnknownName: There is none before it.
        """
        with self._changing(tenant) as registry:
            return _rollback(registry, tenant, slot)

    def live(self, tenant: str) -> dict[str, str]:
        """Slot → live version."""
        return self._registry(tenant).live()

    def generation(self, tenant: str) -> int:
        """A number that grows with every change of what is live; 0 before the first. Costs one `stat`."""
        return self._registry(tenant).generation

    def load(self, tenant: str, version: str) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """The arrays of each model, mapped read-only, and the manifest.

        Raises:
            UnknownName: There is no such version.
            Corrupt: A file is missing or its checksum does not match.
        """
        folder, stored = self._manifest(tenant, version)
        models: dict[str, Arrays] = {model: {} for model in stored["models"]}
        for name, sha256 in stored["files"].items():
            path = folder / name
            if not path.is_file() or _sha256(path) != sha256:
                raise Corrupt(f"{name} of model version {version} does not match its checksum.", hint="Train again.")
            model, array = name.removesuffix(".npy").split("/")
            models[model][array] = _mapped(path)
        return models, stored["manifest"]

    def manifest(self, tenant: str, version: str) -> dict[str, Any]:
        """What a version was made from, without reading its arrays.

        Raises:
            UnknownName: There is no such version.
            Corrupt: The manifest is missing or was changed.
        """
        manifest: dict[str, Any] = self._manifest(tenant, version)[1]["manifest"]
        return manifest

    def versions(self, tenant: str) -> Iterator[dict[str, Any]]:
        """Every kept version, newest first: name (the slot), version, sha256, lake_version, live, models, stored_at."""
        return _listed(self._registry(tenant))

    def _manifest(self, tenant: str, version: str) -> tuple[Path, dict[str, Any]]:
        """The folder of a version and what its manifest says."""
        folder = self._folder(tenant) / "versions" / version
        if not re.fullmatch(_VERSION_PATTERN, version) or not folder.is_dir():
            raise UnknownName(
                f"tenant {tenant!r} has no model version {version!r}.", hint="`thinslice train` makes one."
            )
        try:
            text = (folder / "manifest.json").read_bytes()
        except FileNotFoundError:
            raise Corrupt(f"model version {version} has lost its manifest.", hint="Train again.") from None
        if hashlib.sha256(text).hexdigest()[:16] != version:
            raise Corrupt(f"the manifest of model version {version} was changed.", hint="Train again.")
        stored: dict[str, Any] = json.loads(text)
        return folder, stored

    def _take_in(self, registry: Registry, draft: Path, version: str) -> None:
        """Moves a draft to its place; what lies there broken, or unlisted and half deleted by another, goes first."""
        target = draft.parent / version
        listed = any(entry.version == version for entry in registry.stored)
        if target.is_dir() and not listed:
            shutil.rmtree(target)
        elif listed and not _alike(draft, target):
            shutil.rmtree(target, ignore_errors=True)
            registry.generation += 1  # who could not use it looks again
        if not target.is_dir():
            draft.rename(target)
            sync_directory(target.parent)

    def _sweep(self, tenant: str, registry: Registry) -> None:
        """Deletes generations that are not listed, and drafts that a killed process left an hour ago."""
        listed = {entry.version for entry in registry.stored}
        for path in (self._folder(tenant) / "versions").iterdir():
            abandoned = path.name.startswith(".") and time.time() - path.stat().st_mtime > _DRAFT_AGE_S
            if abandoned or (not path.name.startswith(".") and path.name not in listed):
                shutil.rmtree(path, ignore_errors=True)

    def _folder(self, tenant: str) -> Path:
        if not re.fullmatch(NAME_PATTERN, tenant):
            raise BadInput(f"{tenant!r} cannot name a tenant.")
        return self.root / tenant

    def _registry(self, tenant: str) -> Registry:
        path = self._folder(tenant) / "registry.json"
        try:
            state = path.stat()
        except FileNotFoundError:
            return Registry()
        mark = (state.st_mtime_ns, state.st_size, state.st_ino)
        seen = self._seen.get(tenant)
        if seen is None or seen[0] != mark:
            seen = (mark, _read_registry(path))
            self._seen[tenant] = seen
        return seen[1]

    @contextmanager
    def _changing(self, tenant: str) -> Iterator[Registry]:
        """A tenant's registry to change, under a lock; written as a whole or not at all."""
        folder = self._folder(tenant)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "registry.json"
        guard = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            registry = _read_registry(path) if path.is_file() else Registry()
            yield registry
            draft = folder / ".registry.draft"
            _write(draft, msgspec.json.format(msgspec.json.encode(registry), indent=1))
            draft.replace(path)
            sync_directory(folder)
        finally:
            os.close(guard)


class MemoryArtifacts:
    """Artifacts of one process, for tests and for trying things out."""

    def __init__(self) -> None:
        self._registries: dict[str, Registry] = {}
        self._content: dict[tuple[str, str], tuple[dict[str, Arrays], str]] = {}

    def put(self, tenant: str, slot: str, models: Mapping[str, Arrays], manifest: Mapping[str, Any]) -> str:
        """As in `FileArtifacts`."""
        _check_names(tenant, slot, models)
        copies = {model: {name: _frozen(array) for name, array in arrays.items()} for model, arrays in models.items()}
        files = {f"{m}/{n}.npy": _array_sha256(array) for m, arrays in copies.items() for n, array in arrays.items()}
        text = _manifest_text(files, models, manifest)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        version = sha256[:16]
        self._content[tenant, version] = (copies, text)
        registry = self._registries.setdefault(tenant, Registry())
        _note(registry, _generation(slot, version, sha256, models, manifest))
        return version

    def promote(self, tenant: str, slot: str, version: str) -> None:
        """As in `FileArtifacts`."""
        registry = self._registries.get(tenant, Registry())
        _promote(registry, tenant, slot, version)
        for old in _prune(registry):
            self._content.pop((tenant, old), None)

    def rollback(self, tenant: str, slot: str) -> str:
        """As in `FileArtifacts`."""
        return _rollback(self._registries.get(tenant, Registry()), tenant, slot)

    def live(self, tenant: str) -> dict[str, str]:
        """As in `FileArtifacts`."""
        return self._registries.get(tenant, Registry()).live()

    def generation(self, tenant: str) -> int:
        """As in `FileArtifacts`."""
        return self._registries.get(tenant, Registry()).generation

    def load(self, tenant: str, version: str) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """As in `FileArtifacts`; nothing can be corrupt here."""
        if (tenant, version) not in self._content:
            raise UnknownName(f"tenant {tenant!r} has no model version {version!r}.")
        models, text = self._content[tenant, version]
        return {model: dict(arrays) for model, arrays in models.items()}, json.loads(text)["manifest"]

    def versions(self, tenant: str) -> Iterator[dict[str, Any]]:
        """As in `FileArtifacts`."""
        return _listed(self._registries.get(tenant, Registry()))


def _check_names(tenant: str, slot: str, models: Mapping[str, Arrays]) -> None:
    if not re.fullmatch(NAME_PATTERN, tenant):
        raise BadInput(f"{tenant!r} cannot name a tenant.")
    if not re.fullmatch(SLOT_PATTERN, slot):
        raise BadInput(f"{slot!r} cannot name a slot.")
    for model, arrays in models.items():
        if not re.fullmatch(NAME_PATTERN, model):
            raise BadInput(f"{model!r} cannot name a model.")
        for name, array in arrays.items():
            if not re.fullmatch(_ARRAY_PATTERN, name):
                raise BadInput(f"{name!r} cannot name an array of {model}.")
            if np.asarray(array).dtype.hasobject:
                raise BadInput(
                    f"array {name} of {model} holds Python objects.", hint="Use numbers or fixed-width text."
                )


def _manifest_text(files: Mapping[str, str], models: Mapping[str, Arrays], manifest: Mapping[str, Any]) -> str:
    content = {"files": files, "models": sorted(models), "manifest": dict(manifest)}
    try:
        return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BadInput(f"the manifest is no JSON: {error}.") from None


def _generation(
    slot: str, version: str, sha256: str, models: Mapping[str, Arrays], manifest: Mapping[str, Any]
) -> Generation:
    lake_version = manifest.get("lake_version")
    names = sorted(models)
    return Generation(
        slot=slot, version=version, sha256=sha256, stored_at=time.time(), lake_version=lake_version, models=names
    )


def _note(registry: Registry, generation: Generation) -> None:
    """Lists a generation as the newest of its slot."""
    name = (generation.slot, generation.version)
    registry.stored = [entry for entry in registry.stored if (entry.slot, entry.version) != name]
    registry.stored.append(generation)


def _promote(registry: Registry, tenant: str, slot: str, version: str) -> None:
    if not any((entry.slot, entry.version) == (slot, version) for entry in registry.stored):
        raise UnknownName(f"tenant {tenant!r} has no version {version!r} in slot {slot!r}.")
    history = registry.history.setdefault(slot, [])
    if registry.held.get(slot) != version:
        registry.held.pop(slot, None)
    if not history or history[-1] != version:
        history.append(version)
        del history[: -KEPT_VERSIONS - 1]
        registry.generation += 1


def _rollback(registry: Registry, tenant: str, slot: str) -> str:
    history = registry.history.get(slot, [])
    if len(history) < 2:
        raise UnknownName(f"slot {slot!r} of tenant {tenant!r} has no earlier version to go back to.")
    history.pop()
    registry.generation += 1
    registry.held[slot] = history[-1]
    return history[-1]


def _prune(registry: Registry) -> list[str]:
    """Takes generations off the list that are neither live, nor to roll back to, nor among the newest of their slot."""
    kept: list[Generation] = []
    newest: dict[str, int] = {}
    for entry in reversed(registry.stored):
        newest[entry.slot] = newest.get(entry.slot, 0) + 1
        if newest[entry.slot] <= KEPT_VERSIONS or entry.version in registry.history.get(entry.slot, []):
            kept.append(entry)
    kept.reverse()
    versions = {entry.version for entry in kept}
    gone = sorted({entry.version for entry in registry.stored} - versions)
    registry.stored = kept
    return gone


def _listed(registry: Registry) -> Iterator[dict[str, Any]]:
    live = registry.live()
    for entry in reversed(registry.stored):
        row: dict[str, Any] = {
            "name": entry.slot, "version": entry.version, "sha256": entry.sha256, "lake_version": entry.lake_version,
            "live": live.get(entry.slot) == entry.version, "models": entry.models, "stored_at": entry.stored_at,
        }  # fmt: skip
        yield row


def _alike(folder: Path, other: Path) -> bool:
    """Whether each file of a folder stands in another one, byte for byte."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    theirs = [(path, other / path.relative_to(folder)) for path in files]
    return all(twin.is_file() and _sha256(twin) == _sha256(path) for path, twin in theirs)


def _read_registry(path: Path) -> Registry:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Registry)
    except msgspec.DecodeError as error:
        hint = f"Restore it from a backup, or delete {path} and train again."
        raise Corrupt(f"{path.name} of {path.parent.name} cannot be read: {error}.", hint=hint) from error


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mapped(path: Path) -> np.ndarray[Any, Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except ValueError:
        # An empty array has nothing to map.
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]


def _frozen(array: Any) -> np.ndarray[Any, Any]:
    copy: np.ndarray[Any, Any] = np.array(array, order="C")
    copy.flags.writeable = False
    return copy


def _array_sha256(array: np.ndarray[Any, Any]) -> str:
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()
