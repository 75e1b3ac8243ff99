"""The house: imports run down only, and a wrong one fails with file and line; every file says what it is."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "thinslice"


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=root, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(root / "src"), "PATH": ""},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("stats/__init__.py", "import thinslice.experiments", "Imports only run down the floors BROKEN"),
        ("models/__init__.py", "import thinslice.store", "The pure rooms never touch"),
    ],
)
def test_a_wrong_import_fails_with_file_and_line(tmp_path, file, line, contract):
    shutil.copytree(SOURCE, tmp_path / "src" / "thinslice", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / "src" / "thinslice" / file
    target.write_text(target.read_text() + f"\n{line}\n")
    result = lint_imports(tmp_path)
    at = target.read_text().count("\n")
    assert result.returncode == 1
    assert contract in result.stdout
    assert f"(l.{at})" in result.stdout


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_file_says_in_its_first_line_what_it_is(path):
    summary = ast.get_docstring(ast.parse(path.read_text()))
    assert summary
    assert len(summary.splitlines()[0]) > 20


def test_every_room_stands_on_the_map():
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert [room for room in sorted(rooms) if f"{room}/" not in page] == []
