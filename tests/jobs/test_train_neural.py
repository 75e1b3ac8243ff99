"""A policy may name the neural ranker: jobs train it, freshen it, and workers serve it, all without PyTorch."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from thinslice.cli.init import make_tenant
from thinslice.jobs.train import train
from thinslice.models import MODELS
from thinslice.records import Event
from thinslice.settings import Workspace
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

POLICY = """
[tenants.shop.policies.network]
model = 'neural-ranker'
settings = { least_questions = 100, hidden = 16 }
"""

SERVE = """
import pathlib, sys
from thinslice.serving.models import ModelHost
from thinslice.store.artifacts import FileArtifacts
host = ModelHost(FileArtifacts(pathlib.Path(sys.argv[1])), ["shop"])
host.refresh(0.0)
model = host.bundle("shop").models["network"]
answer = model.recommend(["new-a"], 5)
print(model.name, "new-b" in answer.item_ids, "network_hidden" in model.arrays(), "torch" in sys.modules)
"""


@pytest.mark.slow
def test_jobs_train_a_network_freshen_it_every_minute_and_workers_serve_it_without_pytorch(tmp_path):
    workspace = Workspace(tmp_path)
    make_tenant(workspace, "shop")
    workspace.settings_file.write_text(workspace.settings_file.read_text() + POLICY)
    Lake(workspace.lake).append("events", list(walks()))
    (tuned,) = train(workspace, "shop", now=NOW)
    assert tuned.tuned == ["network"]
    artifacts = FileArtifacts(workspace.models)
    before, _ = artifacts.load("shop", tuned.version)
    late = [(visitor, item, at) for visitor in "xyz" for at, item in ((4, "new-a"), (3, "new-b"))]
    Lake(workspace.lake).append("events", [view(*click) for click in late])
    (fresh,) = train(workspace, "shop", now=NOW)
    after, _ = artifacts.load("shop", fresh.version)
    assert fresh.tuned == []
    assert after["network"]["network_hidden"].tobytes() == before["network"]["network_hidden"].tobytes()
    assert "new-a" in set(MODELS["neural-ranker"].from_arrays(after["network"]).item_ids)
    served = subprocess.run(
        [sys.executable, "-c", SERVE, str(workspace.models)], capture_output=True, text=True, timeout=240, check=True
    )
    assert served.stdout.split() == ["neural-ranker", "True", "True", "False"]


def walks(sessions=300, items=40):
    """Visits that walk along a ring of items, mostly one step on, and sometimes stay."""
    draw = np.random.default_rng(0)
    for number in range(sessions):
        at = int(draw.integers(items))
        for step in range(10):
            yield view(f"v{number}-{step}", str(at), 60.0 * (sessions - number) - step, visitor_id=f"v{number}")
            at = (at + int(draw.choice([0, 1, 1, 1, 2, 7]))) % items


def view(name, item, minutes, **fields):
    at = NOW - timedelta(minutes=minutes)
    base = {"event_id": f"{name}-{item}", "tenant": "shop", "name": "view_item", "visitor_id": name, "item_id": item}
    return Event(**{**base, "occurred_at": at, "received_at": at, **fields})
