"""The tag in a real browser: what a visitor did arrives once, only after consent, and the shop's page never suffers."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from itertools import groupby

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from thinslice.settings import Workspace
from thinslice.store.compact import Compactor
from thinslice.store.lake import Lake
from thinslice.web import tag

pytestmark = pytest.mark.browser

KEY = "ts_pub_test"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
CARD = (
    '<a id="card" href="/empty" data-thinslice-recommendation="r-1" data-thinslice-item="lamp" '
    'data-thinslice-position="3" data-thinslice-placement="home">A lamp</a>'
)
STUB = """<script>thinslice = {
  q: [], track: function () { this.q.push(arguments); }, consent: function (c) { this.c = c; }
};</script>"""
POSTED = """() => {
  const real = fetch;
  window.posted = [];
  window.fetch = (url, how) => { posted.push(how.body); return real(url, how); };
}"""
STATE = "() => ({ready: !!(window.thinslice && thinslice.ready), cookie: document.cookie, stored: {...localStorage}})"


def wait_for(what, longest_s=10.0):
    deadline = time.monotonic() + longest_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError, KeyError):
            if found := what():
                return found
        time.sleep(0.03)
    raise AssertionError("waited in vain")


class Collector:
    """Takes events on an origin of its own, like the service beside a shop; answers as a test says."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.bodies, self.methods, self.queries, self.types, self.cookies = [], [], [], [], []
        self.sent_at, self.statuses, self.broken_tag = [], [], None
        self.raw, self.answered = [], {}

    @property
    def events(self):
        return [event for body in self.bodies for event in body]

    def once(self):
        """The bodies as they came, without what a browser sent again because a connection broke: the same bytes."""
        return [raw for raw, _ in groupby(self.raw)]

    def names(self):
        return [event["name"] for event in self.events]

    def wait(self, *names, longest_s=10.0):
        """The first event of each of these names, once all are here."""
        wait_for(lambda: not Counter(names) - Counter(self.names()), longest_s)
        return [next(event for event in self.events if event["name"] == name) for name in names]

    async def take(self, request):
        self.methods.append(request.method)
        self.queries.append(dict(request.query_params))
        self.types.append(request.headers.get("content-type"))
        self.cookies.append(request.headers.get("cookie"))
        raw = (await request.body()).decode()
        body = json.loads(raw)
        self.raw.append(raw)
        self.sent_at.append(body["sent_at"])
        self.bodies.append(body["events"])
        if raw not in self.answered:  # a browser that lost the answer sends the same bytes again by itself
            self.answered[raw] = self.statuses.pop(0) if self.statuses else 202
        return Response("{}", status_code=self.answered[raw], headers={"Access-Control-Allow-Origin": "*"})

    def app(self):
        (served,) = tag.routes(None)

        async def script(request):
            if self.broken_tag is not None:
                return Response(self.broken_tag, media_type="text/javascript")
            return await served.endpoint(request)

        return Starlette(
            routes=[
                Route("/tag.js", script),
                Route("/v1/events", self.take, methods=["POST", "OPTIONS"]),
            ]
        )


class Shop:
    """A shop's pages: `shop(body)` makes the address of a page with the tag and that body."""

    def __init__(self):
        self.pages, self.url, self.collector_url = {}, "", ""

    def __call__(self, body="", *, head="", consent="required", key=KEY, tags=1, policy=None, path=None):
        script = f'<script async src="{self.collector_url}/tag.js" data-key="{key}" data-consent="{consent}"></script>'
        page = f'<!doctype html><html lang="en"><head><title>Shop</title>{head}{script * tags}</head><body>{body}'
        path = path or f"/page-{len(self.pages)}"
        self.pages[path] = (page, {"Content-Security-Policy": policy} if policy else {})
        return self.url + path

    def app(self):
        async def page(request):
            text, headers = self.pages.get(request.url.path, ("<!doctype html><title>Nothing</title>", {}))
            return HTMLResponse(text, headers={**headers, "Cache-Control": "no-store"})

        return Starlette(routes=[Route("/{path:path}", page)])


@pytest.fixture(scope="module")
def ground(serve_app):
    collector, shop = Collector(), Shop()
    with serve_app(collector.app()) as shop.collector_url, serve_app(shop.app()) as shop.url:
        yield collector, shop


@pytest.fixture
def collector(ground):
    ground[0].clear()
    return ground[0]


@pytest.fixture
def shop(ground):
    return ground[1]


def visit(page, url):
    """Opens a page and waits for its tag."""
    page.goto(url)
    page.wait_for_function("window.thinslice && thinslice.ready")
    return page


def session_of(page):
    return page.evaluate("() => localStorage.getItem('ts_session').split('.')[0]")


# ---------------------------------------------------------------------------------------------------- delivery


def test_a_click_that_leads_away_arrives(open_page, collector, shop, complaints):
    page = visit(open_page(), shop(CARD, consent="granted"))
    page.click("#card")
    page.wait_for_url("**/empty")
    (event,) = collector.wait("select_item")
    assert event["item_id"] == "lamp"
    assert event["recommendation_id"] == "r-1"
    assert event["position"] == 3
    assert event["placement"] == "home"
    assert event["consent"] == "personalization"
    assert complaints == []


@pytest.mark.parametrize("count", [7, 45])
def test_what_was_done_in_a_closed_tab_arrives(open_page, collector, shop, count):
    page = visit(open_page(), shop(consent="granted"))
    page.evaluate("n => { for (let i = 0; i < n; i++) thinslice.track('view_item', {item_id: 'i' + i}); }", count)
    page.close()
    wait_for(lambda: len({event["event_id"] for event in collector.events}) == count)
    assert {event["item_id"] for event in collector.events} == {f"i{number}" for number in range(count)}


def test_long_events_of_a_closed_tab_are_cut_into_bodies_that_a_browser_takes(open_page, collector, shop):
    page = visit(open_page(), shop(consent="granted"))
    page.evaluate("""() => {
      for (let i = 0; i < 9; i++) thinslice.track('search', {query: 'q' + i, context: {a: 'é'.repeat(2900)}});
    }""")
    page.close()
    wait_for(lambda: len({event["event_id"] for event in collector.events}) == 9)
    assert all(len(json.dumps(body, ensure_ascii=False).encode()) < 60_000 for body in collector.bodies)


def test_events_go_in_batches_of_20_as_text_without_a_preflight_and_without_cookies(open_page, collector, shop):
    page = visit(open_page(), shop(consent="granted"))
    page.evaluate("() => { for (let i = 0; i < 30; i++) thinslice.track('view_item', {item_id: 'i' + i}); }")
    wait_for(lambda: len(collector.events) == 30)
    assert [len(body) for body in collector.bodies] == [20, 10]
    assert all(abs(at / 1000 - time.time()) < 60 for at in collector.sent_at)
    assert set(collector.methods) == {"POST"}
    assert all(kind.startswith("text/plain") for kind in collector.types)
    assert all(query == {"key": KEY} for query in collector.queries)
    assert set(collector.cookies) == {None}


def test_a_single_event_waits_two_seconds_at_most_even_while_more_come(open_page, collector, shop):
    page = visit(open_page(), shop(consent="granted"))
    page.evaluate("() => { window.steady = setInterval(() => thinslice.track('view_item', {item_id: 'x'}), 400); }")
    wait_for(lambda: collector.events, 6.0)
    assert 2 <= len(collector.bodies[0]) <= 7


def test_flush_sends_at_once(open_page, collector, shop):
    page = open_page()
    page.clock.install()
    visit(page, shop(consent="granted"))
    page.clock.pause_at(time.time() + 3600)  # from here no timer of the page runs
    page.evaluate("() => { thinslice.track('view_item', {item_id: 'a'}); thinslice.flush(); }")
    collector.wait("view_item")


def test_an_event_says_who_when_and_where_without_the_query_of_the_address(open_page, collector, shop):
    before = time.time()
    page = visit(open_page(), shop(consent="granted", path="/lamps") + "?email=a@example.com#frag")
    page.evaluate("""() => {
      thinslice.track('add_to_cart', {item_id: 'a', quantity: 2, context: {color: 'red'}});
      thinslice.flush();
    }""")
    (event,) = collector.wait("add_to_cart")
    assert UUID.fullmatch(event["event_id"])
    assert UUID.fullmatch(event["visitor_id"])
    assert UUID.fullmatch(event["session_id"])
    assert event["quantity"] == 2
    assert event["context"] == {"path": "/lamps", "webdriver": True, "color": "red"}
    assert "example.com" not in json.dumps(event)
    sent = time.mktime(time.strptime(event["occurred_at"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    assert before - 1 <= sent <= time.time() + 1


# ------------------------------------------------------------------------------------------- trouble on the way


def test_after_a_503_the_same_ids_are_sent_again_and_later_events_after_them(open_page, collector, shop):
    collector.statuses = [503, 503]
    page = visit(open_page(), shop(consent="granted"))
    page.evaluate(POSTED)
    page.evaluate("""() => {
      thinslice.track('view_item', {item_id: 'a'});
      thinslice.flush();
      thinslice.track('view_item', {item_id: 'b'});
    }""")
    wait_for(lambda: len(collector.once()) == 3)
    posted = page.evaluate("posted")
    assert collector.once() == posted, "what the tag posted came in this order, and nothing else"
    assert len({json.loads(body)["sent_at"] for body in posted}) == 3
    first, second, third = (json.loads(body)["events"] for body in posted)
    assert [event["item_id"] for event in first] == ["a"]
    assert [event["item_id"] for event in third] == ["a", "b"]
    assert second == third
    assert first[0] == third[0]
    assert len({event["event_id"] for event in third}) == 2
    page.wait_for_timeout(2500)
    assert page.evaluate("posted.length") == len(collector.once()) == 3


def test_a_refused_batch_is_not_sent_again(open_page, collector, shop):
    collector.statuses = [400]
    page = visit(open_page(), shop(consent="granted"))
    page.evaluate("() => { thinslice.track('view_item', {item_id: 'a'}); thinslice.flush(); }")
    collector.wait("view_item")
    page.evaluate("() => thinslice.track('view_item', {item_id: 'b'})")
    wait_for(lambda: len(collector.bodies) == 2)
    assert [event["item_id"] for event in collector.bodies[1]] == ["b"]


def test_events_still_go_when_the_tab_was_hidden_during_a_pause(open_page, collector, shop):
    collector.statuses = [503]
    page = visit(open_page(), shop(consent="granted"))
    page.evaluate("""() => {
      const real = fetch;
      const hide = () => {
        Object.defineProperty(document, 'hidden', {get: () => true, configurable: true});
        Object.defineProperty(document, 'visibilityState', {get: () => 'hidden', configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
        delete document.hidden;
        delete document.visibilityState;
        setTimeout(() => thinslice.track('view_item', {item_id: 'b'}), 2500);
      };
      window.fetch = async (...all) => {
        const answer = await real(...all);
        window.fetch = real;
        setTimeout(hide, 50);
        return answer;
      };
      thinslice.track('view_item', {item_id: 'a'});
      thinslice.flush();
    }""")
    wait_for(lambda: len(collector.once()) == 3)
    bodies = [json.loads(body)["events"] for body in collector.once()]
    assert [[event["item_id"] for event in body] for body in bodies] == [["a"], ["a"], ["b"]]
    assert bodies[0] == bodies[1]


def test_an_event_that_cannot_be_sent_spoils_no_other(open_page, collector, shop, complaints):
    page = visit(open_page(), shop(consent="granted"))
    page.evaluate("""() => {
      const loop = {}; loop.self = loop;
      thinslice.track('view_item', {item_id: 'bad', context: loop});
      thinslice.track('view_item', {item_id: 'big', value: 10n});
      const fields = {item_id: 'good', context: {n: 1}};
      thinslice.track('view_item', fields);
      fields.context.n = 2;
      thinslice.flush();
    }""")
    (event,) = collector.wait("view_item")
    assert event["item_id"] == "good"
    assert event["context"]["n"] == 1
    assert complaints == []


def test_an_unreachable_collector_throws_nothing_into_the_page(open_page, collector, shop):
    thrown = []
    page = open_page()
    page.on("pageerror", lambda error: thrown.append(str(error)))
    page.add_init_script("""window.rejected = [];
      addEventListener('unhandledrejection', (event) => rejected.push(String(event.reason)));
      navigator.sendBeacon = () => false;""")
    visit(page, shop(CARD, consent="granted"))
    page.route("**/v1/events*", lambda route: route.abort())
    page.evaluate("() => { thinslice.track('view_item', {item_id: 'a'}); thinslice.flush(); }")
    page.wait_for_timeout(300)
    page.evaluate(
        "() => { thinslice.track('view_item', {item_id: 'b'}); window.dispatchEvent(new Event('pagehide')); }"
    )
    page.wait_for_timeout(300)
    assert page.evaluate("() => rejected") == thrown == []
    page.unroute("**/v1/events*")
    wait_for(lambda: {event["item_id"] for event in collector.events} >= {"a", "b"})


@pytest.mark.parametrize(
    "spoil",
    [
        "window.fetch = () => { throw new Error('no fetch') };",
        "delete window.IntersectionObserver;",
        "delete window.MutationObserver;",
        "Object.defineProperty(window, 'crypto', {get() { throw new Error('no crypto') }});",
        "navigator.sendBeacon = () => { throw new Error('no beacon') };",
        "JSON.stringify = () => { throw new Error('no JSON') };",
    ],
    ids=["fetch", "intersection", "mutation", "crypto", "beacon", "json"],
)
def test_a_browser_with_something_missing_keeps_its_page_whole(open_page, collector, shop, complaints, spoil):
    page = open_page()
    page.add_init_script(spoil)
    after = "<script>window.whole = true;</script><button id=b onclick='window.pressed = true'>Buy</button>"
    page.goto(shop(CARD + '<div data-thinslice-view="x"></div>' + after, consent="granted"))
    page.wait_for_load_state("load")
    page.evaluate(
        "() => { thinslice.track('view_item', {item_id: 'a'}); thinslice.flush(); thinslice.consent('denied'); }"
    )
    page.click("#b")
    page.click("#card")
    page.wait_for_url("**/empty")
    assert complaints == []


@pytest.mark.parametrize("text", ["this is { no script", "<!doctype html><p>404", "throw new Error('broken')", ""])
def test_a_broken_tag_leaves_the_page_whole_and_the_stub_usable(open_page, collector, shop, text):
    collector.broken_tag = text
    page = open_page()
    page.goto(shop("<script>thinslice.track('view_item', {item_id: 'a'}); window.whole = true;</script>", head=STUB))
    page.wait_for_load_state("load")
    assert page.evaluate("() => window.whole")
    page.evaluate("() => thinslice.track('view_item', {item_id: 'b'})")


def test_a_tag_without_its_own_attributes_does_nothing(open_page, collector, shop, complaints):
    page = open_page()
    page.goto(shop(f'<script>{{ const s = document.createElement("script"); s.src = "{shop.collector_url}/tag.js"; '
                   'document.head.append(s); }</script>', tags=0))  # fmt: skip
    page.wait_for_load_state("load")
    page.wait_for_timeout(200)
    assert collector.events == []
    assert page.evaluate("() => document.cookie + JSON.stringify({...localStorage})") == "{}"
    assert complaints == []


def test_the_tag_works_under_a_strict_policy(open_page, collector, shop, complaints):
    where = shop.collector_url
    policy = f"default-src 'none'; script-src {where}; connect-src {where}"
    page = open_page()
    page.goto(shop('<div data-thinslice-view="lamp"></div>', consent="granted", policy=policy))
    collector.wait("view_item")
    assert complaints == []


# ---------------------------------------------------------------------------------------------------- consent


def test_before_consent_nothing_is_sent_or_stored_and_after_it_what_was_held_is(open_page, collector, shop):
    page = visit(open_page(), shop(CARD + '<div data-thinslice-view="page"></div>'))
    page.evaluate("() => { thinslice.track('search', {query: 'lamp'}); thinslice.flush(); }")
    page.wait_for_timeout(2300)
    page.evaluate("() => window.dispatchEvent(new Event('pagehide'))")
    page.wait_for_timeout(200)
    assert collector.bodies == []
    assert page.evaluate(STATE) == {"ready": True, "cookie": "", "stored": {}}
    assert page.evaluate("() => thinslice.visitor") is None
    page.evaluate("() => thinslice.consent('granted')")
    events = collector.wait("view_item", "search", "view_item_list")
    assert len(collector.events) == 3
    visitors = {event["visitor_id"] for event in events}
    assert visitors == {page.evaluate("() => thinslice.visitor")}
    assert {event["session_id"] for event in events} == {session_of(page)}
    assert {event["consent"] for event in events} == {"personalization"}
    assert len({event["event_id"] for event in events}) == 3


def test_at_most_50_events_are_held_the_newest(open_page, collector, shop):
    page = visit(open_page(), shop())
    page.evaluate("() => { for (let i = 0; i < 70; i++) thinslice.track('view_item', {item_id: 'i' + i}); }")
    page.evaluate("() => thinslice.consent('granted')")
    wait_for(lambda: len(collector.events) >= 50)
    assert [event["item_id"] for event in collector.events] == [f"i{number}" for number in range(20, 70)]


def test_withdrawing_clears_the_ids_and_stops(open_page, collector, shop):
    page = visit(open_page(), shop(CARD, consent="granted"))
    page.evaluate("() => { thinslice.track('view_item', {item_id: 'a'}); thinslice.flush(); }")
    (before,) = collector.wait("view_item")
    state = page.evaluate(STATE)
    assert "ts_visitor=" in state["cookie"]
    assert set(state["stored"]) == {"ts_visitor", "ts_session"}
    collector.wait("view_item_list")
    collector.clear()
    page.evaluate("() => { thinslice.track('view_item', {item_id: 'queued'}); thinslice.consent('denied'); }")
    page.evaluate("() => { thinslice.track('view_item', {item_id: 'b'}); thinslice.flush(); }")
    page.wait_for_timeout(2300)
    page.evaluate("() => window.dispatchEvent(new Event('pagehide'))")
    page.wait_for_timeout(200)
    assert collector.bodies == []
    assert page.evaluate(STATE) == {"ready": True, "cookie": "", "stored": {}}
    assert page.evaluate("() => thinslice.visitor") is None
    page.evaluate(
        "() => { thinslice.consent('granted'); thinslice.track('view_item', {item_id: 'c'}); thinslice.flush(); }"
    )
    (after,) = collector.wait("view_item")
    assert [event["item_id"] for event in collector.events] == ["c"]
    assert after["visitor_id"] != before["visitor_id"]
    assert after["session_id"] != before["session_id"]


def test_withdrawing_while_the_service_is_down_sends_nothing_again(open_page, collector, shop):
    collector.statuses = [503] * 5
    page = visit(open_page(), shop(consent="granted"))
    page.evaluate("""() => {
      const real = fetch;
      window.fetch = async (...all) => {
        const answer = await real(...all);
        setTimeout(() => thinslice.consent('denied'), 50);
        return answer;
      };
      thinslice.track('view_item', {item_id: 'a'});
      thinslice.flush();
    }""")
    collector.wait("view_item")
    page.wait_for_timeout(2000)
    assert len(collector.bodies) == 1


@pytest.mark.parametrize("consent", ["required", "granted"])
def test_global_privacy_control_means_no_event_at_all(open_page, collector, shop, consent):
    page = open_page()
    page.add_init_script("Object.defineProperty(navigator, 'globalPrivacyControl', {get: () => true});")
    visit(page, shop(CARD + '<div data-thinslice-view="page"></div>', consent=consent))
    page.evaluate(
        "() => { thinslice.consent('granted'); thinslice.track('view_item', {item_id: 'a'}); thinslice.flush(); }"
    )
    page.wait_for_timeout(800)
    assert page.evaluate(STATE) == {"ready": True, "cookie": "", "stored": {}}
    page.click("#card")
    page.wait_for_url("**/empty")
    page.wait_for_timeout(300)
    assert collector.bodies == []


@pytest.mark.parametrize(
    "block",
    [
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }});",
        "Object.defineProperty(Document.prototype, 'cookie', {get: () => '', set() {}});",
        "Object.defineProperty(Document.prototype, 'cookie', {"
        "get() { throw new DOMException('no', 'SecurityError') },"
        "set() { throw new DOMException('no', 'SecurityError') }});"
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }});",
        "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') };",
    ],
    ids=["storage", "cookies", "both", "full"],
)
def test_with_storage_or_cookies_blocked_events_still_carry_one_visitor_and_session(
    open_page, collector, shop, complaints, block
):
    page = open_page()
    page.add_init_script(block)
    visit(page, shop(consent="granted"))
    for item_id in "ab":
        page.evaluate("id => { thinslice.track('view_item', {item_id: id}); thinslice.flush(); }", item_id)
        wait_for(lambda wanted=item_id: wanted in [event["item_id"] for event in collector.events])
    assert len({event["visitor_id"] for event in collector.events}) == 1
    assert len({event["session_id"] for event in collector.events}) == 1
    page.evaluate("() => thinslice.consent('denied')")
    page.evaluate("() => { thinslice.consent('granted'); thinslice.track('search', {query: 'q'}); thinslice.flush(); }")
    (later,) = collector.wait("search")
    assert later["visitor_id"] != collector.events[0]["visitor_id"]
    assert complaints == []


# ------------------------------------------------------------------------------------- visitors and sessions


def test_two_tabs_are_one_visitor_in_one_session(open_page, collector, shop):
    address = shop('<div data-thinslice-view="x"></div>', consent="granted")
    first = visit(open_page(), address)
    second = visit(first.context.new_page(), address)
    for page in (first, second):
        page.evaluate("() => thinslice.flush()")
    wait_for(lambda: len(collector.events) == 2)
    assert len({event["visitor_id"] for event in collector.events}) == 1
    assert len({event["session_id"] for event in collector.events}) == 1
    assert len({event["event_id"] for event in collector.events}) == 2


def test_half_an_hour_of_silence_ends_the_session_not_the_visitor(open_page, collector, shop):
    page = open_page()
    page.clock.install()
    visit(page, shop(consent="granted"))
    for wait in ("29:00", "29:00", "31:00"):
        page.evaluate("() => { thinslice.track('view_item', {item_id: 'a'}); thinslice.flush(); }")
        page.clock.fast_forward(wait)
    page.evaluate("() => { thinslice.track('view_item', {item_id: 'a'}); thinslice.flush(); }")
    wait_for(lambda: len(collector.events) == 4)
    ids = [event["session_id"] for event in collector.events]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert len({event["visitor_id"] for event in collector.events}) == 1


def test_the_visitor_is_kept_for_a_year_by_a_first_party_cookie(open_page, collector, shop):
    page = visit(open_page(), shop(consent="granted"))
    page.evaluate("() => { thinslice.track('view_item', {item_id: 'a'}); thinslice.flush(); }")
    collector.wait("view_item")
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies(shop.url)}
    assert set(cookies) == {"ts_visitor", "ts_session"}
    assert cookies["ts_visitor"]["sameSite"] == "Lax"
    assert 364 * 86400 < cookies["ts_visitor"]["expires"] - time.time() < 366 * 86400
    assert 1700 < cookies["ts_session"]["expires"] - time.time() < 1810
    page.context.clear_cookies()
    page.evaluate("() => { thinslice.track('search', {query: 'a'}); thinslice.flush(); }")
    (again,) = collector.wait("search")
    assert again["visitor_id"] == collector.events[0]["visitor_id"]


# ------------------------------------------------------------------------------------- what the page shows


def test_seen_means_half_of_it_for_half_a_second_and_counts_once(open_page, collector, shop):
    style = "<style>body{margin:0} div{height:200px} #far{margin-top:2000px}</style>"
    cards = (
        '<div data-thinslice-recommendation=r data-thinslice-item=near data-thinslice-position=0></div>'
        '<div id=far data-thinslice-recommendation=r data-thinslice-item=far data-thinslice-position=1></div>'
        '<div style="display:none" data-thinslice-recommendation=r data-thinslice-item=hidden></div>'
    )  # fmt: skip
    page = visit(open_page(height=600), shop(style + cards, consent="granted"))
    (near,) = collector.wait("view_item_list")
    assert (near["item_id"], near["recommendation_id"], near["position"]) == ("near", "r", 0)
    far_top = page.evaluate("() => document.querySelector('#far').getBoundingClientRect().top")
    page.evaluate("y => scrollTo(0, y)", far_top - 600 + 80)  # 40 % of it
    page.wait_for_timeout(900)
    page.evaluate(  # 90 %, for too short a time
        "y => new Promise((done) => { scrollTo(0, y); setTimeout(() => { scrollTo(0, 0); done(); }, 150); })",
        far_top - 600 + 180,
    )
    page.wait_for_timeout(900)
    page.evaluate("() => thinslice.flush()")
    page.wait_for_timeout(200)
    assert len(collector.events) == 1
    page.evaluate("y => scrollTo(0, y)", far_top - 600 + 180)
    wait_for(lambda: len(collector.events) == 2)
    assert collector.events[1]["item_id"] == "far"
    page.evaluate("() => scrollTo(0, 0)")
    page.wait_for_timeout(700)
    page.evaluate("() => thinslice.flush()")
    page.wait_for_timeout(200)
    assert [event["item_id"] for event in collector.events] == ["near", "far"]


def test_what_a_page_adds_later_is_seen_viewed_and_clicked_too(open_page, collector, shop):
    page = visit(open_page(), shop("<main></main>", consent="granted"))
    page.evaluate(
        """card => { document.querySelector('main').innerHTML =
        '<section data-thinslice-view="chair">' + card + '</section>'; }""",
        CARD.replace("<a", "<button").replace("</a", "</button"),
    )
    collector.wait("view_item", "view_item_list")
    page.click("#card")
    page.evaluate("() => thinslice.flush()")
    collector.wait("select_item")
    page.evaluate("() => { document.body.append(document.querySelector('section')); }")  # moved, not seen anew
    page.wait_for_timeout(700)
    page.evaluate("() => thinslice.flush()")
    page.wait_for_timeout(200)
    assert sorted(collector.names()) == ["select_item", "view_item", "view_item_list"]


def test_a_middle_click_into_a_new_tab_counts_and_a_right_click_does_not(open_page, collector, shop):
    page = visit(open_page(), shop(CARD, consent="granted"))
    page.click("#card", button="right")
    page.evaluate("() => thinslice.flush()")
    page.wait_for_timeout(200)
    assert "select_item" not in collector.names()
    page.click("#card", button="middle")
    page.evaluate("() => thinslice.flush()")
    collector.wait("select_item")


def test_a_page_that_a_browser_makes_ready_ahead_is_viewed_only_once_it_shows(open_page, collector, shop):
    page = open_page()
    page.add_init_script("Object.defineProperty(document, 'prerendering', {get: () => !window.shown});")
    visit(page, shop('<div data-thinslice-view="x"></div>', consent="granted"))
    page.wait_for_load_state("load")
    page.evaluate("() => thinslice.flush()")
    page.wait_for_timeout(200)
    assert collector.bodies == []
    page.evaluate("() => { shown = true; document.dispatchEvent(new Event('prerenderingchange')); thinslice.flush(); }")
    collector.wait("view_item")


def test_clicks_elsewhere_are_nobodys_business(open_page, collector, shop, complaints):
    page = visit(open_page(), shop("<p id=p>Text</p>", consent="granted"))
    page.click("#p")
    page.evaluate("() => { document.dispatchEvent(new Event('click')); thinslice.flush(); }")
    page.wait_for_timeout(300)
    assert collector.bodies == []
    assert complaints == []


def test_a_second_tag_on_the_page_changes_nothing(open_page, collector, shop):
    page = visit(open_page(), shop(CARD + '<div data-thinslice-view="x"></div>', consent="granted", tags=2))
    page.wait_for_load_state("load")
    collector.wait("view_item_list")
    page.click("#card")
    page.wait_for_url("**/empty")
    collector.wait("select_item")
    page.wait_for_timeout(300)
    unique = {event["event_id"]: event["name"] for event in collector.events}
    assert sorted(unique.values()) == ["select_item", "view_item", "view_item_list"]


def test_calls_before_the_tag_has_loaded_are_replayed_with_their_consent(open_page, collector, shop, complaints):
    early = (
        "<script>thinslice.track('view_item', {item_id: 'early'}); thinslice.track('search', {query: 'q'});"
        "thinslice.consent('granted');</script>"
    )
    visit(open_page(), shop(head=STUB + early))
    collector.wait("view_item", "search")
    assert complaints == []


# ------------------------------------------------------------------------------------- against the real service

PROGRAM = [sys.executable, "-c", "from thinslice.cli import main; main()"]


@contextlib.contextmanager
def service(folder):
    """A running `thinslice serve` with a few items: yields its address, its publishable key and its workspace."""
    root = folder / "workspace"
    made = subprocess.run(
        [*PROGRAM, "init", "--workspace", str(root), "--json"], check=True, capture_output=True, timeout=60
    )
    keys = json.loads(made.stdout)["keys"]
    with (folder / "log.txt").open("w") as log:
        command = [*PROGRAM, "serve", "--workspace", str(root), "--port", "0"]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = wait_for(lambda: json.loads((root / "run" / "service.json").read_text())["url"], 60)
        ask(url, "PUT", "/v1/items", [{"item_id": f"i{n}", "title": f"Thing {n}"} for n in range(30)], keys["secret"])
        wait_for(lambda: ask(url, "GET", "/readyz")[0] == 200, 60)
        yield url, keys["publishable"], Workspace(root), process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        finally:
            process.kill()
            process.wait()


def ask(url, method, path, value=None, key=None):
    line = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    with contextlib.closing(line):
        line.request(method, path, json.dumps(value), {"Authorization": f"Bearer {key}"} if key else {})
        answer = line.getresponse()
        return answer.status, answer.read()


def test_what_a_visitor_did_before_clicking_away_and_closing_is_in_the_lake_of_the_real_service(
    open_page, serve_app, tmp_path
):
    shop = Shop()
    with serve_app(shop.app()) as shop.url, service(tmp_path) as (url, key, workspace, process):
        shop.collector_url = url
        _, slate = ask(url, "POST", f"/v1/recommendations?key={key}", {"k": 3})
        issued = json.loads(slate)["recommendation_id"]
        card = CARD.replace("r-1", issued).replace("lamp", "i3")
        page = visit(open_page(), shop(card + '<div data-thinslice-view="i1"></div>', consent="granted", key=key))
        page.click("#card")
        page.wait_for_url("**/empty")
        page = visit(page, shop('<div data-thinslice-view="i2"></div>', consent="granted", key=key))
        visitor = page.evaluate("() => thinslice.visitor")
        page.evaluate("() => thinslice.track('add_to_cart', {item_id: 'i2', quantity: 2})")
        page.close()
        time.sleep(1.0)  # beacons outlive their tab by a moment
        os.kill(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
    Compactor(workspace).run_once(datetime.now(UTC))  # the next start begins so
    with contextlib.closing(Lake(workspace.lake).connect(tenant="shop")) as lake:
        rows = lake.execute(
            "select name, item_id, recommendation_id, position, visitor_id, source, consent from events"
            " where name <> 'view_item_list' order by name, item_id"
        ).fetchall()
        refused = lake.execute("select code, reason from quarantine").fetchall()
    assert refused == []
    assert rows == [
        ("add_to_cart", "i2", None, None, visitor, "browser", "personalization"),
        ("select_item", "i3", issued, 3, visitor, "browser", "personalization"),
        ("view_item", "i1", None, None, visitor, "browser", "personalization"),
        ("view_item", "i2", None, None, visitor, "browser", "personalization"),
    ]
