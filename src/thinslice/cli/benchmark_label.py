"""Labels of a benchmark: slates that people pick by hand, from a file or one query at a time in the terminal."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from thinslice.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from thinslice.evaluation.benchmark import Benchmark, Frozen, Query
    from thinslice.records import Item
    from thinslice.settings import Workspace

PROPOSED = 8
"""How many items each of the proposing models names."""


def picks_of(workspace: Workspace, head: Benchmark) -> dict[str, list[str]]:
    """Query → picked items, best first: those of most people, then those that stand furthest up.

    A person's newest word on an item counts; a place of -1 took it back.
    """
    from thinslice.store.lake import Lake

    lake = Lake(workspace.lake)
    connection = lake.connect(tenant=head.tenant)
    try:
        rows = connection.execute(
            """
            SELECT query_id, item_id FROM labels WHERE benchmark = ? AND place >= 0
            GROUP BY query_id, item_id ORDER BY query_id, count(*) DESC, avg(place), item_id
            """,
            [head.name],
        ).fetchall()
    finally:
        connection.close()
    found: dict[str, list[str]] = {}
    for query_id, item_id in rows:
        found.setdefault(query_id, []).append(item_id)
    return found


def keep(workspace: Workspace, head: Benchmark, picks: Mapping[str, Sequence[str]], person: str) -> int:
    """Writes picks into the lake's table `labels`; what the person picked before for these queries is taken back."""
    from thinslice.store.lake import Lake
    from thinslice.store.schemas import Label

    lake = Lake(workspace.lake)
    now = datetime.now(UTC)
    connection = lake.connect(tenant=head.tenant)
    try:
        before = connection.execute(
            "SELECT query_id, item_id FROM labels WHERE benchmark = ? AND labeled_by = ? AND place >= 0",
            [head.name, person],
        ).fetchall()
    finally:
        connection.close()
    common: dict[str, Any] = {"tenant": head.tenant, "benchmark": head.name, "labeled_at": now, "labeled_by": person}
    rows = [Label(query_id=query_id, item_id=item_id, place=place, **common)
            for query_id, chosen in picks.items() for place, item_id in enumerate(dict.fromkeys(chosen))]  # fmt: skip
    rows += [Label(query_id=query_id, item_id=item_id, place=-1, **common)
             for query_id, item_id in before if query_id in picks and item_id not in picks[query_id]]  # fmt: skip
    if rows:
        lake.append("labels", rows)
    return sum(row.place >= 0 for row in rows)


def read_picks(path: Path, frozen: Frozen) -> dict[str, list[str]]:
    """Picks from a CSV (query_id, item_id, place if it has one) or JSON Lines (the same, or item_ids as a list).

    Raises:
        BadInput: It cannot be read, a line lacks a field, or a query is not of this benchmark; the line is named.
    """
    if not path.is_file():
        raise BadInput(f"there is no file {path}.")
    known = {query.query_id for query in frozen.queries}
    rows: list[tuple[str, float, str]] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}.") from None
    is_json = path.suffix.lower() in (".jsonl", ".ndjson", ".json")
    parsed = ((n, _json_row(path, n, line)) for n, line in enumerate(lines, 1) if line.strip()) if is_json else (
        (n, row) for n, row in enumerate(csv.DictReader(lines), 2))  # fmt: skip
    for number, row in parsed:
        query_id = str(row.get("query_id") or "").strip()
        items = row.get("item_ids") if isinstance(row.get("item_ids"), list) else [row.get("item_id")]
        if not query_id or not items or any(item in (None, "") for item in items):
            raise BadInput(f"{path}:{number}: query_id and item_id are needed.")
        if query_id not in known:
            raise BadInput(f"{path}:{number}: {query_id!r} is no query of this benchmark.")
        try:
            place = float(row["place"]) if row.get("place") not in (None, "") else float(number)
        except (TypeError, ValueError):
            raise BadInput(f"{path}:{number}: place must be a number, it is {row['place']!r}.") from None
        rows += [(query_id, place + at / 1000, str(item).strip()) for at, item in enumerate(items)]
    found: dict[str, list[str]] = {}
    for query_id, _, item in sorted(rows, key=lambda each: (each[0], each[1])):
        found.setdefault(query_id, []).append(item)
    if not found:
        raise BadInput(f"{path} holds no picks.", hint="It needs the columns query_id and item_id.")
    return found


def export(path: Path, frozen: Frozen, items: Sequence[Item]) -> None:
    """Writes the queries as people read them: what was known, and what could be picked; never what was clicked."""
    titles = _titles(items)
    proposals = propose(frozen, frozen.queries, items)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "known", "proposed_ids", "proposed_titles"])
        for query, proposed in zip(frozen.queries, proposals, strict=True):
            writer.writerow(
                [query.query_id, " > ".join(titles.get(item, item) for item in query.session),
                 " ".join(proposed), " | ".join(titles.get(item, item) for item in proposed)]
            )  # fmt: skip


def propose(frozen: Frozen, queries: Sequence[Query], items: Sequence[Item]) -> list[list[str]]:
    """What people can pick from without searching: popular items and those of like sessions, in no telling order."""
    from thinslice.models import Popular, SessionKNN

    models: list[Any] = [SessionKNN.fit(frozen.train, items), Popular.fit(frozen.train, items)]
    found = []
    for query in queries:
        names = {item for model in models for item in model.recommend(query.session, PROPOSED).item_ids}
        found.append(sorted(names, key=lambda item: hash_of(query.query_id, item)))
    return found


def hash_of(query_id: str, item_id: str) -> int:
    """The same order on every machine, and none that tells which model named an item."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(f"{query_id}\0{item_id}".encode(), digest_size=8).digest(), "big")


def ask(
    workspace: Workspace, head: Benchmark, frozen: Frozen, items: Sequence[Item], person: str, count: int
) -> dict[str, list[str]]:
    """Asks a person about queries that they have not labeled yet, until `count`, or until they stop."""
    from thinslice.store.lake import Lake

    connection = Lake(workspace.lake).connect(tenant=head.tenant)
    try:
        done = {row[0] for row in connection.execute(
            "SELECT DISTINCT query_id FROM labels WHERE benchmark = ? AND labeled_by = ?", [head.name, person]
        ).fetchall()}  # fmt: skip
    finally:
        connection.close()
    titles = _titles(items)
    known = set(frozen.train.item_ids) | {item.item_id for item in items}
    open_ones = [query for query in frozen.queries if query.query_id not in done][:count]
    found: dict[str, list[str]] = {}
    for number, (query, proposed) in enumerate(zip(open_ones, propose(frozen, open_ones, items), strict=True), start=1):
        click.echo(f"\n{number} of {len(open_ones)}, {query.query_id}. The visitor looked at, the newest last:")
        for item in query.session[-10:]:
            click.echo(f"      {_named(item, titles)}")
        click.echo("What would you show? Numbers or item ids, best first; empty passes on, q ends.")
        for place, item in enumerate(proposed, start=1):
            click.echo(f"  {place:>3} {_named(item, titles)}")
        while True:
            answer = click.prompt("Picks", default="", show_default=False).replace(",", " ").split()
            if answer == ["q"]:
                return found
            chosen = [proposed[int(word) - 1] if word.isdigit() and 0 < int(word) <= len(proposed) else word
                      for word in answer]  # fmt: skip
            strange = [item for item in chosen if item not in known]
            if not strange:
                break
            click.echo(f"There is no item {', '.join(strange)}.")
        if chosen:
            found[query.query_id] = chosen
    return found


def _titles(items: Sequence[Item]) -> dict[str, str]:
    return {item.item_id: item.title for item in items if item.title}


def _named(item: str, titles: Mapping[str, str]) -> str:
    return f"{item}  {titles[item]}" if item in titles else item


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}:{number}: this is no JSON: {error.msg}.") from None
    if not isinstance(row, dict):
        raise BadInput(f"{path}:{number}: a line must be an object with query_id and item_id.")
    return row
