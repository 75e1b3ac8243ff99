"""Who gets which variant of several experiments: holdout, layers, blocks, testers, segments."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from thinslice.errors import BadRecord
from thinslice.experiments import dump_experiment, parse_experiment, with_allocation, with_start
from thinslice.experiments.unit_map import UnitMap
from thinslice.records import Exposure, Item, RecommendationRequest
from thinslice.serving import ExperimentFiles, ModelHost, RecommendationIds, Recommender
from thinslice.serving.experiments import Visit, device_of, segments_of
from thinslice.serving.unit_maps import GRAPH, KEPT, unit_map_file, write_unit_map
from thinslice.settings import parse_settings
from thinslice.store.artifacts import MemoryArtifacts
from thinslice.store.live import MemoryLive

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AT = NOW.timestamp()
SETTINGS = parse_settings('[tenants.shop]\nconsent_publishable = "measurement"\n')
TWO = '[[variants]]\nname = "old"\npolicy = "popular"\n[[variants]]\nname = "new"\npolicy = "newest"\n'


class Memory:
    def __init__(self):
        self.rows: list[Exposure] = []

    def exposure(self, exposure):
        self.rows.append(exposure)


@pytest.fixture
def shop(tmp_path):
    """A shop with three items, and a way to start experiments and to ask."""
    live = MemoryLive(clock=lambda: AT)
    live.put_items([Item(tenant="shop", item_id=name, updated_at=NOW, title=name) for name in "abc"])
    files, log = ExperimentFiles(tmp_path), Memory()
    models = ModelHost(MemoryArtifacts(), SETTINGS.tenants)
    recommender = Recommender(SETTINGS, live, models, files, RecommendationIds(b"s" * 32), log)
    clock = [NOW]

    def start(text):
        started = with_start(parse_experiment(text, "shop"), NOW)
        (tmp_path / "shop").mkdir(exist_ok=True)
        (tmp_path / "shop" / f"{started.name}.toml").write_text(dump_experiment(started))
        clock[0] += timedelta(seconds=1)
        return started

    def ask(key="secret", agent="", at=None, **fields):
        answer = recommender.recommend(
            "shop", RecommendationRequest(**fields), key, clock[0] if at is None else at, user_agent=agent
        )
        return answer, log.rows[-1]

    return SimpleNamespace(start=start, ask=ask, folder=tmp_path / "shop", files=files, clock=clock)


HOLDOUT = (
    'name = "holdout"\nkind = "holdout"\ntraining = "shared"\ncoverage = 0.4\n'
    '[[variants]]\nname = "measured"\npolicy = "unchanged"\n[[variants]]\nname = "held"\npolicy = "none"\n'
)


def test_who_is_held_out_is_in_nothing_else_and_the_measured_control_lives_like_everybody(shop):
    shop.start('name = "ranker"\n' + TWO)
    shop.start(HOLDOUT)
    seen = {"held": 0, "measured": 0, "outside": 0}
    for n in range(300):
        answer, exposure = shop.ask(visitor_id=f"v{n}")
        variants = {each.experiment: each.variant for each in exposure.experiments}
        seen[variants.get("holdout", "outside")] += 1
        if variants.get("holdout") == "held":
            assert variants == {"holdout": "held"}
            assert answer.items == []
            assert exposure.items
        else:
            assert answer.policy == {"old": "popular", "new": "newest"}[variants["ranker"]]
    assert all(abs(seen[name] - count) < 45 for name, count in {"held": 60, "measured": 60, "outside": 180}.items())


def test_an_unchanged_variant_shows_what_the_placement_shows_and_is_logged(shop):
    shop.start('name = "a"\ntraining = "shared"\n' + TWO.replace('"popular"', '"unchanged"'))
    policies = {}
    for n in range(40):
        answer, exposure = shop.ask(visitor_id=f"v{n}")
        policies.setdefault(exposure.experiments[0].variant, set()).add(answer.policy)
    assert policies == {"old": {SETTINGS.tenant("shop").default_policy}, "new": {"newest"}}


def test_experiments_of_one_layer_never_share_a_unit(shop):
    for name, part in (("a", "[0.0, 0.5]"), ("b", "[0.5, 1.0]")):
        shop.start(f'name = "{name}"\nlayer = "home"\nlayer_range = {part}\ntraining = "shared"\n' + TWO)
    found = [[each.experiment for each in shop.ask(visitor_id=f"v{n}")[1].experiments] for n in range(200)]
    assert {tuple(each) for each in found} == {("a",), ("b",)}
    assert 60 < found.count(["a"]) < 140


def test_a_switchback_gives_everybody_the_same_and_needs_no_id(shop):
    shop.start('name = "fares"\nunit = "block"\nblock_minutes = 60\ntraining = "shared"\n' + TWO)
    shown = {}
    for hour in range(48):
        at = NOW + timedelta(hours=hour, minutes=1)
        rows = [shop.ask(at=at, **who)[1].experiments[0] for who in ({}, {"visitor_id": "v"}, {"user_id": "u"})]
        assert len({row.variant for row in rows}) == 1
        shown[rows[0].unit_id] = rows[0].variant
    assert len(shown) == 48
    assert sorted(shown.values()) == ["new"] * 24 + ["old"] * 24


def test_a_cluster_is_named_by_the_context_or_by_its_community(shop):
    shop.start('name = "city"\nunit = "cluster"\ncluster = "city"\ntraining = "shared"\nplacement = "home"\n' + TWO)
    shop.start(
        'name = "goods"\nunit = "cluster"\ncluster = "item-graph"\ntraining = "shared"\nplacement = "item"\n' + TWO
    )
    write_unit_map(unit_map_file(shop.folder, "goods", GRAPH), UnitMap({"a": "community-0", "b": "community-0"}))
    one = [shop.ask(visitor_id=f"v{n}", placement="home", context={"city": "Graz"})[1] for n in range(5)]
    assert {row.experiments[0].unit_id for row in one} == {"Graz"}
    assert len({row.experiments[0].variant for row in one}) == 1
    assert shop.ask(visitor_id="v", placement="home")[1].experiments == []
    units = [shop.ask(item_id=item, placement="item")[1].experiments[0].unit_id for item in "abc"]
    assert units == ["community-0", "community-0", "c"]


def test_a_tester_sees_the_variant_of_the_list_and_is_in_no_experiment(shop):
    shop.start('name = "ranker"\n' + TWO.replace('name = "new"', 'name = "new"\nforced = ["tester"]'))
    answer, exposure = shop.ask(visitor_id="tester", key="publishable", consent="measurement")
    assert answer.policy == "newest"
    assert exposure.experiments == []
    assert exposure.segments == {"forced": "ranker:new"}


def test_a_secret_key_forces_a_variant_and_a_browser_cannot(shop):
    shop.start('name = "ranker"\n' + TWO)
    for variant, policy in (("old", "popular"), ("new", "newest")):
        answer, exposure = shop.ask(visitor_id="v1", context={"force": {"ranker": variant}})
        assert (answer.policy, exposure.experiments, exposure.segments) == (policy, [], {"forced": f"ranker:{variant}"})
        _, exposure = shop.ask(visitor_id="v1", key="publishable", context={"force": {"ranker": variant}})
        assert len(exposure.experiments) == 1
        assert exposure.segments == {}


@pytest.mark.parametrize(
    ("force", "words"),
    [
        ({"ranker": "x"}, "There is: old, new"),
        ({"other": "old"}, "There is: ranker"),
        ({"ranker": ["old"]}, "old, new"),
    ],
    ids=["variant", "experiment", "type"],
)
def test_what_cannot_be_forced_is_refused(shop, force, words):
    shop.start('name = "ranker"\n' + TWO)
    with pytest.raises(BadRecord) as caught:
        shop.ask(visitor_id="v1", context={"force": force})
    assert words in caught.value.hint


def test_declared_segments_are_logged_as_they_were_before_the_slate(shop):
    shop.start('name = "ranker"\nsegments = ["device", "country", "entry_page", "returning"]\n' + TWO)
    _, exposure = shop.ask(
        visitor_id="v", item_id="b", agent="Mozilla/5.0 (iPhone) Mobile", context={"country": "AT", "returning": True}
    )
    assert exposure.segments == {"device": "phone", "country": "AT", "entry_page": "b", "returning": "True"}


def test_what_is_not_known_of_a_segment_is_left_out():
    assert segments_of(["device", "country", "entry_page"], {"country": ["AT"]}, "", None) == {}
    assert segments_of(["device"], {"device": "kiosk"}, "Mobile", None) == {"device": "kiosk"}
    assert device_of("Mozilla/5.0 (Linux; Android 15) Safari") == device_of("Mozilla/5.0 (iPad)") == "tablet"
    assert device_of("Mozilla/5.0 (X11; Linux x86_64)") == "desktop"


def test_units_that_were_served_before_a_change_of_weights_keep_their_variant(shop):
    started = shop.start('name = "ranker"\n' + TWO)
    first = {f"v{n}": shop.ask(visitor_id=f"v{n}")[1].experiments[0].variant for n in range(100)}
    ramped = with_allocation(started, NOW, weights={"old": 0.1, "new": 0.9})
    write_unit_map(unit_map_file(shop.folder, "ranker", KEPT), UnitMap({n: f"1:{v}" for n, v in first.items()}))
    (shop.folder / "ranker.toml").write_text(dump_experiment(ramped))
    shop.clock[0] += timedelta(seconds=1)
    rows = {name: shop.ask(visitor_id=name)[1].experiments[0] for name in first}
    assert {name: row.variant for name, row in rows.items()} == first
    assert {row.allocation_version for row in rows.values()} == {1}
    assert shop.ask(visitor_id="somebody-new")[1].experiments[0].allocation_version == 2


def test_a_map_that_cannot_be_read_is_named_and_the_experiment_goes_on(shop, caplog):
    shop.start('name = "ranker"\n' + TWO)
    unit_map_file(shop.folder, "ranker", KEPT).write_bytes(b"no map")
    assert shop.files.choose("shop", AT + 5, Visit("home", "v1")).exposed
    assert "ranker.kept.npz cannot be read" in caplog.text


def test_a_file_that_was_edited_while_running_leaves_in_force_what_was_read_before(shop, caplog):
    started = shop.start('name = "ranker"\n' + TWO)
    assert shop.ask(visitor_id="v1")[1].experiments
    path = shop.folder / "ranker.toml"
    path.write_text(dump_experiment(started).replace("coverage = 1.0", "coverage = 0.01"))
    shop.clock[0] += timedelta(seconds=1)
    assert all(shop.ask(visitor_id=f"v{n}")[1].experiments for n in range(20))
    assert "coverage of 'ranker' changed after its start" in caplog.text
