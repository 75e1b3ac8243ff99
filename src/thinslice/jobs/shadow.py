"""What an experiment's shadow told: how its slates differ, how fast they were, what its model could not fill."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from thinslice.errors import BadInput
from thinslice.experiments.assign import UNCHANGED
from thinslice.experiments.support import MIN_SLATES, Share, Support, share_of
from thinslice.experiments.wording import percent
from thinslice.jobs.lesson import stored
from thinslice.jobs.measure import read_experiment
from thinslice.jobs.support import support_of
from thinslice.metrics.statistics import rows_of
from thinslice.metrics.unit_table import text
from thinslice.recommend.explore import BANDIT
from thinslice.records import Experiment
from thinslice.settings import Workspace
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.lake import Lake

MOST_FALLBACKS = 0.5
"""With more places that its own model did not fill a policy is not ready."""

MOST_ERRORS = 0.001
"""And with more slates in which a model broke."""

SLOW_MS = 20.0
"""And when one slate in a hundred takes longer."""


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds; None where nothing was measured."""

    p50: float | None
    p90: float | None
    p99: float | None


class ShadowRow(msgspec.Struct, frozen=True, kw_only=True):
    """One variant in shadow.

    `overlap` is the share of its items that the slate in its place held too, `same_first` how often both began with the
    same item; `fallbacks` is the share of its places that its own model did not fill, `errors` that of its slates in
    which a model broke (`failed`: which, how often), `dropped` that of the questions that no worker had time for.
    `learned` is what its explorer has counted: batches and places; None where it does not explore.
    """

    variant: str
    policy: str
    slates: int
    visitors: int
    overlap: Share
    same_first: Share
    fallbacks: Share
    errors: Share
    failed: dict[str, int]
    latency_ms: Quantiles
    live_latency_ms: Quantiles
    learned: list[int] | None
    support: Support
    ready: bool
    sentence: str


class ShadowReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the shadow of one experiment told."""

    experiment: str
    status: str
    shadow_at: datetime
    share: float
    dropped: int
    rows: list[ShadowRow]
    ready: bool


def shadow_report(workspace: Workspace, tenant: str, name: str, now: datetime) -> ShadowReport:
    """What an experiment's shadow told so far.

    Args:
        workspace: Whose lake and models.
        tenant: Whose.
        name: The experiment's; it is in shadow, or was before its start.
        now: Aware; supports are counted back from here, or from the start.

    Raises:
        UnknownName: There is no such experiment.
        BadInput: It was never in shadow.
    """
    experiment = read_experiment(workspace, tenant, name)
    if experiment.shadow_at is None:
        raise BadInput(
            f"experiment {name!r} was never in shadow.",
            hint="`thinslice experiment start FILE --shadow` puts it there.",
        )
    until = min(now, experiment.started_at or now)
    slates = _slates(Lake(workspace.lake), experiment)
    supports = {each.variant: each for each in support_of(workspace, experiment, until)}
    live = stored(FileArtifacts(workspace.models), tenant, "live")
    rows = [
        _row(each.name, each.policy, [one for one in slates if one["variant"] == each.name], supports[each.name],
             live.arrays.get(BANDIT + each.policy))
        for each in experiment.variants if each.policy not in (UNCHANGED, "none")
    ]  # fmt: skip
    status = "in shadow" if experiment.started_at is None else "started"
    if experiment.started_at is None and experiment.stopped_at is not None:
        status = "stopped"
    return ShadowReport(
        experiment=name, status=status, shadow_at=experiment.shadow_at, share=experiment.shadow_share,
        dropped=sum(int(each["dropped"]) for each in slates), rows=rows,
        ready=bool(rows) and all(row.ready or row.slates == 0 for row in rows) and any(row.slates for row in rows),
    )  # fmt: skip


def _slates(lake: Lake, experiment: Experiment) -> list[dict[str, Any]]:
    """One row a shadow slate: what it shares with the slate in its place, and how it was made."""
    if lake.version("shadows") < 0 or lake.version("exposures") < 0:
        return []
    since = datetime.fromtimestamp(0, UTC) if experiment.shadow_at is None else experiment.shadow_at
    connection = lake.connect(tenant=experiment.tenant)
    try:
        return rows_of(
            connection,
            f"""
            SELECT s.variant AS variant, coalesce(s.visitor_id, s.session_id, s.user_id, recommendation_id) AS who,
                   len(s.items) AS places, fallbacks, failed, dropped, s.latency_ms AS latency_ms,
                   e.latency_ms AS live_latency_ms, len(list_intersect(s.items, e.items)) AS common,
                   CAST(s.items[1] IS NOT DISTINCT FROM e.items[1] AS INTEGER) AS same_first
            FROM (SELECT * FROM shadows WHERE experiment = {text(experiment.name)}
                  AND occurred_at >= TIMESTAMPTZ {text(since.isoformat())}) AS s
            JOIN (SELECT recommendation_id, items, latency_ms FROM exposures WHERE NOT shadow) AS e
            USING (recommendation_id)
            """,
        )
    finally:
        connection.close()


def _row(
    variant: str, policy: str, slates: Sequence[Mapping[str, Any]], support: Support, explorer: Mapping[str, Any] | None
) -> ShadowRow:
    def share(part: str, whole: str | None = None) -> Share:
        sums: dict[str, list[float]] = {}
        for each in slates:
            row = sums.setdefault(str(each["who"]), [0.0, 0.0])
            row[0] += bool(each[part]) if part == "failed" else each[part]
            row[1] += 1 if whole is None else each[whole]
        table = np.array(list(sums.values()), dtype=np.float64).reshape(-1, 2)
        return share_of(table[:, 0], table[:, 1])

    failed = Counter(name for each in slates for name in each["failed"] or ())
    fallbacks, errors, latency = share("fallbacks", "places"), share("failed"), _quantiles(slates, "latency_ms")
    doubts = []
    if not slates:
        doubts.append("it was not asked yet, or it is what is shown now")
    elif len(slates) < MIN_SLATES:
        doubts.append(f"{len(slates)} slates in shadow, {MIN_SLATES} are needed")
    if (fallbacks.value or 0.0) > MOST_FALLBACKS:
        doubts.append(f"{percent(fallbacks.value or 0.0, signed=False)} of its places are filled by others")
    if (errors.value or 0.0) > MOST_ERRORS:
        doubts.append(
            f"in {percent(errors.value or 0.0, signed=False)} of its slates a model broke ({', '.join(failed)})"
        )
    if latency.p99 is not None and latency.p99 > SLOW_MS:
        doubts.append(f"one slate in a hundred takes over {latency.p99:.0f} ms")
    if support.verdict == "cold":
        doubts.append("hardly anybody has seen what it shows")
    return ShadowRow(
        variant=variant, policy=policy, slates=len(slates), visitors=len({each["who"] for each in slates}),
        overlap=share("common", "places"), same_first=share("same_first"), fallbacks=fallbacks, errors=errors,
        failed=dict(failed), latency_ms=latency, live_latency_ms=_quantiles(slates, "live_latency_ms"),
        learned=None if explorer is None else [int(each) for each in explorer["counted"]], support=support,
        ready=not doubts, sentence=f"{variant} is {f'not ready: {why}' if (why := '; '.join(doubts)) else 'ready'}.",
    )  # fmt: skip


def _quantiles(slates: Sequence[Mapping[str, Any]], column: str) -> Quantiles:
    took = [float(each[column]) for each in slates if each[column] is not None]
    if not took:
        return Quantiles(None, None, None)
    return Quantiles(*(round(float(each), 3) for each in np.quantile(took, [0.5, 0.9, 0.99])))
