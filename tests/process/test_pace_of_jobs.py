"""What the jobs do over and over keeps to a small part of a core."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from thinslice.cli.init import HEAD, make_tenant
from thinslice.process.jobs import LARGEST_SHARE, Jobs
from thinslice.records import Event
from thinslice.settings import Workspace, read_settings
from thinslice.store.lake import Lake


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    workspace.run.mkdir(parents=True)
    workspace.settings_file.write_text(HEAD)
    make_tenant(workspace, "shop")
    return workspace


def look_at(workspace, number):
    at = datetime.now(UTC) - timedelta(hours=2)
    event = Event(
        event_id=f"e{number}", tenant="shop", name="view_item", visitor_id="v", session_id="s", item_id="i",
        occurred_at=at, received_at=at,
    )  # fmt: skip
    Lake(workspace.lake).append("events", [event])


def test_sessions_are_written_down_and_then_not_at_once_again_however_many_events_come(workspace):
    look_at(workspace, 1)
    jobs = Jobs(workspace, read_settings(workspace))
    jobs.sessions()
    deadline = time.monotonic() + 60
    while "sessions_at" not in jobs.state and time.monotonic() < deadline:
        time.sleep(0.1)
        jobs.sessions()
    assert Lake(workspace.lake).scan("sessions").num_rows == 1
    look_at(workspace, 2)
    jobs.sessions()
    assert not jobs._errands
    assert 0 < jobs._sessions_rest_until - time.monotonic() < 60 / LARGEST_SHARE
    jobs._sessions_rest_until = 0.0
    jobs.sessions()
    assert jobs._errands
    jobs.stop()
    jobs.run()
