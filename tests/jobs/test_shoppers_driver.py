"""Shoppers over HTTP, against a small service of this test that checks every payload as the real one does."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime

import httptools
import msgspec
import pytest

from thinslice.collect import is_bot_agent, parse_events, parse_orders
from thinslice.errors import BadInput, NotAllowed
from thinslice.jobs.client import Client
from thinslice.jobs.shoppers import Counts, Traffic, drive
from thinslice.records import RecommendationRequest
from thinslice.simulate import home_goods

PUBLISHABLE, SECRET = "ts_pub_test", "ts_sec_test"
POPULAR = [item.item_id for item in home_goods("shop")[::50]]


class Shopkeeper:
    """A service that keeps what it is sent; `away` makes it break off, `mood` overrides its answers."""

    def __init__(self):
        self.events, self.orders, self.questions, self.agents = [], [], [], set()
        self.at_once = self.most_at_once = self.connections = 0
        self.writers, self.calls, self.sessions = set(), set(), []
        self.away = False
        self.mood = None
        self.clock = lambda: datetime.now(UTC)
        self.pause_s = 0.0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        self.hang_up()
        await asyncio.gather(*self.calls)
        await self.server.wait_closed()

    def hang_up(self):
        for writer in self.writers:
            writer.transport.abort()

    async def serve(self, reader, writer):
        self.connections += 1
        self.writers.add(writer)
        self.calls.add(asyncio.current_task())
        try:
            while not self.away:
                request = Request()
                parser = httptools.HttpRequestParser(request)
                while not request.complete:
                    part = await reader.read(65536)
                    if not part or self.away:
                        return
                    parser.feed_data(part)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                await asyncio.sleep(self.pause_s)
                status, value, extra = self.answer(request)
                self.at_once -= 1
                body = msgspec.json.encode(value)
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()
            self.writers.discard(writer)

    def answer(self, request):
        key = request.headers["authorization"].removeprefix("Bearer ")
        self.agents.add(request.headers["user-agent"])
        if self.mood is not None:
            return self.mood(request)
        if request.path == "/v1/events" and key == PUBLISHABLE:
            batch = parse_events(
                request.body, tenant="shop", source="browser", default_consent="none", now=self.clock()
            )
            assert not batch.rejected
            assert batch.not_stored_no_consent == 0
            self.events += batch.events
            return 202, {"accepted": len(batch.events)}, ""
        if request.path == "/v1/orders" and key == SECRET:
            batch = parse_orders(request.body, tenant="shop", source="server", now=self.clock())
            assert not batch.rejected
            self.orders += batch.orders
            return 202, {"accepted": len(batch.orders)}, ""
        if request.path == "/v1/recommendations" and key == PUBLISHABLE:
            question = msgspec.json.decode(request.body, type=RecommendationRequest)
            self.questions.append(question)
            items = [{"item_id": item_id, "score": 1.0, "source": "popular", "reason": ""} for item_id in POPULAR]
            return 200, {"recommendation_id": f"r{len(self.questions)}", "items": items[: question.k]}, ""
        return 401, {"error": {"code": "unknown_key", "message": "the key is not known", "field": "", "hint": ""}}, ""


class Request:
    def __init__(self):
        self.headers, self.body, self.path, self.complete = {}, b"", "", False

    def on_url(self, url):
        self.path = url.decode()

    def on_header(self, name, value):
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, part):
        self.body += part

    def on_message_complete(self):
        self.complete = True


def traffic(url, **fields):
    usual = {"visitors_per_s": 500.0, "think_s": 0.002, "visits": 60, "returning": 0.0, "patience_s": 5.0, "first": 0}
    return Traffic(url=url, publishable=PUBLISHABLE, secret=SECRET, **{**usual, **fields})


def run(test):
    async def bounded():
        async with asyncio.timeout(30), Shopkeeper() as keeper:
            return await test(keeper)

    return asyncio.run(bounded())


def test_sixty_visits_arrive_as_events_slates_and_orders_that_the_service_takes():
    async def scene(keeper):
        return keeper, await drive(traffic(keeper.url))

    keeper, counts = run(scene)
    names = Counter(event.name for event in keeper.events)
    assert counts.visits == 60
    assert counts.slates == len(keeper.questions) == names["view_item"] > 100
    assert counts.clicks == names["select_item"] > 0
    assert counts.orders == len(keeper.orders) > 0
    assert counts.revenue_minor == sum(order.total_minor for order in keeper.orders)
    assert counts.refused == counts.given_up == 0
    assert {event.consent for event in keeper.events} == {"personalization"}
    assert len({event.event_id for event in keeper.events}) == len(keeper.events)
    assert not any(is_bot_agent(agent) for agent in keeper.agents)


def test_every_click_and_every_slate_seen_names_its_recommendation_place_and_placement():
    async def scene(keeper):
        await drive(traffic(keeper.url, placement="home", k=4))
        return keeper

    keeper = run(scene)
    assert {question.k for question in keeper.questions} == {4}
    clicks = [event for event in keeper.events if event.name == "select_item"]
    seen = {
        (event.recommendation_id, event.position, event.item_id)
        for event in keeper.events
        if event.name == "view_item_list" and event.placement == "home"
    }
    assert clicks
    assert all(POPULAR[position] == item_id for _, position, item_id in seen)
    for click in clicks:
        assert POPULAR[click.position] == click.item_id
        assert click.placement == "home"
        assert (click.recommendation_id, click.position, click.item_id) in seen


def test_what_was_viewed_has_arrived_before_the_slate_is_asked_for():
    async def scene(keeper):
        late = []
        usual = keeper.answer

        def watch(request):
            if request.path == "/v1/recommendations":
                asked = msgspec.json.decode(request.body)
                arrived = {(event.session_id, event.item_id) for event in keeper.events if event.name == "view_item"}
                late.append((asked["session_id"], asked["item_id"]) not in arrived)
            return usual(request)

        keeper.answer = watch
        await drive(traffic(keeper.url, visits=20))
        return late

    late = run(scene)
    assert late
    assert not any(late)


def test_orders_add_up_and_the_browser_says_purchase_for_each_line():
    async def scene(keeper):
        await drive(traffic(keeper.url, visits=100))
        return keeper

    keeper = run(scene)
    purchases = [event for event in keeper.events if event.name == "purchase"]
    lines = Counter((order.order_id, line.item_id) for order in keeper.orders for line in order.lines)
    assert Counter((event.order_id, event.item_id) for event in purchases) == lines
    for order in keeper.orders:
        assert order.total_minor == sum(line.price_minor * line.quantity for line in order.lines)
        assert order.visitor_id is not None


def test_some_visitors_come_back_with_a_new_session():
    async def scene(keeper):
        await drive(traffic(keeper.url, visits=80, returning=0.4, visitors_per_s=200.0))
        return keeper

    sessions = {}
    for event in run(scene).events:
        sessions.setdefault(event.visitor_id, set()).add(event.session_id)
    assert max(len(each) for each in sessions.values()) >= 2
    assert sum(len(each) for each in sessions.values()) == 80


def test_after_a_restart_other_people_come():
    async def scene(keeper):
        moments = iter([datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, 0, 0, 1, tzinfo=UTC)])
        for moment in moments:
            keeper.clock = lambda today=moment: today
            await drive(traffic(keeper.url, visits=20, first=None), now=lambda began=moment: began)
            keeper.sessions.append({event.visitor_id for event in keeper.events})
        return keeper

    first, both = run(scene).sessions
    assert len(first) == 20
    assert len(both) == 40


def test_never_more_connections_than_allowed_and_they_are_kept_open():
    async def scene(keeper):
        keeper.pause_s = 0.002
        await drive(traffic(keeper.url, connections=3))
        return keeper

    keeper = run(scene)
    assert keeper.most_at_once <= 3
    assert keeper.connections <= 3


def test_a_service_that_goes_away_and_comes_back_loses_no_event_and_counts_none_twice():
    async def scene(keeper):
        counts = Counts()
        driving = asyncio.ensure_future(drive(traffic(keeper.url, visits=100, visitors_per_s=100.0), counts=counts))
        for _ in range(3):
            await asyncio.sleep(0.2)
            keeper.away = True
            keeper.hang_up()
            await asyncio.sleep(0.15)
            keeper.away = False
        await driving
        return keeper, counts

    keeper, counts = run(scene)
    assert counts.visits == 100
    assert counts.retries > 0
    assert counts.given_up == counts.refused == 0
    ids = {event.event_id for event in keeper.events}
    sent = {}
    for event_id in ids:
        session, _, ordinal = event_id.partition("#")[0].rpartition("-")
        sent.setdefault(session, set()).add(int(ordinal))
    assert len(sent) == 100
    assert all(ordinals == set(range(max(ordinals) + 1)) for ordinals in sent.values())


def test_a_full_service_is_asked_again_after_it_says_when():
    async def scene(keeper):
        refusals = iter(range(5))

        def full_at_first(request):
            if next(refusals, None) is not None:
                return 503, {"error": {"code": "log_full", "message": "full"}}, "Retry-After: 0.05\r\n"
            keeper.mood = None
            return keeper.answer(request)

        keeper.mood = full_at_first
        return await drive(traffic(keeper.url, visits=5))

    counts = run(scene)
    assert counts.visits == 5
    assert counts.retries == 5


def test_a_wrong_key_ends_the_traffic_with_the_reason():
    async def scene(keeper):
        with pytest.raises(NotAllowed, match="the key is not known"):
            await drive(Traffic(url=keeper.url, publishable="wrong", secret=SECRET, visitors_per_s=100.0))

    run(scene)


def test_a_refused_batch_is_counted_and_the_visit_goes_on():
    async def scene(keeper):
        keeper.mood = lambda request: (400, {"error": {"code": "bad", "message": "no"}}, "")
        return await drive(traffic(keeper.url, visits=5))

    counts = run(scene)
    assert counts.visits == 5
    assert counts.refused >= 10
    assert counts.events == counts.slates == 0


def test_cancelling_ends_every_visit_at_once():
    async def scene(keeper):
        driving = asyncio.ensure_future(drive(traffic(keeper.url, visits=None, think_s=10.0)))
        await asyncio.sleep(0.3)
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving
        return len(asyncio.all_tasks())

    assert run(scene) < 20


@pytest.mark.parametrize(
    "wrong", [{"visitors_per_s": 0.0}, {"think_s": -1.0}, {"at_once": 0}, {"returning": 1.0}, {"url": "ftp://x"}]
)
def test_numbers_and_addresses_that_make_no_sense_are_refused(wrong):
    with pytest.raises(BadInput):
        asyncio.run(drive(Traffic(**{"url": "http://127.0.0.1:1", "publishable": "p", "secret": "s", **wrong})))


def test_an_answer_that_is_not_http_is_an_error_of_the_connection():
    async def scene():
        async def babble(reader, writer):
            await reader.read(100)
            writer.write(b"hello there\r\n\r\n")
            writer.close()

        async with asyncio.timeout(10), await asyncio.start_server(babble, "127.0.0.1", 0) as server:
            client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            with pytest.raises(ConnectionError, match="not HTTP"):
                await client.post("/v1/events", "key", [])
            client.close()

    asyncio.run(scene())


def test_the_process_of_the_demo_ends_on_sigterm_and_says_what_it_did(tmp_path):
    async def scene(keeper):
        plan = tmp_path / "traffic.json"
        plan.write_bytes(msgspec.json.encode(traffic(keeper.url, visits=None, visitors_per_s=50.0)))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "thinslice.jobs.shoppers", str(plan), stdout=subprocess.PIPE, env={**os.environ}
        )
        while len(keeper.events) < 50:
            assert process.returncode is None
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, _ = await process.communicate()
        return process.returncode, msgspec.json.decode(output, type=Counts)

    code, counts = run(scene)
    assert code == 0
    assert counts.events > 0
    assert counts.given_up == 0


def test_a_plan_that_cannot_be_read_ends_the_process_with_code_2(tmp_path):
    plan = tmp_path / "traffic.json"
    plan.write_text('{"url": 3}')
    ended = subprocess.run(
        [sys.executable, "-m", "thinslice.jobs.shoppers", str(plan)], capture_output=True, timeout=30, check=False
    )
    assert ended.returncode == 2
    assert b"traffic.json" in ended.stderr


def test_an_answer_in_chunks_is_put_together_and_a_closing_service_is_called_anew():
    async def scene():
        calls = []

        async def chunks(reader, writer):
            calls.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await writer.drain()
            writer.write(b"2\r\nde\r\n0\r\n\r\n")
            writer.close()

        async with asyncio.timeout(10), await asyncio.start_server(chunks, "127.0.0.1", 0) as server:
            client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            answers = [await client.post("/v1/orders", "key", {"order_id": "ö"}) for _ in range(2)]
            client.close()
        return calls, answers

    calls, answers = asyncio.run(scene())
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"abcde")] * 2
    assert len(calls) == 2
    assert all(b"Authorization: Bearer key\r\n" in call for call in calls)


def test_a_service_that_never_answers_is_left_after_the_time_limit():
    async def scene():
        async def silent(reader, writer):
            await reader.read()
            writer.close()

        async with asyncio.timeout(10), await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=0.05)
            with pytest.raises(TimeoutError):
                await client.post("/v1/events", "key", [])
            client.close()
            await asyncio.sleep(0.05)

    asyncio.run(scene())
