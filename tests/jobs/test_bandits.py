"""Explorers learn from the lake in batches, serve through the real recommender, and their exposures tell the truth."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from thinslice.cli.init import make_tenant
from thinslice.jobs.bandits import count_refusals, learn_extras, read_shown
from thinslice.jobs.demo import fill
from thinslice.jobs.train import train
from thinslice.jobs.training_data import read_items
from thinslice.models import MODELS, from_columns
from thinslice.recommend.explore import BANDIT, BetaThompson, seed_of
from thinslice.recommend.objectives import RATES, ActionRates
from thinslice.records import Event, ExperimentExposure, Exposure, Item, RecommendationRequest, ScoredItems
from thinslice.serving import ExperimentFiles, ModelHost, RecommendationIds, Recommender
from thinslice.settings import Workspace, parse_settings
from thinslice.store.artifacts import FileArtifacts, MemoryArtifacts
from thinslice.store.lake import Lake
from thinslice.store.live import MemoryLive

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = parse_settings(
    """
    [tenants.shop]
    default_policy = "learning"
    [tenants.shop.policies.learning]
    model = "popular"
    explore = "position-thompson"
    exploration = { trust = 0.3, newcomers = 1, pseudo_count = 5.0 }
    [tenants.shop.policies.slots]
    model = "popular"
    explore = "epsilon-slot"
    [tenants.shop.policies.careful]
    model = "popular"
    objectives = { click = 0.1, purchase = 1.0, refund = -2.0 }
    [tenants.shop.placements]
    tail = "slots"
    worth = "careful"
    """
)
POLICIES = SETTINGS.tenant("shop").policies


def exposure(number, items, minutes, **fields):
    base = {"recommendation_id": f"r{number}", "tenant": "shop", "occurred_at": NOW - timedelta(minutes=minutes),
            "placement": "home", "policy": "learning", "model_version": "m", "visitor_id": f"v{number}",
            "items": items, "slot_propensities": [1.0] * len(items)}  # fmt: skip
    return Exposure(**{**base, **fields})


def event(number, item, minutes, **fields):
    at = NOW - timedelta(minutes=minutes)
    base = {"event_id": f"e{number}-{item}-{minutes}-{fields.get('name')}", "tenant": "shop", "name": "select_item",
            "visitor_id": f"v{number}", "item_id": item, "recommendation_id": f"r{number}", "occurred_at": at,
            "received_at": at}  # fmt: skip
    return Event(**{**base, **fields})


def item(item_id, **fields):
    return Item(tenant="shop", item_id=item_id, updated_at=NOW, **fields)


@pytest.fixture
def lake(tmp_path):
    lake = Lake(tmp_path / "lake")
    lake.append("exposures", [
        *[exposure(number, ["a", "b", "c"], 120) for number in range(20)],
        exposure(50, ["b", "a", "c"], 60),
        exposure(51, ["b"], 10),
        exposure(52, ["b"], 120, shadow=True), exposure(53, ["b"], 120, is_bot=True),
        exposure(54, ["b"], 120, policy="other"), exposure(55, ["b"], 120, consent="measurement"),
    ])  # fmt: skip
    lake.append("events", [
        *[event(number, "c", 110) for number in range(10)], event(3, "c", 109, name="view_item"),
        event(50, "b", 59), event(50, "elsewhere", 59), event(51, "b", 9), event(53, "b", 119),
        event(4, "a", 100, name="hide", recommendation_id=None), event(5, "a", 100, name="refund"),
    ])  # fmt: skip
    return lake


def test_places_of_slates_are_read_with_their_clicks(lake):
    shown = read_shown(lake, "shop", "learning", 0.0, NOW.timestamp() - 1800)
    assert len(shown.slot) == 63
    assert shown.item_id[:3].tolist() == ["a", "b", "c"]
    assert shown.slot[:3].tolist() == [0, 1, 2]
    assert len(set(shown.slate.tolist())) == 21
    clicked = shown.item_id[shown.clicked].tolist()
    assert clicked == ["c"] * 10 + ["b"]
    assert len(read_shown(lake, "shop", "nobody", 0.0, NOW.timestamp()).slot) == 0


def test_batches_are_added_to_and_a_training_without_news_changes_no_byte(lake):
    clicks = from_columns([], [], [])
    first = learn_extras(lake, "shop", POLICIES, clicks, [item("new")], now=NOW - timedelta(minutes=60))
    arrays = first.arrays[BANDIT + "learning"]
    assert arrays["counted"].tolist() == [1, 60]
    second = learn_extras(lake, "shop", POLICIES, clicks, [item("new")], now=NOW, before=first)
    assert second.arrays[BANDIT + "learning"]["counted"].tolist() == [2, 63]
    at_once = learn_extras(lake, "shop", POLICIES, clicks, [item("new")], now=NOW)
    assert np.allclose(at_once.arrays[BANDIT + "learning"]["belief"], second.arrays[BANDIT + "learning"]["belief"])
    again = learn_extras(lake, "shop", POLICIES, clicks, [item("new")], now=NOW + timedelta(minutes=5), before=second)
    for name, array in again.arrays[BANDIT + "learning"].items():
        assert np.array_equal(array, second.arrays[BANDIT + "learning"][name]), name


def test_other_settings_start_the_counts_anew(lake):
    clicks = from_columns([], [], [])
    first = learn_extras(lake, "shop", POLICIES, clicks, [], now=NOW)
    changed = parse_settings(
        '[tenants.s.policies.learning]\nmodel = "popular"\nexplore = "cascade-thompson"'
    ).tenant("s").policies  # fmt: skip
    second = learn_extras(lake, "shop", changed, clicks, [], now=NOW, before=first)
    assert second.arrays[BANDIT + "learning"]["counted"].tolist()[0] == 1
    assert second.arrays[BANDIT + "learning"]["shows"].shape[1] == 1


def test_a_variant_that_learns_apart_counts_only_its_own_slates(lake):
    own = ExperimentExposure(experiment="test", variant="on", unit="visitor", unit_id="v", allocation_version=1,
                             propensities={"on": 0.5, "off": 0.5})  # fmt: skip
    lake.append("exposures", [exposure(70, ["c"], 90, experiments=[own])])
    assert len(read_shown(lake, "shop", "learning", 0.0, NOW.timestamp(), variant=("test", "on")).slot) == 1
    assert len(read_shown(lake, "shop", "learning", 0.0, NOW.timestamp(), variant=("test", "off")).slot) == 0


def test_refusals_are_counted_beside_the_clicks(lake):
    assert count_refusals(lake, "shop", NOW) == {"hide": {"a": 1}, "refund": {"a": 1}}
    clicks = from_columns(["s", "t"], ["a", "b"], [1.0, 2.0])
    extras = learn_extras(lake, "shop", POLICIES, clicks, [], now=NOW)
    chances = ActionRates.from_arrays(extras.arrays[RATES]).chances(["a", "b"], ["refund"])
    assert chances[0, 0] > chances[1, 0]
    without = {name: each for name, each in POLICIES.items() if not each.objectives}
    assert RATES not in learn_extras(lake, "shop", without, clicks, [], now=NOW).arrays


def test_new_items_start_from_what_is_like_them(lake):
    class Content:
        name = "content"
        item_ids = ("a", "b", "c")

        def recommend(self, session, k, *, allowed=None):
            like = {"like-c": "c", "like-a": "a"}.get(session[0])
            return ScoredItems([like] if like else [], [1.0] if like else [], self.name)

    extras = learn_extras(
        lake, "shop", POLICIES, from_columns([], [], []), [item("like-a"), item("like-c")], now=NOW, content=Content()
    )
    explorer = BetaThompson(extras.arrays[BANDIT + "learning"])
    assert explorer.newcomers == ["like-c", "like-a"]


class MemoryExposures:
    def __init__(self):
        self.rows = []

    def exposure(self, exposure):
        self.rows.append(exposure)


@pytest.fixture
def served(lake, tmp_path):
    names = ["a", "b", "c", *[f"x{n}" for n in range(20)]]
    clicks = from_columns(
        [f"s{n}" for n in range(len(names) * 3)], names * 3, [1.76e9 + n for n in range(len(names) * 3)]
    )
    items = [item(each) for each in [*names, "brand-new"]]
    live = MemoryLive()
    live.put_items(items)
    artifacts, exposures = MemoryArtifacts(), MemoryExposures()
    popular = MODELS["popular"].fit(clicks, items, rng=0)
    extras = learn_extras(lake, "shop", POLICIES, clicks, items, now=NOW)
    version = artifacts.put(
        "shop", "live", {"popular": popular.arrays(), **extras.arrays},
        {"policies": {"popular": "popular"}, "extras": extras.kinds},
    )  # fmt: skip
    artifacts.promote("shop", "live", version)
    host = ModelHost(artifacts, ["shop"])
    host.refresh(0.0)
    recommender = Recommender(
        SETTINGS, live, host, ExperimentFiles(tmp_path / "experiments"), RecommendationIds(b"s" * 32), exposures
    )
    return recommender, exposures, extras


def ask(recommender, placement, k=5, **fields):
    request = RecommendationRequest(placement=placement, k=k, visitor_id="v", **fields)
    return recommender.recommend("shop", request, "secret", NOW)


def test_a_served_slate_logs_what_it_left_to_chance_and_can_be_drawn_again(served):
    recommender, exposures, extras = served
    explorer = BetaThompson(extras.arrays[BANDIT + "learning"])
    slates = [ask(recommender, "home") for _ in range(40)]
    assert len({tuple(i.item_id for i in slate.items) for slate in slates}) > 10
    assert "brand-new" in {i.item_id for slate in slates for i in slate.items}
    for logged in exposures.rows:
        assert logged.policy == "learning"
        assert len(logged.slot_propensities) == len(logged.items) == 5
        assert min(logged.slot_propensities) >= 1 / 200
        assert min(logged.slot_propensities) < 1
    logged = exposures.rows[0]
    ranked = recommender._models.bundle("shop").models["popular"].recommend([], 60)
    new = "brand-new"
    from thinslice.recommend.arrangement import relevance_with_newcomers
    from thinslice.recommend.ladder import Candidates

    known = len(ranked.item_ids)
    found = Candidates([*ranked.item_ids, new], [*ranked.scores, 0.0], ["popular"] * known + ["newcomer"],
                       [0] * known + [9], known)  # fmt: skip
    again = explorer.arrange(
        found.item_ids, relevance_with_newcomers(found) ** 0.3, 5, rng=seed_of(logged.recommendation_id)
    )
    assert [found.item_ids[at] for at in again.order] == logged.items
    assert again.propensities.tolist() == logged.slot_propensities


def test_an_epsilon_slot_is_logged_exactly(served):
    recommender, exposures, _ = served
    for _ in range(10):
        ask(recommender, "tail", k=4)
    assert {tuple(row.slot_propensities) for row in exposures.rows} == {(1.0, 1.0, 1.0, 1 / 20)}
    assert len({tuple(row.items[:3]) for row in exposures.rows}) == 1
    assert len({row.items[3] for row in exposures.rows}) > 3


def test_weights_stand_in_the_exposure_and_their_parts_in_the_explanation(served):
    recommender, exposures, _ = served
    ask(recommender, "worth")
    assert exposures.rows[0].objectives == {"click": 0.1, "purchase": 1.0, "refund": -2.0}
    assert exposures.rows[0].slot_propensities == [1.0] * 5
    look = recommender.look("shop", RecommendationRequest(placement="worth", k=3, visitor_id="v"), "secret", NOW)
    for shown, terms in zip(look.answer.items, look.terms, strict=True):
        assert set(terms) == {"click", "purchase", "refund"}
        assert sum(terms.values()) == pytest.approx(shown.score)


def test_training_publishes_what_policies_learned_and_keeps_adding_to_it(tmp_path):
    workspace = Workspace(tmp_path)
    make_tenant(workspace, "shop")
    with workspace.settings_file.open("a") as file:
        file.write(
            '[tenants.shop.policies.learning]\nmodel = "session-knn"\nexplore = "position-thompson"\n'
            '[tenants.shop.policies.careful]\nmodel = "session-knn"\nobjectives = { purchase = 1.0, refund = -1.0 }\n'
        )
    fill(workspace, "shop", now=NOW, sessions=200)
    lake, artifacts = Lake(workspace.lake), FileArtifacts(workspace.models)
    shown = [each.item_id for each in read_items(lake, "shop")[:6]]
    lake.append("exposures", [exposure(number, shown, 300) for number in range(30)])
    lake.append("events", [event(number, shown[5], 299) for number in range(20)])
    trained = [train(workspace, "shop", now=NOW, full=False)[0] for _ in range(2)]
    assert trained[0].version == trained[1].version  # nothing new: the same bytes
    arrays, manifest = artifacts.load("shop", trained[0].version)
    assert set(manifest["extras"]) == {"bandit-learning", "action-rates"}
    assert "bandit-learning" not in manifest["policies"]
    explorer = BetaThompson(arrays["bandit-learning"])
    assert (explorer.version, explorer.rows) == (1, 180)
    assert explorer.chances(shown, np.ones(6), 1, rng=0)[5, 0] > 0.9
    lake.append("exposures", [exposure(number, shown, 60) for number in range(100, 110)])
    version = train(workspace, "shop", now=NOW, full=False)[0].version
    again = BetaThompson(artifacts.load("shop", version)[0]["bandit-learning"])
    assert (again.version, again.rows) == (2, 240)
    host = ModelHost(artifacts, ["shop"])
    host.refresh(0.0)
    bundle = host.bundle("shop")
    assert set(bundle.explorers) == {"learning"}
    assert bundle.rates is not None
    assert "bandit-learning" not in bundle.models
