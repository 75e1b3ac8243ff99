"""Training: the lake's sessions become models, published without a restart; each variant learns from its own sessions.

Each generation is a bundle of models in one slot: `live` learns from everybody, `exp.NAME.VARIANT` from the sessions
of one variant of an isolating experiment and from those before it began. The manifest names the lake version, the
settings, the seed and how the models ranked on the newest tenth of the sessions before they learned from it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import BadSettings, NotReady, UnknownName
from thinslice.evaluation import Replay, clustered_mean, hits, reciprocal_ranks, replay
from thinslice.experiments import is_running, parse_experiment
from thinslice.experiments.isolation import training_filter
from thinslice.jobs.schedule import News
from thinslice.models import MODELS, from_columns
from thinslice.records import Arrays, Experiment, Interactions, Item, Model
from thinslice.sessions import SESSION_EVENTS, assigned_at_start, sessionize
from thinslice.sessions.live import BOT_EVENTS, BOT_RATE_PER_S
from thinslice.settings import BUILT_IN_POLICIES, Policy, Settings, Workspace, read_settings
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LIVE_SLOT = "live"

HOLDOUT_SHARE = 0.1
"""Share of the newest sessions that the offline figures are measured on."""

MAX_QUERIES = 2000
"""More queries than this are not asked for the offline figures: training comes each minute."""

MIN_QUERIES = 200
"""With fewer queries nothing is withheld."""

MAX_SESSIONS = 2_000_000
"""Only so many of the newest sessions are learned from."""

K = 20


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What one training published.

    Attributes:
        slot: `live` or `exp.NAME.VARIANT`.
        version: The hash of the content.
        models: The names in the bundle.
        withheld: Models that rank worse than popular offline and therefore did not go live.
        sessions: Learned from.
        clicks: Learned from.
        items: Known to the models.
        offline: Model → n, hr, hr_se, mrr, mrr_se at 20.
        lake_version: Of the table `events`.
        seconds: Wall time.
    """

    slot: str
    version: str
    models: list[str]
    withheld: list[str]
    sessions: int
    clicks: int
    items: int
    offline: dict[str, dict[str, Any]] = field(default_factory=dict)
    lake_version: int = 0
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """As `train --json` prints it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Clicks:
    """What a tenant's visitors did, one row a click, in the order of time.

    Attributes:
        session: Shape (clicks,), int64: the session's code, 0 ... sessions - 1.
        item: Shape (clicks,), texts.
        time: Shape (clicks,), float64, unix seconds.
        started: Shape (sessions,), float64, unix seconds.
        ended: Shape (sessions,), float64, unix seconds.
        visitor: Shape (sessions,), texts, empty where unknown.
        session_id: Shape (sessions,), texts, empty where unknown.
        user: Shape (sessions,), texts, empty where unknown.
    """

    session: NDArray[np.int64]
    item: NDArray[np.str_]
    time: NDArray[np.float64]
    started: NDArray[np.float64]
    ended: NDArray[np.float64]
    visitor: NDArray[np.str_]
    session_id: NDArray[np.str_]
    user: NDArray[np.str_]


def train(
    workspace: Workspace,
    tenant: str,
    policy: str | None = None,
    *,
    now: datetime,
    rng: int = 0,
) -> list[Trained]:
    """Trains and publishes one tenant's models: the live bundle, then one for each variant of isolating experiments.

    Args:
        workspace: Whose lake is read and whose models are written.
        tenant: Whose models.
        policy: Only this policy's model is trained anew, the others keep their arrays; None trains all.
        now: Aware UTC; clicks after it (of clocks that run ahead) are learned from later.
        rng: The seed: same data, settings and seed give the same bytes.

    Returns:
        What was published, the live bundle first.

    Raises:
        UnknownName: There is no such tenant or policy.
        NotReady: There is neither an event nor an item to learn from.
    """
    settings = read_settings(workspace)
    policies = policies_of(settings, tenant)
    if policy is not None and policy not in policies:
        known = ", ".join(sorted(policies))
        raise UnknownName(f"there is no policy {policy!r} of {tenant!r} (there is: {known}).")
    lake = Lake(workspace.lake)
    artifacts = FileArtifacts(workspace.models)
    versions = {name: lake.version(name) for name in ("events", "items")}
    clicks = read_clicks(lake, tenant, now)
    items = read_items(lake, tenant)
    if not len(clicks.item) and not items:
        raise NotReady(
            f"tenant {tenant!r} has no events and no items yet.",
            hint=f"`thinslice import events FILE --tenant {tenant}` brings some.",
        )
    rows = rows_of(lake).get(tenant, 0)
    figures, worse = offline(clicks, policies, items, rng) if len(clicks.item) else ({}, [])
    everyone = np.ones(len(clicks.started), dtype=np.bool_)
    chosen = set(policies if policy is None else [policy])
    common = {"rng": rng, "lake_version": versions["events"], "lake_versions": versions, "rows": rows}

    def publish(slot: str, mask: NDArray[np.bool_], wanted: Mapping[str, Policy], **extra: Any) -> Trained:
        start = time.perf_counter()
        interactions = interactions_of(clicks, mask)
        kept = _kept(artifacts, tenant, slot, [name for name in wanted if name not in chosen])
        models = {name: kept[name] if name in kept else fit(wanted[name], interactions, items, rng).arrays()
                  for name in wanted}  # fmt: skip
        manifest = {
            **common,
            **extra,
            "policies": {name: each.model for name, each in wanted.items()},
            "settings": {name: each.settings for name, each in wanted.items()},
            "sessions": len(interactions.session_ptr) - 1,
            "clicks": len(interactions.item),
        }
        version = artifacts.put(tenant, slot, models, manifest)
        artifacts.promote(tenant, slot, version)
        return Trained(
            slot=slot,
            version=version,
            models=list(models),
            withheld=list(extra.get("withheld", [])),
            sessions=manifest["sessions"],
            clicks=manifest["clicks"],
            items=len(interactions.item_ids),
            offline=extra.get("offline", {}),
            lake_version=versions["events"],
            seconds=round(time.perf_counter() - start, 3),
        )

    better = {name: each for name, each in policies.items() if name not in worse}
    results = [publish(LIVE_SLOT, everyone, better, offline=figures, withheld=worse)]
    for experiment in isolating(workspace, tenant):
        labels = assigned(lake, clicks, experiment)
        wanted = {variant.policy for variant in experiment.variants}
        own = {name: each for name, each in policies.items() if name in wanted or name in MODELS}
        for number, variant in enumerate(experiment.variants):
            mask = training_filter(
                experiment, variant.name, labels, clicks.started, rng=np.random.default_rng([rng, number])
            )
            slot = f"exp.{experiment.name}.{variant.name}"
            results.append(publish(slot, mask, own, experiment=experiment.name, variant=variant.name))
    return results


def _kept(artifacts: FileArtifacts, tenant: str, slot: str, names: Sequence[str]) -> dict[str, Arrays]:
    """The arrays of policies that are not trained anew, from the live version of the slot."""
    version = artifacts.live(tenant).get(slot)
    if version is None or not names:
        return {}
    models, _ = artifacts.load(tenant, version)
    return {name: models[name] for name in names if name in models}


def policies_of(settings: Settings, tenant: str) -> dict[str, Policy]:
    """Every policy of a tenant that has a model to train, by the name that it has in the bundle."""
    every = {**BUILT_IN_POLICIES, **settings.tenant(tenant).policies}
    return {name: policy for name, policy in every.items() if policy.model in MODELS}


def isolating(workspace: Workspace, tenant: str) -> list[Experiment]:
    """The running experiments whose variants learn apart, oldest start first."""
    found = []
    for path in sorted((workspace.experiments / tenant).glob("*.toml")):
        experiment = parse_experiment(path.read_bytes(), tenant, where=path.name)
        if is_running(experiment) and experiment.training == "isolated":
            found.append(experiment)
    return sorted(found, key=lambda each: (each.started_at or datetime.min.replace(tzinfo=UTC), each.name))


def read_clicks(lake: Lake, tenant: str, now: datetime) -> Clicks:
    """A tenant's clicks from the lake: consented, no bots, no duplicates, with an identity and an item."""
    names = ", ".join(f"'{name}'" for name in sorted(SESSION_EVENTS))
    connection = lake.connect(tenant=tenant)
    try:
        rows = connection.execute(
            f"""
            SELECT coalesce(visitor_id, '') AS visitor, coalesce(session_id, '') AS session_id,
                   coalesce(user_id, '') AS user_id, item_id, epoch(occurred_at) AS at
            FROM events
            WHERE name IN ({names}) AND item_id IS NOT NULL AND NOT is_bot AND NOT duplicate
              AND consent = 'personalization'
              AND coalesce(visitor_id, session_id, user_id) IS NOT NULL AND epoch(occurred_at) <= ?
            ORDER BY occurred_at, event_id
            """,
            [now.timestamp()],
        ).fetchnumpy()
    finally:
        connection.close()
    visitor, session_id, user, item = (texts(rows[name]) for name in ("visitor", "session_id", "user_id", "item_id"))
    at = np.asarray(rows["at"], dtype=np.float64)
    sessions = sessionize(visitor, session_id, at, user=user)
    too_fast = (sessions.event_count >= BOT_EVENTS) & (
        sessions.event_count > BOT_RATE_PER_S * (sessions.ended - sessions.started)
    )
    keep = ~too_fast
    keep[: max(0, len(keep) - MAX_SESSIONS)] = False
    new_code = np.cumsum(keep) - 1
    chosen = (sessions.code >= 0) & keep[np.maximum(sessions.code, 0)] if len(keep) else np.zeros(0, dtype=np.bool_)
    first = sessions.first[keep]
    return Clicks(
        session=new_code[sessions.code[chosen]].astype(np.int64),
        item=item[chosen],
        time=at[chosen],
        started=sessions.started[keep],
        ended=sessions.ended[keep],
        visitor=visitor[first],
        session_id=session_id[first],
        user=user[first],
    )


def texts(column: Any) -> NDArray[np.str_]:
    """A column of texts as DuckDB gives it, without holes."""
    return np.asarray(column, dtype=object).astype(np.str_) if len(column) else np.empty(0, dtype=np.str_)


def read_items(lake: Lake, tenant: str) -> list[Item]:
    """A tenant's catalog from the lake: what the models need of it."""
    connection = lake.connect(tenant=tenant)
    try:
        rows = connection.execute(
            "SELECT item_id, epoch(published_at), epoch(updated_at) FROM items ORDER BY item_id"
        ).fetchall()
    finally:
        connection.close()
    return [
        Item(tenant=tenant, item_id=item_id, published_at=utc(published), updated_at=utc(updated) or EPOCH)
        for item_id, published, updated in rows
    ]


def utc(seconds: float | None) -> datetime | None:
    """A time from unix seconds, aware and in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def assigned(lake: Lake, clicks: Clicks, experiment: Experiment) -> NDArray[np.str_]:
    """Shape (sessions,): the variant of an experiment that each session belongs to, empty outside of it."""
    connection = lake.connect(tenant=experiment.tenant)
    try:
        rows = connection.execute(
            """
            SELECT unit_id, epoch(occurred_at) AS at, variant FROM exposure_variants
            WHERE experiment = ? AND unit_id IS NOT NULL ORDER BY occurred_at, recommendation_id
            """,
            [experiment.name],
        ).fetchnumpy()
    finally:
        connection.close()
    unit = {"visitor": clicks.visitor, "session": clicks.session_id, "user": clicks.user}[experiment.unit]
    return assigned_at_start(
        clicks.started,
        clicks.ended,
        unit,
        texts(rows["unit_id"]),
        np.asarray(rows["at"], dtype=np.float64),
        texts(rows["variant"]),
    )


def interactions_of(clicks: Clicks, mask: NDArray[np.bool_]) -> Interactions:
    """The clicks of the chosen sessions (mask of shape (sessions,)) in the shape that models learn from."""
    rows = mask[clicks.session] if len(clicks.session) else np.zeros(0, dtype=np.bool_)
    return from_columns(clicks.session[rows], clicks.item[rows], clicks.time[rows])


def fit(policy: Policy, interactions: Interactions, items: list[Item], rng: int) -> Model:
    """One policy's model."""
    model: Any = MODELS[policy.model]
    try:
        fitted: Model = model.fit(interactions, items, rng=np.random.default_rng(rng), **policy.settings)
    except TypeError as error:
        raise BadSettings(
            f"the model {policy.model!r} does not take these settings: {error}.",
            hint="Look at [tenants.NAME.policies] in thinslice.toml.",
        ) from None
    return fitted


def offline(
    clicks: Clicks, policies: Mapping[str, Policy], items: list[Item], rng: int
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """How each policy's model would have ranked the newest tenth of the sessions, having learned from the others.

    Returns:
        Policy → n, hr, hr_se, mrr, mrr_se at 20 over at most `MAX_QUERIES` queries, ties ranked against the model;
        and the policies whose hit rate is shown (paired, 95 %) to be below that of `popular`.
    """
    cut = int(len(clicks.started) * (1 - HOLDOUT_SHARE))
    past = np.arange(len(clicks.started)) < cut
    train_on = interactions_of(clicks, past)
    known = set(train_on.item_ids)
    asked: dict[int, list[str]] = {}
    for session, item in zip(clicks.session.tolist(), clicks.item.tolist(), strict=True):
        if session >= cut and item in known:
            asked.setdefault(session, []).append(item)
    sessions: list[list[str]] = []
    queries = 0
    for _, steps in sorted(asked.items(), reverse=True):
        if len(steps) > 1 and queries < MAX_QUERIES:
            sessions.append(steps)
            queries += len(steps) - 1
    if not sessions:
        return {}, []
    figures: dict[str, dict[str, Any]] = {}
    answers: dict[str, Replay] = {}
    for name, policy in policies.items():
        answers[name] = replay(fit(policy, train_on, items, rng), sessions, K)
        (hr, hr_se), (mrr, mrr_se) = (
            clustered_mean(values, answers[name].session)
            for values in (hits(answers[name].rank), reciprocal_ranks(answers[name].rank))
        )
        figures[name] = {"n": queries, "hr": hr, "hr_se": hr_se, "mrr": mrr, "mrr_se": mrr_se}
    worse = []
    for name in policies:
        if queries >= MIN_QUERIES and "popular" in answers and policies[name].model not in ("popular", "newest"):
            lost = hits(answers["popular"].rank) - hits(answers[name].rank)
            mean, error = clustered_mean(lost, answers[name].session)
            if error is not None and mean > 1.96 * error:
                worse.append(name)
    return figures, worse


def news_of_tenants(
    lake: Lake, artifacts: FileArtifacts, tenants: Sequence[str], attempts: Mapping[str, tuple[float, int]]
) -> list[News]:
    """What each tenant's models have not seen yet.

    Args:
        lake: Counts the rows.
        artifacts: Their manifests say how many rows were there when the models were trained.
        tenants: Whose.
        attempts: Tenant → (unix seconds, rows at that time) of the last training started by this process.
    """
    rows = rows_of(lake)
    news = []
    for tenant in tenants:
        at, seen = attempts.get(tenant) or last_training(artifacts, tenant) or (None, 0)
        news.append(News(tenant, max(0, rows.get(tenant, 0) - seen), at))
    return news


def rows_of(lake: Lake) -> dict[str, int]:
    """Tenant → rows of events and items in the lake."""
    connection = lake.connect()
    try:
        counted = connection.execute(
            """
            SELECT tenant, sum(n)::BIGINT FROM (
                SELECT tenant, count(*) AS n FROM events GROUP BY tenant
                UNION ALL SELECT tenant, count(*) FROM items GROUP BY tenant
            ) GROUP BY tenant
            """
        ).fetchall()
    finally:
        connection.close()
    return {str(tenant): int(count) for tenant, count in counted}


def last_training(artifacts: FileArtifacts, tenant: str) -> tuple[float, int] | None:
    """When the live models of a tenant were stored (unix seconds), and how many rows the lake had for them."""
    for row in artifacts.versions(tenant):
        if row["name"] == LIVE_SLOT and row["live"]:
            _, manifest = artifacts.load(tenant, row["version"])
            return float(row["stored_at"]), int(manifest.get("rows", 0))
    return None
