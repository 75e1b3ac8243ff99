"""The JSON API: events in, slates out, the catalog and orders from the shop's server, and what an operator asks."""

import difflib
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

from thinslice.collect.payloads import WireCatalogItem, WireEvent, WireOrder
from thinslice.errors import BadInput, BadRecord
from thinslice.recommend.rules import number
from thinslice.records import RecommendationRequest
from thinslice.web.counters import exposition
from thinslice.web.door import Answer, Call, JsonRoute
from thinslice.web.openapi import openapi

BROWSER = frozenset({"publishable", "secret"})
SERVER = frozenset({"secret"})
OPEN: frozenset[str] = frozenset()

MAX_K = 500
"""A longer slate is refused."""

FIELDS = frozenset(RecommendationRequest.__struct_fields__)
"""What the body of a question may say."""

OTHER_WORDS = {"length": "k", "limit": "k", "count": "k", "size": "k", "product_id": "item_id"}
"""What others call a field of a question → what it is called here."""


class StrictRequest(RecommendationRequest, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A question without a field that nobody reads; the decoder finds such a field for nothing."""


_decode_strict = msgspec.json.Decoder(StrictRequest).decode
_decode_request = msgspec.json.Decoder(RecommendationRequest).decode
_decode_names = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def events(call: Call) -> Answer:
    """Takes a batch of events: 202 when they are durable, 400 when all are bad."""
    key = call.holder
    result = await call.context.intake.events(call.body, key, call.now, headers=call.headers)
    call.context.counters.events(key.tenant, accepted=result.accepted, rejected=len(result.rejected))
    return intake_answer(result, 202)


async def items(call: Call) -> Answer:
    """Takes catalog items: in every slate within one second."""
    return intake_answer(await call.context.intake.items(call.body, call.holder, call.now), 202)


async def orders(call: Call) -> Answer:
    """Takes orders from the shop's server: the only door through which revenue counts."""
    return intake_answer(await call.context.intake.orders(call.body, call.holder, call.now), 202)


def intake_answer(result: Any, status: int) -> Answer:
    """What became of a batch; an all-bad one is a 400 in the one error shape, with every rejection beside it."""
    rejected = [rejection._asdict() for rejection in result.rejected]
    value = {
        "accepted": result.accepted,
        "rejected": rejected,
        "not_stored_no_consent": result.not_stored_no_consent,
    }
    if rejected and not result.accepted and not result.not_stored_no_consent:
        first = rejected[0]
        error = {name: first[name] for name in ("code", "message", "field", "hint")}
        return Answer(400, {"error": error, **value})
    return Answer(status, value)


def recommendations(call: Call) -> Answer:
    """One slate, with the source and the reason of each item."""
    start = time.perf_counter()
    request, unread = read_question(call.body)
    return slate(call, request, start, unread)


def read_question(body: bytes) -> tuple[RecommendationRequest, str]:
    """The question of a body, and what its sender is told of fields that nobody reads.

    Raises:
        BadInput: It is no JSON object, or a field is of another type.
    """
    try:
        try:
            return _decode_strict(body), ""
        except msgspec.ValidationError:
            return _decode_request(body), told_of(_decode_names(body), FIELDS)
    except msgspec.ValidationError as error:
        message, _, field = str(error).partition(" - at ")
        field = field.strip("`").removeprefix("$.")
        raise BadRecord("wrong_type", f"{message}.", field=field, hint="See /openapi.json.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"the body is no JSON object: {error}.", hint='Send {"visitor_id": "…", "k": 20}.') from None


def told_of(names: Iterable[str], known: frozenset[str]) -> str:
    """In words, which names of a question nobody reads; empty when all are read.

    >>> told_of(["k", "visitr_id"], frozenset({"k", "visitor_id"}))
    "There is no field 'visitr_id'; 'visitor_id' perhaps?"
    """
    return " ".join(_unread(name[:64], known) for name in [name for name in names if name not in known][:5])


@lru_cache(maxsize=256)
def _unread(name: str, known: frozenset[str]) -> str:
    words = {each: each for each in known} | {word: field for word, field in OTHER_WORDS.items() if field in known}
    near = difflib.get_close_matches(name.lower(), words, 1)
    return f"There is no field {name!r}" + (f"; {words[near[0]]!r} perhaps?" if near else ": it was passed over.")


def slate(call: Call, request: RecommendationRequest, start: float, unread: str = "") -> Answer:
    """Answers a question with a slate, and counts it.

    Args:
        call: Who asked.
        request: The question.
        start: When it arrived, by the performance counter.
        unread: What the note says of names that nobody reads.
    """
    key = call.holder
    check_request(request)
    answer = call.context.recommender.recommend(key.tenant, request, key.kind, call.now, waited_s=call.waited_s)
    if unread:
        answer = msgspec.structs.replace(answer, note=f"{answer.note} {unread}".strip())
    call.context.counters.slate(
        key.tenant,
        latency_ms=(time.perf_counter() - start) * 1000,
        model=call.context.recommender.own_source(key.tenant, answer.policy),
        sources=[item.source for item in answer.items],
    )
    return Answer(200, answer)


def similar(call: Call) -> Answer:
    """Items like one item, for its page: the policy `similar`, or another one that is named."""
    start = time.perf_counter()
    query = call.query
    text = query.get("k", "20")
    if not text.isascii() or not text.isdigit():
        raise BadRecord("wrong_type", f"k is {text[:40]!r}.", field="k", hint=f"Ask for 1 to {MAX_K} items.")
    request = RecommendationRequest(
        placement=query.get("placement", "similar"), k=int(text[:9]), item_id=call.part,
        visitor_id=query.get("visitor_id"), session_id=query.get("session_id"), user_id=query.get("user_id"),
        consent=query.get("consent"), policy=query.get("policy", "similar"),
        exclude=[each for each in query.get("exclude", "").split(",") if each],
        context={"page_id": query["page_id"]} if "page_id" in query else {},
    )  # fmt: skip
    return slate(call, request, start, told_of(query, SIMILAR) if query.keys() - SIMILAR else "")


def check_request(request: RecommendationRequest) -> None:
    """Refuses what no slate can be made for.

    Raises:
        BadRecord: The length, an id or the consent is out of range.
    """
    if not 1 <= request.k <= MAX_K:
        raise BadRecord("out_of_range", f"k is {request.k}.", field="k", hint=f"Ask for 1 to {MAX_K} items.")
    if request.consent not in (None, "none", "measurement", "personalization"):
        raise BadRecord(
            "unknown_value", f"consent is {request.consent[:40]!r}.", field="consent",
            hint="Send none, measurement or personalization, or leave it out.",
        )  # fmt: skip
    if not 1 <= len(request.placement) <= 64:
        raise BadRecord(
            "out_of_range", f"placement has {len(request.placement)} characters.", field="placement",
            hint="A placement's name has 1 to 64 characters.",
        )  # fmt: skip
    for field in ("visitor_id", "session_id", "user_id", "item_id"):
        value = getattr(request, field)
        if value is not None and not 1 <= len(value) <= 256:
            raise BadRecord(
                "out_of_range", f"{field} has {len(value)} characters.", field=field,
                hint="An id has 1 to 256 characters; leave it out when there is none.",
            )  # fmt: skip
    if request.items is not None and len(request.items) > 1000:
        raise BadRecord(
            "out_of_range", f"items holds {len(request.items)} ids.", field="items", hint="Send the newest 50."
        )
    if len(request.exclude) > 1000:
        raise BadRecord(
            "out_of_range", f"exclude holds {len(request.exclude)} ids.", field="exclude",
            hint="Send what the page shows, at most 1,000 ids.",
        )  # fmt: skip
    for name in ("age", "latitude", "longitude") if request.context else ():
        value = request.context.get(name)
        if value is not None and number(value) is None:
            raise BadRecord(
                "wrong_type", f"context.{name} is no number.", field=f"context.{name}", hint="Send a number."
            )


def healthz(call: Call) -> Answer:
    """This worker answers."""
    return Answer(200, {"status": "ok", "worker": call.context.worker_name})


def readyz(call: Call) -> Answer:
    """200 only when a first slate can be served; else 503 with what is waited for."""
    waiting = call.context.recommender.waiting()
    if waiting:
        return Answer(
            503,
            {"error": {"code": "not_ready", "message": waiting, "field": "",
                       "hint": "Import or send items or events; `thinslice doctor` says more."}},
            ((b"retry-after", b"1"),),
        )  # fmt: skip
    return Answer(200, {"status": "ready", "worker": call.context.worker_name})


def metrics(call: Call) -> Answer:
    """Counters of all workers for a Prometheus scraper."""
    call.context.counters.publish()
    return Answer(
        200,
        exposition(call.context.metrics_folder),
        content_type=b"text/plain; version=0.0.4; charset=utf-8",
    )


def document(_call: Call) -> Answer:
    """This API as OpenAPI."""
    return Answer(200, openapi(API))


INTAKE = {
    202: "Durable. {accepted, rejected: [{index, code, message, field, hint}], not_stored_no_consent}",
    400: "All records are bad.",
    413: "Over 1 MB or 1,000 records.",
    503: "The disk is full; nothing was taken; retry.",
}

API = [
    JsonRoute("POST", "/v1/events", events, BROWSER, "Events, in batches.", list[WireEvent] | WireEvent, INTAKE),
    JsonRoute(
        "POST", "/v1/recommendations", recommendations, BROWSER, "One slate.", RecommendationRequest,
        {200: "{recommendation_id, policy, model_version, items: [{item_id, score, source, reason}]}"},
    ),
    JsonRoute(
        "GET", "/v1/items/{item_id}/similar", similar, BROWSER, "Items like one item.", None,
        {200: "{recommendation_id, policy, model_version, items: [{item_id, score, source, reason}]}"},
        {"item_id": "The item of the page.", "k": f"How many, 1 to {MAX_K}; 20 when absent.",
         "policy": "Another policy than `similar`.", "placement": "Where it stands; `similar` when absent.",
         "visitor_id": "The visitor.", "session_id": "The shop's own session.", "user_id": "The known user.",
         "consent": "none, measurement or personalization.", "exclude": "Ids that the page shows, with commas between.",
         "page_id": "The page view, whose placements show nothing twice."},
    ),
    JsonRoute("PUT", "/v1/items", items, SERVER, "Catalog items.", list[WireCatalogItem] | WireCatalogItem, INTAKE),
    JsonRoute("POST", "/v1/orders", orders, SERVER, "Orders.", list[WireOrder] | WireOrder, INTAKE),
    JsonRoute("GET", "/healthz", healthz, OPEN, "This worker answers.", None, {200: "It does."}),
    JsonRoute("GET", "/readyz", readyz, OPEN, "A slate can be served.", None, {200: "Yes.", 503: "Not yet."}),
    JsonRoute("GET", "/metrics", metrics, OPEN, "Counters for Prometheus.", None, {200: "Text."}),
    JsonRoute("GET", "/openapi.json", document, OPEN, "This document.", None, {200: "OpenAPI 3.1."}),
]  # fmt: skip
"""Every JSON route of the service."""

SIMILAR = frozenset(next(route.parameters for route in API if route.handler is similar)) | {"key"}
"""What the address of a question for similar items may say."""
