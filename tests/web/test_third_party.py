"""Vendored files are as released: every one has a checksum, a package with its version, and a licence beside it."""

import hashlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / "src" / "thinslice" / "web" / "static" / "third_party", ROOT / "tests" / "web" / "third_party"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_vendored_file_is_as_released(folder):
    lines = [line.split(maxsplit=2) for line in (folder / "checksums.txt").read_text().splitlines()[1:]]
    for digest, name, _ in lines:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    named = {name for _, name, _ in lines}
    assert named == {path.name for path in folder.iterdir() if not path.name.startswith(("LICENSE", "checksums"))}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_every_vendored_package_has_its_licence(folder):
    lines = (folder / "checksums.txt").read_text().splitlines()[1:]
    packages = {line.split()[2].split("/")[-1].removesuffix(".org") for line in lines}
    assert all((folder / f"LICENSE.{package}").stat().st_size > 200 for package in packages)
