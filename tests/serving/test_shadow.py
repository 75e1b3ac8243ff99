"""Shadow serving: a policy answers live questions before its launch, and nobody sees it."""

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from thinslice.cli.init import make_tenant
from thinslice.experiments import dump_experiment, parse_experiment, with_shadow, with_start
from thinslice.jobs import conduct
from thinslice.models import MODELS, from_columns
from thinslice.records import Exposure, Item, RecommendationRequest, ShadowSlate
from thinslice.serving import ExperimentFiles, ModelHost, RecommendationIds, Recommender
from thinslice.serving.shadow import MOST_WAITING, STALE_S, LogShadows, Shadows
from thinslice.settings import Workspace, parse_settings, read_settings
from thinslice.store.artifacts import MemoryArtifacts
from thinslice.store.codec import decode
from thinslice.store.compact import Compactor
from thinslice.store.lake import Lake
from thinslice.store.live import MemoryLive
from thinslice.store.log import LogKind
from thinslice.web.context import close_context, open_context

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SETTINGS = parse_settings('[tenants.shop]\nconsent_publishable = "measurement"\ndefault_policy = "popular"\n')
TEXT = (
    'name = "ranker"\nshadow_share = 1.0\nsegments = ["device"]\n'
    'variants = [{name = "old", policy = "unchanged"}, {name = "new", policy = "session-knn"}]\ntraining = "shared"\n'
)
PHONE = "Mozilla/5.0 (iPhone) Mobile"


class Memory:
    def __init__(self):
        self.exposures: list[Exposure] = []
        self.shadows: list[ShadowSlate] = []

    def exposure(self, exposure):
        self.exposures.append(exposure)

    def shadow(self, slate):
        self.shadows.append(slate)


@pytest.fixture
def shop(tmp_path):
    """A trained shop whose experiment is in shadow, with clocks that a test sets."""
    live = MemoryLive(clock=lambda: NOW.timestamp())
    live.put_items([Item(tenant="shop", item_id=name, updated_at=NOW, title=name) for name in "abcd"])
    files, log = ExperimentFiles(tmp_path), Memory()
    artifacts = MemoryArtifacts()
    models = ModelHost(artifacts, SETTINGS.tenants)
    recommender = Recommender(SETTINGS, live, models, files, RecommendationIds(b"s" * 32), log)
    clocks = SimpleNamespace(wall=0.0, cpu=0.0)
    shadows = Shadows(files, models, recommender, log, clock=lambda: clocks.wall, cpu=lambda: clocks.cpu)
    recommender.after_answering(shadows.note)
    now = [NOW]

    def train():
        sessions = [["a", "b"]] * 5 + [["c", "d"]] * 4
        rows = [(f"s{n}", item, n + place / 10) for n, each in enumerate(sessions) for place, item in enumerate(each)]
        clicks = from_columns(*[list(column) for column in zip(*rows, strict=True)])
        kinds = ("popular", "session-knn")
        made = {name: MODELS[name].fit(clicks, rng=0).arrays() for name in kinds}
        artifacts.promote("shop", "live", artifacts.put("shop", "live", made, {}))
        models.refresh(0.0)

    def write(experiment):
        (tmp_path / "shop").mkdir(exist_ok=True)
        (tmp_path / "shop" / "ranker.toml").write_text(dump_experiment(experiment))
        now[0] += timedelta(seconds=1)

    def ask(agent=PHONE, key="secret", **fields):
        return recommender.recommend("shop", RecommendationRequest(**fields), key, now[0], user_agent=agent)

    def drain():
        while shadows.step():
            pass

    train()
    write(with_shadow(parse_experiment(TEXT, "shop"), NOW))
    return SimpleNamespace(
        ask=ask, log=log, shadows=shadows, drain=drain, clocks=clocks, write=write, models=models, now=now
    )


def test_a_policy_in_shadow_answers_after_the_answer_and_is_never_shown(shop):
    answer = shop.ask(visitor_id="v", items=["c"], k=2)
    assert answer.policy == "popular"
    assert {item.source for item in answer.items} == {"popular"}
    assert shop.log.shadows == []  # nothing is made while the visitor waits
    shop.drain()
    (row,) = shop.log.shadows
    assert (row.experiment, row.variant, row.policy, row.live_policy) == ("ranker", "new", "session-knn", "popular")
    assert row.recommendation_id == answer.recommendation_id
    assert (row.items[0], row.sources[0]) == ("d", "session-knn")
    assert row.fallbacks == len(row.items) - 1
    assert (row.segments, row.visitor_id, row.model_version) == ({"device": "phone"}, "v", answer.model_version)
    assert row.latency_ms > 0
    (shown,) = shop.log.exposures
    assert shown.experiments == []
    assert not shown.shadow
    assert shown.items == [item.item_id for item in answer.items]


def test_only_the_declared_share_of_questions_is_answered_in_shadow(shop):
    shop.write(with_shadow(parse_experiment(TEXT, "shop"), NOW, 0.2))
    for n in range(500):
        shop.ask(visitor_id=f"v{n}")
        shop.drain()
    assert 70 < len(shop.log.shadows) < 130


def test_bots_and_who_consents_to_nothing_are_not_asked_about(shop):
    shop.ask(agent="Googlebot/2.1", key="publishable", visitor_id="v")
    shop.ask(consent="none", visitor_id="v")
    assert shop.shadows.waiting == 0


def test_what_started_or_stopped_is_in_shadow_no_more(shop):
    shadowed = with_shadow(parse_experiment(TEXT, "shop"), NOW)
    shop.write(with_start(shadowed, NOW))
    shop.ask(visitor_id="v")
    assert shop.shadows.waiting == 0


def test_under_load_shadows_are_dropped_first_and_counted(shop):
    for n in range(MOST_WAITING + 5):
        shop.ask(visitor_id=f"v{n}")
    assert (shop.shadows.waiting, shop.shadows.dropped) == (MOST_WAITING, 5)
    shop.clocks.wall, shop.clocks.cpu = 1.0, 0.9  # this worker computed nine tenths of the last second
    shop.drain()
    assert shop.log.shadows == []
    assert (shop.shadows.waiting, shop.shadows.dropped) == (0, MOST_WAITING + 5)
    shop.clocks.wall = 2.0  # and rested since
    shop.ask(visitor_id="later")
    shop.drain()
    (row,) = shop.log.shadows
    assert (row.visitor_id, row.dropped, shop.shadows.dropped) == ("later", MOST_WAITING + 5, 0)


def test_a_question_that_waited_too_long_is_dropped(shop):
    shop.ask(visitor_id="v")
    shop.clocks.wall = STALE_S + 0.1
    shop.drain()
    assert (shop.log.shadows, shop.shadows.dropped) == ([], 1)


def test_a_model_that_breaks_in_shadow_is_named_and_counts_for_no_live_slate(shop, monkeypatch):
    model = shop.models.bundle("shop").models["session-knn"]
    monkeypatch.setattr(type(model), "recommend", lambda *_, **__: 1 / 0)
    answer = shop.ask(visitor_id="v", items=["c"])
    shop.drain()
    (row,) = shop.log.shadows
    assert row.failed == ["session-knn"]
    assert row.fallbacks == len(row.items) > 0
    assert answer.items


def test_shadow_slates_go_into_the_log_under_a_kind_of_their_own(shop):
    frames = []
    writer = SimpleNamespace(write=lambda kind, payload: frames.append((kind, payload)))
    shop.ask(visitor_id="v")
    shop.drain()
    LogShadows(writer).shadow(shop.log.shadows[0])
    ((kind, payload),) = frames
    assert kind == LogKind.SHADOWS
    assert decode(payload) == (LogKind.SHADOWS, shop.log.shadows)


def test_to_note_a_question_costs_its_visitor_a_few_microseconds(shop):
    shop.ask(visitor_id="v")
    question = shop.shadows._queue[0].question
    best = min(_per_call(shop, question) for _ in range(5))
    assert best < 50e-6


def _per_call(shop, question):
    began = time.process_time()
    for _ in range(1000):
        shop.shadows.note(question, NOW)
    return (time.process_time() - began) / 1000


def test_a_worker_makes_shadow_slates_beside_its_answers_and_the_compactor_brings_them_into_the_lake(tmp_path):
    workspace = Workspace(tmp_path)
    make_tenant(workspace, "shop")
    text = TEXT.replace('"unchanged"', '"popular"')
    conduct.start_shadow(workspace, "shop", text, "a.toml", datetime.now(UTC))
    context = open_context(workspace, read_settings(workspace), "w1")
    try:
        context.live.put_items([Item(tenant="shop", item_id=name, updated_at=NOW, title=name) for name in "abcd"])
        now = datetime.now(UTC)
        for n in range(5):
            request = RecommendationRequest(visitor_id=f"v{n}", policy=None)
            context.recommender.recommend("shop", request, "secret", now, user_agent=PHONE)
        assert context.shadows.waiting == 5
        while context.shadows.step():
            pass
    finally:
        close_context(context)
    counts = Compactor(workspace).run_once(datetime.now(UTC))
    assert (counts.exposures, counts.shadows) == (5, 5)
    connection = Lake(workspace.lake).connect(tenant="shop")
    try:
        rows = connection.execute(
            "SELECT s.policy, s.live_policy, e.policy FROM shadows AS s JOIN exposures AS e USING (recommendation_id)"
        ).fetchall()
    finally:
        connection.close()
    assert {row[1:] for row in rows} == {("session-knn", "session-knn")}
    assert {row[0] for row in rows} == {"popular"}
