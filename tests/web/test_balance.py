"""Connections go where there is time: how much is given, to whom, and what never is."""

import asyncio
import socket
import threading
import time

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from thinslice.web.balance import LEAST_SURPLUS, Balance, Board, Tally, gift
from thinslice.web.door import Answer, Door, JsonRoute
from thinslice.web.lane import lane_protocol

SHARES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8).map(
    lambda values: {f"w{number}": value for number, value in enumerate(values)}
)


@given(SHARES)
def test_after_a_gift_neither_has_crossed_the_mean(shares):
    mean = sum(shares.values()) / len(shares)
    for name in shares:
        given_away = gift(name, shares)
        if given_away is None:
            assert shares[name] - mean <= LEAST_SURPLUS or mean - min(shares.values()) <= LEAST_SURPLUS
            continue
        moved = given_away.share * shares[name]
        assert given_away.to != name
        assert shares[name] - moved >= mean - 1e-9
        assert shares[given_away.to] + moved <= mean + 1e-9


def test_a_worker_alone_keeps_what_it_has():
    assert gift("w1", {"w1": 1.0}) is None


def test_what_a_worker_says_is_heard_by_others_and_forgotten_when_it_falls_silent(tmp_path):
    one, other = (Board(tmp_path / "board", ["w1", "w2"]) for _ in range(2))
    one.say("w1", 0.7, now=10.0)
    assert other.heard(now=11.0) == {"w1": 0.7}
    other.say("w2", 0.1, now=12.5)
    assert one.heard(now=12.6) == {"w2": 0.1}
    assert one.heard(now=9.0) == {}, "from before the machine started again"


class Wire:
    """A transport over one end of a pair of sockets."""

    def __init__(self, end, waiting=0):
        self.end, self.waiting, self.gone = end, waiting, False

    def get_write_buffer_size(self):
        return self.waiting

    def is_closing(self):
        return self.gone

    def get_extra_info(self, _name):
        return self.end

    def abort(self):
        self.gone = True
        self.end.close()


class Kept:
    def __init__(self, wire):
        self.tally, self.transport = Tally(), wire


@pytest.fixture
def two(tmp_path):
    """A busy worker's balance, an idle one's end of its outbox, and the busy one's loop."""
    loop = asyncio.new_event_loop()
    inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    own, unused = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    board = Board(tmp_path / "board", ["w1", "w2"])
    balance = Balance("w1", board, own, {"w2": outbox})
    balance.begin(loop, asyncio.Protocol)
    yield balance, board, inbox
    balance.end()
    loop.close()
    for each in (inbox, outbox, own, unused):
        each.close()


def measured(balance, board, busy_s=0.1):
    """Lets a worker compute for a while and measure itself, beside one that rests."""
    until = time.thread_time() + busy_s
    while time.thread_time() < until:
        pass
    board.say("w2", 0.0, time.monotonic())
    balance._measure()


def test_a_connection_that_was_handed_over_still_speaks_with_its_caller(two):
    balance, board, inbox = two
    caller, end = socket.socketpair()
    kept = Kept(Wire(end))
    measured(balance, board)
    others = [Kept(Wire(None)) for _ in range(3)]
    for each in (kept, *others):
        balance.answered(each)
    measured(balance, board)
    balance.answered(kept)
    assert kept.transport.gone
    _, (descriptor,), _, _ = socket.recv_fds(inbox, 1, 1)
    with caller, socket.socket(fileno=descriptor) as taken:
        taken.sendall(b"here")
        assert caller.recv(4) == b"here"


def test_a_new_connection_and_one_with_an_answer_on_its_way_stay(two):
    balance, board, _ = two
    new, writing = Kept(Wire(None)), Kept(Wire(None, waiting=5))
    measured(balance, board)
    balance.answered(writing)
    for _ in range(9):
        balance.answered(Kept(Wire(None)))
    measured(balance, board)
    balance.answered(new)
    balance.answered(writing)
    assert not new.transport.gone
    assert not writing.transport.gone


def test_the_one_connection_that_brings_all_the_work_stays(two):
    balance, board, _ = two
    only = Kept(Wire(None))
    measured(balance, board)
    balance.answered(only)
    measured(balance, board)
    balance.answered(only)
    assert not only.transport.gone, "the other worker would only be as busy as this one was"


class Noted:
    """Stands where a balance does, and notes what it is offered."""

    def __init__(self):
        self.offered = 0

    def answered(self, _connection):
        self.offered += 1


def test_a_connection_is_offered_between_two_requests_and_not_within_one(worker):
    noted = Noted()
    door = Door(worker.context, [JsonRoute("POST", "/quick", lambda call: Answer(200, call.body), frozenset(), "x")])
    config = uvicorn.Config(Starlette(), http=lane_protocol({"/quick": door}, noted), log_config=None)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    whole = b"POST /quick HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nab"
    seen = []
    with socket.create_connection(listener.getsockname(), timeout=5) as line:
        for pieces, answers in (([whole], 1), ([whole, whole[:20]], 1), ([whole[20:]], 1), ([whole, whole], 2)):
            line.sendall(b"".join(pieces))
            received = b""
            while received.count(b"\r\n\r\nab") < answers:
                received += line.recv(1000)
            seen.append(noted.offered)
    server.should_exit = True
    thread.join(timeout=5)
    listener.close()
    assert seen == [1, 1, 2, 3]
