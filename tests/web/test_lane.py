"""The fast lane: the same answers as by uvicorn's own way, in order, whatever pieces a request comes in."""

import contextlib
import json
import socket
import threading
import time

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from thinslice.errors import LogFull
from thinslice.store.codec import decode
from thinslice.store.log import LogKind, read_frames, segments
from thinslice.web.door import Answer, Door, JsonRoute
from thinslice.web.lane import lane_protocol


def raw(worker, *pieces, pause_s=0.0, half_close=True):
    """All that comes back for some bytes, until the worker closes or falls silent."""
    with socket.create_connection(("127.0.0.1", worker.port), timeout=5) as line:
        for piece in pieces:
            line.sendall(piece)
            time.sleep(pause_s)
        if half_close:
            line.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(TimeoutError):
            while more := line.recv(65536):
                received += more
        return received


def post(worker, value, *more, path="/v1/recommendations", version="1.1", body=None):
    content = json.dumps(value).encode() if body is None else body
    lines = [f"POST {path} HTTP/{version}", "Host: shop", f"Authorization: Bearer {worker.keys['secret']}", *more]
    if not any(line.lower().startswith("transfer-encoding") for line in more):
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def answers(received):
    """Status, headers and body of each answer."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        found.append((int(status.split()[1]), headers, rest[:length]))
        received = rest[length:]
    return found


def test_a_slate_comes_in_one_piece_and_closing_is_honored(worker):
    ((status, headers, body),) = answers(raw(worker, post(worker, {"k": 3}, "Connection: close"), half_close=False))
    assert status == 200
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-worker"] == "w1"
    assert len(json.loads(body)["items"]) == 3


def test_a_request_may_come_byte_by_byte(worker):
    request = post(worker, {"k": 2}, "Connection: close")
    pieces = [request[at : at + 7] for at in range(0, len(request), 7)]
    ((status, _, body),) = answers(raw(worker, *pieces, pause_s=0.001, half_close=False))
    assert (status, len(json.loads(body)["items"])) == (200, 2)


def test_requests_sent_together_are_answered_in_order_fast_and_slow_ones(worker):
    event = [{"name": "view_item", "visitor_id": "lane", "item_id": "lane-a"}]
    together = b"".join(
        [
            post(worker, {"k": 1}),
            post(worker, event, path="/v1/events"),
            post(worker, {"k": 2}),
            b"GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n",
            b"GET /nothing HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
        ]
    )
    found = answers(raw(worker, together, half_close=False))
    assert [status for status, _, _ in found] == [200, 202, 200, 200, 404]
    assert [len(json.loads(body).get("items", [])) for _, _, body in found] == [1, 0, 2, 0, 0]


@pytest.mark.parametrize("more", ["Transfer-Encoding: chunked", "Expect: 100-continue"], ids=["chunked", "expect"])
def test_what_changes_the_conversation_is_left_to_uvicorn(worker, more):
    chunked = "chunked" in more
    body = b"7\r\n" + b'{"k":2}' + b"\r\n0\r\n\r\n" if chunked else b'{"k":2}'
    request = post(worker, None, more, body=body)
    answer = raw(worker, request, b"GET /healthz HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n", half_close=False)
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    status, _, body = answers(answer)[0]
    assert (status, len(json.loads(body)["items"])) == (200, 2)


def test_an_old_browser_without_keep_alive_is_answered(worker):
    ((status, _, body),) = answers(raw(worker, post(worker, {"k": 1}, version="1.0"), half_close=False))
    assert (status, len(json.loads(body)["items"])) == (200, 1)


def test_a_declared_length_over_the_limit_is_refused(worker):
    request = post(worker, None, body=b"").replace(b"Content-Length: 0", b"Content-Length: 2000000")
    ((status, _, _),) = answers(raw(worker, request, b"x" * 1000))
    assert status == 413


def test_garbage_is_no_request(worker):
    assert raw(worker, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_slate_that_cannot_be_written_down_is_not_shown(worker, monkeypatch):
    def full(kind, payload):
        raise LogFull("the disk is full.")

    monkeypatch.setattr(worker.context.commit, "write", full)
    answer = worker.ask("POST", "/v1/recommendations", {"visitor_id": "lane-full", "k": 2}, key="secret")
    assert (answer.status, answer.json["error"]["code"]) == (503, "log_full")


def test_the_exposure_is_in_the_log_when_its_slate_is_there(worker):
    for number in range(5):
        answer = worker.ask("POST", "/v1/recommendations", {"visitor_id": f"lane-{number}", "k": 2}, key="secret")
        written = [
            exposure.recommendation_id
            for path in segments(worker.workspace.log)
            for kind, payload, _ in read_frames(path)
            if kind == LogKind.EXPOSURES
            for exposure in decode(payload)[1]
        ]
        assert answer.json["recommendation_id"] in written


def test_a_request_under_way_has_its_answer_before_the_worker_stops(worker):
    door = Door(worker.context, [JsonRoute("POST", "/quick", lambda call: Answer(200, call.body), frozenset(), "x")])
    app = Starlette(routes=[Route("/", lambda _request: PlainTextResponse("page"))])
    config = uvicorn.Config(app, http=lane_protocol({"/quick": door}), log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with socket.create_connection(listener.getsockname(), timeout=5) as line:
        line.sendall(b"POST /quick HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nab")
        time.sleep(0.1)
        server.should_exit = True
        time.sleep(0.3)
        line.sendall(b"cd")
        received = b""
        while more := line.recv(1000):
            received += more
    thread.join(timeout=5)
    ((status, headers, body),) = answers(received)
    assert (status, headers["connection"], body) == (200, "close", b"abcd")
    listener.close()
