"""A small HTTP client for jobs that talk to the service as a shop would: JSON over a few connections kept open."""

import asyncio
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httptools
import msgspec

from thinslice.errors import BadInput

_READ_BYTES = 65_536


class Answer(NamedTuple):
    """What the service said.

    Attributes:
        status: The HTTP status.
        headers: Names in lower case.
        body: As it came.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Posts JSON over at most `connections` connections at once, which are kept open between requests.

    Args:
        url: `http://HOST:PORT`.
        connections: How many requests may be under way; more wait.
        timeout_s: Longest time for one request, connecting included.

    Raises:
        BadInput: The address is not `http://HOST:PORT`.
    """

    def __init__(self, url: str, *, connections: int = 8, timeout_s: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise BadInput(f"{url!r} is not an address of the service.", hint="Like http://127.0.0.1:8080.")
        self._host, self._port = parts.hostname, parts.port or 80
        self._name = parts.netloc
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(connections)
        self._idle: list[_Line] = []

    async def post(self, path: str, key: str, value: Any) -> Answer:
        """Sends one value as JSON and waits for the answer.

        Raises:
            OSError: There is no service, or it broke off; a request that took too long is a TimeoutError, which is one.
        """
        body = msgspec.json.encode(value)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._name}\r\nAuthorization: Bearer {key}\r\n"
            f"User-Agent: Mozilla/5.0 (simulated shopper)\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        async with self._room:
            line = self._idle.pop() if self._idle else None
            try:
                async with asyncio.timeout(self._timeout_s):
                    if line is None:
                        line = _Line(*await asyncio.open_connection(self._host, self._port))
                    answer = await line.ask(head.encode("latin-1") + body)
            except BaseException:
                if line is not None:
                    line.close()
                raise
            if line.keeps:
                self._idle.append(line)
            else:
                line.close()
            return answer

    def close(self) -> None:
        """Closes the connections that wait for a request."""
        while self._idle:
            self._idle.pop().close()


class _Line:
    """One connection; also what the parser reports to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._complete = False
        self.keeps = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        self._complete = True

    async def ask(self, request: bytes) -> Answer:
        """Writes one request and reads one answer.

        Raises:
            ConnectionError: The other side broke off, or what it sent is not HTTP.
        """
        self._headers, self._body, self._complete = {}, [], False
        parser = httptools.HttpResponseParser(self)
        self._writer.write(request)
        await self._writer.drain()
        while not self._complete:
            part = await self._reader.read(_READ_BYTES)
            if not part:
                raise ConnectionResetError("the service closed the connection before its answer was complete")
            try:
                parser.feed_data(part)
            except httptools.HttpParserError as error:
                raise ConnectionError(f"the answer is not HTTP: {error}") from None
        self.keeps = self._headers.get("connection", "keep-alive").lower() != "close"
        return Answer(int(parser.get_status_code()), self._headers, b"".join(self._body))

    def close(self) -> None:
        """Drops the connection."""
        self._writer.close()
