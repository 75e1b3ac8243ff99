"""The segments `returning` and `country`: from the lake to maps, and from these to what is logged with a slate."""

import os
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from thinslice.cli.init import make_tenant
from thinslice.errors import Corrupt
from thinslice.experiments.unit_map import FirstSeen
from thinslice.jobs import conduct
from thinslice.jobs.tend import tend
from thinslice.jobs.visitors import EVERY, LOOK_BACK, countries, first_seen, note_visitors, wanted_of
from thinslice.records import Event, Exposure, Item, LiveSession, RecommendationRequest, User
from thinslice.serving import ExperimentFiles, ModelHost, RecommendationIds, Recommender
from thinslice.serving.unit_maps import SEEN, VISITORS, read_first_seen, unit_map_file
from thinslice.settings import Workspace, read_settings
from thinslice.store.artifacts import MemoryArtifacts
from thinslice.store.lake import Lake
from thinslice.store.live import MemoryLive

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEXT = (
    'name = "ranker"\ndays = 14\ntraining = "shared"\nsegments = ["returning", "country"]\n'
    'variants = [{name = "old", policy = "popular"}, {name = "new", policy = "newest"}]\n'
)


def event(visitor, at, **fields):
    return Event(event_id=f"{visitor}-{at.timestamp()}", tenant="shop", name="view_item", visitor_id=visitor,
                 item_id="a", occurred_at=at, received_at=at, **fields)  # fmt: skip


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path)
    make_tenant(made, "shop")
    lake = Lake(made.lake)
    lake.append("events", [
        event("old", NOW - timedelta(days=9)), event("old", NOW - timedelta(hours=2)),
        event("ancient", NOW - LOOK_BACK - timedelta(days=1)), event("here", NOW - timedelta(minutes=5)),
        event("later", NOW + timedelta(minutes=5)), event("robot", NOW - timedelta(days=2), is_bot=True),
    ])  # fmt: skip
    lake.append("exposures", [
        Exposure(recommendation_id="r", tenant="shop", occurred_at=NOW - timedelta(days=20), placement="home",
                 policy="p", model_version="m", visitor_id="old"),
    ])  # fmt: skip
    lake.append("users", [
        User(tenant="shop", user_id="anna", attributes={"country": "AT"}, consent="personalization", updated_at=NOW),
        User(tenant="shop", user_id="ben", attributes={}, consent="personalization", updated_at=NOW),
    ])  # fmt: skip
    return made


def test_first_visits_come_from_events_and_slates_of_people(workspace):
    seen = first_seen(workspace, "shop", NOW)
    assert seen.at("old") == (NOW - timedelta(days=20)).timestamp()
    assert seen.at("here") == (NOW - timedelta(minutes=5)).timestamp()
    assert [seen.at(name) for name in ("ancient", "later", "robot", "nobody")] == [None] * 4
    assert countries(workspace, "shop").get("anna") == "AT"
    assert countries(workspace, "shop").get("ben") is None


def test_maps_are_made_where_an_experiment_asks_for_them_and_anew_every_ten_minutes(workspace):
    started = conduct.start_experiment(workspace, "shop", TEXT, "a.toml", NOW)
    assert wanted_of([started]) == {"returning", "country"}
    path = unit_map_file(workspace.experiments / "shop", VISITORS, SEEN)
    assert len(read_first_seen(path)) == 2
    os.utime(path, (NOW.timestamp(), NOW.timestamp()))
    assert note_visitors(workspace, "shop", {"returning"}, NOW + EVERY / 2) == {}
    Lake(workspace.lake).append("events", [event("fresh", NOW + timedelta(minutes=6))])
    tend(workspace, NOW + EVERY)
    assert read_first_seen(path).at("fresh") is not None


def test_nothing_is_written_where_nobody_asks(workspace):
    conduct.start_experiment(workspace, "shop", TEXT.replace('"returning", "country"', '"device"'), "a.toml", NOW)
    assert not unit_map_file(workspace.experiments / "shop", VISITORS, SEEN).exists()


def test_a_slate_is_logged_with_what_was_known_of_its_visitor(workspace):
    conduct.start_experiment(workspace, "shop", TEXT, "a.toml", NOW)
    live = MemoryLive(clock=lambda: NOW.timestamp())
    live.put_items([Item(tenant="shop", item_id="a", updated_at=NOW, title="a")])
    rows, settings = [], read_settings(workspace)
    recommender = Recommender(
        settings, live, ModelHost(MemoryArtifacts(), ["shop"]), ExperimentFiles(workspace.experiments),
        RecommendationIds(b"s" * 32), SimpleNamespace(exposure=rows.append),
    )  # fmt: skip

    def segments(**fields):
        recommender.recommend("shop", RecommendationRequest(**fields), "secret", NOW)
        return rows[-1].segments

    assert segments(visitor_id="old") == {"returning": "returning"}
    assert segments(visitor_id="never-seen", user_id="anna") == {"returning": "new", "country": "AT"}
    assert segments(visitor_id="here", user_id="ben") == {"returning": "new"}  # still in the first visit
    told = segments(visitor_id="old", user_id="anna", context={"country": "DE", "returning": "yes"})
    assert told == {"returning": "yes", "country": "DE"}  # what the shop says goes before
    began = (NOW - timedelta(days=20) + timedelta(minutes=10)).timestamp()
    live.update({("shop", "old"): LiveSession(visitor_id="old", session_id="s", started_at=began,
                                              last_at=NOW.timestamp())}, now=NOW.timestamp())  # fmt: skip
    assert segments(visitor_id="old") == {"returning": "new"}  # a visit that never ended


def test_a_damaged_map_is_refused():
    with pytest.raises(Corrupt, match="first visits"):
        FirstSeen.from_arrays({"keys": FirstSeen({"a": 1.0}).arrays()["keys"]})
