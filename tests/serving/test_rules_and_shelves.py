"""Rules and shelves at request time: filters before top-k, hard rules never broken, each shelf from its own source."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thinslice.errors import BadRecord
from thinslice.models import Content, ImplicitCosine, Newest, Popular, SessionKNN, Trending, from_columns
from thinslice.models.bought_together import PURCHASE, BoughtTogether
from thinslice.models.buy_again import BuyAgain
from thinslice.recommend.masks import RuleMasks
from thinslice.recommend.rules import Asked
from thinslice.records import Item, RecommendationRequest
from thinslice.serving import ExperimentFiles, Intake, ModelHost, RecommendationIds, Recommender
from thinslice.serving.intake import LogExposures
from thinslice.serving.slates import NOTHING, ONLY_HARD
from thinslice.sessions import person_id
from thinslice.settings import parse_settings
from thinslice.store.artifacts import MemoryArtifacts
from thinslice.store.codec import decode
from thinslice.store.live import MemoryLive

SECRET = SimpleNamespace(tenant="shop", kind="secret")
KINDS = (Popular, Newest, Trending, Content, ImplicitCosine, BoughtTogether, BuyAgain, SessionKNN)


class Commit:
    """A log in memory."""

    def __init__(self):
        self.frames = []

    async def append(self, kind, payload):
        self.frames.append(payload)

    def write(self, kind, payload):
        self.frames.append(payload)

    def exposures(self):
        decoded = [decode(payload) for payload in self.frames]
        return [record for kind, records in decoded if kind.name == "EXPOSURES" for record in records]


class Shop:
    """One or two workers of one shop without HTTP, at a time that a test sets."""

    def __init__(self, folder, text="", workers=1):
        self.now = datetime(2026, 5, 1, 12, tzinfo=UTC)
        self.live = MemoryLive(clock=lambda: self.now.timestamp())
        self.commit, self.artifacts = Commit(), MemoryArtifacts()
        self.models = ModelHost(self.artifacts, ["shop"])
        shop = parse_settings(f"[tenants.shop]\n{text}")
        experiments, ids = ExperimentFiles(folder), RecommendationIds(b"s" * 32)
        self.intake = Intake(shop, self.live, self.commit, experiments, ids)
        self.workers = [
            Recommender(shop, self.live, self.models, experiments, ids, LogExposures(self.commit))
            for _ in range(workers)
        ]

    def items(self, **fields_of):
        """item_id = fields, or just ids."""
        self.live.put_items(
            Item(tenant="shop", item_id=name, updated_at=self.now, **fields) for name, fields in fields_of.items()
        )
        self.now += timedelta(seconds=1)

    def train(self, sessions, users=None, step_s=86_400.0):
        """Sessions of items; one written with `!` was bought."""
        rows = [
            (f"s{n}", item.rstrip("!"), 1.7e9 + n * step_s + place, PURCHASE if item.endswith("!") else 0,
             (users or {}).get(n, ""))
            for n, each in enumerate(sessions) for place, item in enumerate(each)
        ]  # fmt: skip
        session, item, time, action, user = zip(*rows, strict=True)
        clicks = from_columns(session, item, time, actions=np.array(action, dtype=np.uint8), users=user)
        feed = [Item(tenant="shop", item_id=name, updated_at=self.now, title=name) for name in clicks.item_ids]
        arrays = {kind.name: kind.fit(clicks, feed, rng=0).arrays() for kind in KINDS}
        version = self.artifacts.put("shop", "live", arrays, {"policies": {name: name for name in arrays}})
        self.artifacts.promote("shop", "live", version)
        self.models.refresh(0.0)

    def send(self, *events):
        body = json.dumps([{"name": "view_item", "event_id": str(n), **event} for n, event in enumerate(events)])
        return asyncio.run(self.intake.events(body.encode(), SECRET, self.now))

    def ask(self, worker=0, **fields):
        return self.workers[worker].recommend("shop", RecommendationRequest(**fields), "secret", self.now)

    def look(self, **fields):
        return self.workers[0].look("shop", RecommendationRequest(**fields), "secret", self.now)


def shown(answer):
    return [item.item_id for item in answer.items]


def rules(*tables):
    return "".join(f"[[tenants.shop.rules]]\n{table}\n" for table in tables)


WORLD = [["e", "f"]] * 2 + [["a", "d"]] * 3 + [["a", "c"]] * 6 + [["a", "b"]] * 12


@pytest.fixture
def shop_of(tmp_path):
    def make(*tables, workers=1, text=""):
        shop = Shop(tmp_path, text + rules(*tables), workers)
        shop.train(WORLD)
        shop.items(**{name: {} for name in "abcdef"})
        return shop

    return make


def test_a_rule_filters_before_the_cut_so_that_the_next_best_take_the_places(shop_of):
    shop = shop_of('kind = "exclude"\nitems = ["b"]')
    assert shown(shop.ask(items=["a"], k=2)) == ["c", "d"]


def test_a_change_of_the_catalog_is_in_the_masks_of_the_next_slate(shop_of):
    shop = shop_of('kind = "price"\nmax_minor = 1000')
    shop.items(b={"price_minor": 900}, c={"price_minor": 1100})
    assert shown(shop.ask(items=["a"], k=1)) == ["b"]
    shop.items(b={"price_minor": 1100}, c={"price_minor": 900})
    assert shown(shop.ask(items=["a"], k=1)) == ["c"]
    shop.items(c={"price_minor": 900, "in_stock": False}, f={"price_minor": 1})
    assert shown(shop.ask(items=["a"], k=1)) == ["f"]


def test_age_and_place_come_with_the_request(shop_of):
    shop = shop_of('kind = "age"', 'kind = "distance"\nmax_km = 50.0')
    shop.items(b={"attributes": {"min_age": 18}}, c={"latitude": 48.1, "longitude": 11.6})
    berlin, munich = {"latitude": 52.5, "longitude": 13.4}, {"latitude": 48.2, "longitude": 11.5}
    assert shown(shop.ask(items=["a"], k=2)) == ["c", "d"]
    assert shown(shop.ask(items=["a"], k=2, context={"age": 18})) == ["b", "c"]
    assert shown(shop.ask(items=["a"], k=2, context={"age": 40, **berlin})) == ["b", "d"]
    assert shown(shop.ask(items=["a"], k=2, context={"age": 40, **munich})) == ["b", "c"]


def test_where_soft_rules_leave_nothing_the_hard_ones_still_hold_and_the_answer_says_so(shop_of):
    shop = shop_of('kind = "include"\ncategories = ["none such"]', 'kind = "exclude"\nitems = ["b"]')
    answer = shop.ask(items=["a"], k=3)
    assert shown(answer)[:2] == ["c", "d"]
    assert "b" not in shown(answer)
    assert answer.note == ONLY_HARD


def test_where_hard_rules_leave_nothing_the_slate_is_empty_and_says_why(shop_of):
    shop = shop_of('kind = "include"\ncategories = ["none such"]\nhard = true')
    answer = shop.ask(items=["a"])
    assert (answer.items, answer.note) == ([], NOTHING)


def test_a_feed_that_empties_overnight_leaves_the_last_word_to_what_is_available(shop_of):
    shop = shop_of()
    assert shop.ask(items=["a"]).items
    shop.items(**{name: {"in_stock": False} for name in "abcdef"})
    answer = shop.ask(items=["a"])
    assert (answer.items, answer.note) == ([], NOTHING)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.lists(
        st.fixed_dictionaries({
            "in_stock": st.booleans(),
            "price_minor": st.none() | st.integers(1, 20),
            "categories": st.lists(st.sampled_from("xy"), max_size=2),
            "brand": st.sampled_from(["p", "q"]),
            "attributes": st.sampled_from([{}, {"min_age": 18}]),
        }), min_size=6, max_size=6,
    ),
    age=st.none() | st.integers(10, 30), k=st.integers(1, 6), diversity=st.sampled_from([0.0, 0.7]),
)  # fmt: skip
def test_hard_rules_and_quotas_hold_in_every_slate(tmp_path, fields, age, k, diversity):
    text = f'default_policy = "mine"\n[tenants.shop.policies.mine]\nmodel = "session-knn"\ndiversity = {diversity}\n'
    shop = Shop(tmp_path, text + rules(
        'kind = "age"', 'kind = "exclude"\ncategories = ["x"]', 'kind = "price"\nmax_minor = 10',
        'kind = "quota"\nby = "brand"\nmost = 1', 'kind = "pin"\nitem_id = "c"\nposition = 1',
        'kind = "boost"\nbrands = ["q"]\nfactor = 3.0',
    ))  # fmt: skip
    shop.train(WORLD)
    catalog = dict(zip("abcdef", fields, strict=True))
    shop.items(**catalog)
    answer = shop.ask(items=["a"], k=k, context={} if age is None else {"age": age})
    hard = {
        name for name, each in catalog.items()
        if each["in_stock"] and "x" not in each["categories"]
        and (not each["attributes"] or (age is not None and age >= 18))
    }  # fmt: skip
    soft = {name for name in hard - {"a"} if (catalog[name]["price_minor"] or 99) <= 10}
    names = shown(answer)
    assert len(names) == len(set(names)) <= k
    assert set(names) <= hard
    if not answer.note:
        brands = [catalog[name]["brand"] for name in names]
        assert all(brands.count(brand) <= 1 for brand in brands)
        assert set(names) <= soft | {"c"}
        pinned = "c" in hard and k > 1 and ("c" in soft or names)
        assert not pinned or "c" in names
    assert bool(names) == bool(hard)


def test_pins_stand_at_their_places_and_only_while_they_may_be_shown(shop_of):
    shop = shop_of('kind = "pin"\nitem_id = "f"\nposition = 1', 'kind = "pin"\nitem_id = "nobody knows it"')
    answer = shop.ask(items=["a"], k=3)
    assert shown(answer) == ["b", "f", "c"]
    assert answer.items[1].source == "pin"
    shop.items(f={"in_stock": False})
    assert shown(shop.ask(items=["a"], k=3)) == ["b", "c", "d"]
    shop.items(f={})
    assert "f" not in shown(shop.ask(items=["a"], item_id="f", k=3))


def test_a_boost_lifts_and_a_factor_below_one_holds_back(shop_of):
    shop = shop_of('kind = "boost"\nitems = ["d"]\nfactor = 100.0', 'kind = "boost"\nitems = ["b"]\nfactor = 0.001')
    assert shown(shop.ask(items=["a"], k=3)) == ["d", "c", "b"]


def test_viewed_items_come_again_unless_a_rule_says_no(tmp_path, shop_of):
    trail = [{"visitor_id": "v", "item_id": name} for name in "abe"]
    kept = shop_of()
    kept.send(*trail)
    assert "a" in shown(kept.ask(visitor_id="v", k=6))
    fresh = Shop(tmp_path, rules('kind = "seen"\nviewed = true'))
    fresh.train(WORLD)
    fresh.send(*trail)
    assert set(shown(fresh.ask(visitor_id="v", k=6))) == set("cdf")


def test_two_placements_of_one_page_show_nothing_twice_on_any_worker(shop_of):
    shop = shop_of(workers=2)
    first = shop.ask(items=["a"], k=2, visitor_id="v", context={"page_id": "p1"}, placement="top")
    second = shop.ask(1, items=["a"], k=2, visitor_id="v", context={"page_id": "p1"}, placement="bottom")
    third = shop.ask(1, items=["a"], k=2, visitor_id="v", context={"page_id": "p2"}, placement="bottom")
    assert shown(first) == ["b", "c"]
    assert not set(shown(second)) & set(shown(first))
    assert shown(third) == ["b", "c"]


def test_a_page_without_consent_is_not_remembered_and_may_say_itself_what_it_shows(shop_of):
    shop = shop_of()
    question = {"items": ["a"], "k": 2, "consent": "none", "context": {"page_id": "p"}}
    assert shown(shop.ask(**question)) == shown(shop.ask(**question)) == ["b", "c"]
    assert shown(shop.ask(**question, exclude=["b", "c"]))[0] == "d"


def test_a_request_may_name_its_policy_and_an_unknown_one_is_refused(shop_of):
    shop = shop_of()
    assert shop.ask(policy="popular", items=["e"], k=1).items[0].source == "popular"
    with pytest.raises(BadRecord, match="there is no policy 'deep'"):
        shop.ask(policy="deep")


def test_similar_asks_for_the_page_alone_and_names_itself(shop_of):
    shop = shop_of()
    answer = shop.ask(policy="similar", items=["a", "b"], item_id="e", k=1)
    (item,) = answer.items
    assert (item.item_id, item.source, item.reason) == ("f", "similar", "Similar to e")


def test_bought_together_and_the_cart_go_by_baskets_not_by_views(shop_of):
    shop = shop_of()
    shop.train([["a!", "e!"]] * 4 + [["a", "b"]] * 20 + [["c!", "d!"]] * 4)
    (together,) = shop.ask(policy="bought-together", item_id="a", k=1).items
    assert (together.item_id, together.reason) == ("e", "Often bought with a")
    shop.send({"visitor_id": "v", "item_id": "c", "name": "add_to_cart"}, {"visitor_id": "v", "item_id": "b"})
    (cart,) = shop.ask(policy="complete-cart", visitor_id="v", k=1).items
    assert (cart.item_id, cart.source) == ("d", "complete-cart")
    (told,) = shop.ask(policy="complete-cart", context={"cart": ["e"]}, k=1).items
    assert told.item_id == "a"


def test_what_was_taken_out_of_the_cart_needs_no_completion(shop_of):
    shop = shop_of()
    shop.train([["a!", "e!"]] * 4 + [["c!", "d!"]] * 4)
    shop.send(
        {"visitor_id": "v", "item_id": "a", "name": "add_to_cart"},
        {"visitor_id": "v", "item_id": "c", "name": "add_to_cart"},
        {"visitor_id": "v", "item_id": "c", "name": "remove_from_cart"},
    )
    assert shop.ask(policy="complete-cart", visitor_id="v", k=1).items[0].item_id == "e"


def test_recently_viewed_holds_what_was_viewed_and_nothing_else(shop_of):
    shop = shop_of('kind = "seen"\nviewed = true')
    shop.send(*({"visitor_id": "v", "item_id": name} for name in "abca"))
    answer = shop.ask(policy="recently-viewed", visitor_id="v")
    assert shown(answer) == ["c", "b"]
    assert {item.source for item in answer.items} == {"recently-viewed"}
    assert answer.items[0].reason == "You viewed this before"
    stranger = shop.ask(policy="recently-viewed", visitor_id="nobody", k=2)
    assert {item.source for item in stranger.items} == {"popular"}


def test_trending_in_your_category_stays_inside_it(shop_of):
    shop = shop_of()
    shop.train([["a", "b"]] * 30 + [["e", "f"]] * 3 + [["c", "d"]] * 5, step_s=3600.0)
    shop.items(e={"categories": ["lamps"]}, f={"categories": ["lamps"]}, d={"categories": ["mugs"]})
    answer = shop.ask(policy="trending-in-category", items=["e"], k=1)
    assert (shown(answer), answer.items[0].source) == (["f"], "trending-in-category")
    shop.items(f={"categories": ["mugs"]}, a={"categories": ["lamps"]})
    assert shown(shop.ask(policy="trending-in-category", items=["e"], k=1)) == ["a"]


def test_buy_again_knows_the_user_and_shows_what_was_bought(shop_of):
    shop = shop_of()
    shop.train([["a!"], ["b"], ["a!"], ["b"], ["a!"], ["c"], ["d"]], users={0: "u", 2: "u", 4: "u"})
    shop.send({"visitor_id": "v", "item_id": "a", "name": "purchase", "order_id": "o", "user_id": "u"})
    answer = shop.ask(policy="buy-again", visitor_id="v", user_id="u", item_id="b")
    assert [(item.item_id, item.source) for item in answer.items] == [("a", "buy-again")]
    assert shop.ask(policy="buy-again", items=["b"], k=1).items[0].source != "buy-again"


def test_after_a_login_the_very_next_slate_is_the_users_and_before_it_the_visitors_own(shop_of):
    shop = shop_of()
    shop.train([["a!"], ["b!"], ["a!"], ["b!"], ["a!"], ["b!"], ["c"]],
               users={n: "u" if n % 2 == 0 else person_id(None, "v") for n in range(6)})  # fmt: skip

    def again():
        answer = shop.ask(policy="buy-again", visitor_id="v", items=["c"])
        return [item.item_id for item in answer.items if item.source == "buy-again"]

    assert again() == ["b"]
    shop.send({"visitor_id": "v", "item_id": "c", "user_id": "u"})
    assert again() == ["a"]
    denied = shop.ask(policy="buy-again", visitor_id="v", items=["c"], consent="measurement")
    assert not [item for item in denied.items if item.source == "buy-again"]


def test_every_shelf_is_an_exposure_with_its_policy_and_propensities(shop_of):
    shop = shop_of()
    for policy in ("similar", "bought-together", "recently-viewed", "trending-in-category"):
        shop.ask(policy=policy, visitor_id="v", items=["a", "b"], k=2)
    exposures = shop.commit.exposures()
    assert [each.policy for each in exposures] == [
        "similar", "bought-together", "recently-viewed", "trending-in-category",
    ]  # fmt: skip
    assert all(each.slot_propensities == [1.0] * len(each.items) for each in exposures)
    assert exposures[0].sources[0] == "similar"


def test_a_look_says_what_each_rule_took_out_and_logs_nothing(shop_of):
    shop = shop_of('name = "no f"\nkind = "exclude"\nitems = ["f", "b"]', 'kind = "quota"\nby = "brand"\nmost = 1',
                   'name = "push"\nkind = "boost"\nitems = ["d"]\nfactor = 100.0')  # fmt: skip
    shop.items(c={"brand": "x"}, d={"brand": "x"}, e={"in_stock": False})
    look = shop.look(items=["a"], k=6)
    assert look.removed["no f"] == 2
    assert look.removed["quota-2"] >= 1
    assert look.removed["page"] == 1
    assert look.blocked["b"] == "no f"
    assert look.blocked["a"] == "page"
    assert look.blocked["e"] == "available"
    assert "quota" in {look.blocked.get("c"), look.blocked.get("d")}
    place = shown(look.answer).index("d")
    assert look.boosts[place] == {"push": 100.0}
    assert set(look.terms[place]) == {"a"}
    assert shop.commit.exposures() == []


def test_what_rules_take_out_is_added_up_for_whoever_reports_it(shop_of):
    shop = shop_of('name = "no b"\nkind = "exclude"\nitems = ["b"]')
    for _ in range(3):
        shop.ask(items=["a"])
    assert shop.workers[0].slates.removed["shop", "no b"] == 3


def test_a_dial_at_one_spreads_the_slate_and_at_zero_leaves_it(tmp_path):
    shop = Shop(tmp_path, '[tenants.shop.policies.wide]\nmodel = "session-knn"\ndiversity = 1.0\n')
    shop.train(WORLD)
    shop.items(b={"categories": ["x"]}, c={"categories": ["x"]}, d={"categories": ["y"]}, e={}, f={}, a={})
    assert shown(shop.ask(items=["a"], k=2)) == ["b", "c"]
    assert shown(shop.ask(policy="wide", items=["a"], k=2)) == ["b", "d"]


def test_masks_that_were_made_before_a_model_serves_know_what_changed_meanwhile(shop_of):
    shop = shop_of('kind = "price"\nmax_minor = 1000')
    shop.items(b={"price_minor": 900}, c={"price_minor": 900}, f={"price_minor": 900})
    shop.ask(items=["a"])
    view = shop.workers[0].catalog("shop", shop.now.timestamp())
    newcomer = SessionKNN.fit(from_columns(list("sst"), list("abg"), [1.0, 2.0, 3.0]))
    changes = iter([{"b": {"price_minor": 5000}}, {"g": {"price_minor": 100}}, {"h": {"price_minor": 1}}])

    def meanwhile():
        shop.items(**next(changes, {"f": {"price_minor": 800}}))
        view.refresh(shop.now.timestamp(), at_once=True)

    view.prepare(newcomer, meanwhile)
    book = next(iter(view._books.values()))
    prepared = view.masks(newcomer, book)
    afresh = RuleMasks(view.availability(newcomer), view._facts, book)
    assert np.array_equal(prepared.mask(Asked()), afresh.mask(Asked()))
    assert prepared.mask(Asked()).tolist() == [False, False, True]


def test_the_own_source_of_a_policy_is_its_models_name_however_the_policy_is_called(shop_of):
    shop = shop_of(text='[tenants.shop.policies.fast]\nmodel = "session-knn"\n')
    recommender = shop.workers[0]
    assert recommender.own_source("shop", "fast") == "session-knn"
    for policy in ("popular", "similar", "recently-viewed"):
        assert recommender.own_source("shop", policy) == policy
