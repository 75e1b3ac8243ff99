"""Puts a bug into the package as it is imported and runs tests on it: `python tests/injection.py BUG.json TEST …`.

Nothing on the disk changes: the module named in the file is compiled from its source with one piece of text replaced.
The last line that is printed is JSON: test → what became of it.
"""

import importlib.abc
import json
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parent.parent


class Injected(SourceFileLoader):
    """A module with some of its text replaced; text that is not there exactly once is an error, never a pass."""

    def __init__(self, name: str, path: str, old: str, new: str) -> None:
        super().__init__(name, path)
        self.old, self.new, self.used = old, new, False

    def get_code(self, fullname: str) -> CodeType:
        """The changed module's code, never from a cache."""
        source = Path(self.path).read_text()
        times = source.count(self.old)
        if times != 1:
            sys.exit(f"{fullname} holds this {times} times, and a bug needs it once: {self.old!r}")
        self.used = True
        return compile(source.replace(self.old, self.new), self.path, "exec")


class Injector(importlib.abc.MetaPathFinder):
    """Finds one module in its changed form and leaves all others alone."""

    def __init__(self, module: str, old: str, new: str) -> None:
        self.module, self.old, self.new = module, old, new
        self.loader: Injected | None = None

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """As Python asks for it."""
        if fullname != self.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None:
            return None
        self.loader = Injected(fullname, spec.origin, self.old, self.new)
        spec.loader = self.loader
        return spec


class Outcomes:
    """What became of each test: `passed`, `wrong` (an assertion did not hold), or the first words of another error."""

    def __init__(self) -> None:
        self.of: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """As pytest tells it, for setup, call and teardown."""
        if report.when == "call" and report.passed:
            self.of[report.nodeid] = "passed"
        elif not report.passed:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = "skipped" if report.skipped else getattr(crash, "message", str(report.longrepr))
            held = report.when == "call" and message.startswith(("assert", "AssertionError", "Failed: DID NOT RAISE"))
            self.of[report.nodeid] = "wrong" if held else f"{report.when}: {message[:300]}"


def main(bug: str, tests: list[str]) -> int:
    """Runs the tests and prints what became of them.

    Args:
        bug: A JSON file with `module`, `old` and `new`; an empty object changes nothing.
        tests: Node ids, from the root of the repository.
    """
    sys.path[0] = str(ROOT)
    found = json.loads(Path(bug).read_text())
    injector = Injector(**found) if found else None
    if injector is not None:
        sys.meta_path.insert(0, injector)
    outcomes = Outcomes()
    code = pytest.main(["-q", "-m", "not slow", "--tb=short", "--rootdir", str(ROOT), *tests], plugins=[outcomes])
    if injector is not None and not (injector.loader and injector.loader.used):
        print(f"no test imported {injector.module}", file=sys.stderr)
        return 3
    print(json.dumps(outcomes.of))
    return 0 if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
