"""What each tenant's models have not seen yet: the lake's rows held against the manifests of what serves."""

from collections.abc import Mapping
from typing import NamedTuple

from thinslice.errors import Corrupt, UnknownName
from thinslice.jobs.schedule import Attempt, News
from thinslice.jobs.training_data import Counted, count_all
from thinslice.settings import Policy
from thinslice.store.artifacts import LIVE_SLOT, FileArtifacts
from thinslice.store.lake import Lake


class State(NamedTuple):
    """What the live models of a tenant have seen.

    Attributes:
        at: Unix seconds when they were stored.
        rows: Events and items that the lake had for them.
        feed: What `count_all` said of the catalog then.
        tuning_due: Policy → why it should tune itself, which was put off.
        made: Policy → the model and the settings that it has, or of which it was refused.
    """

    at: float
    rows: int
    feed: str
    tuning_due: dict[str, str]
    made: dict[str, Policy | None]


def state_of(artifacts: FileArtifacts, tenant: str) -> State | None:
    """What the live models of a tenant have seen; None when there are none."""
    for row in artifacts.versions(tenant):
        if row["name"] == LIVE_SLOT and row["live"]:
            try:
                manifest = artifacts.manifest(tenant, row["version"])
            except (Corrupt, UnknownName):
                return None  # the next training makes it anew
            made = {
                name: Policy(model=kind, settings=manifest.get("settings", {}).get(name, {}))
                for name, kind in manifest.get("policies", {}).items()
            }
            return State(
                float(row["stored_at"]), int(manifest.get("rows", 0)), manifest.get("feed", ""),
                manifest.get("tuning_due", {}), {**made, **dict.fromkeys(manifest.get("refused", {}))},
            )  # fmt: skip
    return None


def news_of_tenants(
    lake: Lake, artifacts: FileArtifacts, wanted: Mapping[str, Mapping[str, Policy]], attempts: Mapping[str, Attempt]
) -> list[News]:
    """What each tenant's models have not seen yet; a policy that is not learned yet is news, too.

    Args:
        lake: Counts the rows.
        artifacts: Their manifests say how much was there when the models were trained.
        wanted: Tenant → the policies that need a model (`recipes.needed_policies`).
        attempts: Tenant → the last training started by this process, even when it failed.
    """
    counted = count_all(lake)
    news = []
    for tenant, policies in wanted.items():
        there = counted.get(tenant, Counted(0, ""))
        state, tried = state_of(artifacts, tenant), attempts.get(tenant)
        seen = max(state.rows if state is not None else 0, tried.rows if tried is not None else 0)
        feed = tried.feed if tried is not None else state.feed if state is not None else ""
        at = tried.at if tried is not None else state.at if state is not None else None
        unseen = max(0, there.rows - seen)
        if state is not None and tried is None and _lacks(state, policies):
            unseen = max(1, unseen)
        news.append(
            News(
                tenant,
                unseen,
                at,
                feed=state is not None and there.feed != feed,
                tuning=bool(state is not None and state.tuning_due),
            )
        )
    return news


def _lacks(state: State, policies: Mapping[str, Policy]) -> bool:
    """Whether a policy was written down, or its settings changed, since the models were trained."""
    return any(
        name not in state.made
        or ((made := state.made[name]) is not None and (made.model, made.settings) != (policy.model, policy.settings))
        for name, policy in policies.items()
    )


def rows_of(lake: Lake) -> dict[str, int]:
    """Tenant → rows of events and items in the lake."""
    return {tenant: counted.rows for tenant, counted in count_all(lake).items()}


def last_training(artifacts: FileArtifacts, tenant: str) -> tuple[float, int] | None:
    """When the live models of a tenant were stored (unix seconds), and how many rows the lake had for them."""
    state = state_of(artifacts, tenant)
    return None if state is None else (state.at, state.rows)
