"""Keys in the terminal: shown once, told apart by their beginnings, taken back by a name that is one key's alone."""

import json

import pytest
from click.testing import CliRunner

from thinslice.cli.program import program
from thinslice.errors import NotAllowed
from thinslice.settings import Workspace
from thinslice.store.keys import SHOWN, Keys


@pytest.fixture
def run(tmp_path):
    def call(*arguments, code=0):
        result = CliRunner().invoke(program, [*arguments, "--workspace", str(tmp_path / "w")])
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    call("init")
    return call


@pytest.fixture
def keys(tmp_path):
    return Keys(Workspace(tmp_path / "w").keys_file)


def created(run, *arguments):
    return json.loads(run("keys", "create", *arguments, "--json"))


def test_a_new_key_is_shown_once_and_listed_by_its_beginning(run, keys):
    made = created(run, "--kind", "secret", "--tenant", "shop")
    assert keys.lookup(made["key"]).kind == "secret"
    listed = json.loads(run("keys", "list", "--json"))
    assert [row["kind"] for row in listed] == ["publishable", "secret", "admin", "secret"]
    assert set(listed[0]) == {"id", "tenant", "kind", "start", "created_at", "revoked", "origins"}
    assert (listed[3]["id"], listed[3]["start"]) == (made["id"], made["key"][:SHOWN])
    assert listed[3]["created_at"].endswith("+00:00")
    text = run("keys", "list")
    assert made["key"] not in text
    assert made["key"][:SHOWN] + "…" in text
    spoken = run("keys", "create", "--kind", "admin")
    assert keys.lookup(spoken.splitlines()[1].strip()).kind == "admin"


@pytest.mark.parametrize("name", [lambda made: made["id"], lambda made: made["id"][:8], lambda made: made["key"],
                                  lambda made: made["key"][:SHOWN], lambda made: made["key"][: SHOWN + 5]])  # fmt: skip
def test_a_key_is_taken_back_by_its_beginning_or_its_id_and_no_other_with_it(run, keys, name):
    made, other = created(run, "--kind", "secret"), created(run, "--kind", "secret")
    done = json.loads(run("keys", "revoke", name(made), "--json"))
    assert (done["id"], done["revoked"]) == (made["id"], True)
    with pytest.raises(NotAllowed, match="revoked"):
        keys.lookup(made["key"])
    assert keys.lookup(other["key"]).tenant == "shop"
    assert "revoked" in run("keys", "list")
    run("keys", "revoke", name(made))  # once more changes nothing
    assert sum(info.revoked for info in keys.all()) == 1


def test_a_name_of_several_keys_or_of_none_takes_none(run, keys, tmp_path):
    path = tmp_path / "w" / "keys.json"
    found = json.loads(path.read_text())
    for info in found.values():
        info["start"] = "ts_sec_Same0"
    path.write_text(json.dumps(found))
    refusal = run("keys", "revoke", "ts_sec_Same", code=2)
    assert "3 keys go by 'ts_sec_Same'" in refusal
    assert all(each.id in refusal for each in keys.named())
    assert "is too short" in run("keys", "revoke", "ts_sec_", code=2)
    assert "no key begins with" in run("keys", "revoke", "ts_sec_Other", code=2)
    assert not any(info.revoked for info in keys.all())


def test_another_tenants_key_is_out_of_reach_of_tenant(run, keys):
    run("init", "--tenant", "mall")
    made = created(run, "--kind", "secret", "--tenant", "mall")
    assert "no key begins with" in run("keys", "revoke", made["id"], "--tenant", "shop", code=2)
    assert "the workspace has 2 tenants" in run("keys", "create", "--kind", "secret", code=2)
    assert {row["tenant"] for row in json.loads(run("keys", "list", "--tenant", "mall", "--json"))} == {"mall"}
    assert "there is no tenant" in run("keys", "list", "--tenant", "zoo", code=2)


def test_when_the_last_key_of_a_kind_is_gone_that_is_said(run, keys):
    admin = next(each for each in keys.named() if each.info.kind == "admin")
    assert "has no admin key left" in run("keys", "revoke", admin.id)


def test_a_key_may_be_bound_to_pages(run, keys):
    made = created(run, "--kind", "publishable", "--origin", "https://shop.example/")
    assert keys.lookup(made["key"]).origins == ("https://shop.example",)
    assert "is no origin" in run("keys", "create", "--kind", "publishable", "--origin", "shop.example", code=2)


def test_keys_from_before_are_listed_and_taken_back_by_id(run, keys, tmp_path):
    path = tmp_path / "w" / "keys.json"
    old = {digest: {"tenant": info["tenant"], "kind": info["kind"]}
           for digest, info in json.loads(path.read_text()).items()}  # fmt: skip
    path.write_text(json.dumps(old))
    rows = json.loads(run("keys", "list", "--json"))
    assert (rows[0]["start"], rows[0]["created_at"]) == ("ts_pub_", None)
    assert "not known" in run("keys", "list")
    run("keys", "revoke", rows[0]["id"])
    assert [info.revoked for info in keys.all()] == [True, False, False]
