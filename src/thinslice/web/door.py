"""The JSON door: keys, origins, size limits and one error shape around every route of the API.

A door is a plain ASGI application for one path. It reads at most the allowed bytes of a body, finds the tenant by the
key, answers browsers' preflight questions, and turns every refusal into
`{"error": {"code", "message", "field", "hint"}}`. Routes that never wait it also answers in one go (`Door.at_once`).
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec
from starlette.types import Receive, Scope, Send

from thinslice.errors import BadInput, BadRecord, LogFull, NotAllowed, NotReady, ThinsliceError, TooLarge, UnknownName
from thinslice.store.keys import KeyInfo
from thinslice.web.context import Context

MAX_BODY_BYTES = 1_000_000
"""A longer body is refused."""

MAX_DRAINED_BYTES = 64_000_000
"""How much of a refused body is read and thrown away so that its sender gets to read the answer."""

DRAIN_S = 5.0
"""How long that may take, in seconds."""

STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}

Headers = Mapping[bytes, bytes]
encode = msgspec.json.Encoder().encode
_log = logging.getLogger("thinslice.web")


class Call(NamedTuple):
    """One request that got through the door."""

    context: Context
    key: KeyInfo | None
    headers: Headers
    query: dict[str, str]
    body: bytes
    now: datetime
    part: str = ""
    """What stands in the path where the route's path has a name in braces."""
    waited_s: float = 0.0
    """How long it waited for this worker."""

    @property
    def holder(self) -> KeyInfo:
        """The key of a route that needs one."""
        if self.key is None:
            raise NotAllowed("missing_key", "this route needs a key.", hint=KEY_HINT)
        return self.key


class Answer(NamedTuple):
    """What goes back: a status, a value that becomes JSON (or bytes as they are), and further headers."""

    status: int
    value: Any
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json"


class JsonRoute(NamedTuple):
    """One method of one path.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: With at most one name in braces, for a part of the path that the handler reads.
        handler: Answers a `Call`; a plain function when it never waits.
        kinds: Kinds of keys that open it; empty means that it is open.
        summary: One line for the OpenAPI page.
        body: The type of the body, for the OpenAPI page.
        answer: Status → what the answer holds, for the OpenAPI page.
        parameters: Name → what it means, of what may stand in the address, for the OpenAPI page.
    """

    method: str
    path: str
    handler: Callable[[Call], Answer | Awaitable[Answer]]
    kinds: frozenset[str]
    summary: str
    body: Any = None
    answer: Mapping[int, str] = {}
    parameters: Mapping[str, str] = {}

    @property
    def waits(self) -> bool:
        """Whether its answer may take a while, for the disk above all."""
        return inspect.iscoroutinefunction(self.handler)


KEY_HINT = "Send `Authorization: Bearer KEY`, or ?key=KEY with a publishable key; `thinslice init` makes keys."


class Door:
    """All methods of one path as one ASGI application.

    Args:
        context: The worker's belongings.
        routes: The methods, all of one path.
    """

    def __init__(self, context: Context, routes: Iterable[JsonRoute]) -> None:
        self._context = context
        self.routes = {route.method: route for route in routes}
        self.path = next(iter(self.routes.values())).path
        if "GET" in self.routes:
            self.routes["HEAD"] = self.routes["GET"]
        self._allow = ", ".join(sorted({*self.routes, "OPTIONS"})).encode()
        self._named = (b"x-worker", context.worker_name.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        context = self._context
        headers: Headers = dict(scope["headers"])
        extra: list[tuple[bytes, bytes]] = [self._named]
        unread = False
        try:
            query = queries(scope["query_string"])
            if scope["method"] == "OPTIONS":
                answer = self._preflight(context, headers, query, extra)
            else:
                route = self.routes.get(scope["method"])
                if route is None:
                    answer = error_answer(
                        405, "method_not_allowed", f"{scope['method']} is not possible on {self.path}.",
                        hint=f"Use {self._allow.decode()}.", headers=((b"allow", self._allow),),
                    )  # fmt: skip
                else:
                    key = self._enter(route, context, headers, query, extra)
                    body = b"" if route.method in ("GET", "HEAD") else await read_body(headers, receive)
                    found = route.handler(
                        Call(context, key, headers, query, body, datetime.now(UTC), scope.get("part", ""))
                    )
                    answer = found if isinstance(found, Answer) else await found
        except BodyTooLong as error:
            unread = True
            answer = error_answer(
                413, "too_large", f"the body is over {error.limit:,} bytes.", hint="Send it in smaller batches.",
                headers=((b"connection", b"close"),),
            )  # fmt: skip
        except SenderGone:
            return
        except Exception as error:
            answer = self._failed(scope["method"], error)
        context.counters.answer(self.path, answer.status)
        await self._send(scope, answer, extra, receive, send, unread=unread)

    def at_once(
        self, route: JsonRoute, headers: Headers, query_string: bytes, body: bytes, part: str, *, last: bool,
        waited_s: float = 0.0,
    ) -> bytes:  # fmt: skip
        """The whole HTTP/1.1 answer of a route that never waits, head and body in one piece.

        Args:
            route: One of `routes`; its handler is a plain function.
            headers: Of the request, names in lower case.
            query_string: Of the request.
            body: Complete, and within the limit.
            part: See `Call`.
            last: Whether the connection ends with this answer.
            waited_s: How long the request waited for this worker, in seconds.
        """
        extra: list[tuple[bytes, bytes]] = [self._named]
        try:
            query = queries(query_string)
            key = self._enter(route, self._context, headers, query, extra)
            answer = route.handler(Call(self._context, key, headers, query, body, datetime.now(UTC), part, waited_s))
            if not isinstance(answer, Answer):
                raise TypeError(f"{route.path}: a handler that waits cannot answer at once")
        except Exception as error:
            answer = self._failed(route.method, error)
        self._context.counters.answer(self.path, answer.status)
        content, lines = _ready(answer, extra)
        if last:
            lines.append((b"connection", b"close"))
        head = b"".join([b"%b: %b\r\n" % line for line in lines])
        return b"%b%b\r\n%b" % (STATUS_LINES[answer.status], head, content)

    def _failed(self, method: str, error: Exception) -> Answer:
        """What a refusal or a failure answers; a failure is written down with all that is known."""
        if isinstance(error, ThinsliceError):
            return refusal(error)
        _log.error("%s %s failed", method, self.path, exc_info=error)
        return error_answer(
            500, "internal", "the service failed at this request.", hint="It is in the service's log; please retry."
        )

    def _preflight(
        self, context: Context, headers: Headers, query: Mapping[str, str], extra: list[tuple[bytes, bytes]]
    ) -> Answer:
        origin = headers.get(b"origin", b"").decode("latin-1")
        if (
            origin
            and "key" in query
            and not origin_allowed(origin, origins_of(context, context.keys.lookup(query["key"])), headers)
        ):
            raise foreign(origin)
        if origin:
            extra += cors(origin)
        return Answer(
            204,
            b"",
            (
                (b"access-control-allow-methods", self._allow),
                (b"access-control-allow-headers", b"authorization, content-type"),
                (b"access-control-max-age", b"600"),
                (b"allow", self._allow),
            ),
        )

    def _enter(
        self,
        route: JsonRoute,
        context: Context,
        headers: Headers,
        query: Mapping[str, str],
        extra: list[tuple[bytes, bytes]],
    ) -> KeyInfo | None:
        """Checks the key and the origin; adds the headers that let a browser's page read the answer."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not route.kinds:
            if origin:
                extra += cors(origin)
            return None
        try:
            key = find_key(context, headers, query)
        except NotAllowed:
            if origin:
                extra += cors(origin)  # the refusal tells nothing of any tenant, and the page's author should read it
            raise
        if key.kind == "publishable" and origin:
            if not origin_allowed(origin, origins_of(context, key), headers):
                raise foreign(origin)
            extra += cors(origin)
        if key.kind not in route.kinds:
            needed = " or ".join(sorted(route.kinds))
            raise NotAllowed(
                "weak_key", f"{route.method} {route.path} needs a {needed} key, this one is {key.kind}.",
                hint="Secret keys belong on your server, never in a page.",
            )  # fmt: skip
        return key

    async def _send(
        self,
        scope: Scope,
        answer: Answer,
        extra: list[tuple[bytes, bytes]],
        receive: Receive,
        send: Send,
        *,
        unread: bool,
    ) -> None:
        content, headers = _ready(answer, extra)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        shown = b"" if scope["method"] == "HEAD" else content
        if unread:
            await send({"type": "http.response.body", "body": shown, "more_body": True})
            await drain(receive)
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.body", "body": shown})


def queries(query_string: bytes) -> dict[str, str]:
    """The parameters of an address.

    >>> queries(b"key=a%20b&k=")
    {'key': 'a b', 'k': ''}
    """
    return dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)) if query_string else {}


def _ready(answer: Answer, extra: list[tuple[bytes, bytes]]) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The body and the headers of an answer."""
    content = answer.value if isinstance(answer.value, bytes) else encode(answer.value)
    headers = [*extra, *answer.headers]
    if answer.status != 204:
        length = (b"content-length", b"%d" % len(content))
        headers += [(b"content-type", answer.content_type), length, (b"cache-control", b"no-store")]
    return content, headers


class BodyTooLong(TooLarge):
    """A body is over the limit and has not been read to its end."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is over {limit:,} bytes.")
        self.limit = limit


class SenderGone(ThinsliceError):
    """The sender closed the connection before its body was complete; there is nobody to answer."""


async def read_body(headers: Headers, receive: Receive, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body, never more than `limit` bytes of it.

    Raises:
        BodyTooLong: By its declared length, or as soon as more has arrived.
        SenderGone: The connection ended early.
    """
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise BodyTooLong(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise SenderGone("the sender closed the connection.")
    first: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(first) > limit:
            raise BodyTooLong(limit)
        return first
    chunks, size = [first], len(first)
    while message.get("more_body", False):
        if size > limit:
            raise BodyTooLong(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise SenderGone("the sender closed the connection.")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
    if size > limit:
        raise BodyTooLong(limit)
    return b"".join(chunks)


async def drain(receive: Receive) -> None:
    """Reads and throws away the rest of a refused body, within bounds, so that its sender reads the refusal."""
    size = 0
    deadline = time.monotonic() + DRAIN_S
    while size < MAX_DRAINED_BYTES and (left := deadline - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            return
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        size += len(message.get("body", b""))


def find_key(context: Context, headers: Headers, query: Mapping[str, str]) -> KeyInfo:
    """The key of a request: from `Authorization: Bearer`, else from `?key=` (publishable keys only).

    Raises:
        NotAllowed: `missing_key`, `unknown_key`, `revoked_key`, or `weak_key` for a secret in an address.
    """
    authorization = headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, token = authorization.partition(" ")
    in_query = not authorization
    if in_query:
        token = query.get("key", "")
    elif scheme.lower() != "bearer":
        raise NotAllowed("missing_key", f"the scheme {scheme[:20]!r} is not known here.", hint=KEY_HINT)
    token = token.strip()
    if not token:
        raise NotAllowed("missing_key", "there is no key in the request.", hint=KEY_HINT)
    key = context.keys.lookup(token)
    if in_query and key.kind != "publishable":
        raise NotAllowed(
            "weak_key", f"a {key.kind} key does not belong into an address, where logs keep it.",
            hint="Send it as `Authorization: Bearer KEY`.",
        )  # fmt: skip
    return key


def origins_of(context: Context, key: KeyInfo) -> list[str]:
    """Where pages that use this key may come from: the key's own list, else its tenant's."""
    if key.origins:
        return list(key.origins)
    tenant = context.settings.tenants.get(key.tenant)
    return tenant.origins if tenant is not None else []


def origin_allowed(origin: str, origins: Iterable[str], headers: Headers) -> bool:
    """Whether a page of `origin` may use a key: our own pages, the listed ones, and localhost when none is listed.

    >>> origin_allowed("https://a.example", ["https://a.example/"], {})
    True
    >>> origin_allowed("https://evil.example", [], {})
    False
    >>> origin_allowed("http://localhost:3000", [], {})
    True
    """
    listed = [each.rstrip("/").lower() for each in origins]
    if origin.lower() in listed or "*" in listed:
        return True
    try:
        parts = urlsplit(origin)
        host = parts.hostname
    except ValueError:
        return False
    if parts.netloc and parts.netloc.encode("latin-1", "replace") == headers.get(b"host", b""):
        return True
    return not listed and host in ("localhost", "127.0.0.1", "::1")


def cors(origin: str) -> list[tuple[bytes, bytes]]:
    """The headers that let a page of `origin` read the answer."""
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"x-worker, retry-after"),
        (b"vary", b"Origin"),
    ]


def foreign(origin: str) -> NotAllowed:
    """The refusal of a page that may not use this key."""
    return NotAllowed(
        "foreign_origin", f"pages of {origin[:200]} may not use this key.",
        hint="Add the page's origin to `origins` of the tenant in thinslice.toml and restart the service.",
    )  # fmt: skip


def error_answer(status: int, code: str, message: str, *, field: str = "", hint: str = "", headers: Any = ()) -> Answer:
    """The one shape of every refusal."""
    return Answer(status, {"error": {"code": code, "message": message, "field": field, "hint": hint}}, tuple(headers))


def refusal(error: ThinsliceError) -> Answer:
    """An error as an answer, by its place in the tree of `thinslice.errors`."""
    field = error.field if isinstance(error, BadRecord) else ""
    status, code = 500, "failed"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, NotAllowed):
        forbidden = error.code in ("foreign_origin", "weak_key")
        status, code = (403 if forbidden else 401), error.code
        headers = () if forbidden else ((b"www-authenticate", b"Bearer"),)
    elif isinstance(error, TooLarge):
        status, code = 413, "too_large"
    elif isinstance(error, UnknownName):
        status, code = 404, "unknown_name"
    elif isinstance(error, BadRecord):
        status, code = 400, error.code
    elif isinstance(error, BadInput):
        status, code = 400, "bad_input"
    elif isinstance(error, LogFull):
        status, code, headers = 503, "log_full", ((b"retry-after", b"5"),)
    elif isinstance(error, NotReady):
        status, code, headers = 503, "not_ready", ((b"retry-after", b"1"),)
    return error_answer(status, code, error.message, field=field, hint=error.hint, headers=headers)
