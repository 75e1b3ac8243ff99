"""Models that are broken on the disk: the schedule goes on, and the next training mends them."""

import shutil
from datetime import UTC, datetime

import pytest

from thinslice.cli.init import make_tenant
from thinslice.jobs.demo import fill
from thinslice.jobs.news import news_of_tenants
from thinslice.jobs.train import train
from thinslice.settings import Workspace
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("damage", ["an array is cut", "the manifest is gone", "all is gone"])
def test_a_live_model_that_is_broken_on_the_disk_is_mended_by_the_next_training(tmp_path, caplog, damage):
    workspace = Workspace(tmp_path)
    make_tenant(workspace, "shop")
    fill(workspace, "shop", now=NOW, sessions=60)
    (trained,) = train(workspace, "shop", now=NOW)
    folder = workspace.models / "shop" / "versions" / trained.version
    if damage == "all is gone":
        shutil.rmtree(folder)
    elif damage == "the manifest is gone":
        (folder / "manifest.json").unlink()
    else:
        array = next(folder.glob("session-knn/*.npy"))
        array.write_bytes(array.read_bytes()[:20])
    artifacts = FileArtifacts(workspace.models)
    news = news_of_tenants(Lake(workspace.lake), artifacts, {"shop": {}}, {})
    assert [each.tenant for each in news] == ["shop"], "the schedule goes on"
    (again,) = train(workspace, "shop", now=NOW)
    assert "What is learned now does not go on from it." in caplog.text
    arrays, _ = artifacts.load("shop", artifacts.live("shop")["live"])
    assert "session-knn" in arrays
    assert again.live
