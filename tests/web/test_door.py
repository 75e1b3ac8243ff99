"""The door: every error has its status, bodies are read within bounds, and origins are compared, not guessed."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.errors import (
    BadInput,
    BadRecord,
    BadSettings,
    Corrupt,
    LogFull,
    NotAllowed,
    NotReady,
    ThinsliceError,
    TooLarge,
    UnknownName,
)
from thinslice.web.door import BodyTooLong, SenderGone, drain, origin_allowed, read_body, refusal


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadRecord("wrong_type", "k is text", field="k", hint="a number"), 400, "wrong_type"),
        (BadInput("no"), 400, "bad_input"),
        (BadSettings("no"), 400, "bad_input"),
        (UnknownName("no"), 404, "unknown_name"),
        (TooLarge("no"), 413, "too_large"),
        (NotAllowed("missing_key", "no"), 401, "missing_key"),
        (NotAllowed("revoked_key", "no"), 401, "revoked_key"),
        (NotAllowed("weak_key", "no"), 403, "weak_key"),
        (NotAllowed("foreign_origin", "no"), 403, "foreign_origin"),
        (LogFull("no"), 503, "log_full"),
        (NotReady("no"), 503, "not_ready"),
        (Corrupt("no"), 500, "failed"),
        (ThinsliceError("no"), 500, "failed"),
    ],
)
def test_every_error_has_its_status(error, status, code):
    answer = refusal(error)
    assert (answer.status, answer.value["error"]["code"]) == (status, code)
    assert answer.value["error"]["hint"] == error.hint
    assert (status == 503) == (b"retry-after" in dict(answer.headers))


def receiving(*chunks, disconnects=False):
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.disconnect"} if disconnects else {"type": "http.request", "body": b""})

    async def receive():
        return messages.pop(0)

    return receive


@given(st.lists(st.binary(max_size=30), max_size=8))
def test_a_body_within_the_limit_is_read_whole_and_a_longer_one_not_at_all(chunks):
    whole = b"".join(chunks)
    if len(whole) <= 64:
        assert asyncio.run(read_body({}, receiving(*chunks), limit=64)) == whole
    else:
        with pytest.raises(BodyTooLong, match="64"):
            asyncio.run(read_body({}, receiving(*chunks), limit=64))


def test_a_declared_length_over_the_limit_is_refused_without_reading():
    async def never():
        raise AssertionError("read")

    with pytest.raises(BodyTooLong):
        asyncio.run(read_body({b"content-length": b"65"}, never, limit=64))


def test_a_sender_that_goes_away_is_noticed():
    with pytest.raises(SenderGone):
        asyncio.run(read_body({}, receiving(b"half", disconnects=True), limit=64))
    asyncio.run(drain(receiving(b"half", disconnects=True)))


@pytest.mark.parametrize(
    ("origin", "origins", "allowed"),
    [
        ("https://shop.example", ["https://shop.example"], True),
        ("https://SHOP.example", ["https://shop.example/"], True),
        ("https://shop.example.evil", ["https://shop.example"], False),
        ("http://shop.example", ["https://shop.example"], False),
        ("https://shop.example:444", ["https://shop.example"], False),
        ("http://localhost:3000", [], True),
        ("http://127.0.0.1", [], True),
        ("http://[::1]:80", [], True),
        ("http://localhost.evil", [], False),
        ("http://localhost:3000", ["https://shop.example"], False),
        ("null", [], False),
        ("http://[broken", [], False),
        ("http://our.own:8080", ["https://shop.example"], True),
        ("https://anything.example", ["*"], True),
    ],
)
def test_origins_are_compared_whole(origin, origins, allowed):
    assert origin_allowed(origin, origins, {b"host": b"our.own:8080"}) is allowed
