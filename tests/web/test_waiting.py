"""How long requests have waited: against a queue whose truth is known, and through a real loop."""

import asyncio
import json
import socket
import threading
import time

import numpy as np
import uvicorn
from starlette.applications import Starlette

from thinslice.web.counters import Counters, exposition
from thinslice.web.door import Answer, Door, JsonRoute
from thinslice.web.lane import lane_protocol
from thinslice.web.waiting import Rounds


def queue(rate, service_s, count, rng=0):
    """What each request waited, and what was said of it: Poisson arrivals, read in rounds, first come first served."""
    arrivals = np.cumsum(np.random.default_rng(rng).exponential(1 / rate, count))
    rounds, now, at = Rounds(), 0.0, 0
    waited, said = [], []
    while at < count:
        began = now = max(now, arrivals[at])
        stop = int(np.searchsorted(arrivals, now, side="right"))
        for each in range(at, stop):
            waited.append(now - arrivals[each])
            said.append(rounds.waited_s(began, now))
            now += service_s
            rounds.answered(now)
        at = stop
    return np.array(waited), np.array(said)


def test_a_worker_with_time_to_spare_says_that_nobody_waits():
    waited, said = queue(rate=100, service_s=0.0005, count=5_000)
    assert np.mean(said > 0.002) == 0
    assert np.abs(waited - said).max() < 0.002


def test_in_a_worker_that_is_behind_it_says_who_waited_beyond_the_deadline():
    waited, said = queue(rate=1_150, service_s=0.001, count=3_000)
    assert np.quantile(waited, 0.9) > 0.1  # it gets further and further behind
    late = waited > 0.02
    assert np.mean(said[late] > 0.02) > 0.99
    assert np.mean(said[waited < 0.005] > 0.02) < 0.01


def test_at_a_high_load_it_is_seldom_wrong_about_the_deadline():
    waited, said = queue(rate=930, service_s=0.001, count=50_000)
    assert 0.01 < np.mean(waited > 0.02) < 0.5
    assert np.mean((waited > 0.02) != (said > 0.02)) < 0.05
    assert abs(np.mean(waited) - np.mean(said)) < 0.5 * np.mean(waited)


def test_who_is_behind_a_slow_answer_is_known_to_have_waited():
    def slow(call):
        if call.body == b"slow":
            time.sleep(0.08)
        return Answer(200, {"waited_s": call.waited_s})

    class Context:
        worker_name = "w1"

        class counters:
            @staticmethod
            def answer(path, status):
                pass

    door = Door(Context, [JsonRoute("POST", "/", slow, frozenset(), "")])
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        Starlette(), loop="uvloop", http=lane_protocol({"/": door}), lifespan="off", log_config=None, ws="none"
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()

    def ask(body):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
            head = f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            line.sendall(head.encode() + body)
            received = b""
            while more := line.recv(65536):
                received += more
        return json.loads(received.rpartition(b"\r\n\r\n")[2])["waited_s"]

    async def crowd():
        first = asyncio.to_thread(ask, b"slow")

        async def later():
            await asyncio.sleep(0.02)
            return await asyncio.to_thread(ask, b"quick")

        return await asyncio.gather(first, later())

    try:
        while not server.started:
            time.sleep(0.01)
        assert ask(b"quick") < 0.02
        _, behind = asyncio.run(crowd())
        time.sleep(0.05)
        calm = min(ask(b"quick") for _ in range(5))
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
    assert 0.03 < behind < 0.5
    assert calm < 0.005


def test_late_slates_are_in_the_metrics(tmp_path):
    counters = Counters(tmp_path, "w1")
    counters.late({"late-shop": 2})
    counters.late({"late-shop": 1})
    counters.publish()
    assert b'thinslice_late_slates_total{tenant="late-shop"} 3.0' in exposition(None)
