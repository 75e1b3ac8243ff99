"""The console in a real browser: logged in by a link, live by itself, and nothing axe-core or a phone trips over."""

import time
from datetime import UTC, datetime

import pytest

from thinslice.experiments.program import Outcome, program
from thinslice.jobs.program import write_program
from thinslice.jobs.rehearsal.kept import keep_rehearsal
from thinslice.jobs.rehearse import rehearse
from thinslice.records import Check
from thinslice.simulate.scenarios import find_scenario
from thinslice.stats import estimate
from thinslice.web.login import COOKIE, Visitor, issue_token, seal

pytestmark = pytest.mark.browser

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
PAGES = ["/console/live", "/console/experiments", "/console/experiments/ranker", "/console/experiments/absent",
         "/console/program", "/console/rehearsals", "/console/rehearsals/shelf"]  # fmt: skip


@pytest.fixture(scope="module")
def console(worker, metric_row, put_experiment):
    metrics = [
        metric_row("revenue_per_visitor", "goal", 0.1),
        metric_row("conversion_rate", "driver", 0.01, "cannot_say"),
        metric_row("click_through_rate", "driver", -0.08, "worse"),
        metric_row("views_per_visitor", "guardrail", -0.01, "not_worse", 0.05),
    ]
    checks = [
        Check(name="sample_ratio", passed=True, statistic=0.1, pvalue=0.75, detail="500 to 510"),
        Check(name="mixed_assignment", passed=False, statistic=3.0, pvalue=None, detail="3 units in two variants"),
    ]
    put_experiment(worker, metrics, checks, interval=lambda day: [0.1 - 0.3 / day, 0.1 + 0.3 / day])
    outcomes = [
        Outcome("knn", "new", True, estimate(0.05, 0.01), 0.1, again=estimate(0.04, 0.01)),
        Outcome("fresh", "b", False, estimate(-0.03, 0.01)),
        Outcome("third", "b", False, estimate(0.0, 0.01)),
    ]
    write_program(worker.workspace, "shop", program("revenue_per_visitor", outcomes, holdout=estimate(0.045, 0.01)))
    found = rehearse("shelf", find_scenario("stealing-shelf"), runs=2).as_json()
    keep_rehearsal(worker.workspace, "shop", found, "So it would have been.", NOW)
    return f"http://127.0.0.1:{worker.port}"


@pytest.fixture
def logged_in(open_page, console, worker):
    def make(**options):
        page = open_page(**options)
        value = seal(worker.workspace, Visitor("shop", "admin"))
        page.context.add_cookies([{"name": COOKIE, "value": value, "url": console}])
        return page

    return make


def test_a_link_logs_in_once_and_the_cookie_is_out_of_reach_of_scripts(open_page, console, worker, complaints):
    token = issue_token(worker.workspace, "shop")
    page = open_page()
    page.goto(f"{console}/console/login?token={token}")
    assert page.url.startswith(f"{console}/console/")
    assert "login" not in page.url
    assert page.evaluate("document.cookie") == ""
    assert complaints == []
    other = open_page()
    other.goto(f"{console}/console/login?token={token}")
    assert other.get_by_label("Admin key").is_visible()


def test_live_shows_an_event_without_a_reload_also_where_scripts_come_slowly(logged_in, console, worker, complaints):
    page = logged_in()
    page.route("**/hx-sse.min.js", lambda route: (time.sleep(0.5), route.continue_()))
    page.goto(f"{console}/console/live")
    page.evaluate("() => { window.same = true; }")
    event = {
        "event_id": "e-live", "name": "view_item", "item_id": "i7", "visitor_id": "v-live", "session_id": "s-live",
        "occurred_at": datetime.fromtimestamp(time.time(), UTC).isoformat(), "consent": "personalization",
    }  # fmt: skip
    assert worker.ask("POST", "/v1/events", [event], key="secret").status == 202
    page.locator("table.events td", has_text="v-live").first.wait_for(timeout=8_000)
    assert page.evaluate("window.same") is True
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_in_the_console(open_page, logged_in, console, axe, complaints, width, scheme):
    outside = open_page(width=width, color_scheme=scheme)
    outside.goto(f"{console}/console/login")
    assert axe(outside) == [], "login"
    page = logged_in(width=width, color_scheme=scheme)
    for path in PAGES:
        page.goto(console + path)
        page.evaluate("() => document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert axe(page) == [], path
    assert [said for said in complaints if "404" not in said] == []


@pytest.mark.parametrize("width", [1920, 1280, 768, 390, 320])
def test_no_console_page_is_wider_than_its_screen(logged_in, console, width):
    page = logged_in(width=width)
    for path in PAGES:
        page.goto(console + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_the_switch_turns_the_page_and_the_choice_stays(logged_in, console):
    page = logged_in(color_scheme="light")
    page.goto(f"{console}/console/experiments/ranker")
    light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.reload()
    assert dark != light
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == dark


def test_the_experiment_page_says_the_same_without_scripts(logged_in, console):
    page = logged_in(java_script_enabled=False)
    page.goto(f"{console}/console/experiments/ranker")
    assert page.get_by_text("Extend: 9 days to go.").first.is_visible()
    assert page.locator("table.effects tbody tr").count() >= 4
