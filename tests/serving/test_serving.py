"""Request time: intake, live sessions, recommender, exposures."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import NotAllowed, UnknownName
from thinslice.experiments import assign
from thinslice.models import MODELS, from_columns
from thinslice.records import Experiment, Item, RecommendationRequest, Variant
from thinslice.serving import ExperimentFiles, Intake, ModelHost, RecommendationIds, Recommender, read_secret
from thinslice.serving.catalog import MOST_CHANGES, CatalogView
from thinslice.serving.intake import LogExposures
from thinslice.settings import parse_settings
from thinslice.store.artifacts import MemoryArtifacts
from thinslice.store.codec import decode
from thinslice.store.live import MemoryLive

SETTINGS = parse_settings(
    '[tenants.shop]\nconsent_publishable = "none"\n[tenants.shop.placements]\nempty = "none"\nbest = "popular"\n'
    "[tenants.other]\n"
)
SECRET = SimpleNamespace(tenant="shop", kind="secret")
BROWSER = SimpleNamespace(tenant="shop", kind="publishable")


class MemoryCommit:
    """A log in memory."""

    def __init__(self):
        self.frames = []

    async def append(self, kind, payload):
        await asyncio.sleep(0)
        self.frames.append(payload)

    def write(self, kind, payload):
        self.frames.append(payload)

    def records(self, name):
        decoded = [decode(payload) for payload in self.frames]
        return [record for kind, records in decoded if kind.name == name for record in records]


class Service:
    """One worker without HTTP, at a time that a test sets."""

    def __init__(self, folder):
        self.now = datetime(2026, 5, 1, 12, tzinfo=UTC)
        self.live = MemoryLive(clock=lambda: self.now.timestamp())
        self.commit = MemoryCommit()
        self.artifacts = MemoryArtifacts()
        self.models = ModelHost(self.artifacts, SETTINGS.tenants)
        self.folder = folder
        experiments = ExperimentFiles(folder)
        self.ids = RecommendationIds(b"s" * 32)
        self.intake = Intake(SETTINGS, self.live, self.commit, experiments, self.ids)
        self.recommender = Recommender(
            SETTINGS, self.live, self.models, experiments, self.ids, LogExposures(self.commit)
        )

    def items(self, *names, **fields):
        items = [Item(tenant="shop", item_id=name, updated_at=self.now, title=name.upper(), **fields) for name in names]
        self.live.put_items(items)
        self.now += timedelta(seconds=1)

    def train(self, sessions, slot="live"):
        columns = [
            (f"s{n}", item, n + place / 10) for n, each in enumerate(sessions) for place, item in enumerate(each)
        ]
        clicks = from_columns(*[list(column) for column in zip(*columns, strict=True)])
        arrays = {name: model.fit(clicks, rng=0).arrays() for name, model in MODELS.items()}
        version = self.artifacts.put("shop", slot, arrays, {})
        self.artifacts.promote("shop", slot, version)
        self.models.refresh(0.0)
        return version

    def send(self, *events, key=SECRET, headers=None):
        body = json.dumps([{"name": "view_item", **event} for event in events]).encode()
        return asyncio.run(self.intake.events(body, key, self.now, headers=headers))

    def ask(self, kind="secret", **fields):
        return self.recommender.recommend("shop", RecommendationRequest(**fields), kind, self.now)

    def experiment(self, **changes):
        started = (self.now - timedelta(days=1)).isoformat()
        text = f'name = "test"\nstarted_at = {started}\n' + "".join(f"{k} = {v}\n" for k, v in changes.items())
        text += '[[variants]]\nname = "control"\npolicy = "popular"\n[[variants]]\nname = "treatment"\n'
        text += 'policy = "session-knn"\n'
        (self.folder / "shop").mkdir(parents=True, exist_ok=True)
        (self.folder / "shop" / "test.toml").write_text(text, encoding="utf-8")
        self.now += timedelta(seconds=1)


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path)


WORLD = [["a", "b"]] * 5 + [["c", "d"]] * 4 + [["e", "f"]] * 3


def shown(answer):
    return [item.item_id for item in answer.items]


def test_an_event_changes_the_very_next_slate(service):
    service.train(WORLD)
    before = service.ask(visitor_id="v", k=1)
    service.send({"event_id": "1", "visitor_id": "v", "item_id": "e"})
    after = service.ask(visitor_id="v", k=1)
    assert before.items[0].source == "popular"
    assert (after.items[0].item_id, after.items[0].source) == ("f", "session-knn")
    assert after.items[0].reason == "Because you viewed e"


def test_items_in_the_request_stand_in_place_of_the_live_session(service):
    service.train(WORLD)
    service.send({"event_id": "1", "visitor_id": "v", "item_id": "e"})
    assert shown(service.ask(visitor_id="v", items=["c"], k=1)) == ["d"]
    assert shown(service.ask(items=["a"], k=1)) == ["b"]
    assert shown(service.ask(item_id="c", k=1)) == ["d"]


def test_a_slate_without_ids_and_for_unknown_items_is_not_empty(service):
    service.train(WORLD)
    assert len(service.ask(k=3).items) == 3
    assert len(service.ask(items=["never seen"], k=3).items) == 3


def test_an_untrained_shop_serves_its_catalog(service):
    service.items("a", "b", "c")
    answer = service.ask(k=2)
    assert answer.model_version == "untrained"
    assert [item.source for item in answer.items] == ["catalog", "catalog"]


def test_a_shop_of_one_thing_shows_it_even_to_who_bought_it(service):
    service.items("a")
    service.send({"event_id": "1", "visitor_id": "v", "item_id": "a", "name": "purchase", "order_id": "o"})
    assert shown(service.ask(visitor_id="v", item_id="a")) == ["a"]


def test_without_consent_nothing_is_stored_and_the_slate_works_from_the_request(service):
    service.train(WORLD)
    result = service.send({"event_id": "1", "visitor_id": "v", "item_id": "e"}, key=BROWSER)
    answer = service.ask("publishable", visitor_id="v", items=["a"], k=1)
    assert (result.accepted, result.not_stored_no_consent) == (0, 1)
    assert shown(answer) == ["b"]
    assert service.commit.frames == []
    assert service.live.sessions([("shop", "v")]) == [None]


def test_a_session_answers_only_those_who_consented_to_be_personalized(service):
    service.train(WORLD)
    service.send({"event_id": "1", "visitor_id": "v", "item_id": "e", "consent": "measurement"})
    assert service.ask(visitor_id="v", k=1).items[0].source == "popular"
    assert [event.consent for event in service.commit.records("EVENTS")] == ["measurement"]


def test_stock_and_status_hold_in_the_next_slate(service):
    service.train(WORLD)
    service.items(*"abcdef")
    assert shown(service.ask(items=["a"], k=1)) == ["b"]
    service.items("b", in_stock=False)
    assert "b" not in shown(service.ask(items=["a"], k=20))
    service.items("b", status="held")
    assert "b" not in shown(service.ask(items=["a"], k=20))
    service.items("b")
    assert shown(service.ask(items=["a"], k=1)) == ["b"]


def test_an_item_comes_and_goes_at_its_times(service):
    service.train(WORLD)
    start, end = service.now + timedelta(minutes=5), service.now + timedelta(minutes=10)
    service.items(*"acdef")
    service.items("b", published_at=start, expires_at=end)
    assert "b" not in shown(service.ask(items=["a"]))
    service.now = start
    assert "b" in shown(service.ask(items=["a"]))
    service.now = end
    assert "b" not in shown(service.ask(items=["a"]))


def test_what_was_bought_is_not_shown_again_whether_by_event_or_by_order(service):
    service.train(WORLD)
    service.send({"event_id": "1", "visitor_id": "v", "item_id": "a"})
    assert shown(service.ask(visitor_id="v", k=1)) == ["b"]
    order = {"order_id": "o", "currency": "EUR", "visitor_id": "v", "lines": [{"item_id": "b", "price_minor": 5}]}
    result = asyncio.run(service.intake.orders(json.dumps([order]).encode(), SECRET, service.now))
    assert result.accepted == 1
    assert "b" not in shown(service.ask(visitor_id="v"))
    service.send({"event_id": "2", "visitor_id": "v", "item_id": "d", "name": "purchase", "order_id": "p"})
    assert "d" not in shown(service.ask(visitor_id="v"))


def test_the_item_of_the_page_is_not_recommended_on_it(service):
    service.train(WORLD)
    assert "b" not in shown(service.ask(items=["a"], item_id="b"))
    assert "a" not in shown(service.ask(items=["a"]))


def test_the_exposure_says_exactly_what_was_served(service):
    version = service.train(WORLD)
    service.send({"event_id": "1", "visitor_id": "v", "session_id": "s", "item_id": "e"})
    answer = service.ask(visitor_id="v", k=3, placement="home")
    (exposure,) = service.commit.records("EXPOSURES")
    assert exposure.recommendation_id == answer.recommendation_id
    assert exposure.items == shown(answer)
    assert exposure.sources == [item.source for item in answer.items]
    assert (exposure.visitor_id, exposure.session_id, exposure.placement) == ("v", "s", "home")
    assert (exposure.model_version, exposure.policy) == (version, "session-knn")
    assert exposure.slot_propensities == [1.0] * 3
    assert exposure.candidate_count >= 3


def test_an_experiment_decides_the_policy_and_logs_the_full_vector_of_probabilities(service):
    service.train(WORLD)
    service.experiment()
    definition = Experiment(
        name="test", tenant="shop", variants=[Variant(name="control", policy="popular", weight=0.5),
                                               Variant(name="treatment", policy="session-knn", weight=0.5)]
    )  # fmt: skip
    seen = set()
    for n in range(40):
        answer = service.ask(visitor_id=f"v{n}", items=["e"])
        (exposed,) = service.commit.records("EXPOSURES")[-1].experiments
        assert exposed.variant == assign(definition, f"v{n}").variant
        assert exposed.propensities == {"control": 0.5, "treatment": 0.5}
        assert answer.policy == {"control": "popular", "treatment": "session-knn"}[exposed.variant]
        seen.add(exposed.variant)
    assert seen == {"control", "treatment"}


def test_without_an_id_or_consent_nobody_is_in_an_experiment(service):
    service.train(WORLD)
    service.experiment()
    assert service.ask(items=["e"]).policy == "session-knn"
    assert service.commit.records("EXPOSURES")[-1].experiments == []
    assert service.ask(visitor_id="v1", consent="none").policy == "session-knn"
    assert len(service.commit.records("EXPOSURES")) == 1


def test_an_experiment_on_another_placement_and_a_stopped_one_decide_nothing(service):
    service.train(WORLD)
    service.experiment(placement='"cart"')
    service.ask(visitor_id="v")
    assert service.commit.records("EXPOSURES")[-1].experiments == []
    service.experiment(stopped_at=service.now.isoformat())
    service.ask(visitor_id="v", placement="cart")
    assert service.commit.records("EXPOSURES")[-1].experiments == []


def test_an_isolated_variant_is_served_by_the_models_of_its_own_sessions(service):
    live = service.train(WORLD)
    service.experiment()
    service.ask(visitor_id="v")
    assert service.commit.records("EXPOSURES")[-1].model_version == live
    own = {
        variant: service.train([*WORLD, ["x", variant]], slot=f"exp.test.{variant}")
        for variant in ("control", "treatment")
    }
    for n in range(10):
        answer = service.ask(visitor_id=f"v{n}")
        assert answer.model_version == own[service.commit.records("EXPOSURES")[-1].experiments[0].variant]
    service.experiment(training='"shared"')
    assert service.ask(visitor_id="v").model_version == live


def test_sessions_carry_their_assignments_from_their_start(service):
    service.experiment()
    service.send({"event_id": "1", "visitor_id": "v", "item_id": "e"})
    (session,) = service.live.sessions([("shop", "v")])
    assert session.assignments.keys() == {"test"}


def test_the_policy_none_shows_nothing_and_logs_what_it_would_have_shown(service):
    service.train(WORLD)
    answer = service.ask(visitor_id="v", items=["a"], placement="empty", k=2)
    (exposure,) = service.commit.records("EXPOSURES")
    assert (answer.items, answer.policy) == ([], "none")
    assert (exposure.shadow, exposure.policy, exposure.items[0]) == (True, "none", "b")


def test_a_placement_has_its_own_policy_and_an_unknown_one_the_default(service):
    service.train(WORLD)
    assert service.ask(placement="best").policy == "popular"
    assert service.ask(placement="never heard of").policy == "session-knn"


def test_ids_that_we_did_not_issue_are_quarantined_and_ours_are_kept(service):
    service.train(WORLD)
    ours = service.ask(visitor_id="v").recommendation_id
    view = {"visitor_id": "v", "item_id": "a"}
    result = service.send(
        {"event_id": "1", **view, "recommendation_id": ours},
        {"event_id": "2", **view, "recommendation_id": ours[:-1] + ("a" if ours[-1] != "a" else "b")},
        {"event_id": "3", **view, "recommendation_id": service.ids.issue("other")},
    )
    assert result.accepted == 1
    assert [rejection.code for rejection in result.rejected] == ["unknown_recommendation"] * 2
    assert [each.code for each in service.commit.records("QUARANTINE")] == ["unknown_recommendation"] * 2


def test_events_of_a_browser_say_so_and_its_bots_are_tagged(service):
    event = {"visitor_id": "v", "item_id": "a", "consent": "personalization", "name": "purchase", "order_id": "o"}
    service.send({"event_id": "1", **event}, key=BROWSER, headers={b"user-agent": b"Googlebot/2.1"})
    service.send({"event_id": "2", **event}, headers={b"user-agent": b"python-requests/2"})
    assert [(e.source, e.is_bot) for e in service.commit.records("EVENTS")] == [("browser", True), ("api", False)]
    assert service.commit.records("ORDERS") == []


def test_slates_for_bots_are_tagged(service):
    service.train(WORLD)
    request = RecommendationRequest(visitor_id="v", consent="measurement")
    for kind, agent in (("publishable", "Googlebot/2.1"), ("publishable", "Firefox"), ("secret", "curl/8.5.0")):
        service.recommender.recommend("shop", request, kind, service.now, user_agent=agent)
    assert [exposure.is_bot for exposure in service.commit.records("EXPOSURES")] == [True, False, False]


def test_a_publishable_key_may_send_neither_items_nor_orders(service):
    with pytest.raises(NotAllowed, match="items"):
        asyncio.run(service.intake.items(b"[]", BROWSER, service.now))
    with pytest.raises(NotAllowed, match="orders"):
        asyncio.run(service.intake.orders(b"[]", BROWSER, service.now))


def test_a_tenant_that_does_not_exist_is_refused(service):
    with pytest.raises(UnknownName, match="nobody"):
        service.recommender.recommend("nobody", RecommendationRequest(), "secret", service.now)


def test_no_tenant_sees_the_sessions_or_items_of_another(service):
    service.train(WORLD)
    service.items("a", "b")
    service.send({"event_id": "1", "visitor_id": "v", "item_id": "a"})
    answer = service.recommender.recommend("other", RecommendationRequest(visitor_id="v"), "secret", service.now)
    assert answer.items == []


def test_a_request_with_the_shops_session_id_alone_finds_the_session(service):
    service.train(WORLD)
    service.send({"event_id": "1", "visitor_id": "v", "session_id": "s", "item_id": "e"})
    assert shown(service.ask(session_id="s", k=1)) == ["f"]
    service.send({"event_id": "2", "session_id": "s", "item_id": "c"})
    (session,) = service.live.sessions([("shop", "v")])
    assert session.items == ["e", "c"]


def test_after_thirty_minutes_of_silence_the_old_session_answers_no_more(service):
    service.train(WORLD)
    service.send({"event_id": "1", "visitor_id": "v", "item_id": "e"})
    service.now += timedelta(minutes=31)
    assert service.ask(visitor_id="v", k=1).items[0].source == "popular"


def test_a_new_generation_answers_without_a_restart_and_a_broken_one_never_does(service):
    first = service.train(WORLD)
    second = service.train([*WORLD, ["a", "g"], ["a", "g"]])
    assert first != second
    assert service.ask().model_version == second
    service.artifacts.put("shop", "live", {"session-knn": {"nothing": MODELS["popular"].fit(
        from_columns(["s"], ["a"], [1.0])).arrays()["order"]}}, {})  # fmt: skip
    broken = next(iter(service.artifacts.versions("shop")))["version"]
    service.artifacts.promote("shop", "live", broken)
    service.models.refresh(1.0)
    assert service.ask().model_version == second


def test_a_service_says_what_its_first_slate_waits_for(service):
    assert "not been looked at" in service.recommender.waiting(service.now.timestamp())
    service.models.refresh(0.0)
    assert "no items" in service.recommender.waiting(service.now.timestamp())
    service.items("a")
    assert service.recommender.waiting(service.now.timestamp()) == ""


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40))
def test_no_invented_id_passes_for_ours(text):
    assert not RecommendationIds(b"s" * 32).issued("shop", text)


def test_our_ids_pass_in_every_worker_and_for_their_own_tenant_only(tmp_path):
    one = RecommendationIds(read_secret(tmp_path / "secret"))
    other = RecommendationIds(read_secret(tmp_path / "secret"))
    issued = one.issue("shop")
    assert other.issued("shop", issued)
    assert not other.issued("other", issued)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_an_experiment_file_that_breaks_leaves_the_last_good_one_in_force(service):
    service.experiment()
    files = ExperimentFiles(service.folder)
    assert [each.name for each in files.running("shop", 0.0)] == ["test"]
    (service.folder / "shop" / "test.toml").write_text("name = ", encoding="utf-8")
    assert [each.name for each in files.running("shop", 10.0)] == ["test"]
    (service.folder / "shop" / "test.toml").unlink()
    assert files.running("shop", 20.0) == []


def test_a_generation_without_new_items_shares_the_vocabulary_and_its_mask(service):
    service.train(WORLD)
    service.items(*"abcdef")
    service.ask()
    first = service.models.bundle("shop").models
    service.train([*WORLD, ["a", "f"]])
    second = service.models.bundle("shop").models
    assert first is not second
    assert len({id(model.item_ids) for model in [*first.values(), *second.values()]}) == 1
    catalog = service.recommender.catalog("shop", service.now.timestamp())
    assert catalog.availability(first["popular"]) is catalog.availability(second["session-knn"])


def test_a_large_feed_is_taken_in_by_parts_so_that_no_slate_waits_for_all_of_it():
    now = datetime(2026, 5, 4, tzinfo=UTC)
    live, at = MemoryLive(), now.timestamp()
    live.put_items([Item(tenant="shop", item_id="first", updated_at=now)])
    view = CatalogView(live, "shop")
    assert not view.refresh(at)
    live.put_items([Item(tenant="shop", item_id=f"i{number}", updated_at=now) for number in range(2 * MOST_CHANGES)])
    sizes = []
    more = view.refresh(at + 1)
    while more:
        sizes.append(len(view.items))
        more = view.refresh(at + 1)
    assert sizes == [1 + MOST_CHANGES, 1 + 2 * MOST_CHANGES]
    assert view.may_show("i0")
    fresh = CatalogView(live, "shop")
    fresh.refresh(at)
    assert len(fresh.items) == 1 + 2 * MOST_CHANGES, "who looks for the first time sees everything"


def test_who_has_waited_too_long_is_answered_by_a_quicker_model_and_told_so(service):
    service.train(WORLD)
    service.items(*"abcdef")
    asked = {"items": ["a"], "policy": "session-ranker", "k": 1, "visitor_id": "v"}
    on_time = service.recommender.recommend(
        "shop", RecommendationRequest(**asked), "secret", service.now, waited_s=0.01
    )
    assert (on_time.items[0].source, on_time.note) == ("session-ranker", "")
    late = service.recommender.recommend("shop", RecommendationRequest(**asked), "secret", service.now, waited_s=0.03)
    assert shown(late) == ["b"]
    assert late.items[0].source == "session-knn"
    assert late.policy == "session-ranker"
    assert "session-ranker" in late.note
    exposure = service.commit.records("EXPOSURES")[-1]
    assert exposure.sources == ["session-knn"]
    assert exposure.slot_propensities == [1.0]
    assert service.recommender.slates.take_late() == {"shop": 1}
    assert service.recommender.slates.take_late() == {}


def test_a_late_request_for_a_quick_model_is_answered_by_it(service):
    service.train(WORLD)
    asked = RecommendationRequest(items=["a"], policy="session-knn", k=1, visitor_id="v")
    answer = service.recommender.recommend("shop", asked, "secret", service.now, waited_s=9.0)
    assert (answer.items[0].source, answer.note) == ("session-knn", "")
    assert service.recommender.slates.take_late() == {}


def test_a_catalog_is_read_when_its_models_have_come_and_not_by_the_first_visitor(service):
    service.items(*"abcdef")
    service.train(WORLD)
    read = []
    changes = service.live.item_changes
    service.live.item_changes = lambda *asked: read.append(asked) or changes(*asked)
    service.recommender.follow_catalogs(service.now.timestamp())
    assert len(read) == 1
    assert shown(service.ask(items=["a"], k=1)) == ["b"]
    assert len(read) == 1
