"""`thinslice serve`: runs the service in the foreground until Ctrl-C or SIGTERM."""

import logging
import shlex

import click

from thinslice.cli.workspace import workspace_option
from thinslice.errors import BadInput
from thinslice.settings import Workspace, read_settings


@click.command("serve", short_help="Run the service: web workers and jobs.")
@workspace_option
@click.option("--host", help="Where to listen; by default as in the settings, 127.0.0.1.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="0 takes any free port; by default as in the settings, 8080."
)
@click.option("--workers", type=click.IntRange(1, 64), help="Web workers; by default as in the settings, 2.")
def command(workspace: Workspace, host: str | None, port: int | None, workers: int | None) -> None:
    """Run the service: web workers and jobs, until Ctrl-C or SIGTERM."""
    from thinslice.process import Service

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s serve %(levelname)s %(message)s")
    settings = read_settings(workspace)
    if not settings.tenants:
        raise BadInput(
            f"{workspace.settings_file} names no tenant.",
            hint=f"`thinslice init --workspace {shlex.quote(str(workspace.root))}` adds one.",
        )
    service = Service(
        workspace,
        settings,
        host=host or settings.serve.host,
        port=settings.serve.port if port is None else port,
        workers=workers or settings.serve.workers,
    )
    service.open()
    click.echo(f"Serving {workspace.root} at {service.url} (Ctrl-C ends it)")
    service.run()
    click.echo("Ended; every acknowledged event is on the disk.")
