"""Where the lessons of a variant's model come from: which clicks it may learn from, and who caused them."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.experiments.item_deal import ItemDeal, foreign_rows
from thinslice.experiments.lineage import lineage
from thinslice.jobs.training_data import Clicks, TrainingData, assigned
from thinslice.records import Experiment
from thinslice.serving.unit_maps import ITEMS, read_known_items, unit_map_file
from thinslice.settings import Workspace
from thinslice.store.lake import Lake


def lineage_of(
    data: TrainingData, experiment: Experiment, variant: str, labels: ArrayLike, mask: NDArray[np.bool_], *,
    clicks: Clicks | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Where the lessons of a variant's model came from, as manifests hold it: `clicks` by origin, `contamination`.

    Args:
        data: What was learned from.
        experiment: Whose variants.
        variant: Whom the model serves.
        labels: Shape (sessions,), each session's variant as of its start, or "".
        mask: Shape (sessions,), the sessions that were learned from.
        clicks: Those of their clicks that were learned from, where items are dealt out too; None: all.
    """
    kept = data.clicks if clicks is None else clicks
    rows = np.bincount(kept.session, minlength=len(kept.started))
    found = lineage(experiment, variant, labels, kept.started, rows, mask)
    return {"clicks": found.clicks, "contamination": found.contamination}


def foreign_clicks(workspace: Workspace, clicks: Clicks, experiment: Experiment, variant: str) -> NDArray[np.bool_]:
    """Shape (clicks,): clicks since the start on items that belong to another variant, which teach this one nothing.

    Args:
        workspace: Keeps which items were there at the start.
        clicks: All of a tenant.
        experiment: A running one; without `deal_items` no click is foreign.
        variant: Who is to learn.

    Raises:
        Corrupt: What was there at the start cannot be read.
    """
    if experiment.deal_items == "none" or experiment.started_at is None:
        return np.zeros(len(clicks.item), dtype=np.bool_)
    path = unit_map_file(workspace.experiments / experiment.tenant, experiment.name, ITEMS)
    known = read_known_items(path) if path.is_file() else None
    deal = ItemDeal(experiment, variant, known)
    names = np.array(clicks.item_ids, dtype=np.object_)[clicks.item]
    return foreign_rows(deal, names, clicks.time, experiment.started_at.timestamp())


def without(clicks: Clicks, some: NDArray[np.bool_]) -> Clicks:
    """The clicks without some of them; sessions stay, also those that have none left."""
    if not some.any():
        return clicks
    return replace(
        clicks, session=clicks.session[~some], item=clicks.item[~some], time=clicks.time[~some],
        action=clicks.action[~some],
    )  # fmt: skip


def shared_lineage(lake: Lake, data: TrainingData, experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Variant → `lineage_of` the live models, which serve every variant of an experiment that shares training."""
    labels = assigned(lake, data.clicks, experiment)
    everyone = np.ones(len(data.clicks.started), dtype=np.bool_)
    return {each.name: lineage_of(data, experiment, each.name, labels, everyone) for each in experiment.variants}
