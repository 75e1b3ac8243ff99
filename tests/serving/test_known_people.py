"""Who is known is answered from what they did before, whatever the trees of the ranker are worth; others as ever."""

from datetime import UTC, datetime

import numpy as np
import pytest

from thinslice.models import MODELS, SessionRanker, UserCF, UserHistory, from_columns
from thinslice.recommend.reasons import reasons
from thinslice.records import ACTIONS, Item, RecommendationRequest
from thinslice.serving import ExperimentFiles, ModelHost, RecommendationIds, Recommender
from thinslice.settings import parse_settings
from thinslice.store.artifacts import MemoryArtifacts
from thinslice.store.live import MemoryLive

RUNGS = ("popular", "newest", "content", "implicit-cosine", "session-knn", "user-history", "session-ranker")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY_S = 86_400.0


class Shop:
    """One worker of a shop whose models have learned from a log of known people."""

    def __init__(self, folder, clicks, ranker):
        live, artifacts = MemoryLive(clock=NOW.timestamp), MemoryArtifacts()
        feed = [Item(tenant="shop", item_id=name, updated_at=NOW, title=name) for name in clicks.item_ids]
        live.put_items(feed)
        arrays = {
            name: (ranker if name == "session-ranker" else MODELS[name].fit(clicks, feed, rng=0)).arrays()
            for name in RUNGS
        }
        version = artifacts.put("shop", "live", arrays, {"policies": {name: name for name in arrays}})
        artifacts.promote("shop", "live", version)
        models = ModelHost(artifacts, ["shop"])
        settings = parse_settings('[tenants.shop]\ndefault_policy = "session-ranker"')
        ids = RecommendationIds(b"s" * 32)
        self.worker = Recommender(settings, live, models, ExperimentFiles(folder), ids, None)
        models.refresh(0.0)

    def ask(self, **fields):
        return self.worker.recommend("shop", RecommendationRequest(**fields), "secret", NOW)

    def look(self, **fields):
        return self.worker.look("shop", RecommendationRequest(**fields), "secret", NOW)


def regulars(people, weeks):
    """Each week everybody looks at something that all look at, then takes one of four things that are only theirs."""
    draw = np.random.default_rng(0)
    rows = [
        (f"p{person}-{week}", item, 1.7e9 + DAY_S * (7 * week + person % 7) + place, f"p{person}")
        for week in range(weeks) for person in range(people)
        for place, item in enumerate((f"any-{draw.integers(40)}",
                                      f"own-{person}-{draw.choice(4, p=(0.55, 0.25, 0.15, 0.05))}"))
    ]  # fmt: skip
    session, item, time, user = zip(*rows, strict=True)
    return from_columns(session, item, time, users=user)


@pytest.fixture(scope="module")
def log():
    return regulars(people=60, weeks=20)


def fitted(log):
    return SessionRanker.fit(log, rng=0, tune_cpu_s_per_million=5, least_questions=100)


@pytest.fixture(scope="module")
def helped(log):
    """Trees of known people that the exam accepted."""
    return fitted(log)


@pytest.fixture(scope="module")
def refused(log):
    """Nobody signed in during the newest visits, so that no trees of known people can be learned."""
    user = log.user.copy()
    user[int(0.88 * len(user)) :] = -1
    return fitted(log._replace(user=user))


@pytest.fixture
def shop_of(tmp_path, log):
    return lambda ranker: Shop(tmp_path, log, ranker)


def test_the_worlds_are_what_they_say(helped, refused):
    assert any(name.startswith("known_") for name in helped.arrays())
    assert not any(name.startswith("known_") for name in refused.arrays())
    assert refused.evidence["known_people"]["why"] == "0 questions of known people, 100 are needed"


ANSWERS = [
    # trees      person  session     who answers        another slate than a stranger's
    ("helped",   "p7",   [],         "session-ranker",  True),
    ("helped",   "p7",   ["any-3"],  "session-ranker",  True),
    ("helped",   "p7",   ["new"],    "session-ranker",  True),
    ("helped",   "who",  [],         "popular",         False),
    ("helped",   "who",  ["any-3"],  "session-ranker",  False),
    ("helped",   None,   [],         "popular",         False),
    ("helped",   None,   ["any-3"],  "session-ranker",  False),
    ("refused",  "p7",   [],         "user-history",    True),
    ("refused",  "p7",   ["any-3"],  "session-ranker",  False),
    ("refused",  "p7",   ["new"],    "user-history",    True),
    ("refused",  "who",  [],         "popular",         False),
    ("refused",  "who",  ["any-3"],  "session-ranker",  False),
    ("refused",  "who",  ["new"],    "popular",         False),
    ("refused",  None,   [],         "popular",         False),
    ("refused",  None,   ["any-3"],  "session-ranker",  False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("trees", "person", "session", "source", "own"), ANSWERS,
    ids=[f"{trees} trees, {person or 'nobody'} with {'+'.join(clicks) or 'nothing'}"
         for trees, person, clicks, *_ in ANSWERS],
)  # fmt: skip
def test_who_is_known_and_who_is_not_with_and_without_a_session(request, shop_of, trees, person, session, source, own):
    shop = shop_of(request.getfixturevalue(trees))
    answer = shop.ask(user_id=person, items=session, k=5)
    assert len(answer.items) == 5
    assert answer.items[0].source == source
    assert (answer.items != shop.ask(items=session, k=5).items) == own
    if own:
        assert answer.items != shop.ask(user_id="p8", items=session, k=5).items


@pytest.mark.parametrize("policy", ["session-ranker", "session-knn", "popular"])
def test_behind_every_personal_policy_stands_the_history_and_behind_a_baseline_none(shop_of, refused, policy):
    answer = shop_of(refused).ask(user_id="p7", items=[], k=5, policy=policy)
    assert {item.source for item in answer.items} == ({"popular"} if policy == "popular" else {"user-history"})


def test_without_the_consent_to_personalize_nobody_is_known(shop_of, refused):
    answer = shop_of(refused).ask(user_id="p7", items=[], k=5, consent="measurement")
    assert {item.source for item in answer.items} == {"popular"}


@pytest.mark.parametrize("trees", ["helped", "refused"])
@pytest.mark.parametrize("session", [[], ["any-3"], ["own-7-0", "any-5"]], ids=["nothing", "one", "own"])
def test_what_is_said_of_an_item_is_its_strongest_term_and_the_terms_sum_to_the_score(request, shop_of, trees, session):
    found = shop_of(request.getfixturevalue(trees)).look(user_id="p7", items=session, k=8)
    for item, terms in zip(found.answer.items, found.terms, strict=True):
        assert sum(terms.values()) == pytest.approx(item.score, rel=1e-6, abs=1e-9)
        own = {name for name in terms if name.startswith(("own-", "any-"))}
        if "before" in item.reason and item.reason.startswith("Because"):
            cause = item.reason.removeprefix("Because you viewed ").removesuffix(" before")
            assert cause in own - set(session)
            assert terms[cause] == max(terms[name] for name in own) > 0
        if item.reason == "You viewed this before":
            assert terms[item.item_id] == max(terms[name] for name in own) > 0


def bought_and_viewed():
    """Ann bought a drill twice and looked at a lamp; eight others take drills, and screws on other days."""
    own = (1, "drill", True), (2, "lamp", False), (9, "drill", True)
    rows = [(f"ann-{day}", item, 1.7e9 + DAY_S * day, "ann", bought) for day, item, bought in own]
    rows += [(f"p{n}-{day}", item, 1.7e9 + DAY_S * day, f"p{n}", False)
             for n in range(8) for day, item in enumerate(("drill", "screws"))]  # fmt: skip
    session, item, time, user, bought = zip(*rows, strict=True)
    actions = np.where(bought, ACTIONS.index("purchase"), 0).astype(np.uint8)
    return from_columns(session, item, time, users=user, actions=actions)


@pytest.mark.parametrize("kind", [UserHistory, UserCF], ids=["user-history", "user-cf"])
def test_what_was_bought_and_what_was_only_viewed_are_told_apart(kind):
    settings = {"popularity": 0.0, "again": 50.0} if kind is UserHistory else {"reg": 1.0}
    model = kind.fit(bought_and_viewed(), rng=0, **settings)
    assert model.bought("ann") == {"drill"}
    assert model.bought("p1") == model.bought("nobody") == frozenset()
    drill, lamp, screws = reasons(model, [], ["drill", "lamp", "screws"], str.title, user_id="ann")
    assert screws == "Because you bought Drill"
    if kind is UserHistory:
        assert (drill, lamp) == ("You bought this before", "You viewed this before")
    assert "bought" not in reasons(model, [], ["screws"], str.title, user_id="p1")[0]
