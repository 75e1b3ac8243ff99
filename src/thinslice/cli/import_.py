"""`thinslice import`: a shop's own events, items, orders, users or edges become rows of the lake."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.errors import BadInput
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from thinslice.jobs.load import Loaded

SHOWN_LINES = 20
"""So many bad rows of a file are printed."""

_WHO = {"session_id", "visitor_id", "user_id"}
_EMPTY = {"items": ": an item leaves the slates by in_stock = false or status = retired, not by its absence"}


@click.command("import", short_help="Read events, items, orders, users or edges from files.")
@click.argument("kind", type=click.Choice(("events", "items", "orders", "users", "edges")))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@workspace_option
@click.option("--tenant", default="shop", show_default=True, help="Whose rows these are.")
@click.option("--format", "file_format", type=click.Choice(("auto", "csv", "jsonl", "parquet")), default="auto")
@click.option("--map", "maps", multiple=True, metavar="COL=FIELD", help="Which field a column is; may be repeated.")
@click.option("--replace", is_flag=True, help="Take back first what the file brought when it was read another way.")
@click.option("--add", is_flag=True, help="Read it also this way, beside what it brought when it was read another way.")
@json_option
def command(
    kind: str,
    files: tuple[Path, ...],
    workspace: Workspace,
    tenant: str,
    file_format: str,
    maps: tuple[str, ...],
    replace: bool,
    add: bool,
    as_json: bool,
) -> None:
    """Read events, items, orders, users or edges from CSV, JSON Lines or Parquet files.

    Every file is looked at before the first is read. Columns are guessed by their names. Bad rows are quarantined and
    named; the same file twice changes nothing, and with another --map it is refused unless --replace or --add says how.
    """
    from thinslice.jobs.load import check_file, load

    read_settings(workspace).tenant(tenant)
    told = dict(_pair(each) for each in maps)
    if replace and add:
        raise BadInput("--replace and --add: a file is read anew or twice.", hint="Leave one of them away.")
    how: dict[str, Any] = {
        "file_format": file_format, "told": told, "read_before": "replace" if replace else "add" if add else "refuse",
    }  # fmt: skip
    for path in files:
        check_file(workspace, kind, path, tenant, now=datetime.now(UTC), **how)
    results: list[Loaded] = []
    for path in files:
        with _Bar(path.name) as bar:
            results.append(load(workspace, kind, path, tenant, now=datetime.now(UTC), progress=bar.show, **how))
        if not as_json:
            _print(results[-1], kind)
    if as_json:
        print_json(_totals(results))
    read = sum(result.read for result in results)
    if read and all(result.read == result.quarantined for result in results):
        codes = {bad.code for result in results for bad in result.bad}
        hint = "`thinslice quarantine list` says why; see --map."
        if codes == {"bad_utf8"}:
            hint = "Save the file as UTF-8 (spreadsheets call that `CSV UTF-8`) and import it again."
        raise BadInput(f"all {read:,} rows are bad.", hint=hint)


class _Bar:
    """A progress bar on stderr, when that is a terminal."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._shown = False

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\n")

    def show(self, done: int, total: int) -> None:
        """Draws the bar; `done` of `total` bytes or rows."""
        if not sys.stderr.isatty():
            return
        share = done / total if total else 1.0
        full = round(30 * share)
        sys.stderr.write(f"\r{self._label}  {'█' * full}{'░' * (30 - full)}  {share:4.0%}")
        sys.stderr.flush()
        self._shown = True


def _pair(text: str) -> tuple[str, str]:
    column, sign, field = text.rpartition("=")
    if not sign or not column or not field:
        raise BadInput(f"--map {text!r} is not COL=FIELD.", hint="Write --map ItemId=item_id, for instance.")
    return column, field


def _print(result: "Loaded", kind: str) -> None:
    taken = ", ".join(f"{column} → {field}" if column != field else column for column, field in result.columns.items())
    click.echo(
        f"{result.file}: {result.read:,} rows read, {result.kept:,} kept, {result.known:,} known already, "
        f"{result.quarantined:,} quarantined."
    )
    click.echo(f"  columns: {taken}" + (f"; ignored: {', '.join(result.ignored)}" if result.ignored else ""))
    if result.taken_back:
        click.echo(
            f"  {result.taken_back:,} rows of the reading before were taken back first; train anew to forget them."
        )
    if result.note:
        click.echo(f"  {result.note}")
    if result.not_stored_no_consent:
        click.echo(f"  {result.not_stored_no_consent:,} rows without consent were not stored.")
    if result.order_only:
        click.echo("  the times only tell the order: they were laid one second apart, from 2000-01-01.")
    if not result.read:
        click.echo(f"  the file holds no rows, so nothing changed{_EMPTY.get(kind, '')}.")
    elif kind == "events" and not _WHO & set(result.columns.values()):
        click.echo(
            "  no column says whose events these are, so that nothing is learned from them: "
            "--replace --map COLUMN=session_id (or visitor_id, user_id)."
        )
    for bad in result.bad[:SHOWN_LINES]:
        click.echo(f"  line {bad.line}: {bad.reason} [{bad.code}]")
    if result.quarantined > SHOWN_LINES:
        more = result.quarantined - SHOWN_LINES
        click.echo(f"  … and {more:,} more; `thinslice quarantine list` shows the {kind} that were refused.")


def _totals(results: "list[Loaded]") -> dict[str, object]:
    files = [{**result._asdict(), "bad": [bad._asdict() for bad in result.bad]} for result in results]
    names = ("read", "kept", "known", "quarantined", "not_stored_no_consent")
    return {**{name: sum(getattr(result, name) for result in results) for name in names}, "files": files}
