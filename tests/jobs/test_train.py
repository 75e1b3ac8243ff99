"""Training: what the lake holds becomes models; each variant learns apart; the same data gives the same bytes."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from thinslice.cli.init import make_tenant
from thinslice.errors import BadSettings, NotReady, UnknownName
from thinslice.evaluation.gates import Gate
from thinslice.experiments import dump_experiment
from thinslice.jobs import lesson, training_data
from thinslice.jobs.demo import fill
from thinslice.jobs.news import news_of_tenants, rows_of, state_of
from thinslice.jobs.offline import exam_of
from thinslice.jobs.recipes import Recipe, needed_policies
from thinslice.jobs.schedule import Attempt
from thinslice.jobs.train import train
from thinslice.jobs.training_data import Clicks, askers_of, interactions_of, people_in, people_of, read_clicks
from thinslice.models import MODELS, from_columns
from thinslice.records import ACTIONS, Event, Experiment, ExperimentExposure, Exposure, Item, User, Variant
from thinslice.sessions import person_id
from thinslice.settings import Policy, Workspace, read_settings
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
    assert {"session-knn", "popular", "newest", "trending", "content", "implicit-cosine"} <= set(trained.models)
    assert not {"implicit-als", "implicit-bpr", "ease", "session-transformer"} & set(trained.models)
    assert trained.offline["session-knn"]["hr"] > trained.offline["popular"]["hr"]
    artifacts = FileArtifacts(workspace.models)
    assert artifacts.live("shop") == {"live": trained.version}
    _, manifest = artifacts.load("shop", trained.version)
    assert manifest["lake_version"] == Lake(workspace.lake).version("events")
    assert manifest["rng"] == 0
    assert manifest["rows"] == rows_of(Lake(workspace.lake))["shop"]


def test_who_buys_on_an_items_page_has_not_gone_on_to_another_item(workspace):
    events = []
    for n in range(40):
        for place, (item, name) in enumerate(
            [("a", "view_item"), ("a", "add_to_cart"), ("a", "purchase"), ("b", "view_item"), ("a", "view_item")]
        ):
            events.append(view(f"v{n}", item, 600 - 10 * n - place, name=name, event_id=f"{n}-{place}"))
    lake = Lake(workspace.lake)
    lake.append("events", events)
    clicks = read_clicks(lake, "shop", NOW)
    assert len(clicks.item) == 3 * 40
    learned = interactions_of(clicks, np.ones(40, dtype=np.bool_))
    assert [learned.item_ids[code] for code in learned.item[:3].tolist()] == ["a", "b", "a"]
    assert [ACTIONS[code] for code in learned.action[:3].tolist()] == ["purchase", "view_item", "view_item"]
    assert exam_of(clicks).sessions[0] == ["a", "b", "a"]


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
    assert clicks.items_of(np.arange(2)) == ["a", "b"]


def test_clicks_are_read_in_batches_and_hold_each_text_once(workspace, monkeypatch):
    rows = [view(f"v{n % 5}", f"i{n % 7}", 600 - 40 * n, user_id=f"u{n % 2}" if n % 3 else None) for n in range(12)]
    Lake(workspace.lake).append("events", rows)
    whole = read_clicks(Lake(workspace.lake), "shop", NOW)
    monkeypatch.setattr(training_data, "BATCH", 3)
    clicks = read_clicks(Lake(workspace.lake), "shop", NOW)
    for name in Clicks.__dataclass_fields__:
        assert np.array_equal(getattr(clicks, name), getattr(whole, name)), name
    assert clicks.items_of(np.arange(12)) == [f"i{n % 7}" for n in range(12)]
    assert clicks.item_ids == sorted({f"i{n % 7}" for n in range(12)})
    assert clicks.visitor.tolist() == [f"v{n % 5}" for n in range(12)]
    assert clicks.user.tolist() == [f"u{n % 2}" if n % 3 else "" for n in range(12)]
    assert len({id(text) for text in clicks.visitor}) == 5


def test_a_tenant_never_learns_from_another(workspace):
    Lake(workspace.lake).append("events", [view("v", "a", 50), view("w", "secret", 50, tenant="other")])
    assert read_clicks(Lake(workspace.lake), "shop", NOW).item_ids == ["a"]


def shop_in_a_test(workspace, training):
    """20 visitors before the test, and in it 30 of `old` and 10 of `new`; one of theirs each was never in the test."""
    started = NOW - timedelta(hours=2)
    experiment = Experiment(
        name="test",
        tenant="shop",
        started_at=started,
        training=training,
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


def test_each_variant_learns_from_its_own_sessions_and_those_before(workspace):
    shop_in_a_test(workspace, "isolated")
    results = {each.slot: each for each in train(workspace, "shop", now=NOW)}
    assert set(results) == {"live", "exp.test.old", "exp.test.new"}
    artifacts = FileArtifacts(workspace.models)

    def learned(slot):
        models, _ = artifacts.load("shop", results[slot].version)
        return set(MODELS["popular"].from_arrays(models["popular"]).item_ids)

    assert learned("exp.test.old") == {"b0", "b1", "b2", "b3", "b4", "old-thing"}
    assert learned("exp.test.new") == {"b0", "b1", "b2", "b3", "b4", "new-thing"}
    assert results["exp.test.old"].sessions == results["exp.test.new"].sessions == 30
    _, manifest = FileArtifacts(workspace.models).load("shop", results["exp.test.old"].version)
    origin = manifest["lineage"]["test"]["old"]
    assert origin["contamination"] == 0
    assert (origin["clicks"]["old"], origin["clicks"]["new"]) == (10, 0)
    assert "unexposed-thing" in learned("live")


def test_a_model_that_serves_every_variant_says_how_much_of_it_each_owes_to_the_others(workspace):
    shop_in_a_test(workspace, "shared")
    (live,) = train(workspace, "shop", now=NOW)
    _, manifest = FileArtifacts(workspace.models).load("shop", live.version)
    origin = manifest["lineage"]["test"]
    clicks = {"before": 20, "outside": 40, "old": 30, "new": 10}
    assert origin["old"] == {"clicks": clicks, "contamination": 0.1}
    assert origin["new"] == {"clicks": clicks, "contamination": 0.3}


def shop_of_the_famous(workspace, sessions=1000, famous=2, others=400):
    """Everybody sees the famous things in turn, and between them things that say nothing of one another."""
    rng = np.random.default_rng(0)
    rows = []
    for session in range(sessions):
        for step in range(4):
            item = f"famous-{step // 2 % famous}" if step % 2 else f"noise-{rng.integers(others)}"
            rows.append(view(f"v{session}", item, 3000 - session + (4 - step) / 10))
    Lake(workspace.lake).append("events", rows)


def settle(workspace, **policies):
    """Writes the tenant's policies anew."""
    text = workspace.settings_file.read_text().split("\n[tenants.shop.policies")[0]
    for name, (model, settings) in policies.items():
        pairs = ", ".join(f"{key} = {value}" for key, value in settings.items())
        text += f"\n[tenants.shop.policies.{name}]\nmodel = '{model}'\nsettings = {{ {pairs} }}\n"
    workspace.settings_file.write_text(text)


POOR = {"sample": 1, "neighbors": 1, "reach": 1}


def test_a_model_that_ranks_worse_than_popular_is_withheld_and_said_so(workspace):
    settle(workspace, poor=("session-knn", POOR))
    shop_of_the_famous(workspace)
    (trained,) = train(workspace, "shop", now=NOW)
    assert trained.offline["popular"]["hr"] > trained.offline["poor"]["hr"] + 0.1
    assert "poor" in trained.withheld
    assert "better than popular" in trained.refused["poor"][0]
    artifacts = FileArtifacts(workspace.models)
    models, manifest = artifacts.load("shop", trained.version)
    assert "popular" in models
    assert "poor" not in models
    assert manifest["refused"] == trained.refused


def test_a_recipe_that_is_worse_than_the_live_one_is_withheld_and_the_live_one_goes_on(workspace):
    settle(workspace, mine=("session-knn", {}))
    fill(workspace, "shop", now=NOW, sessions=1500)
    train(workspace, "shop", now=NOW)
    settle(workspace, mine=("session-knn", {"sample": 20, "neighbors": 2, "reach": 1}))
    Lake(workspace.lake).append("events", [view("late", f"new-{number}", 1) for number in range(2)])
    (trained,) = train(workspace, "shop", now=NOW)
    assert trained.withheld == trained.kept == ["mine"]
    assert any("not worse than live" in why for why in trained.refused["mine"])
    models, manifest = FileArtifacts(workspace.models).load("shop", trained.version)
    assert manifest["settings"]["mine"] == {}
    assert "new-0" in set(MODELS["session-knn"].from_arrays(models["mine"]).item_ids)
    (again,) = train(workspace, "shop", now=NOW, force=True)
    assert not again.withheld
    assert FileArtifacts(workspace.models).manifest("shop", again.version)["settings"]["mine"]["neighbors"] == 2


def test_training_says_what_changed(workspace):
    fill(workspace, "shop", now=NOW, sessions=200)
    assert train(workspace, "shop", now=NOW)[0].changes == ["the first model of this slot."]
    assert train(workspace, "shop", now=NOW)[0].changes == ["nothing: the same data, settings and code."]
    Lake(workspace.lake).append("events", [view("v", "a", 60), view("v", "b", 59)])
    settle(workspace, mine=("popular", {"half_life_days": 1.0}))
    said = " ".join(train(workspace, "shop", now=NOW)[0].changes)
    assert "settings: mine came." in said
    assert "data:" in said


def test_every_generation_is_a_row_of_the_table_models(workspace):
    fill(workspace, "shop", now=NOW, sessions=50)
    (trained,) = train(workspace, "shop", now=NOW)
    connection = Lake(workspace.lake).connect(tenant="shop")
    try:
        rows = connection.execute("SELECT slot, version, lake_version FROM models").fetchall()
    finally:
        connection.close()
    assert rows == [("live", trained.version, trained.lake_version)]


def test_a_new_item_is_learned_from_its_feed_alone_and_the_rest_stays(workspace):
    fill(workspace, "shop", now=NOW, sessions=100)
    train(workspace, "shop", now=NOW)
    artifacts, lake = FileArtifacts(workspace.models), Lake(workspace.lake)
    before, _ = artifacts.load("shop", artifacts.live("shop")["live"])
    assert not news_of_tenants(lake, artifacts, wanted(workspace), {})[0].feed
    lake.append("items", [Item(tenant="shop", item_id="brand-new", updated_at=NOW, title="A brand new vase")])
    assert news_of_tenants(lake, artifacts, wanted(workspace), {})[0].feed
    (trained,) = train(workspace, "shop", now=NOW, feed=True)
    after, manifest = artifacts.load("shop", trained.version)
    assert np.array_equal(before["session-knn"]["item"], after["session-knn"]["item"])
    for name in ("content", "newest"):
        assert "brand-new" in set(MODELS[name].from_arrays(after[name]).item_ids)
    assert manifest["offline"]
    assert not news_of_tenants(lake, artifacts, wanted(workspace), {})[0].feed


def test_the_session_ranker_is_tuned_when_due_and_freshened_otherwise(workspace, monkeypatch):
    settle(workspace, ranker=("session-ranker", {"least_questions": 100, "trees": 10}))
    fill(workspace, "shop", now=NOW, sessions=600)
    (first,) = train(workspace, "shop", now=NOW, full=False)
    artifacts = FileArtifacts(workspace.models)
    assert first.tuning_due == {"ranker": "it was never tuned"}
    assert state_of(artifacts, "shop").tuning_due
    (tuned,) = train(workspace, "shop", now=NOW, force=True)
    assert tuned.tuned == ["ranker"]
    tuning = artifacts.manifest("shop", tuned.version)["tuned"]["ranker"]
    Lake(workspace.lake).append("events", [view("late", "new-a", 2), view("late", "new-b", 1)])
    (fresh,) = train(workspace, "shop", now=NOW)
    models, manifest = artifacts.load("shop", fresh.version)
    assert fresh.tuned == []
    assert manifest["tuned"]["ranker"] == tuning
    assert "new-a" in set(MODELS["session-ranker"].from_arrays(models["ranker"]).item_ids)
    assert train(workspace, "shop", now=NOW)[0].version == fresh.version
    monkeypatch.setattr("thinslice.jobs.recipes.version", lambda _: "9.9")
    (put_off,) = train(workspace, "shop", now=NOW, full=False)
    assert put_off.tuning_due == {"ranker": f"it was tuned by release {tuning['release']}"}
    assert tuning["release"] not in ("", "9.9")


def test_a_tuning_that_this_release_cannot_read_is_made_anew_and_not_replaced_by_defaults(workspace, monkeypatch):
    settle(workspace, ranker=("session-ranker", {"least_questions": 100, "trees": 10}))
    fill(workspace, "shop", now=NOW, sessions=600)
    train(workspace, "shop", now=NOW, full=True, force=True)
    monkeypatch.setattr(lesson, "read_model", lambda *_: None)
    (put_off,) = train(workspace, "shop", now=NOW, full=False, force=True)
    assert put_off.tuning_due == {"ranker": "this release cannot read what was tuned"}
    assert put_off.tuned == []
    train(workspace, "shop", now=NOW, full=True, force=True)
    (anew,) = train(workspace, "shop", now=NOW, force=True)
    assert anew.tuned == ["ranker"]


def test_trainings_on_a_schedule_ask_again_only_when_something_has_changed(workspace):
    settle(workspace, poor=("session-knn", POOR))
    fill(workspace, "shop", now=NOW, sessions=600)
    asked = []
    for minutes in (3, 2, 1):
        (trained,) = train(workspace, "shop", now=NOW, full=False, scheduled=True)
        manifest = FileArtifacts(workspace.models).manifest("shop", trained.version)
        asked.append((manifest["examined"], manifest["clicks"], trained.offline, trained.refused))
        Lake(workspace.lake).append("events", [view(f"late-{minutes}", f"new-{minutes}-{n}", minutes) for n in (1, 2)])
    assert asked[0][0] == asked[1][0] == asked[2][0] == asked[0][1]
    assert asked[1][1] == asked[0][1] + 2
    assert asked[0][2:] == asked[1][2:] == asked[2][2:]
    settle(workspace, poor=("session-knn", {**POOR, "reach": 2}))
    (trained,) = train(workspace, "shop", now=NOW, full=False, scheduled=True)
    assert FileArtifacts(workspace.models).manifest("shop", trained.version)["examined"] == asked[2][1] + 2


def test_other_code_that_makes_worse_models_leaves_the_stored_ones_in_place(workspace, monkeypatch):
    fill(workspace, "shop", now=NOW, sessions=1500)
    train(workspace, "shop", now=NOW)
    artifacts = FileArtifacts(workspace.models)
    before, _ = artifacts.load("shop", artifacts.live("shop")["live"])
    for name in ("session-knn", "bought-together"):
        honest = MODELS[name].fit.__func__

        def spoiled(cls, interactions, items=None, *, rng=None, honest=honest, **settings):
            mixed = np.random.default_rng(0).permutation(interactions.item)
            return honest(cls, interactions._replace(item=mixed), items, rng=rng, **settings)

        monkeypatch.setattr(MODELS[name], "fit", classmethod(spoiled))
    monkeypatch.setattr("thinslice.jobs.publication.code_version", lambda: "other")
    monkeypatch.setattr("thinslice.jobs.lesson.code_version", lambda: "other")
    for scheduled in (False, True):
        (trained,) = train(workspace, "shop", now=NOW, scheduled=scheduled)
        assert "session-knn" in trained.withheld
        assert "session-knn" in trained.kept
        assert "bought-together" not in trained.withheld  # a shelf does not foresee clicks: it is not judged by them
        after, _ = artifacts.load("shop", trained.version)
        assert np.array_equal(before["session-knn"]["item"], after["session-knn"]["item"])
        assert np.array_equal(before["implicit-cosine"]["weight"], after["implicit-cosine"]["weight"])


def test_a_model_that_was_tuned_anew_by_other_code_is_not_judged_by_what_both_have_seen(workspace, monkeypatch):
    settle(workspace, ranker=("session-ranker", {"least_questions": 100, "trees": 10}))
    fill(workspace, "shop", now=NOW, sessions=1000)
    assert train(workspace, "shop", now=NOW, full=True)[0].refused == {}
    monkeypatch.setattr("thinslice.jobs.publication.code_version", lambda: "other")
    monkeypatch.setattr("thinslice.jobs.lesson.code_version", lambda: "other")
    monkeypatch.setattr(lesson, "not_worse", lambda *_: Gate("not worse than live", False, "as if"))
    (trained,) = train(workspace, "shop", now=NOW, full=True)
    assert trained.tuned == ["ranker"]
    assert "session-knn" in trained.withheld
    assert "ranker" not in trained.withheld


def test_auto_stands_for_the_simplest_model_that_will_do(workspace):
    text = workspace.settings_file.read_text().replace('default_policy = "session-knn"', 'default_policy = "auto"')
    workspace.settings_file.write_text(text)
    shop_of_the_famous(workspace, sessions=2500, famous=1, others=10**6)
    (trained,) = train(workspace, "shop", now=NOW)
    assert trained.default == "popular"
    assert trained.simplest.startswith("popular is enough")
    manifest = FileArtifacts(workspace.models).manifest("shop", trained.version)
    assert manifest["aliases"] == {"auto": trained.default}


def test_auto_may_stand_for_what_only_looks_at_the_last_click_and_stays_when_its_new_model_is_withheld(workspace):
    text = workspace.settings_file.read_text().replace('default_policy = "session-knn"', 'default_policy = "auto"')
    workspace.settings_file.write_text(text)
    rng = np.random.default_rng(0)
    after = rng.permutation(60)
    rows = []
    for session in range(1200):
        item = int(rng.integers(60))
        for step in range(4):
            rows.append(view(f"v{session}", f"i{item}", 3000 - session + (4 - step) / 10))
            item = int(after[item])
    Lake(workspace.lake).append("events", rows)
    (trained,) = train(workspace, "shop", now=NOW)
    assert trained.default == "markov"
    assert trained.simplest.startswith("markov is")
    settle(workspace, markov=("session-knn", POOR))
    (spoiled,) = train(workspace, "shop", now=NOW, full=True)
    assert "markov" in spoiled.kept
    assert (spoiled.default, spoiled.simplest) == ("markov", trained.simplest)


def test_policies_that_differ_only_in_what_they_try_have_one_model_and_learn_once(workspace):
    fill(workspace, "shop", now=NOW, sessions=300)
    settle(workspace, one=("session-knn", {"neighbors": 50}), two=("session-knn", {"neighbors": 50}))
    told = []
    (trained,) = train(workspace, "shop", now=NOW, told=told.append)
    assert trained.offline["one"] == trained.offline["two"]
    assert [words.split()[0] for words in told if "learns from" in words].count("one") == 1
    assert not any(words.startswith("two ") for words in told)
    arrays, _ = FileArtifacts(workspace.models).load("shop", trained.version)
    assert all(np.array_equal(arrays["one"][name], arrays["two"][name]) for name in arrays["one"])


@pytest.mark.parametrize("kind", ["sessions of length one", "one item"])
def test_where_nothing_goes_with_anything_popular_is_enough_and_train_says_why(workspace, kind):
    text = workspace.settings_file.read_text().replace('default_policy = "session-knn"', 'default_policy = "auto"')
    workspace.settings_file.write_text(text)
    lone = [view(f"v{n}", f"i{n % 7 * (n % 3)}", 900 - n) for n in range(80)]
    mugs = [view(f"v{n % 20}", "mug", 900 - n) for n in range(80)]
    Lake(workspace.lake).append("events", mugs if kind == "one item" else lone)
    (trained,) = train(workspace, "shop", now=NOW)
    assert trained.default == "popular"
    assert trained.simplest.startswith("popular is enough: no session holds two different items")
    pairs = [view(f"w{n}", f"i{item}", 500 - n - item) for n in range(40) for item in range(2)]
    Lake(workspace.lake).append("events", pairs)
    (trained,) = train(workspace, "shop", now=NOW)
    assert trained.default == "session-ranker", "sessions tell something now"


def test_what_the_catalog_says_of_items_is_shown_where_sessions_say_nothing(workspace):
    text = workspace.settings_file.read_text().replace('default_policy = "session-knn"', 'default_policy = "auto"')
    workspace.settings_file.write_text(text)
    Lake(workspace.lake).append("events", [view(f"v{n}", f"i{n % 7}", 900 - n) for n in range(80)])
    items = [Item(tenant="shop", item_id=f"i{n}", title="a red mug", updated_at=NOW) for n in range(7)]
    Lake(workspace.lake).append("items", items)
    (trained,) = train(workspace, "shop", now=NOW)
    assert trained.default == "session-ranker"


def test_few_questions_choose_no_model_and_train_says_so(workspace):
    fill(workspace, "shop", now=NOW, sessions=60)
    (trained,) = train(workspace, "shop", now=NOW)
    asked = trained.offline["popular"]["n"]
    assert trained.simplest == f"{asked} questions are too few to say which model is enough; from 200 on they do."


def test_actions_and_users_of_clicks_are_known(workspace):
    Lake(workspace.lake).append(
        "events",
        [view("v", "a", 50), view("v", "b", 49, name="add_to_cart", user_id="anna"),
         view("v", "b", 48, name="purchase", order_id="o"), view("w", "c", 47, name="like")],
    )  # fmt: skip
    clicks = read_clicks(Lake(workspace.lake), "shop", NOW)
    assert [ACTIONS[code] for code in clicks.action] == ["view_item", "purchase", "view_item"]
    learned = interactions_of(clicks, np.ones(2, dtype=bool))
    assert [learned.user_ids[user] for user in learned.user] == ["anna", person_id(None, "w")]
    assert clicks.user.tolist() == ["", ""]
    assert people_in(learned) == {"users": 1, "visitors": 1, "came_back": 0}


def test_what_a_visitor_did_before_the_login_teaches_of_the_user_but_not_before_that_login_is_known(workspace):
    Lake(workspace.lake).append(
        "events",
        [view("v", "a", 500), view("v", "b", 300, user_id="anna"), view("v", "c", 100), view("w", "d", 90),
         view("phone", "e", 80, user_id="anna")],
    )  # fmt: skip
    clicks = read_clicks(Lake(workspace.lake), "shop", NOW)
    assert people_of(clicks) == ["anna", "anna", "anna", person_id(None, "w"), "anna"]
    before_the_login = (NOW - timedelta(minutes=400)).timestamp()
    assert people_of(clicks, before_the_login) == [person_id(None, name) for name in ("v", "v", "v", "w", "phone")]
    asked = askers_of(clicks)
    assert asked == [person_id(None, "v"), "anna", "anna", person_id(None, "w"), "anna"]


def test_who_came_too_long_ago_is_nobody(workspace, monkeypatch):
    monkeypatch.setattr(training_data, "MOST_PEOPLE", 2)
    Lake(workspace.lake).append("events", [view(f"v{number}", "a", 500 - number) for number in range(4)])
    clicks = read_clicks(Lake(workspace.lake), "shop", NOW)
    assert people_of(clicks) == ["", "", person_id(None, "v2"), person_id(None, "v3")]


def test_a_model_that_knows_users_is_told_what_the_shop_says_of_them(workspace):
    path = workspace.settings_file
    path.write_text(path.read_text() + "\n[tenants.shop.policies.known]\nmodel = 'user-cf'\n")
    rows, users = [], []
    for number in range(40):
        kind = "garden" if number % 2 else "book"
        rows += [view(f"v{number}", f"{kind}-{(number // 2 + step) % 6}", 900 - 10 * number - step,
                      user_id=f"user-{number}") for step in range(3)]  # fmt: skip
    for number in range(42):
        users.append(User(tenant="shop", user_id=f"user-{number}", updated_at=NOW,
                          loyalty_tier="gold" if number % 2 else "basic"))  # fmt: skip
    lake = Lake(workspace.lake)
    lake.append("events", rows)
    lake.append("users", users)
    (trained,) = train(workspace, "shop", now=NOW, force=True)
    assert trained.people == {"users": 40, "visitors": 0, "came_back": 0}
    arrays, _ = FileArtifacts(workspace.models).load("shop", trained.version)
    model = MODELS["user-cf"].from_arrays(arrays["known"])
    assert model.knows("user-41")  # by the tier alone: this user never came
    assert not model.knows("user-99")


def wanted(workspace):
    return {"shop": needed_policies(read_settings(workspace), "shop")}


def test_a_policy_that_is_new_in_the_settings_is_news_until_it_was_tried(workspace):
    fill(workspace, "shop", now=NOW, sessions=100)
    lake, artifacts = Lake(workspace.lake), FileArtifacts(workspace.models)
    train(workspace, "shop", now=NOW)
    settle(workspace, mine=("session-knn", {"neighbors": 50}))
    assert news_of_tenants(lake, artifacts, wanted(workspace), {})[0].rows == 1
    tried = {"shop": Attempt(9e9, rows_of(lake)["shop"], "")}
    assert news_of_tenants(lake, artifacts, wanted(workspace), tried)[0].rows == 0
    train(workspace, "shop", now=NOW, force=True)
    assert news_of_tenants(lake, artifacts, wanted(workspace), {})[0].rows == 0
    settle(workspace, mine=("session-knn", {"neighbors": 60}))
    assert news_of_tenants(lake, artifacts, wanted(workspace), {})[0].rows == 1


def test_news_are_rows_that_the_models_have_not_seen(workspace):
    fill(workspace, "shop", now=NOW, sessions=100)
    lake, artifacts = Lake(workspace.lake), FileArtifacts(workspace.models)
    (before,) = news_of_tenants(lake, artifacts, wanted(workspace), {})
    assert before.trained_at is None
    assert before.rows == rows_of(lake)["shop"]
    train(workspace, "shop", now=NOW)
    assert news_of_tenants(lake, artifacts, wanted(workspace), {})[0].rows == 0
    lake.append("events", [view("v", "a", 1), view("v", "b", 1)])
    assert news_of_tenants(lake, artifacts, wanted(workspace), {})[0].rows == 2
    assert (
        news_of_tenants(lake, artifacts, wanted(workspace), {"shop": Attempt(9e9, rows_of(lake)["shop"], "")})[0].rows
        == 0
    )


def test_no_sessions_make_no_interactions(workspace):
    clicks = read_clicks(Lake(workspace.lake), "shop", NOW)
    assert len(interactions_of(clicks, np.zeros(0, dtype=bool)).item) == 0


def test_a_freshened_model_is_told_of_users_only_where_it_takes_that():
    told = []

    class Knowing:
        def refit(self, interactions, items=None, *, rng=None, users=()):
            told.append(list(users))
            return self

    class Plain:
        def refit(self, interactions, items=None, *, rng=None):
            told.append("plain")
            return self

    ann = User(tenant="shop", user_id="ann", updated_at=NOW)
    for previous in (Knowing(), Plain()):
        recipe = Recipe(Policy(model="session-ranker"), previous)
        assert recipe.make(from_columns([], [], []), [], 0, [ann]) is previous
    assert told == [[ann], "plain"]


def test_variants_have_models_of_their_own_before_a_live_model_has_learned_from_both(workspace, monkeypatch):
    order = []
    promote = FileArtifacts.promote

    def noted(self, tenant, slot, version):
        order.append(slot)
        promote(self, tenant, slot, version)

    monkeypatch.setattr(FileArtifacts, "promote", noted)
    shop_in_a_test(workspace, "isolated")
    results = train(workspace, "shop", now=NOW)
    assert order[-1] == "live"
    assert results[0].slot == "live"
    assert order[:-1] == [each.slot for each in results[1:]] == ["exp.test.old", "exp.test.new"]
