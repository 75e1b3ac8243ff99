"""Where the models of an experiment's variants took their lessons from, as the manifests of all their versions say."""

from datetime import datetime

from thinslice.metrics.statistics import rows_of
from thinslice.metrics.unit_table import text
from thinslice.records import Experiment
from thinslice.settings import BUILT_IN_POLICIES, Tenant
from thinslice.store.lake import Lake


def contamination_of(lake: Lake, experiment: Experiment, until: datetime) -> dict[str, float]:
    """Variant → share of training clicks that other variants caused, the mean over the versions since the start.

    Variants without a trained model since then are absent.

    Args:
        lake: Its table `models` holds the manifests.
        experiment: Whose variants.
        until: Only versions that were trained before.
    """
    if experiment.started_at is None or lake.version("models") < 0:
        return {}
    since, end = text(experiment.started_at.isoformat()), text(until.isoformat())
    columns = ", ".join(
        f"avg(CAST(manifest ->> {text(f'$.lineage.{_quoted(experiment.name)}.{_quoted(each.name)}.contamination')}"
        f" AS DOUBLE)) AS v{place}"
        for place, each in enumerate(experiment.variants)
    )
    connection = lake.connect(tenant=experiment.tenant)
    try:
        (row,) = rows_of(
            connection,
            f"SELECT {columns} FROM models WHERE trained_at >= TIMESTAMPTZ {since} AND trained_at <= TIMESTAMPTZ {end}",
        )
    finally:
        connection.close()
    found = {each.name: row[f"v{place}"] for place, each in enumerate(experiment.variants)}
    return {name: float(share) for name, share in found.items() if share is not None}


def explorers_of(shop: Tenant, experiment: Experiment) -> set[str]:
    """The variants whose policy tries what it does not know yet."""
    known = {**BUILT_IN_POLICIES, **shop.policies}
    return {each.name for each in experiment.variants if each.policy in known and known[each.policy].explore != "none"}


def _quoted(name: str) -> str:
    """A name as one step of a JSON path: names may hold dashes."""
    return f'"{name}"'
