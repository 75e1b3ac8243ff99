"""The web application of one worker: the JSON API, the console, the demo shop and the tag on one port."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import groupby
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thinslice.settings import Settings, Workspace
from thinslice.web import console, shop, tag
from thinslice.web.api import API
from thinslice.web.context import Context, close_context, open_context
from thinslice.web.door import Door, encode, error_answer

STATIC = Mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))

COUNT_EVERY_S = 1.0
"""How often a worker writes its last minute for the Live page."""

FOLLOW_EVERY_S = 0.25
"""How often a worker looks for changes of its catalogs while nobody asks."""

_log = logging.getLogger("thinslice.web")


def create_app(workspace: Workspace, settings: Settings, worker_name: str) -> Starlette:
    """Opens the stores of a workspace and builds the application of one worker around them.

    The application's `state.context` holds what was opened; it is closed when the application shuts down. Its
    `state.doors` are the JSON doors by path, for `thinslice.web.lane`.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    context = open_context(workspace, settings, worker_name, metrics_folder=Path(folder) if folder else None)
    by_path = groupby(sorted(API, key=lambda route: route.path), key=lambda route: route.path)
    doors = {path: Door(context, routes) for path, routes in by_path}

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        loops = [asyncio.create_task(each(context)) for each in (count, follow)]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            close_context(context)

    app = Starlette(
        routes=[STATIC, *tag.routes(context), *shop.routes(context), *console.routes(context)],
        middleware=[Middleware(Front, doors=doors, worker_name=worker_name)],
        exception_handlers={HTTPException: refuse, 500: failed},
        lifespan=lifespan,
    )
    app.state.context = context
    app.state.doors = doors
    return app


async def count(context: Context) -> None:
    """Writes this worker's counters about once a second, for as long as it runs."""
    steps = {
        "counters": lambda: context.counters.write(context.models.gave_way),
        "rules": lambda: context.counters.rules(context.recommender.slates.take_removed()),
        "late slates": lambda: context.counters.late(context.recommender.slates.take_late()),
        "last events": context.intake.note_waiting,
    }
    await keep_on(steps, COUNT_EVERY_S)


async def follow(context: Context) -> None:
    """Keeps the catalogs up to date also while nobody asks, so that no page meets the whole of a new feed."""

    def take_in() -> bool:
        return context.recommender.follow_catalogs(time.time())

    await keep_on({"catalogs": take_in, "shadows": context.shadows.step}, FOLLOW_EVERY_S)


async def keep_on(steps: Mapping[str, Callable[[], object]], every_s: float) -> None:
    """Takes steps for ever; one that returns True is taken again at once, after whatever waits for the loop.

    What fails is named in the log once, and tried again the next time.
    """
    broken: set[str] = set()
    while True:
        for name, step in steps.items():
            try:
                while step() is True:
                    await asyncio.sleep(0)
            except Exception as error:  # whatever it is: the loop goes on, for the other steps and the next second
                if name not in broken:
                    _log.exception("%s: %s; it is tried again every %s s", name, error, every_s)
                broken.add(name)
            else:
                broken.discard(name)
        await asyncio.sleep(every_s)


class Front:
    """The outermost layer: goes straight to a JSON door when the path is one, and names the worker in every answer.

    Args:
        app: The pages.
        doors: Path → door.
        worker_name: For the header X-Worker.
    """

    def __init__(self, app: ASGIApp, doors: dict[str, Door], worker_name: str) -> None:
        self._app = app
        self._doors = doors
        self._patterns: list[tuple[str, str, Door]] = []
        for path, door in doors.items():
            if "{" in path:
                begin, _, end = path.replace("}", "{").split("{")
                self._patterns.append((begin, end, door))
        self._header = (b"x-worker", worker_name.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        door = self._doors.get(scope["path"]) or self._by_pattern(scope)
        if door is not None:
            await door(scope, receive, send)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), self._header]
            await send(message)

        await self._app(scope, receive, named)

    def _by_pattern(self, scope: Scope) -> Door | None:
        """The door of a path with a part of its own, which the scope then holds."""
        path = scope["path"]
        for begin, end, door in self._patterns:
            if path.startswith(begin) and path.endswith(end) and len(path) > len(begin) + len(end):
                scope["part"] = path[len(begin) : len(path) - len(end)]
                return door
        return None


async def refuse(request: Request, error: Exception) -> Response:
    """What a page's route refuses, or a path that does not exist, in the one error shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(getattr(error, "headers", None) or {})
    path = request.url.path
    if status == 404:
        message, hint = f"there is nothing at {path[:200]}.", "/openapi.json lists every route of the API."
        answer = error_answer(404, "not_found", message, hint=hint)
    elif status == 405:
        hint = f"Use {headers.get('Allow', 'GET')}."
        answer = error_answer(
            405, "method_not_allowed", f"{request.method} is not possible on {path[:200]}.", hint=hint
        )
    else:
        detail = getattr(error, "detail", "") or "the request was refused"
        answer = error_answer(status, "refused", f"{detail}.")
    return Response(encode(answer.value), status_code=status, headers=headers, media_type="application/json")


async def failed(_request: Request, _error: Exception) -> Response:
    """What a page could not answer; the error itself is in the service's log."""
    answer = error_answer(
        500, "internal", "the service failed at this request.", hint="It is in the service's log; please retry."
    )
    return Response(encode(answer.value), status_code=500, media_type="application/json")
