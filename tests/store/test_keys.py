"""Keys: only hashes on the disk, three kinds, revoked everywhere at once."""

import subprocess
import sys
import threading

import pytest

from thinslice.errors import BadInput, Corrupt, NotAllowed
from thinslice.store.keys import Keys


@pytest.mark.parametrize(("kind", "prefix"), [("publishable", "ts_pub_"), ("secret", "ts_sec_"), ("admin", "ts_adm_")])
def test_a_key_opens_its_tenant_and_is_not_on_the_disk(tmp_path, kind, prefix):
    keys = Keys(tmp_path / "keys.json")
    key = keys.create("shop", kind, origins=["https://shop.example"])
    info = keys.lookup(key)
    assert (info.tenant, info.kind, info.origins, info.revoked) == ("shop", kind, ("https://shop.example",), False)
    assert key.startswith(prefix)
    assert len(key) >= 39
    assert key.encode() not in keys.path.read_bytes()
    assert key[len(prefix) :].encode() not in keys.path.read_bytes()


def test_the_file_belongs_to_its_owner_alone(tmp_path):
    keys = Keys(tmp_path / "keys.json")
    keys.create("shop", "secret")
    keys.create("shop", "secret")
    assert keys.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("key", "code"),
    [(None, "missing_key"), ("", "missing_key"), ("ts_sec_x", "unknown_key"), ("\udce9", "unknown_key")],
)
def test_a_wrong_key_is_refused_with_its_reason(tmp_path, key, code):
    keys = Keys(tmp_path / "keys.json")
    for _ in range(2):
        with pytest.raises(NotAllowed) as caught:
            keys.lookup(key)
        assert caught.value.code == code
        keys.create("shop", "secret")


def test_a_revoked_key_is_refused_in_every_process(tmp_path):
    keys, elsewhere = Keys(tmp_path / "keys.json"), Keys(tmp_path / "keys.json")
    key, other = keys.create("shop", "secret"), keys.create("shop", "secret")
    assert elsewhere.lookup(key).tenant == "shop"
    code = f"from thinslice.store.keys import Keys; Keys({str(keys.path)!r}).revoke({key!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    for each in (keys, elsewhere):
        with pytest.raises(NotAllowed, match="revoked") as caught:
            each.lookup(key)
        assert caught.value.code == "revoked_key"
        assert each.lookup(other).revoked is False
    assert [info.revoked for info in keys.all()] == [True, False]


def test_only_a_known_key_can_be_revoked(tmp_path):
    with pytest.raises(NotAllowed):
        Keys(tmp_path / "keys.json").revoke("ts_sec_x")


def test_kinds_and_tenants_have_names(tmp_path):
    keys = Keys(tmp_path / "keys.json")
    with pytest.raises(BadInput, match="no kind of key"):
        keys.create("shop", "master")
    with pytest.raises(BadInput, match="cannot name a tenant"):
        keys.create("Shop!", "secret")
    assert keys.all() == []


def test_keys_made_at_the_same_time_are_all_kept(tmp_path):
    made = []
    path = tmp_path / "keys.json"
    threads = [threading.Thread(target=lambda: made.append(Keys(path).create("shop", "secret"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {Keys(path).lookup(key).tenant for key in made} == {"shop"}
    assert len(Keys(path).all()) == len(set(made)) == 8


def test_a_damaged_file_is_corrupt_and_not_empty(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text("{")
    with pytest.raises(Corrupt, match="cannot be read"):
        Keys(path).lookup("ts_sec_x")
