"""`thinslice recommend`: one slate for a session, straight from the workspace, without a running service."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.errors import BadInput
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thinslice.records import RecommendationRequest
    from thinslice.serving.question import Look

MAX_K = 500


@click.command("recommend", short_help="One slate for a session, in the terminal.")
@workspace_option
@click.option("--tenant", default="shop", show_default=True, help="Whose catalog and models.")
@click.option("--session", "session", default="", metavar="ITEM,ITEM", help="The session's items, oldest first.")
@click.option("--item", "item_id", help="The item of the page.")
@click.option("--visitor", "visitor_id", help="A visitor: their live session counts when no --session is given.")
@click.option("--user", "user_id", help="A known user: what they did before counts too, where the model knows users.")
@click.option("--placement", default="default", show_default=True, help="Where the slate would stand.")
@click.option("--policy", help="A policy by name, instead of the placement's.")
@click.option("--context", default="", metavar="JSON", help='What rules may ask: {"age": 17, "latitude": 52.5, …}.')
@click.option("-k", "k", type=click.IntRange(1, MAX_K), default=20, show_default=True, help="How many items.")
@click.option("--explain", is_flag=True, help="What made each score, and what each rule took out.")
@json_option
def command(
    workspace: Workspace,
    tenant: str,
    session: str,
    item_id: str | None,
    visitor_id: str | None,
    user_id: str | None,
    placement: str,
    policy: str | None,
    context: str,
    k: int,
    explain: bool,
    as_json: bool,
) -> None:
    """One slate for a session, as the service would answer it. Nothing is logged, so no experiment counts it."""
    from thinslice.records import RecommendationRequest

    request = RecommendationRequest(
        placement=placement, k=k, visitor_id=visitor_id, user_id=user_id, item_id=item_id, policy=policy,
        items=items_of(session), context=context_of(context), consent="personalization",
    )  # fmt: skip
    found = look(workspace, tenant, request)
    if as_json:
        value = msgspec.to_builtins(found.answer)
        if explain:
            value["explain"] = [
                {
                    "item_id": item.item_id,
                    "terms": {name: share + 0.0 for name, share in terms.items()},
                    "boosts": dict(boosts),
                }
                for item, terms, boosts in zip(found.answer.items, found.terms, found.boosts, strict=True)
            ]
            value["removed"] = dict(found.removed)
        print_json(value)
        return
    _print(found, explain=explain)


def items_of(session: str) -> list[str] | None:
    """The items of `--session`; None when it is not given.

    Raises:
        BadInput: It is given and names no item.
    """
    items = [each.strip() for each in session.split(",") if each.strip()]
    if session and not items:
        raise BadInput(f"--session {session!r} names no item.", hint="Write --session ITEM,ITEM, the oldest first.")
    return items or None


def context_of(text: str) -> dict[str, Any]:
    """What `--context` says.

    Raises:
        BadInput: It is no JSON object, or `age`, `latitude` or `longitude` is no number.
    """
    from thinslice.recommend.rules import number

    try:
        context = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise BadInput(f"--context is no JSON: {error}.", hint="Write --context '{\"age\": 17}'.") from None
    if not isinstance(context, dict):
        raise BadInput(f"--context must be an object, it is {text[:60]}.", hint="Write --context '{\"age\": 17}'.")
    for name in ("age", "latitude", "longitude"):
        if context.get(name) is not None and number(context[name]) is None:
            raise BadInput(f"--context: {name} must be a number, it is {json.dumps(context[name])}.")
    return context


def look(workspace: Workspace, tenant: str, request: "RecommendationRequest") -> "Look":
    """The service's answer to a request with its making laid open; nothing is logged.

    Raises:
        UnknownName: There is no such tenant.
    """
    from thinslice.serving import ExperimentFiles, ModelHost, RecommendationIds, Recommender, read_secret
    from thinslice.serving.issued import SECRET_FILE
    from thinslice.store.artifacts import FileArtifacts
    from thinslice.store.live import LiveDB

    settings = read_settings(workspace)
    settings.tenant(tenant)
    live = LiveDB(workspace.live, settings.live.map_mb)
    try:
        if not live.item_changes(tenant, 0)[1] and (workspace.lake / "items").is_dir():
            from thinslice.jobs.refill import refill_catalog
            from thinslice.store.lake import Lake

            refill_catalog(Lake(workspace.lake), live, [tenant])
        models = ModelHost(FileArtifacts(workspace.models), [tenant])
        models.refresh(0.0)
        ids = RecommendationIds(read_secret(workspace.root / SECRET_FILE))
        recommender = Recommender(settings, live, models, ExperimentFiles(workspace.experiments), ids, None)
        return recommender.look(tenant, request, "secret", datetime.now(UTC))
    finally:
        live.close()


def _print(found: "Look", *, explain: bool) -> None:
    answer = found.answer
    if answer.note:
        click.echo(answer.note)
    if not answer.items:
        click.echo(f"Policy {answer.policy} shows nothing here (models: {answer.model_version}).")
        return
    click.echo(f"Policy {answer.policy}, models {answer.model_version}.")
    width = max(len(item.item_id) for item in answer.items)
    for place, item in enumerate(answer.items):
        score = item.score + 0.0  # no -0
        click.echo(f"{place + 1:>3}  {item.item_id:<{width}}  {score:>10.4g}  {item.source:<12} {item.reason}")
        if explain:
            words = terms_of(found.terms[place], score)
            words += [f"rule {name}: × {factor:g}" for name, factor in found.boosts[place].items()]
            if words:
                click.echo("       " + ", ".join(words))
    if explain and found.removed:
        click.echo("Left out: " + ", ".join(f"{name} {count:,}" for name, count in found.removed.items()) + ".")


def terms_of(terms: "Mapping[str, float]", score: float) -> list[str]:
    """The terms of a score in words, the largest first, without those that change none of the digits that are shown.

    >>> terms_of({"chair": 0.25, "base": -0.0, "lamp": 1.5, "session": -1e-9}, 1.75)
    ['lamp: 1.5', 'chair: 0.25']
    """
    least = 5e-5 * max(abs(score), *(abs(share) for share in terms.values()), 0.0)
    shown = sorted(terms.items(), key=lambda pair: -pair[1])
    return [f"{name}: {share:.4g}" for name, share in shown if abs(share) > least]
