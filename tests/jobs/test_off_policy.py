"""Another policy's ranking is judged by slates that left something to chance; the truth of the clicks is known."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from click.testing import CliRunner

from thinslice.cli.init import make_tenant
from thinslice.cli.program import program
from thinslice.errors import NotReady, UnknownName
from thinslice.jobs.off_policy import judge
from thinslice.records import Event, Exposure, Item
from thinslice.settings import Workspace
from thinslice.store.lake import Lake

NOW = datetime.now(UTC).replace(microsecond=0)
RATE = {"b": 0.1, "c": 0.3, "d": 0.5, "a": 0.2}
WANTED = {"a": 40, "d": 30, "c": 20, "b": 10}
"""Clicks before the slates: what `popular` has learned."""


def event(number, item, at, **fields):
    base = {"event_id": f"{number}-{item}-{at.timestamp()}", "tenant": "shop", "name": "view_item",
            "visitor_id": f"v{number}", "item_id": item, "occurred_at": at, "received_at": at}  # fmt: skip
    return Event(**{**base, **fields})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """1,200 slates: `a` always first, the second place drawn from b, c, d; clicks by RATE."""
    workspace = Workspace(tmp_path_factory.mktemp("shop"))
    make_tenant(workspace, "shop")
    rng = np.random.default_rng(0)
    history = [item for item, clicks in WANTED.items() for _ in range(clicks)]
    events = [event(9000 + n, item, NOW - timedelta(days=20, minutes=n)) for n, item in enumerate(history)]
    exposures = []
    for number in range(1200):
        at = NOW - timedelta(minutes=5 + 5 * number)
        shown = ["a", str(rng.choice(["b", "c", "d"]))]
        exposures.append(Exposure(
            recommendation_id=f"r{number}", tenant="shop", occurred_at=at, placement="home", policy="slots",
            model_version="m", visitor_id=f"v{number % 400}", items=shown, slot_propensities=[1.0, 1 / 3],
        ))  # fmt: skip
        events += [
            event(number % 400, item, at + timedelta(seconds=20), name="select_item", recommendation_id=f"r{number}")
            for item in shown if rng.random() < RATE[item]
        ]  # fmt: skip
    exposures.append(Exposure(
        recommendation_id="fixed", tenant="shop", occurred_at=NOW - timedelta(hours=1), placement="home",
        policy="popular", model_version="m", visitor_id="v1", items=["a", "d"], slot_propensities=[1.0, 1.0],
    ))  # fmt: skip
    lake = Lake(workspace.lake)
    lake.append("events", events)
    lake.append("exposures", exposures)
    lake.append("items", [Item(tenant="shop", item_id="z", updated_at=NOW - timedelta(days=9))])
    return workspace


def test_what_popularity_would_have_put_on_the_explored_place_is_estimated(workspace):
    found = judge(workspace, "shop", "popular", now=NOW)
    assert (found["logged"], found["slates"], found["places"], found["places_shown"]) == ("slots", 1200, 1200, 2400)
    assert not found["refused"]
    assert found["matched"] == pytest.approx(1 / 3, abs=0.04)
    assert found["units"] == 400
    for each in found["estimates"]:
        assert each["ci"][0] <= RATE["d"] <= each["ci"][1], each["name"]  # below `a`, popularity would show `d`
    assert found["logged_value"] == pytest.approx(0.3, abs=0.04)


def test_a_policy_that_shows_what_was_never_drawn_is_refused(workspace):
    """`newest` would put an item that no slate held."""
    found = judge(workspace, "shop", "newest", now=NOW)
    assert found["refused"]
    assert found["estimates"] == []
    assert found["matched"] == 0


def test_slates_without_chance_say_so(workspace):
    with pytest.raises(NotReady, match="none of the 2 places of 1 slates of 'popular' was left to chance"):
        judge(workspace, "shop", "popular", logged="popular", now=NOW)
    with pytest.raises(NotReady, match="no slate since"):
        judge(workspace, "shop", "popular", days=0.001, now=NOW)
    with pytest.raises(UnknownName, match="no policy 'nobody'"):
        judge(workspace, "shop", "nobody", now=NOW)


def test_the_command_prints_gates_estimates_and_a_sentence(workspace):
    given = ["evaluate", "--workspace", str(workspace.root), "--tenant", "shop", "--off-policy", "popular"]
    shown = CliRunner().invoke(program, given)
    assert shown.exit_code == 0, shown.output
    assert "effective_sample_size" in shown.output
    assert "snips" in shown.output
    found = json.loads(CliRunner().invoke(program, [*given, "--json"]).stdout)
    assert found["target"] == "popular"
    refused = CliRunner().invoke(program, [*given[:-1], "newest"])
    assert "Refused" in refused.output
    assert "snips" not in refused.output
    alone = CliRunner().invoke(program, ["evaluate", "--events", "x.parquet", "--off-policy", "popular"])
    assert alone.exit_code == 2
