"""Visitors and items dealt out together, from the file to slates and models: no variant lives on the other's finds."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from thinslice.cli.init import make_tenant
from thinslice.experiments.item_deal import ItemDeal, KnownItems
from thinslice.jobs import conduct
from thinslice.jobs.measure import measure
from thinslice.jobs.recipes import read_model
from thinslice.jobs.train import train
from thinslice.records import Event, Item, RecommendationRequest
from thinslice.serving import ExperimentFiles, ModelHost, RecommendationIds, Recommender
from thinslice.serving.unit_maps import ITEMS, read_known_items, unit_map_file
from thinslice.settings import Workspace, read_settings
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake
from thinslice.store.live import MemoryLive

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD, NEW = [f"old-{n}" for n in range(12)], [f"new-{n}" for n in range(40)]
TEXT = (
    'name = "discovery"\ndays = 14\ndeal_items = "new"\n'
    'variants = [{name = "plain", policy = "popular"}, {name = "tryer", policy = "implicit-cosine"}]\n'
)


def item(name, at):
    return Item(tenant="shop", item_id=name, updated_at=at, published_at=at, title=name)


def clicks(visitor, names, at):
    return [
        Event(event_id=f"{visitor}-{name}-{at.timestamp()}", tenant="shop", name="view_item", visitor_id=visitor,
              item_id=name, occurred_at=at + timedelta(seconds=20 * n), received_at=at)
        for n, name in enumerate(names)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop whose experiment deals new items out: its past, a day of slates and clicks, then trained."""
    workspace = Workspace(tmp_path_factory.mktemp("shop"))
    make_tenant(workspace, "shop")
    lake = Lake(workspace.lake)
    lake.append("items", [item(name, START - timedelta(days=9)) for name in OLD])
    past = [clicks(f"p{n}", [OLD[n % 12], OLD[(n + 1) % 12]], START - timedelta(hours=n + 2)) for n in range(80)]
    lake.append("events", [event for each in past for event in each])
    train(workspace, "shop", now=START - timedelta(hours=1))
    experiment = conduct.start_experiment(workspace, "shop", TEXT, "a.toml", START)
    lake.append("items", [item(name, START + timedelta(minutes=1)) for name in NEW])
    live = MemoryLive(clock=lambda: 0.0)
    live.put_items([item(name, START - timedelta(days=9)) for name in OLD] + [item(name, START) for name in NEW])
    settings, artifacts = read_settings(workspace), FileArtifacts(workspace.models)
    models, rows = ModelHost(artifacts, ["shop"]), []
    models.refresh(0.0)
    recommender = Recommender(
        settings, live, models, ExperimentFiles(workspace.experiments), RecommendationIds(b"s" * 32),
        SimpleNamespace(exposure=rows.append),
    )  # fmt: skip

    def ask(visitor, at, **fields):
        return recommender.recommend("shop", RecommendationRequest(visitor_id=visitor, **fields), "secret", at)

    # Visitors are shown slates, and in one visit click an old item and three new ones that they found by searching.
    found = []
    for n in range(120):
        at = START + timedelta(minutes=5 * n + 5)
        ask(f"v{n}", at, k=10)
        found += clicks(f"v{n}", [OLD[n % 12], NEW[n % 40], NEW[(n + 7) % 40], NEW[(n + 20) % 40]], at)
    lake.append("events", found)
    lake.append("exposures", rows)
    end = START + timedelta(hours=12)
    train(workspace, "shop", now=end)
    models.refresh(1.0)
    known = read_known_items(unit_map_file(workspace.experiments / "shop", "discovery", ITEMS))
    deals = {each.name: ItemDeal(experiment, each.name, known) for each in experiment.variants}
    return SimpleNamespace(
        workspace=workspace, ask=ask, rows=rows, end=end, deals=deals, artifacts=artifacts, known=known, lake=lake
    )


def slates_by_variant(rows):
    found = {"plain": [], "tryer": []}
    for row in rows:
        found[row.experiments[0].variant].append(row.items)
    return found


def test_the_start_remembers_which_items_were_there(shop):
    assert shop.known.hold(OLD).all()
    assert not shop.known.hold(NEW).any()
    assert isinstance(shop.known, KnownItems)


def test_a_new_item_stands_in_the_slates_of_its_own_variant_only(shop):
    at = shop.end + timedelta(minutes=1)
    for n in range(200):
        shop.ask(f"w{n}", at, k=30, items=[OLD[n % 12], NEW[n % 40]])
    shown = slates_by_variant(shop.rows)
    seen = {name: {each for slate in slates for each in slate} for name, slates in shown.items()}
    for name, deal in shop.deals.items():
        assert all(deal.may(each) for each in seen[name])
        assert set(OLD) & seen[name]
    assert not seen["plain"] & seen["tryer"] & set(NEW)
    assert {name: bool(items & set(NEW)) for name, items in seen.items()} == {"plain": True, "tryer": True}


def test_models_of_a_variant_never_learned_of_the_other_variants_new_items(shop):
    slots = shop.artifacts.live("shop")
    for name, deal in shop.deals.items():
        arrays, manifest = shop.artifacts.load("shop", slots[f"exp.discovery.{name}"])
        mine = {each for each in NEW if deal.may(each)}
        learned = set(read_model("implicit-cosine", arrays["implicit-cosine"], manifest).item_ids) & set(NEW)
        assert learned
        assert learned <= mine
        lineage = manifest["lineage"]["discovery"][name]
        assert lineage["contamination"] == 0
        assert lineage["clicks"][name] > 0
        assert sum(lineage["clicks"][other] for other in shop.deals if other != name) == 0


def test_the_report_says_that_nothing_was_learned_from_the_other_variant(shop):
    report = measure(shop.workspace, "shop", "discovery", shop.end)
    found = next(check for check in report.checks if check.name == "contamination")
    assert found.passed
    assert found.statistic == 0


def test_where_all_items_are_dealt_out_no_item_is_shown_by_two_variants(shop):
    everything = {
        name: ItemDeal(conduct.parse_experiment(TEXT.replace('"new"', '"all"', 1), "shop"), name) for name in shop.deals
    }
    assert [everything["plain"].may(each) for each in OLD + NEW] == [
        not everything["tryer"].may(each) for each in OLD + NEW
    ]
