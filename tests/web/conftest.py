"""One worker's whole application, answering on a real port."""

import contextlib
import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from thinslice.cli.init import make_tenant
from thinslice.settings import Workspace, read_settings
from thinslice.web.app import create_app


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Worker:
    workspace: Workspace
    port: int
    keys: dict[str, str]
    context: Any
    app: Any

    def ask(self, method: str, path: str, value: Any = None, *, key: str | None = None, headers=None) -> Answer:
        body = value if isinstance(value, bytes | None) else json.dumps(value).encode()
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {self.keys.get(key, key)}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            headers = {name.lower(): text for name, text in answer.getheaders()}
            return Answer(answer.status, headers, answer.read())


@contextlib.contextmanager
def serving(workspace: Workspace, keys: dict[str, str]):
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(workspace, read_settings(workspace), "w1")
    config = uvicorn.Config(app, lifespan="on", log_config=None, ws="none", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield Worker(workspace, listener.getsockname()[1], keys, app.state.context, app)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    keys = make_tenant(workspace, "shop")
    items = [{"item_id": f"i{number}", "title": f"Thing {number}"} for number in range(30)]
    with serving(workspace, keys) as worker:
        assert worker.ask("PUT", "/v1/items", items, key="secret").status == 202
        yield worker
