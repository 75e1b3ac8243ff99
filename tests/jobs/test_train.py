"""Training: what the lake holds becomes models; each variant learns apart; the same data gives the same bytes."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from thinslice.cli.init import make_tenant
from thinslice.errors import BadSettings, NotReady, UnknownName
from thinslice.experiments import dump_experiment
from thinslice.jobs.demo import fill
from thinslice.jobs.train import interactions_of, news_of_tenants, offline, read_clicks, rows_of, train
from thinslice.records import Event, Experiment, ExperimentExposure, Exposure, Variant
from thinslice.settings import Policy, Workspace
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path)
    make_tenant(workspace, "shop")
    return workspace


def view(visitor, item, minutes, **fields):
    at = NOW - timedelta(minutes=minutes)
    base = {"event_id": f"{visitor}-{item}-{minutes}", "tenant": "shop", "name": "view_item", "visitor_id": visitor}
    return Event(**{**base, "item_id": item, "occurred_at": at, "received_at": at, **fields})


def test_a_trained_shop_has_a_live_bundle_that_names_what_it_learned_from(workspace):
    fill(workspace, "shop", now=NOW, sessions=400)
    (trained,) = train(workspace, "shop", now=NOW)
    assert trained.slot == "live"
    assert set(trained.models) == {"session-knn", "popular", "newest"}
    assert trained.offline["session-knn"]["hr"] > trained.offline["popular"]["hr"]
    artifacts = FileArtifacts(workspace.models)
    assert artifacts.live("shop") == {"live": trained.version}
    _, manifest = artifacts.load("shop", trained.version)
    assert manifest["lake_version"] == Lake(workspace.lake).version("events")
    assert manifest["rng"] == 0
    assert manifest["rows"] == rows_of(Lake(workspace.lake))["shop"]


def test_the_same_lake_and_seed_give_the_same_version(workspace):
    fill(workspace, "shop", now=NOW, sessions=200)
    assert train(workspace, "shop", now=NOW)[0].version == train(workspace, "shop", now=NOW)[0].version


def test_a_shop_without_anything_is_not_ready(workspace):
    with pytest.raises(NotReady, match="no events and no items"):
        train(workspace, "shop", now=NOW)


def test_a_shop_with_a_catalog_alone_learns_what_is_new(workspace):
    fill(workspace, "shop", now=NOW, sessions=1)
    Lake(workspace.lake)
    assert "newest" in train(workspace, "shop", now=NOW - timedelta(days=3650))[0].models


def test_one_policy_is_trained_and_the_others_keep_their_arrays(workspace):
    fill(workspace, "shop", now=NOW, sessions=200)
    train(workspace, "shop", now=NOW)
    artifacts = FileArtifacts(workspace.models)
    before, _ = artifacts.load("shop", artifacts.live("shop")["live"])
    Lake(workspace.lake).append("events", [view("v", f"new-{number}", 60) for number in range(5)])
    train(workspace, "shop", policy="popular", now=NOW)
    after, _ = artifacts.load("shop", artifacts.live("shop")["live"])
    assert np.array_equal(before["session-knn"]["item"], after["session-knn"]["item"])
    assert len(after["popular"]["order"]) == len(before["popular"]["order"]) + 5


def test_an_unknown_policy_is_told_which_there_are(workspace):
    with pytest.raises(UnknownName, match="session-knn"):
        train(workspace, "shop", policy="nonsense", now=NOW)


def test_settings_that_a_model_does_not_take_are_named(workspace):
    path = workspace.settings_file
    path.write_text(path.read_text() + "\n[tenants.shop.policies.odd]\nmodel = 'popular'\nsettings = { speed = 3 }\n")
    fill(workspace, "shop", now=NOW, sessions=20)
    with pytest.raises(BadSettings, match="speed"):
        train(workspace, "shop", now=NOW)


def test_bots_duplicates_strangers_and_the_unconsented_teach_nothing(workspace):
    Lake(workspace.lake).append(
        "events",
        [
            view("good", "a", 50), view("good", "b", 49),
            view("bot", "a", 50, is_bot=True),
            view("double", "a", 50, duplicate=True),
            view("shy", "a", 50, consent="measurement"),
            view(None, "a", 50),
            view("lister", None, 50, name="view_item_list"),
            view("future", "a", -30),
            *[view("machine", f"m{number}", 1 - number / 1000) for number in range(200)],
        ],
    )  # fmt: skip
    clicks = read_clicks(Lake(workspace.lake), "shop", NOW)
    assert clicks.visitor.tolist() == ["good"]
    assert clicks.item.tolist() == ["a", "b"]


def test_a_tenant_never_learns_from_another(workspace):
    Lake(workspace.lake).append("events", [view("v", "a", 50), view("w", "secret", 50, tenant="other")])
    assert set(read_clicks(Lake(workspace.lake), "shop", NOW).item.tolist()) == {"a"}


def test_each_variant_learns_from_its_own_sessions_and_those_before(workspace):
    started = NOW - timedelta(hours=2)
    experiment = Experiment(
        name="test",
        tenant="shop",
        started_at=started,
        variants=[Variant(name="old", policy="popular", weight=0.5),
                  Variant(name="new", policy="session-knn", weight=0.5)],
    )  # fmt: skip
    path = workspace.experiments / "shop" / "test.toml"
    path.parent.mkdir(parents=True)
    path.write_text(dump_experiment(experiment))
    rows = [view(f"before-{number}", f"b{number % 5}", 600) for number in range(20)]
    exposures = []
    for number in range(40):
        variant = "old" if number % 4 else "new"
        visitor = f"{variant}-{number}"
        rows.append(view(visitor, f"{variant}-thing", 60))
        rows.append(view(f"unseen-{number}", "unexposed-thing", 60))
        exposures.append(
            Exposure(
                recommendation_id=f"r{number}", tenant="shop", placement="home",
                occurred_at=NOW - timedelta(minutes=60),
                policy="popular", model_version="x", visitor_id=visitor,
                experiments=[ExperimentExposure(experiment="test", variant=variant, unit="visitor", unit_id=visitor,
                                                allocation_version=1, propensities={"old": 0.5, "new": 0.5})],
            )
        )  # fmt: skip
    lake = Lake(workspace.lake)
    lake.append("events", rows)
    lake.append("exposures", exposures)
    results = {each.slot: each for each in train(workspace, "shop", now=NOW)}
    assert set(results) == {"live", "exp.test.old", "exp.test.new"}
    artifacts = FileArtifacts(workspace.models)

    def learned(slot):
        models, _ = artifacts.load("shop", results[slot].version)
        from thinslice.models import MODELS

        return set(MODELS["popular"].from_arrays(models["popular"]).item_ids)

    assert learned("exp.test.old") == {"b0", "b1", "b2", "b3", "b4", "old-thing"}
    assert learned("exp.test.new") == {"b0", "b1", "b2", "b3", "b4", "new-thing"}
    assert results["exp.test.old"].sessions == results["exp.test.new"].sessions == 30
    assert "unexposed-thing" in learned("live")


def test_a_model_that_ranks_worse_than_popular_is_withheld(workspace):
    rng = np.random.default_rng(0)
    rows = []
    for session in range(1000):
        # Everybody sees the two famous things in turn, and between them things that say nothing of one another.
        for step in range(4):
            item = f"famous-{step // 2}" if step % 2 else f"noise-{rng.integers(400)}"
            rows.append(view(f"v{session}", item, 3000 - session + (4 - step) / 10))
    Lake(workspace.lake).append("events", rows)
    clicks = read_clicks(Lake(workspace.lake), "shop", NOW)
    good, poor = (
        Policy(model="session-knn"),
        Policy(model="session-knn", settings={"sample": 1, "neighbors": 1, "reach": 1}),
    )
    policies = {"good": good, "poor": poor, "popular": Policy(model="popular")}
    figures, worse = offline(clicks, policies, [], 0)
    assert figures["popular"]["hr"] > figures["poor"]["hr"] + 0.1
    assert worse == ["poor"]


def test_news_are_rows_that_the_models_have_not_seen(workspace):
    fill(workspace, "shop", now=NOW, sessions=100)
    lake, artifacts = Lake(workspace.lake), FileArtifacts(workspace.models)
    (before,) = news_of_tenants(lake, artifacts, ["shop"], {})
    assert before.trained_at is None
    assert before.rows == rows_of(lake)["shop"]
    train(workspace, "shop", now=NOW)
    assert news_of_tenants(lake, artifacts, ["shop"], {})[0].rows == 0
    lake.append("events", [view("v", "a", 1), view("v", "b", 1)])
    assert news_of_tenants(lake, artifacts, ["shop"], {})[0].rows == 2


def test_no_sessions_make_no_interactions(workspace):
    clicks = read_clicks(Lake(workspace.lake), "shop", NOW)
    assert len(interactions_of(clicks, np.zeros(0, dtype=bool)).item) == 0
