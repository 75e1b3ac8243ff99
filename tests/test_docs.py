"""The documentation cannot lie: every code block is run, every command, setting and route has its place.

How a block is run, by its language:

- `pycon`: a doctest, names kept from block to block of a page;
- `console`: lines after `$` run in one folder per page that holds `clicks.csv`; the output must match what stands
  below, where `...` stands for anything; `thinslice serve` and `thinslice demo` are started, waited for, and stopped
  at the end of the page;
- `sh`: verbs of the Makefile, which must exist (`make demo` itself is run by the tests of the demo);
- `toml`: settings or an experiment, which must be accepted;
- `json`: must be JSON;
- `html`: the tag, which must load a script that the service serves, with attributes that the script reads.
"""

import contextlib
import doctest
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import msgspec
import pytest

from thinslice.settings import Serve, Settings, Tenant, parse_settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KNOWN = {"pycon", "console", "sh", "toml", "json", "html"}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def matches(wanted: str, got: str) -> bool:
    return doctest.OutputChecker().check_output(wanted + "\n", got.strip() + "\n", FLAGS)


class Shell:
    """One folder per page, with the commands of this project in reach and servers that end with the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[subprocess.Popen[str]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        scripts = Path(sys.executable).parent
        self.environment = {
            **os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "NO_COLOR": "1", "COLUMNS": "110", "TERM": "dumb",
        }  # fmt: skip
        rows = ["session_id,item_id,ts,event"]
        for session in range(60):
            for step in range(4):
                item = f"{'red' if session % 2 else 'blue'}-{(session + step) % 6}"
                rows.append(f"s{session},{item},{1_790_000_000 + session * 900 + step * 20},view_item")
        (folder / "clicks.csv").write_text("\n".join(rows) + "\n")

    def run(self, command: str) -> str:
        command = command.replace(".venv/bin/", "").replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        if re.match(r"thinslice (serve|demo)\b", command):
            return self.start(command)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, command: str) -> str:
        arguments = shlex.split(command.removesuffix("&").strip())
        with (self.folder / "server.txt").open("w") as log:
            server = subprocess.Popen(
                [*arguments, "--port", str(self.port)], cwd=self.folder, env=self.environment,
                stdout=log, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        self.servers.append(server)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert server.poll() is None, (self.folder / "server.txt").read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz") as answer:
                if answer.status == 200:
                    return ""
            time.sleep(0.2)
        raise AssertionError(f"{command} was not ready in 60 s: {(self.folder / 'server.txt').read_text()}")

    def stop(self) -> None:
        for server in self.servers:
            server.send_signal(signal.SIGTERM)
        for server in self.servers:
            server.wait(timeout=20)


@pytest.fixture
def shell(tmp_path):
    shell = Shell(tmp_path)
    yield shell
    shell.stop()


def check_console(shell: Shell, text: str) -> None:
    for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = step.rstrip("\n").split("\n")
        command = lines.pop(0)
        while command.endswith("\\"):
            command = command[:-1] + lines.pop(0).removeprefix(">").strip()
        got = shell.run(command)
        wanted = "\n".join(lines).strip()
        assert matches(wanted, got) if wanted else True, f"$ {command}\nwanted:\n{wanted}\ngot:\n{got}"


def check_toml(text: str) -> None:
    if "[[variants]]" in text:
        from thinslice.experiments.definition import parse_experiment

        parse_experiment(text, tenant="shop", where="the page")
    else:
        parse_settings(text)


def check_tag(text: str) -> None:
    script = (ROOT / "src" / "thinslice" / "web" / "static" / "tag.js").read_text()
    attributes = re.findall(r"\b(data-[a-z-]+)=", text)
    assert "/tag.js" in text
    assert attributes
    for name in attributes:
        camel = re.sub(r"-(\w)", lambda letter: letter[1].upper(), name.removeprefix("data-"))
        assert name in script or camel in script, f"the tag does not read {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_code_block_runs(page, shell):
    names: dict[str, object] = {}
    makefile = (ROOT / "Makefile").read_text()
    with contextlib.chdir(shell.folder):
        for language, text in blocks(page):
            assert language in KNOWN, f"{page.name}: a block in {language!r} is not run by this test"
            if language == "pycon":
                runner = doctest.DocTestRunner(optionflags=FLAGS)
                test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
                test.globs = names
                runner.run(test, clear_globs=False)
                assert runner.failures == 0
            elif language == "console":
                check_console(shell, text)
            elif language == "sh":
                for verb in re.findall(r"^make (\w+)", text, re.MULTILINE):
                    assert re.search(rf"^{verb}:", makefile, re.MULTILINE), f"there is no `make {verb}`"
            elif language == "toml":
                check_toml(text)
            elif language == "json":
                json.loads(text)
            elif language == "html":
                check_tag(text)


def test_every_command_has_its_page():
    from thinslice.cli import COMMANDS

    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    assert [name for name in COMMANDS if f"## {name}" not in page] == []


@pytest.mark.parametrize("section", [Settings, Serve, Tenant], ids=lambda section: section.__name__)
def test_every_setting_has_its_line(section):
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert [field.name for field in msgspec.structs.fields(section) if f"`{field.name}`" not in page] == []


def test_links_between_pages_lead_somewhere():
    broken = []
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []
