"""The program: lazy commands, exit codes, and messages that say what to do."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from deltalake.exceptions import DeltaError

from thinslice.cli import COMMANDS
from thinslice.cli.program import program
from thinslice.settings import Workspace, read_settings
from thinslice.store.keys import Keys

THINSLICE = [sys.executable, "-c", "from thinslice.cli import main; main()"]


def run(*arguments, cwd=None):
    return CliRunner().invoke(program, [str(argument) for argument in arguments])


def test_help_imports_no_command_and_nothing_heavy():
    code = """
import sys
from thinslice.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {"numpy", "numba", "pyarrow", "duckdb", "deltalake", "scipy", "starlette", "rich", "msgspec"} & set(sys.modules)
assert not heavy, heavy
assert not [name for name in sys.modules if name.startswith("thinslice.cli.") and not name.endswith("program")]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["init", "--nonsense"], ["serve", "--port", "x"], ["init", "--preset", "zoo"]]
)
def test_bad_usage_is_exit_code_2(arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("name", ["serve", "train"])
def test_a_folder_that_is_no_workspace_is_exit_code_2_and_names_init(name, tmp_path):
    result = run(name, "--workspace", tmp_path)
    assert result.exit_code == 2
    assert "thinslice init" in result.stderr


def test_a_file_that_cannot_be_written_is_exit_code_1(tmp_path):
    (tmp_path / "thinslice.draft").mkdir()
    result = run("init", "--workspace", tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path / 'thinslice.draft'}: Is a directory." in result.stderr


@pytest.mark.parametrize("letter", ["%", "[", "]", "^", "|", "\\", "\n"])
def test_a_folder_that_no_lake_can_be_kept_under_is_refused_in_a_sentence(tmp_path, letter):
    result = run("init", "--workspace", tmp_path / f"100{letter}20x" / "w")
    assert result.exit_code == 2
    assert f"under a path with {letter!r}" in result.stderr
    assert "Choose a folder" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_spaces_umlauts_and_signs_holds_a_workspace(tmp_path):
    folder = tmp_path / "Ünser Läden & Söhne (#1) {a}"
    file = tmp_path / "items.csv"
    file.write_text("item_id\na\n")
    assert run("init", "--workspace", folder).exit_code == 0
    result = run("import", "items", file, "--workspace", folder, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["kept"] == 1


def test_init_makes_a_workspace_and_shows_keys_that_work(tmp_path):
    result = run("init", "--workspace", tmp_path / "w", "--tenant", "my-shop", "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert set(made) == {"workspace", "tenant", "keys"}
    assert made["tenant"] == "my-shop"
    workspace = Workspace(Path(made["workspace"]))
    assert read_settings(workspace).tenant("my-shop").preset == "shop"
    keys = Keys(workspace.keys_file)
    assert {kind: keys.lookup(key).kind for kind, key in made["keys"].items()} == {
        "publishable": "publishable", "secret": "secret", "admin": "admin",
    }  # fmt: skip
    assert stat.S_IMODE(workspace.keys_file.stat().st_mode) == 0o600
    text = workspace.keys_file.read_text()
    assert not any(key in text for key in made["keys"].values())


def test_init_in_a_workspace_adds_one_more_tenant_and_keeps_what_a_person_wrote(tmp_path):
    run("init", "--workspace", tmp_path)
    path = tmp_path / "thinslice.toml"
    path.write_text(path.read_text().replace("port = 8080", "port = 9999  # ours"))
    result = run("init", "--workspace", tmp_path, "--tenant", "media", "--preset", "media")
    assert result.exit_code == 0
    settings = read_settings(Workspace(tmp_path))
    assert sorted(settings.tenants) == ["media", "shop"]
    assert settings.tenants["media"].preset == "media"
    assert "port = 9999  # ours" in path.read_text()


def test_init_never_makes_the_same_tenant_twice(tmp_path):
    run("init", "--workspace", tmp_path)
    before = (tmp_path / "keys.json").read_bytes()
    result = run("init", "--workspace", tmp_path)
    assert result.exit_code == 2
    assert "already" in result.stderr
    assert (tmp_path / "keys.json").read_bytes() == before


@pytest.mark.parametrize("name", ["", "../up", "Big", "a b", "x" * 65, "ä"])
def test_init_refuses_what_cannot_be_a_name(tmp_path, name):
    result = run("init", "--workspace", tmp_path, "--tenant", name)
    assert result.exit_code == 2
    assert not (tmp_path / "thinslice.toml").exists()


def test_a_reader_that_goes_away_gets_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        command = [sys.executable, "-m", "thinslice", "--help"]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")


def test_ctrl_c_is_said_in_a_word_also_where_a_library_raises_an_error_of_its_own_then(tmp_path):
    code = (
        "import os, signal, click\n"
        "from thinslice.cli import program as cli\n"
        "@click.command()\n"
        "def command():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        raise RuntimeError('Query interrupted') from None\n"
        "cli.Program.get_command = lambda *_: command\n"
        "cli.main(['train'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (1, "Aborted!", "")


def test_an_error_that_no_ctrl_c_brought_is_not_hidden(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError("made by the test")

    monkeypatch.setattr("thinslice.cli.init.make_tenant", broken)
    with pytest.raises(RuntimeError, match="made by the test"):
        CliRunner().invoke(program, ["init", "--workspace", str(tmp_path)], catch_exceptions=False)


@pytest.mark.parametrize(
    "raised",
    [
        OSError(28, "No space left on device", "/srv/rec/lake"),
        OSError("442890 requested and 89056 written"),
        OSError("Generic error\n  ↳ No space left on device (os error 28)\n"),
        DeltaError("Failed to parse parquet: Unable to copy data to file: No space left on device (os error 28)"),
    ],
    ids=["system", "numpy", "lines", "lake"],
)
def test_a_full_disk_is_said_in_words_and_a_second_import_ends_it(tmp_path, monkeypatch, raised):
    file = tmp_path / "clicks.csv"
    file.write_text("session_id,item_id,ts\ns,a,1700000000\ns,b,1700000001\n")
    run("init", "--workspace", tmp_path / "w")

    def full(*_, **__):
        raise raised

    with monkeypatch.context() as patched:
        patched.setattr("thinslice.store.lake.write_delta", full)
        refused = run("import", "events", file, "--workspace", tmp_path / "w")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: the disk is full")
    assert "2 kept" in run("import", "events", file, "--workspace", tmp_path / "w").stdout


def test_a_seed_below_zero_is_refused(tmp_path):
    assert run("train", "--rng", "-1", "--workspace", tmp_path).exit_code == 2


def test_python_m_thinslice_is_the_same_program():
    told = subprocess.run([sys.executable, "-m", "thinslice", "--version"], capture_output=True, text=True, timeout=60)
    assert (told.returncode, told.stdout) == (0, run("--version").stdout)


def test_a_file_where_a_folder_should_be_is_refused_by_name(tmp_path):
    file = tmp_path / "shop.toml"
    file.touch()
    for where in (file, file / "inside"):
        for command in ("init", "train", "doctor"):
            refused = run(command, "--workspace", where)
            assert refused.exit_code == 2
            assert f"a workspace is a folder, and {file} is a file." in refused.stderr


def test_lost_keys_are_replaced_by_new_ones_and_the_old_ones_still_work(tmp_path):
    old = json.loads(run("init", "--json", "--workspace", tmp_path).stdout)["keys"]
    new = json.loads(run("init", "--new-keys", "--json", "--workspace", tmp_path).stdout)["keys"]
    keys = Keys(tmp_path / "keys.json")
    assert {keys.lookup(key).tenant for key in (*old.values(), *new.values())} == {"shop"}
    assert not set(old.values()) & set(new.values())
    refused = run("init", "--tenant", "mall", "--new-keys", "--workspace", tmp_path)
    assert refused.exit_code == 2
    assert "there is no tenant 'mall'" in refused.stderr
    (tmp_path / "keys.json").unlink()
    assert "thinslice init --tenant shop --new-keys" in run("doctor", "--workspace", tmp_path).stdout


def test_what_is_said_to_be_typed_next_can_be_typed_in_a_folder_with_a_space(tmp_path):
    folder = str(tmp_path / "my shop")
    assert f"thinslice init --workspace '{folder}'" in run("train", "--workspace", folder).stderr
    assert f"--workspace '{folder}'" in run("init", "--workspace", folder).stdout
    assert f"thinslice serve --workspace '{folder}'" in run("doctor", "--workspace", folder).stdout
