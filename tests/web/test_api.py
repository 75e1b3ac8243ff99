"""The JSON API: every route speaks one error shape, keys and origins hold, limits hold, what is sent is served."""

import asyncio
import contextlib
import http.client
import json
import socket
import time
import timeit
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace

import msgspec
import pytest

from thinslice.records import RecommendationRequest
from thinslice.store.compact import Compactor
from thinslice.store.lake import Lake
from thinslice.web.api import API, read_question
from thinslice.web.app import count
from thinslice.web.door import MAX_BODY_BYTES

VIEW = {"name": "view_item", "item_id": "i1", "visitor_id": "v1"}
WITH_BODY = [route for route in API if route.kinds and route.body is not None]


def error_of(answer):
    assert answer.headers["content-type"] == "application/json", answer
    error = answer.json["error"]
    assert set(error) == {"code", "message", "field", "hint"}
    assert error["code"]
    assert error["message"]
    assert all(isinstance(text, str) for text in error.values())
    assert answer.headers["x-worker"] == "w1"
    return error


@pytest.mark.parametrize("route", API, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_has_its_methods_and_names_its_worker(worker, route):
    answer = worker.ask("PATCH", route.path)
    assert answer.status == 405
    assert error_of(answer)["code"] == "method_not_allowed"
    assert route.method in answer.headers["allow"]


@pytest.mark.parametrize("route", [route for route in API if route.kinds], ids=lambda route: route.path)
def test_every_closed_route_asks_for_a_key(worker, route):
    answer = worker.ask(route.method, route.path, [VIEW])
    assert answer.status == 401
    assert error_of(answer)["code"] == "missing_key"
    answer = worker.ask(route.method, route.path, [VIEW], key="ts_sec_invented")
    assert answer.status == 401
    assert error_of(answer)["code"] == "unknown_key"


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: route.path)
@pytest.mark.parametrize("body", [b"{", b"", b"nonsense", b'"text"', b"\xff\xfe", b"[1, 2]", b"null", b"[]"])
def test_a_body_that_is_no_record_is_refused_in_the_one_shape(worker, route, body):
    answer = worker.ask(route.method, route.path, body, key="secret")
    assert answer.status == 400
    error_of(answer)


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: route.path)
def test_a_body_of_ten_megabytes_is_refused_before_it_is_read(worker, route):
    answer = worker.ask(route.method, route.path, b"x" * 10_000_000, key="secret")
    assert answer.status == 413
    assert error_of(answer)["code"] == "too_large"


def test_a_body_without_a_declared_length_is_refused_as_soon_as_it_is_too_long(worker):
    with socket.create_connection(("127.0.0.1", worker.port), timeout=20) as line:
        head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {worker.keys['secret']}\r\n"
        line.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(MAX_BODY_BYTES // 0x10000 + 2):
            line.sendall(chunk)
        assert line.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_more_than_a_thousand_events_are_too_many(worker):
    answer = worker.ask("POST", "/v1/events", [VIEW] * 1001, key="secret")
    assert answer.status == 413
    assert error_of(answer)["code"] == "too_large"


def test_a_path_that_does_not_exist_says_so(worker):
    answer = worker.ask("GET", "/v1/nothing")
    assert answer.status == 404
    assert error_of(answer)["code"] == "not_found"


def test_a_failure_inside_is_an_answer_and_not_a_broken_line(worker, monkeypatch):
    def broken(*_):
        raise RuntimeError("made by the test")

    monkeypatch.setattr(worker.context.recommender, "recommend", broken)
    answer = worker.ask("POST", "/v1/recommendations", {}, key="secret")
    assert answer.status == 500
    assert error_of(answer)["code"] == "internal"
    assert "made by the test" not in answer.body.decode()


@pytest.mark.parametrize(
    ("field", "meant"),
    [("visitr_id", "'visitor_id' perhaps?"), ("lenght", "'k' perhaps?"), ("Item_Id", "'item_id' perhaps?"),
     ("segmented_by", "it was passed over")],
)  # fmt: skip
def test_a_mistyped_field_of_a_question_is_named_and_the_slate_comes_all_the_same(worker, field, meant):
    worker.ask("PUT", "/v1/items", [{"item_id": "mug"}], key="secret")
    answer = worker.ask("POST", "/v1/recommendations", {"k": 1, field: "v1"}, key="secret")
    assert (answer.status, len(answer.json["items"])) == (200, 1)
    assert f"There is no field {field!r}" in answer.json["note"]
    assert meant in answer.json["note"]
    spelled = worker.ask("POST", "/v1/recommendations", {"k": 1, "visitor_id": "v1"}, key="secret")
    assert "note" not in spelled.json


def test_a_mistyped_word_in_the_address_of_similar_items_is_named_too(worker):
    worker.ask("PUT", "/v1/items", [{"item_id": "mug"}, {"item_id": "vase"}], key="secret")
    key = worker.keys["publishable"]
    answer = worker.ask("GET", f"/v1/items/mug/similar?k=1&exlude=vase&key={key}")
    assert answer.status == 200
    assert "There is no field 'exlude'; 'exclude' perhaps?" in answer.json["note"]
    assert "note" not in worker.ask("GET", f"/v1/items/mug/similar?k=1&exclude=lamp&key={key}").json


def test_looking_for_mistyped_fields_costs_a_question_under_two_microseconds():
    body = b'{"placement":"home","k":20,"visitor_id":"v1","session_id":"s1","item_id":"mug","context":{"page_id":"p"}}'
    typo = body.replace(b"visitor_id", b"visitr_id")

    lenient = msgspec.json.Decoder(RecommendationRequest).decode

    def cost(function, sent):
        return min(timeit.repeat(lambda: function(sent), number=2000, repeat=7)) / 2000

    assert cost(read_question, body) - cost(lenient, body) < 2e-6
    assert cost(read_question, typo) < 20e-6


def test_good_events_of_a_batch_are_kept_and_bad_ones_named(worker):
    answer = worker.ask("POST", "/v1/events", [VIEW, {"name": "view_item"}, {**VIEW, "price_minor": -1}], key="secret")
    assert answer.status == 202
    assert answer.json["accepted"] == 1
    assert [rejection["index"] for rejection in answer.json["rejected"]] == [1, 2]
    assert set(answer.json["rejected"][0]) == {"index", "code", "message", "field", "hint"}


def test_a_batch_of_bad_events_alone_is_a_400_with_every_rejection(worker):
    answer = worker.ask("POST", "/v1/events", [{"name": "view_item"}], key="secret")
    assert answer.status == 400
    assert error_of(answer)["field"] == "item_id"
    assert len(answer.json["rejected"]) == 1


def test_a_body_that_a_browser_sends_again_by_itself_counts_once(worker):
    event = {**VIEW, "event_id": "sent-again", "consent": "personalization"}
    body = json.dumps({"sent_at": time.time() * 1000, "events": [event]}).encode()
    for _ in range(2):
        assert worker.ask("POST", f"/v1/events?key={worker.keys['publishable']}", body).json["accepted"] == 1
    Compactor(worker.workspace).run_once(datetime.now(UTC))
    with contextlib.closing(Lake(worker.workspace.lake).connect(tenant="shop")) as lake:
        assert lake.execute("select count(*) from events where event_id = 'sent-again'").fetchall() == [(1,)]


def test_events_may_come_as_text_with_the_key_in_the_address(worker):
    answer = worker.ask(
        "POST", f"/v1/events?key={worker.keys['publishable']}", json.dumps([VIEW]).encode(),
        headers={"Content-Type": "text/plain;charset=UTF-8", "Origin": "http://localhost:3000"},
    )  # fmt: skip
    assert answer.status == 202
    assert answer.json == {"accepted": 0, "rejected": [], "not_stored_no_consent": 1}
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_a_secret_key_does_not_work_in_an_address(worker):
    answer = worker.ask("POST", f"/v1/events?key={worker.keys['secret']}", [VIEW])
    assert answer.status == 403
    assert error_of(answer)["code"] == "weak_key"


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/items"), ("POST", "/v1/orders")])
def test_a_publishable_key_changes_neither_catalog_nor_revenue(worker, method, path):
    answer = worker.ask(method, path, [{"item_id": "i1"}], key="publishable")
    assert answer.status == 403
    assert error_of(answer)["code"] == "weak_key"


def test_a_revoked_key_is_told_so(worker):
    key = worker.context.keys.create("shop", "publishable")
    assert worker.ask("POST", "/v1/recommendations", {}, key=key).status == 200
    worker.context.keys.revoke(key)
    answer = worker.ask("POST", "/v1/recommendations", {}, key=key)
    assert answer.status == 401
    assert error_of(answer)["code"] == "revoked_key"


def test_a_foreign_page_may_not_use_a_key(worker):
    for method in ("POST", "OPTIONS"):
        path = f"/v1/events?key={worker.keys['publishable']}"
        answer = worker.ask(method, path, [VIEW], headers={"Origin": "https://evil.example"})
        assert answer.status == 403
        assert error_of(answer)["code"] == "foreign_origin"


def test_a_listed_page_may_use_a_key_and_then_localhost_may_not(worker):
    key = worker.context.keys.create("shop", "publishable", origins=["https://shop.example"])
    for origin, status in (("https://shop.example", 200), ("http://localhost:1", 403), ("null", 403)):
        answer = worker.ask("POST", "/v1/recommendations", {}, key=key, headers={"Origin": origin})
        assert answer.status == status


def test_a_page_of_our_own_may_use_a_key(worker):
    origin = f"http://127.0.0.1:{worker.port}"
    answer = worker.ask("POST", "/v1/recommendations", {}, key="publishable", headers={"Origin": origin})
    assert answer.status == 200


def test_a_preflight_is_answered_with_methods_and_headers(worker):
    answer = worker.ask("OPTIONS", "/v1/recommendations", headers={"Origin": "http://localhost:5"})
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"]


def test_an_untrained_tenant_serves_its_catalog_at_once(worker):
    answer = worker.ask("POST", "/v1/recommendations", {"visitor_id": "someone", "k": 5}, key="secret")
    assert answer.status == 200
    assert len(answer.json["items"]) == 5
    assert set(answer.json) == {"recommendation_id", "policy", "model_version", "items"}
    assert set(answer.json["items"][0]) == {"item_id", "score", "source", "reason"}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"k": 0}, "k"), ({"k": 501}, "k"), ({"k": "many"}, "k"), ({"consent": "maybe"}, "consent"),
        ({"placement": ""}, "placement"), ({"visitor_id": "v" * 300}, "visitor_id"), ({"visitor_id": 7}, "visitor_id"),
        ({"items": "i1"}, "items"), ({"items": ["i"] * 1001}, "items"),
    ],
)  # fmt: skip
def test_a_wrong_request_names_its_field(worker, request_, field):
    answer = worker.ask("POST", "/v1/recommendations", request_, key="secret")
    assert answer.status == 400
    assert error_of(answer)["field"] == field


def test_what_goes_out_of_stock_leaves_every_slate_within_a_second(worker):
    def shown():
        answer = worker.ask("POST", "/v1/recommendations", {"k": 100}, key="secret")
        return {item["item_id"] for item in answer.json["items"]}

    assert "i7" in shown()
    assert worker.ask("PUT", "/v1/items", [{"item_id": "i7", "in_stock": False}], key="secret").status == 202
    deadline = time.monotonic() + 1.0
    while "i7" in shown():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ready_means_that_a_slate_can_be_served(worker):
    answer = worker.ask("GET", "/readyz")
    assert answer.status == 200
    assert worker.ask("GET", "/healthz").json == {"status": "ok", "worker": "w1"}


def test_metrics_count_events_slates_and_sources(worker):
    visitor = uuid.uuid4().hex
    worker.ask("POST", "/v1/events", [{**VIEW, "visitor_id": visitor}, {"name": "view_item"}], key="secret")
    worker.ask("POST", "/v1/recommendations", {"visitor_id": visitor, "k": 3}, key="secret")
    text = worker.ask("GET", "/metrics").body.decode()
    assert 'thinslice_events_accepted_total{tenant="shop"}' in text
    assert 'thinslice_events_rejected_total{tenant="shop"}' in text
    assert 'thinslice_recommendation_seconds_bucket{le="0.001",tenant="shop"}' in text
    assert 'thinslice_slate_items_total{fallback="yes",source="catalog",tenant="shop"}' in text
    assert 'thinslice_slates_total{source="catalog",tenant="shop"}' in text
    assert 'thinslice_http_answers_total{path="/v1/events",status="202"}' in text


def test_the_live_page_adds_up_the_last_minute(worker):
    worker.ask("POST", "/v1/events", [VIEW] * 3, key="secret")
    worker.ask("POST", "/v1/recommendations", {"k": 3}, key="secret")
    deadline = time.monotonic() + 5
    summary = {"slates": 0}
    while not (summary["slates"] and summary["events_by_second"][-1] + sum(summary["events_by_second"])):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        summary = worker.context.live_summary("shop", now=time.time())
    assert summary["workers"] == 1
    assert summary["latency_ms"]["p90"] is not None
    assert sum(summary["answered_by"].values()) == pytest.approx(1)
    assert 0 <= summary["fallback_share"] <= 1
    assert summary["last_events"][0]["name"] == "view_item"
    assert worker.context.live_summary("other", now=time.time())["slates"] == 0


def test_a_loop_that_could_not_write_says_so_once_and_goes_on(worker, monkeypatch, caplog):
    written, failing = [], [True]

    def write():
        if failing[0]:
            raise OSError(28, "No space left on device")
        written.append(time.monotonic())

    monkeypatch.setattr("thinslice.web.app.COUNT_EVERY_S", 0.01)
    context = SimpleNamespace(
        counters=SimpleNamespace(write=lambda _small: write(), rules=lambda removed: written.append(removed)),
        recommender=worker.context.recommender,
        models=worker.context.models,
        intake=SimpleNamespace(note_waiting=lambda: None),
    )

    async def run():
        counting = asyncio.create_task(count(context))
        await asyncio.sleep(0.1)
        assert written, "the other steps go on"
        failing[0] = False
        await asyncio.sleep(0.1)
        counting.cancel()

    asyncio.run(run())
    assert any(isinstance(each, float) for each in written)
    assert caplog.text.count("No space left on device; it is tried again every") == 1


def test_openapi_describes_every_route(worker):
    page = worker.ask("GET", "/openapi.json").json
    assert page["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, methods in page["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in API}
    assert "WireEvent" in page["components"]["schemas"]


def test_similar_items_come_by_the_address_of_an_item_whatever_is_in_its_id(worker):
    key = worker.keys["publishable"]
    answer = worker.ask("GET", f"/v1/items/a%2Fb%20%C3%BC/similar?k=2&key={key}&exclude=i1")
    assert answer.status == 200
    assert answer.json["policy"] == "similar"
    assert len(answer.json["items"]) == 2
    assert "i1" not in [item["item_id"] for item in answer.json["items"]]
    other = worker.ask("GET", f"/v1/items/i1/similar?policy=popular&key={key}").json
    assert (other["policy"], "i1" in [item["item_id"] for item in other["items"]]) == ("popular", False)


@pytest.mark.parametrize(
    ("query", "field"),
    [("k=0", "k"), ("k=x", "k"), ("k=9999999999", "k"), ("policy=deep", "policy"), ("consent=y", "consent")],
)
def test_a_wrong_question_for_similar_items_names_its_parameter(worker, query, field):
    answer = worker.ask("GET", f"/v1/items/i1/similar?{query}", key="secret")
    assert (answer.status, error_of(answer)["field"]) == (400, field)


def test_a_context_that_rules_cannot_read_is_refused(worker):
    for name, value in (("age", "18"), ("latitude", True), ("longitude", [1])):
        answer = worker.ask("POST", "/v1/recommendations", {"context": {name: value}}, key="secret")
        assert (answer.status, error_of(answer)["field"]) == (400, f"context.{name}")
    assert worker.ask("POST", "/v1/recommendations", {"context": {"age": 18, "page": "x"}}, key="secret").status == 200


def test_one_line_serves_many_requests(worker):
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=10)
    for _ in range(3):
        connection.request("POST", "/v1/recommendations", b"{}", {"Authorization": f"Bearer {worker.keys['secret']}"})
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    connection.close()
