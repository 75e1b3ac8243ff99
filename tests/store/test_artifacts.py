"""Artifacts: content by hash, pointers by name, nothing executable."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from thinslice.errors import BadInput, Corrupt, UnknownName
from thinslice.store.artifacts import KEPT_VERSIONS, FileArtifacts, MemoryArtifacts
from thinslice.testing.check_store import check_artifacts


def bundle(number=0):
    return {"popular": {"scores": np.array([1.0, 2.0, number]), "ids": np.array(["a", "b", "c"])}}


@pytest.fixture(params=["files", "memory"])
def store(request, tmp_path):
    return FileArtifacts(tmp_path / "models") if request.param == "files" else MemoryArtifacts()


def test_files_keep_the_promises_of_an_artifact_store(tmp_path):
    numbers = iter(range(100))
    check_artifacts(lambda: FileArtifacts(tmp_path / str(next(numbers))))


def test_memory_keeps_the_promises_of_an_artifact_store():
    check_artifacts(MemoryArtifacts)


def test_the_generation_grows_with_every_change_of_what_is_live(store):
    assert store.generation("shop") == 0
    one, two = (store.put("shop", "live", bundle(number), {}) for number in (1, 2))
    assert store.generation("shop") == 0
    store.promote("shop", "live", one)
    store.promote("shop", "live", one)
    assert store.generation("shop") == 1
    store.promote("shop", "live", two)
    assert store.rollback("shop", "live") == one
    assert store.generation("shop") == 3
    assert store.live("shop") == {"live": one}
    assert store.generation("other") == 0


def test_slots_are_apart(store):
    version = store.put("shop", "live", bundle(), {})
    assert store.put("shop", "exp.color.treatment", bundle(), {}) == version
    store.promote("shop", "exp.color.treatment", version)
    assert store.live("shop") == {"exp.color.treatment": version}
    assert [(row["name"], row["live"]) for row in store.versions("shop")] == [
        ("exp.color.treatment", True), ("live", False),
    ]  # fmt: skip


def test_rolling_back_needs_an_earlier_version(store):
    with pytest.raises(UnknownName, match="no earlier version"):
        store.rollback("shop", "live")
    version = store.put("shop", "live", bundle(), {})
    store.promote("shop", "live", version)
    with pytest.raises(UnknownName, match="no earlier version"):
        store.rollback("shop", "live")


def test_only_a_stored_version_can_be_promoted(store):
    version = store.put("shop", "live", bundle(), {})
    for slot, name in (("live", "f" * 16), ("exp.a.b", version)):
        with pytest.raises(UnknownName):
            store.promote("shop", slot, name)
    assert store.live("shop") == {}


def test_old_generations_go_and_those_to_roll_back_to_stay(store):
    versions = []
    for number in range(3 * KEPT_VERSIONS):
        versions.append(store.put("shop", "live", bundle(number), {}))
        store.promote("shop", "live", versions[-1])
    kept = [row["version"] for row in store.versions("shop")]
    assert kept == versions[: -KEPT_VERSIONS - 2 : -1]
    assert store.load("shop", versions[-KEPT_VERSIONS - 1])[0]
    with pytest.raises(UnknownName):
        store.load("shop", versions[0])


def test_a_slot_that_rests_keeps_its_live_version(store):
    resting = store.put("shop", "exp.a.b", bundle(99), {})
    store.promote("shop", "exp.a.b", resting)
    for number in range(3 * KEPT_VERSIONS):
        store.promote("shop", "live", store.put("shop", "live", bundle(number), {}))
    assert store.load("shop", resting)[0]["popular"]["scores"][2] == 99


@pytest.mark.parametrize(
    ("tenant", "slot", "models", "what"),
    [
        ("../up", "live", {}, "tenant"),
        ("shop", "../up", {}, "slot"),
        ("shop", "exp.a.b.c", {}, "slot"),
        ("shop", "live", {"../up": {}}, "model"),
        ("shop", "live", {"m": {"a/b": np.zeros(1)}}, "array"),
        ("shop", "live", {"m": {"a": np.array([{}, None])}}, "holds Python objects"),
    ],
)
def test_names_that_could_leave_the_folder_and_objects_are_refused(store, tenant, slot, models, what):
    with pytest.raises(BadInput, match=what):
        store.put(tenant, slot, models, {})


def test_a_manifest_must_be_json(store):
    for manifest in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises(BadInput, match="no JSON"):
            store.put("shop", "live", bundle(), manifest)


@pytest.mark.parametrize("file", ["popular/scores.npy", "popular/ids.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damage_on_the_disk_is_noticed(tmp_path, file, damage):
    store = FileArtifacts(tmp_path)
    version = store.put("shop", "live", bundle(), {"a": 1})
    path = tmp_path / "shop" / "versions" / version / file
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Corrupt, match="Train again"):
        store.load("shop", version)


def test_a_broken_version_is_mended_when_the_same_content_is_stored_again(tmp_path):
    store = FileArtifacts(tmp_path)
    version = store.put("shop", "live", bundle(), {"a": 1})
    store.promote("shop", "live", version)
    store.put("shop", "live", bundle(), {"a": 1})
    before = store.generation("shop")
    (tmp_path / "shop" / "versions" / version / "manifest.json").unlink()
    assert store.put("shop", "live", bundle(), {"a": 1}) == version
    assert store.load("shop", version)[1]["a"] == 1
    assert store.generation("shop") == before + 1, "workers that could not use it look again"


def test_a_broken_registry_says_which_file_to_delete(tmp_path):
    store = FileArtifacts(tmp_path)
    store.put("shop", "live", bundle(), {})
    path = tmp_path / "shop" / "registry.json"
    path.write_text("garbage")
    with pytest.raises(Corrupt, match="cannot be read") as broken:
        store.live("shop")
    assert f"delete {path} and train again" in broken.value.hint
    path.unlink()
    store.promote("shop", "live", store.put("shop", "live", bundle(), {}))


def test_arrays_are_mapped_and_survive_their_deletion(tmp_path):
    store = FileArtifacts(tmp_path)
    versions = [store.put("shop", "live", bundle(number), {}) for number in range(3)]
    scores = store.load("shop", versions[0])[0]["popular"]["scores"]
    assert isinstance(scores, np.memmap)
    for path in (tmp_path / "shop" / "versions" / versions[0]).rglob("*.npy"):
        path.unlink()
    assert scores.tolist() == [1.0, 2.0, 0.0]


def test_the_same_content_has_the_same_bytes_and_version_everywhere(tmp_path):
    manifests = []
    for name in ("one", "two"):
        store = FileArtifacts(tmp_path / name)
        version = store.put("shop", "live", bundle(), {"b": 1, "a": 2})
        manifests.append((tmp_path / name / "shop" / "versions" / version / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]
    assert json.loads(manifests[0])["manifest"] == {"a": 2, "b": 1}


def test_another_process_sees_a_promotion(tmp_path):
    store = FileArtifacts(tmp_path)
    assert store.generation("shop") == 0
    code = f"""
import numpy as np
from thinslice.store.artifacts import FileArtifacts
store = FileArtifacts({str(tmp_path)!r})
store.promote("shop", "live", store.put("shop", "live", {{"m": {{"a": np.arange(3)}}}}, {{}}))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert store.generation("shop") == 1
    models, _ = store.load("shop", store.live("shop")["live"])
    assert models["m"]["a"].tolist() == [0, 1, 2]


def test_a_failed_put_leaves_nothing(tmp_path, monkeypatch):
    store = FileArtifacts(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        store.put("shop", "live", bundle(), {})
    monkeypatch.undo()
    assert list((tmp_path / "shop" / "versions").iterdir()) == []
    assert list(store.versions("shop")) == []


def test_what_a_killed_trainer_left_is_cleared_away(tmp_path):
    store = FileArtifacts(tmp_path)
    versions = tmp_path / "shop" / "versions"
    first = store.put("shop", "live", bundle(), {})
    for name in (".draft-old", ".draft-new", "0" * 16):
        (versions / name).mkdir()
    os.utime(versions / ".draft-old", (0, 0))
    store.promote("shop", "live", first)
    assert sorted(path.name for path in versions.iterdir()) == [".draft-new", first]


def test_a_half_deleted_version_is_stored_anew(tmp_path):
    store = FileArtifacts(tmp_path)
    version = store.put("shop", "live", bundle(), {})
    (tmp_path / "shop" / "registry.json").unlink()
    (tmp_path / "shop" / "versions" / version / "popular" / "ids.npy").unlink()
    assert store.put("shop", "live", bundle(), {}) == version
    assert store.load("shop", version)[0]["popular"]["ids"].tolist() == ["a", "b", "c"]


def test_a_damaged_registry_is_corrupt_and_not_empty(tmp_path):
    store = FileArtifacts(tmp_path)
    store.put("shop", "live", bundle(), {})
    (tmp_path / "shop" / "registry.json").write_text("{")
    with pytest.raises(Corrupt):
        store.live("shop")
