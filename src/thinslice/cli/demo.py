"""`thinslice demo`: a generated shop with shoppers and a live experiment, to look at until Ctrl-C."""

import http.client
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from thinslice.cli.init import HEAD, make_tenant
from thinslice.cli.workspace import json_option, print_json, to_workspace
from thinslice.errors import BadInput, NotAllowed, NotReady, StoreError, ThinsliceError
from thinslice.settings import Workspace, read_settings

TENANT = "shop"
TITLE = "Thinslice Home"
EXPERIMENT = "session-knn-vs-popular"
PLACEMENT = "home"
"""Where the simulated shoppers see slates; the pages of the demo shop stand outside of the experiment."""

VISITORS_PER_S = 18.0
DAYS = 14.0

PATIENCE_S = 24.0
"""So long after the start the demo waits for the session model before it shows the shop with what there is."""

SETTINGS = f"""{HEAD}
[lake]
commit_every_s = 5.0              # the demo looks at itself often; the default is 60

[training]
every_s = 60.0
"""

SHELVES = f"""
[tenants.{TENANT}.placements]          # what the demo shop's two shelves show
shop-window = "session-knn"
shop-popular = "popular"
"""


@click.command("demo", short_help="A shop, shoppers and a live experiment to look at, until Ctrl-C.")
@click.option("--workspace", type=to_workspace, default="./workspace-demo", show_default=True, metavar="DIR",
              help="The folder of the demo; it is made, or used again.")  # fmt: skip
@click.option("--host", help="Where to listen; 127.0.0.1 by default.")
@click.option("--port", type=click.IntRange(0, 65535), help="By default 8080, or any free one when that is taken.")
@click.option("--workers", type=click.IntRange(1, 64), help="Web workers; 2 by default.")
@json_option
def command(workspace: Workspace, host: str | None, port: int | None, workers: int | None, as_json: bool) -> None:
    """Fill a workspace with a generated shop and its past, serve it, and send simulated shoppers until Ctrl-C.

    With --json one line when it is ready: {"tenant", "workspace", "urls", "keys"}.
    """
    from thinslice.process import Service

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s demo %(levelname)s %(message)s")
    began = time.monotonic()
    keys, run_number = prepare(workspace)
    say(as_json, f"Filling {workspace.root} with a generated shop and its past ...")
    fill(workspace)
    settings = read_settings(workspace)
    service = Service(
        workspace,
        settings,
        host=host or settings.serve.host,
        port=settings.serve.port if port is None else port,
        workers=workers or settings.serve.workers,
    )
    try:
        service.open()
    except BadInput:
        if port is not None:
            raise
        service.port = 0
        service.open()
    try:
        say(as_json, "Starting, and training the first models ...")
        wait_for_slates(service, keys["secret"], until=began + PATIENCE_S)
        start_experiment(workspace)
        start_shoppers(service, workspace, keys, run_number)
        show(workspace, service.url, keys, as_json=as_json, took_s=time.monotonic() - began)
    except BaseException:
        service.close()
        raise
    service.run()
    say(as_json, "Ended. `thinslice demo` goes on where it stopped.")


def say(as_json: bool, text: str) -> None:
    """Tells a person what happens; a program gets its one line alone."""
    if not as_json:
        click.echo(text)


def prepare(workspace: Workspace) -> tuple[dict[str, str], int]:
    """Makes the workspace, or takes up one that a demo made before.

    Returns:
        The keys, and which run of the demo this is, from 0.

    Raises:
        BadInput: The workspace is somebody's own, not a demo's.
    """
    notes = workspace.root / "demo.json"
    if not workspace.settings_file.is_file():
        workspace.root.mkdir(parents=True, exist_ok=True)
        workspace.settings_file.write_text(SETTINGS, encoding="utf-8")
        keys, run_number = make_tenant(workspace, TENANT, title=TITLE), 0
        with workspace.settings_file.open("a", encoding="utf-8") as file:
            file.write(SHELVES)
    elif not notes.is_file():
        raise BadInput(
            f"{workspace.root} is a workspace, but not one that the demo made.",
            hint="Name another folder with --workspace; the demo does not touch your data.",
        )
    else:
        old = json.loads(notes.read_text(encoding="utf-8"))
        keys, run_number = working(workspace, old["keys"]), int(old["run"]) + 1
    write_private(notes, {"keys": keys, "run": run_number})
    return keys, run_number


def working(workspace: Workspace, keys: Mapping[str, str]) -> dict[str, str]:
    """The same keys, those that were revoked since replaced by new ones."""
    from thinslice.store.keys import Keys

    file = Keys(workspace.keys_file)
    good = {}
    for kind, key in keys.items():
        try:
            file.lookup(key)
        except NotAllowed:
            good[kind] = file.create(TENANT, kind)
        else:
            good[kind] = key
    return good


def write_private(path: Any, value: Any) -> None:
    """Writes JSON that only the owner can read: it holds keys."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file)
    draft.replace(path)


def fill(workspace: Workspace) -> None:
    """Writes the shop and its past, in a process of its own.

    Raises:
        StoreError: It failed.
    """
    command = [sys.executable, "-m", "thinslice.jobs.demo", str(workspace.root), TENANT]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StoreError(f"the shop could not be written: {done.stderr.strip().splitlines()[-1:]}.")


def wait_for_slates(service: Any, secret: str, *, until: float) -> None:
    """Waits for slates of the session model, or for Ctrl-C; after `until` any slate will do.

    Raises:
        NotReady: There is no slate at all 30 s after that.
    """
    said = ""
    while time.monotonic() < until + 30.0:
        service.tend()
        try:
            source = first_source(service.url, secret)
        except (OSError, http.client.HTTPException, ThinsliceError) as error:
            said = str(error)
        else:
            if source == "session-knn" or time.monotonic() > until:
                return
            said = f"slates come from {source}"
        if service.stopping:
            return
        time.sleep(0.1)
    raise NotReady(f"the service did not serve a slate: {said}.", hint="Its log, above, says why.")


def first_source(url: str, secret: str) -> str:
    """Where the first item of a slate comes from now, asked without leaving a trace.

    It asks only a worker that is ready: the Live page would count an empty slate of one that is not.

    Raises:
        NotReady: There is no slate yet.
    """
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=5)
    try:
        connection.request("GET", "/readyz")
        ready = connection.getresponse()
        ready.read()
        if ready.status != 200:
            raise NotReady("a worker is not ready")
        headers = {"Authorization": f"Bearer {secret}"}
        item = ask(connection, {"k": 1, "consent": "none"}, headers)["items"]
        if not item:
            raise NotReady("the slate is empty")
        question = {"k": 1, "consent": "none", "items": [item[0]["item_id"]]}
        return str(ask(connection, question, headers)["items"][0]["source"])
    finally:
        connection.close()


def ask(connection: http.client.HTTPConnection, question: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    """One slate.

    Raises:
        NotReady: The service answers otherwise.
    """
    connection.request("POST", "/v1/recommendations", json.dumps(question), headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise NotReady(f"status {answer.status}")
    value: dict[str, Any] = json.loads(body)
    return value


def start_experiment(workspace: Workspace) -> None:
    """Starts the demo's experiment, unless a run before did."""
    from thinslice.experiments import dump_experiment
    from thinslice.metrics import DEFAULT_METRICS
    from thinslice.records import Experiment, Variant

    path = workspace.experiments / TENANT / f"{EXPERIMENT}.toml"
    if path.is_file():
        return
    now = datetime.now(UTC)
    experiment = Experiment(
        name=EXPERIMENT,
        tenant=TENANT,
        hypothesis="Slates from what this visitor looked at sell more than what is popular with everyone.",
        variants=[
            Variant(name="popular", policy="popular", weight=0.5),
            Variant(name="session-knn", policy="session-knn", weight=0.5),
        ],
        metrics=list(DEFAULT_METRICS),
        placement=PLACEMENT,
        training="isolated",
        days=DAYS,
        started_at=now,
        ends_at=now + timedelta(days=DAYS),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(dump_experiment(experiment), encoding="utf-8")
    draft.replace(path)


def start_shoppers(service: Any, workspace: Workspace, keys: Mapping[str, str], run_number: int) -> None:
    """Sends the shoppers, in a process of their own; each run of the demo brings other people."""
    traffic = workspace.run / "shoppers.json"
    write_private(
        traffic,
        {
            "url": service.url,
            "publishable": keys["publishable"],
            "secret": keys["secret"],
            "tenant": TENANT,
            "seed": 1000 + run_number,
            "visitors_per_s": VISITORS_PER_S,
            "placement": PLACEMENT,
        },
    )
    service.add("shoppers", [sys.executable, "-m", "thinslice.jobs.shoppers", str(traffic)])


def show(workspace: Workspace, url: str, keys: Mapping[str, str], *, as_json: bool, took_s: float) -> None:
    """Prints where to look, and the keys."""
    from thinslice.web.login import issue_token

    token = issue_token(workspace, TENANT)
    urls = {
        "api": url,
        "shop": f"{url}/shop/",
        "console": f"{url}/console/login?token={token}",
        "experiment": f"{url}/console/experiments/{EXPERIMENT}",
    }
    if as_json:
        print_json({"tenant": TENANT, "workspace": str(workspace.root), "urls": urls, "keys": dict(keys)})
        sys.stdout.flush()
        return
    from rich.console import Console

    rows = {
        "Shop": urls["shop"],
        "Console": urls["console"],
        "Experiment": urls["experiment"],
        "API": f"{url}/openapi.json",
        **{f"{kind.capitalize()} key": keys[kind] for kind in ("publishable", "secret", "admin")},
    }
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"\n[bold]Ready after {took_s:.0f} s.[/] Simulated shoppers are on their way; Ctrl-C ends it.\n")
    for name, value in rows.items():
        console.print(f"  [bold]{name:<16}[/] {value}")
    console.print("\n  In the shop, view three things of one color and watch 'Chosen for you'.")
    console.print("  The console's link logs in once; the experiment fills within a minute.\n")
    sys.stdout.flush()
