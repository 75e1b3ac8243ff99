"""`thinslice rules`: what a shop forbids, prefers and pins, and what each rule takes out of a slate."""

from typing import TYPE_CHECKING, Any

import click
import msgspec

from thinslice.cli.recommend import MAX_K, context_of, items_of, look
from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from thinslice.serving.question import Look


@click.group("rules", short_help="What a shop forbids, prefers and pins; what each rule takes out of a slate.")
def command() -> None:
    """Rules stand in thinslice.toml, as tables [[tenants.NAME.rules]]; docs/reference/settings.md lists their kinds."""


@command.command("list", short_help="The rules of a tenant.")
@workspace_option
@click.option("--tenant", default="shop", show_default=True, help="Whose rules.")
@json_option
def list_rules(workspace: Workspace, tenant: str, as_json: bool) -> None:
    """The rules of a tenant in the order of the file: name, kind, where they hold, and whether they always hold."""
    from thinslice.recommend.rules import is_filter, is_hard, name_of

    rows = []
    for place, rule in enumerate(read_settings(workspace).tenant(tenant).rules):
        fields = msgspec.to_builtins(rule)
        row: dict[str, Any] = {
            "name": name_of(rule, place),
            "kind": fields.pop("kind"),
            "placement": fields.pop("placement"),
            "always_holds": is_filter(rule) and is_hard(rule),
        }
        rows.append(row | {"settings": {name: each for name, each in fields.items() if name not in row and each not in
                                        (None, [], {}, "")}})  # fmt: skip
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(f"Tenant {tenant} has no rules of its own; docs/reference/settings.md shows how to write one.")
    for row in rows:
        said = ", ".join(f"{name} = {value}" for name, value in row["settings"].items() if name != "hard")
        where = "everywhere" if row["placement"] == "*" else f"at {row['placement']}"
        always = "; always holds" if row["always_holds"] else ""
        click.echo(f"{row['name']}: {row['kind']} {where}{': ' if said else ''}{said}{always}")


@command.command("preview", short_help="A slate before and after the rules.")
@workspace_option
@click.option("--tenant", default="shop", show_default=True, help="Whose rules, catalog and models.")
@click.option("--session", "session", default="", metavar="ITEM,ITEM", help="The session's items, oldest first.")
@click.option("--item", "item_id", help="The item of the page.")
@click.option("--visitor", "visitor_id", help="A visitor: their live session counts when no --session is given.")
@click.option("--placement", default="default", show_default=True, help="Where the slate would stand.")
@click.option("--policy", help="A policy by name, instead of the placement's.")
@click.option("--context", default="", metavar="JSON", help='What rules may ask: {"age": 17, "latitude": 52.5, …}.')
@click.option("-k", "k", type=click.IntRange(1, MAX_K), default=20, show_default=True, help="How many items.")
@json_option
def preview(
    workspace: Workspace,
    tenant: str,
    session: str,
    item_id: str | None,
    visitor_id: str | None,
    placement: str,
    policy: str | None,
    context: str,
    k: int,
    as_json: bool,
) -> None:
    """A slate as the models alone would rank it, the slate that is shown, and what each rule took out.

    Change thinslice.toml, look again, and restart the service when it is right: nothing is logged or counted here.
    """
    from thinslice.records import RecommendationRequest

    request = RecommendationRequest(
        placement=placement, k=k, visitor_id=visitor_id, item_id=item_id, policy=policy, items=items_of(session),
        context=context_of(context), consent="personalization",
    )  # fmt: skip
    found = look(workspace, tenant, request)
    if as_json:
        print_json(_as_json(tenant, placement, found))
        return
    _print(found)


def _as_json(tenant: str, placement: str, found: "Look") -> dict[str, Any]:
    return {
        "tenant": tenant,
        "placement": placement,
        "policy": found.answer.policy,
        "before": [
            {"item_id": item.item_id, "score": item.score, "source": item.source,
             "removed_by": found.blocked.get(item.item_id)}
            for item in found.before
        ],
        "after": [
            {"item_id": item.item_id, "score": item.score, "source": item.source, "boosts": dict(boosts)}
            for item, boosts in zip(found.answer.items, found.boosts, strict=True)
        ],
        "removed": dict(found.removed),
        "spread": {"before": found.spread[0], "after": found.spread[1]},
        "note": found.answer.note,
    }  # fmt: skip


def _print(found: "Look") -> None:
    if found.answer.note:
        click.echo(found.answer.note)
    before = [f"{item.item_id}  ({found.blocked[item.item_id]})" if item.item_id in found.blocked else item.item_id
              for item in found.before]  # fmt: skip
    after = [item.item_id + ("  (pin)" if item.source == "pin" else "") for item in found.answer.items]
    width = max([len("before"), *map(len, before)])
    click.echo(f"     {'before':<{width}}  after ({found.answer.policy})")
    for place in range(max(len(before), len(after))):
        left = before[place] if place < len(before) else ""
        right = after[place] if place < len(after) else ""
        click.echo(f"{place + 1:>3}  {left:<{width}}  {right}".rstrip())
    for name, count in found.removed.items():
        click.echo(f"{name} took out {count:,}.")
    click.echo(f"Items unlike each other: {found.spread[0]:.0%} before, {found.spread[1]:.0%} after.")
