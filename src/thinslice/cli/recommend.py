"""`thinslice recommend`: one slate for a session, straight from the workspace, without a running service."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from thinslice.cli.workspace import json_option, print_json, workspace_option
from thinslice.errors import BadInput
from thinslice.settings import Workspace, read_settings

if TYPE_CHECKING:
    from thinslice.records import Recommendation, RecommendationRequest
    from thinslice.serving import ModelHost

MAX_K = 500


@click.command("recommend", short_help="One slate for a session, in the terminal.")
@workspace_option
@click.option("--tenant", default="shop", show_default=True, help="Whose catalog and models.")
@click.option("--session", "session", default="", metavar="ITEM,ITEM", help="The session's items, oldest first.")
@click.option("--item", "item_id", help="The item of the page.")
@click.option("--visitor", "visitor_id", help="A visitor: their live session counts when no --session is given.")
@click.option("--placement", default="default", show_default=True, help="Where the slate would stand.")
@click.option("-k", "k", type=click.IntRange(1, MAX_K), default=20, show_default=True, help="How many items.")
@click.option("--explain", is_flag=True, help="Which session items gave how much of each score.")
@json_option
def command(
    workspace: Workspace,
    tenant: str,
    session: str,
    item_id: str | None,
    visitor_id: str | None,
    placement: str,
    k: int,
    explain: bool,
    as_json: bool,
) -> None:
    """One slate for a session, as the service would answer it. Nothing is logged, so no experiment counts it."""
    from thinslice.records import RecommendationRequest

    items = [each.strip() for each in session.split(",") if each.strip()]
    if session and not items:
        raise BadInput(f"--session {session!r} names no item.", hint="Write --session ITEM,ITEM, the oldest first.")
    request = RecommendationRequest(
        placement=placement, k=k, visitor_id=visitor_id, item_id=item_id, items=items or None, consent="personalization"
    )
    answer, terms = slate(workspace, tenant, request, explain=explain)
    if as_json:
        print_json(msgspec.to_builtins(answer) | ({"explain": terms} if explain else {}))
        return
    _print(answer, terms)


def slate(
    workspace: Workspace, tenant: str, request: "RecommendationRequest", *, explain: bool = False
) -> "tuple[Recommendation, list[dict[str, Any]]]":
    """The service's answer to a request, and with `explain` the terms of each item's score.

    Raises:
        UnknownName: There is no such tenant.
    """
    from thinslice.serving import ExperimentFiles, ModelHost, RecommendationIds, Recommender, read_secret
    from thinslice.serving.issued import SECRET_FILE
    from thinslice.store.artifacts import FileArtifacts
    from thinslice.store.live import LiveDB

    settings = read_settings(workspace)
    settings.tenant(tenant)
    now = datetime.now(UTC)
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
        answer = recommender.recommend(tenant, request, "secret", now)
        return answer, _terms(models, tenant, request, answer) if explain else []
    finally:
        live.close()


def _terms(
    models: "ModelHost", tenant: str, request: "RecommendationRequest", answer: "Recommendation"
) -> list[dict[str, Any]]:
    bundle = models.bundle(tenant)
    named = {model.name: model for model in bundle.models.values()} if bundle is not None else {}
    session = list(request.items or [])
    if request.item_id is not None and session[-1:] != [request.item_id]:
        session.append(request.item_id)
    explained = []
    for item in answer.items:
        model = named.get(item.source)
        reason = model.explain(session, item.item_id) if model is not None else None
        explained.append({"item_id": item.item_id, "terms": dict(reason.terms) if reason is not None else {}})
    return explained


def _print(answer: "Recommendation", terms: list[dict[str, Any]]) -> None:
    if not answer.items:
        click.echo(f"Policy {answer.policy} shows nothing here (models: {answer.model_version}).")
        return
    click.echo(f"Policy {answer.policy}, models {answer.model_version}.")
    width = max(len(item.item_id) for item in answer.items)
    for place, item in enumerate(answer.items):
        click.echo(f"{place + 1:>3}  {item.item_id:<{width}}  {item.score:>10.4g}  {item.source:<12} {item.reason}")
        if terms:
            parts = sorted(terms[place]["terms"].items(), key=lambda pair: -pair[1])
            click.echo("       " + ", ".join(f"{name}: {share:.4g}" for name, share in parts))
