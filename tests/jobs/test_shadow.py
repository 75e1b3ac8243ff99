"""A policy before its launch: its shadow in the lake, what it learns there, and how far the past reaches to it."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from thinslice.cli.init import make_tenant
from thinslice.cli.program import program
from thinslice.errors import BadInput, NotReady
from thinslice.experiments import is_running, is_shadowed
from thinslice.jobs import conduct
from thinslice.jobs.bandits import Warm, learn_extras, read_shown, warm_of
from thinslice.jobs.measure import measure, read_experiment
from thinslice.jobs.shadow import shadow_report
from thinslice.jobs.support import support_of
from thinslice.jobs.train import train
from thinslice.models import from_columns
from thinslice.recommend.explore import BANDIT
from thinslice.records import Event, ExperimentExposure, Exposure, ShadowSlate
from thinslice.settings import Policy, Workspace
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=2)
TEXT = (
    'name = "ranker"\ndays = 14\nplacement = "home"\nsegments = ["device"]\n'
    'variants = [{name = "old", policy = "popular"}, {name = "new", policy = "implicit-cosine"}]\n'
)
LEARNING = {"learning": Policy(model="popular", explore="position-thompson")}


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path)
    make_tenant(made, "shop")
    return made


def event(number, item, at, **fields):
    base = {"event_id": f"e{number}-{item}-{at.timestamp()}", "tenant": "shop", "name": "view_item", "item_id": item,
            "visitor_id": f"v{number}", "occurred_at": at, "received_at": at}  # fmt: skip
    return Event(**{**base, **fields})


def exposure(number, items, at, **fields):
    base = {"recommendation_id": f"r{number}", "tenant": "shop", "occurred_at": at, "placement": "home",
            "policy": "popular", "model_version": "m", "visitor_id": f"v{number}", "items": items,
            "slot_propensities": [1.0] * len(items), "latency_ms": 0.5}  # fmt: skip
    return Exposure(**{**base, **fields})


def shadow(number, items, at, **fields):
    base = {"recommendation_id": f"r{number}", "tenant": "shop", "occurred_at": at, "experiment": "ranker",
            "variant": "new", "placement": "home", "policy": "implicit-cosine", "model_version": "m",
            "live_policy": "popular", "visitor_id": f"v{number}", "items": items, "latency_ms": 1.0,
            "segments": {"device": "phone" if number % 2 else "desktop"}}  # fmt: skip
    return ShadowSlate(**{**base, **fields})


def browse(workspace, visitors=60, at=NOW - timedelta(days=1), prefix=""):
    """Visitors who look at pairs of items that go together."""
    rows = []
    for n in range(visitors):
        pair = ("a", "b") if n % 2 else ("c", "d")
        rows += [event(f"{prefix}{n}", item, at + timedelta(minutes=n, seconds=10 * s)) for s, item in enumerate(pair)]
    Lake(workspace.lake).append("events", rows)


def test_shadow_comes_before_the_start_and_ends_with_it(workspace):
    shadowed = conduct.start_shadow(workspace, "shop", TEXT, "a.toml", NOW, 0.2)
    assert is_shadowed(shadowed)
    assert not is_running(shadowed)
    assert read_experiment(workspace, "shop", "ranker") == shadowed
    started = conduct.start_experiment(workspace, "shop", TEXT, "a.toml", LATER)
    assert (started.shadow_at, started.started_at, is_shadowed(started)) == (NOW, LATER, False)
    assert is_running(started)
    with pytest.raises(BadInput, match="was started before"):
        conduct.start_shadow(workspace, "shop", TEXT, "a.toml", LATER)


def test_a_shadow_can_be_stopped_and_launched_later(workspace):
    conduct.start_shadow(workspace, "shop", TEXT, "a.toml", NOW)
    stopped = conduct.stop_experiment(workspace, "shop", "ranker", LATER)
    assert not is_shadowed(stopped)
    assert is_running(conduct.start_experiment(workspace, "shop", TEXT, "a.toml", LATER))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("popular", "unheard-of", "no policy 'unheard-of'"), ("popular", "none", "started before|no shadow")],
    ids=["unknown", "nothing"],
)
def test_what_cannot_be_shadowed_is_refused(workspace, old, new, words):
    text = TEXT.replace("implicit-cosine", new).replace("popular", "none" if new == "none" else old)
    with pytest.raises(BadInput, match=words):
        conduct.start_shadow(workspace, "shop", text, "a.toml", NOW)


def test_training_makes_the_models_of_a_policy_in_shadow(workspace):
    browse(workspace)
    train(workspace, "shop", now=NOW)
    assert "implicit-bpr" not in FileArtifacts(workspace.models).load("shop", _live(workspace))[0]
    conduct.start_shadow(workspace, "shop", TEXT.replace("implicit-cosine", "implicit-bpr"), "a.toml", NOW)
    train(workspace, "shop", now=NOW)
    assert "implicit-bpr" in FileArtifacts(workspace.models).load("shop", _live(workspace))[0]


def _live(workspace):
    return FileArtifacts(workspace.models).live("shop")["live"]


def test_shadow_slates_are_never_counted_as_shown(workspace):
    conduct.start_shadow(workspace, "shop", TEXT, "a.toml", NOW)
    started = conduct.start_experiment(workspace, "shop", TEXT, "a.toml", NOW)
    lake = Lake(workspace.lake)
    of = {"experiment": "ranker", "unit": "visitor", "allocation_version": 1, "propensities": {"old": 0.5, "new": 0.5}}
    rows = [
        exposure(n, ["a"], NOW + timedelta(hours=1),
                 experiments=[ExperimentExposure(variant=("old", "new")[n % 2], unit_id=f"v{n}", **of)])
        for n in range(20)
    ]  # fmt: skip
    lake.append("exposures", rows)
    before = measure(workspace, "shop", started.name, LATER)
    lake.append("shadows", [shadow(n, ["b"], NOW + timedelta(hours=1)) for n in range(20)])
    after = measure(workspace, "shop", started.name, LATER)
    assert after == before
    assert len(read_shown(lake, "shop", "implicit-cosine", 0.0, LATER.timestamp()).slot) == 0


def test_an_explorer_in_shadow_learns_from_what_others_showed_and_after_the_launch_from_its_own(workspace):
    lake = Lake(workspace.lake)
    lake.append("exposures", [
        *[exposure(n, ["a", "b"], NOW - timedelta(hours=3)) for n in range(30)],
        *[exposure(100 + n, ["a", "b"], NOW - timedelta(hours=3), placement="cart") for n in range(5)],
        *[exposure(200 + n, ["b", "a"], LATER, policy="popular") for n in range(7)],
        *[exposure(300 + n, ["b", "a"], LATER, policy="learning") for n in range(9)],
    ])  # fmt: skip
    lake.append("events", [
        event(n, "b", NOW - timedelta(hours=2), name="select_item", recommendation_id=f"r{n}") for n in range(15)
    ])  # fmt: skip
    clicks = from_columns([], [], [])
    at = LATER + timedelta(days=1)

    def counted(warm, now=at):
        extras = learn_extras(lake, "shop", LEARNING, clicks, [], now=now, warm={"learning": warm} if warm else None)
        return extras.arrays[BANDIT + "learning"]

    cold = counted(None, NOW)
    warm = counted(Warm("home", None), NOW)
    assert (cold["counted"].tolist(), warm["counted"].tolist()[1]) == ([0, 0], 60)
    assert counted(Warm("*", None), NOW)["counted"].tolist()[1] == 70
    launched = counted(Warm("home", NOW.timestamp()))
    assert launched["counted"].tolist()[1] == 60 + 18  # the seven slates of others after the launch teach nothing
    names = warm["items"].tolist() if "items" in warm else None
    assert names is None or set(names) <= {"a", "b"}


def test_what_warms_an_explorer_follows_from_the_stage_of_the_experiment(workspace):
    shadowed = conduct.start_shadow(workspace, "shop", TEXT, "a.toml", NOW)
    assert warm_of([shadowed]) == {"popular": Warm("home", None), "implicit-cosine": Warm("home", None)}
    started = conduct.start_experiment(workspace, "shop", TEXT, "a.toml", LATER)
    assert warm_of([started])["implicit-cosine"] == Warm("home", LATER.timestamp())
    assert warm_of([msgspec.structs.replace(started, shadow_at=None)]) == {}


def test_a_report_of_the_shadow_says_what_it_shares_how_fast_it_was_and_what_broke(workspace):
    conduct.start_shadow(workspace, "shop", TEXT, "a.toml", NOW)
    lake, at = Lake(workspace.lake), NOW + timedelta(hours=1)
    lake.append("exposures", [exposure(n, ["a", "b", "c", "d"], at) for n in range(200)])
    lake.append("shadows", [
        shadow(n, ["a", "b", "x", "y"], at, latency_ms=1.0 + n / 100, fallbacks=2 if n < 20 else 0,
               failed=["implicit-cosine"] if n < 2 else [], dropped=3 if n == 0 else 0)
        for n in range(200)
    ])  # fmt: skip
    found = shadow_report(workspace, "shop", "ranker", LATER)
    (old, new) = found.rows
    assert (found.status, found.share, found.dropped) == ("in shadow", 0.1, 3)
    assert (old.slates, new.slates, new.visitors) == (0, 200, 200)
    assert (new.overlap.value, new.same_first.value) == (0.5, 1.0)
    assert new.fallbacks.value == pytest.approx(0.05)
    assert new.fallbacks.ci[0] < 0.05 < new.fallbacks.ci[1]
    assert new.errors.value == pytest.approx(0.01)
    assert new.failed == {"implicit-cosine": 2}
    assert new.latency_ms.p50 == pytest.approx(1.995, abs=0.01)
    assert new.live_latency_ms.p99 == 0.5
    assert not new.ready
    assert "a model broke (implicit-cosine)" in new.sentence
    assert new.support.source == "shadow"
    assert {row["value"] for row in new.support.segments} == {"phone", "desktop"}
    assert new.support.cold_items == ["x", "y"]


def test_without_a_shadow_there_is_no_report_of_one(workspace):
    conduct.start_experiment(workspace, "shop", TEXT, "a.toml", NOW)
    with pytest.raises(BadInput, match="never in shadow"):
        shadow_report(workspace, "shop", "ranker", NOW)


def test_without_a_shadow_the_live_models_are_asked_what_they_would_have_shown(workspace):
    browse(workspace, at=NOW - timedelta(days=1))
    train(workspace, "shop", now=NOW - timedelta(hours=12))
    at = NOW - timedelta(hours=2)
    browse(workspace, 300, at=at, prefix="w")
    lake = Lake(workspace.lake)
    rows = [exposure(f"w{n}", ["b", "a"], at + timedelta(minutes=n, seconds=5)) for n in range(200)]
    lake.append("exposures", rows)
    text = TEXT.replace('segments = ["device"]\n', "")
    (old, new) = support_of(workspace, conduct.parse_experiment(text, "shop"), NOW + timedelta(days=1))
    assert (old.source, new.source, new.slates) == ("replay", "replay", 200)
    assert new.known.value == 1.0
    assert 0.4 < new.shown.value < 0.6  # who looks at c is shown d, which nobody was ever shown here
    assert new.verdict == "thin"


def test_a_cold_start_is_refused_and_can_be_wanted(workspace):
    lake, at = Lake(workspace.lake), NOW - timedelta(hours=1)
    conduct.start_shadow(workspace, "shop", TEXT, "a.toml", NOW - timedelta(days=1))
    lake.append("exposures", [exposure(n, ["a", "b"], at) for n in range(1_000)])
    lake.append("shadows", [shadow(n, [f"x{n % 97}", f"y{n % 89}"], at) for n in range(300)])
    (_, new) = support_of(workspace, conduct.parse_experiment(TEXT, "shop"), NOW)
    assert (new.verdict, new.known.value, new.effective) == ("cold", 0.0, 0.0)
    with pytest.raises(NotReady, match="It starts cold"):
        conduct.start_experiment(workspace, "shop", TEXT, "a.toml", NOW)
    assert not is_running(read_experiment(workspace, "shop", "ranker"))
    assert is_running(conduct.start_experiment(workspace, "shop", TEXT, "a.toml", NOW, cold=True))


def test_the_commands_speak_of_shadows_and_of_cold_starts(workspace):
    def run(*words, code=0):
        done = CliRunner().invoke(program, [*words, "--workspace", str(workspace.root)])
        assert done.exit_code == code, done.output
        return done

    file = workspace.root / "ranker.toml"
    file.write_text(TEXT)
    assert "10% of the slates are answered twice" in run("experiment", "start", str(file), "--shadow").output
    assert "shadow" in run("experiment", "list").output
    at = datetime.now(UTC)
    lake = Lake(workspace.lake)
    lake.append("exposures", [exposure(n, ["a", "b"], at) for n in range(1_000)])
    lake.append("shadows", [shadow(n, [f"x{n}"], at) for n in range(300)])
    said = run("experiment", "shadow", "ranker").output
    assert "new is not ready: hardly anybody has seen what it shows." in said
    report = msgspec.json.decode(run("experiment", "shadow", "ranker", "--json").output)
    assert report["rows"][1]["support"]["verdict"] == "cold"
    refused = run("experiment", "start", str(file), code=1)
    assert "It starts cold" in refused.output
    assert "is of slates in shadow" in run("experiment", "start", str(file), "--share", "0.5", code=2).output
    wanted = run("experiment", "start", str(file), "--cold")
    assert "ranker runs for" in wanted.output
    assert "It starts cold" in wanted.output


def test_an_effective_sample_is_that_of_the_importance_weights():
    from thinslice.experiments.support import Compared, support

    rng = np.random.default_rng(0)
    chances = [[0.5] if n % 2 else [0.1] for n in range(2_000)]
    same = [bool(rng.random() < chance[0]) for chance in chances]
    would = [["a"] if hit else ["z"] for hit in same]
    told = support(Compared([str(n) for n in range(2_000)], [["a"]] * 2_000, chances, would), {"a": 2_000}, {})
    weights = np.array([hit / chance[0] for hit, chance in zip(same, chances, strict=True)])
    assert told.effective == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert told.effective_share == pytest.approx(told.effective / 2_000)


def test_a_plan_says_how_far_the_past_reaches_to_each_variant(workspace):
    at = datetime.now(UTC) - timedelta(hours=3)
    browse(workspace, at=at - timedelta(days=2))
    train(workspace, "shop", now=at - timedelta(days=1))
    rows = [exposure(n, ["b", "a"], at + timedelta(seconds=n)) for n in range(150)]
    Lake(workspace.lake).append("exposures", rows)
    file = workspace.root / "ranker.toml"
    file.write_text(TEXT + 'metrics = [{name = "views_per_visitor"}]\n')
    words = ["experiment", "design", str(file), "--workspace", str(workspace.root)]
    said = CliRunner().invoke(program, words)
    assert said.exit_code == 0, said.output
    assert "Before its launch:" in said.output
    assert "was shown here before" in said.output
    found = msgspec.json.decode(CliRunner().invoke(program, [*words, "--json"]).output)
    assert [(row["variant"], row["source"], row["slates"]) for row in found["support"]] == [
        ("old", "replay", 150), ("new", "replay", 150),
    ]  # fmt: skip
    assert found["planned_units"] > 0
    assert all(row["shown"]["ci"] for row in found["support"])  # nobody had looked at anything: what is popular fills
