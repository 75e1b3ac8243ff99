"""Which sessions may teach a variant: its own and those before the test; nobody harvests the other's discoveries."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import BadInput
from thinslice.experiments.assign import bucket
from thinslice.experiments.item_deal import ItemDeal
from thinslice.experiments.switchback import block_of, block_variant
from thinslice.records import Experiment


def training_filter(
    experiment: Experiment, variant: str, assignments: ArrayLike, started: ArrayLike, *, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """A mask over sessions: those that may train one variant.

    Sessions that began before the experiment teach everyone. Later ones teach the variant that they were assigned to as
    they began, and a session without a variant teaches none. A variant with more sessions of its own than the smallest
    one is down-sampled to it, so that no variant wins by having seen more.

    Args:
        experiment: Whose variants; without a start every session counts as before.
        variant: Who is to be trained.
        assignments: Shape (sessions,), the variant as of the session's start, or "".
        started: Shape (sessions,), unix seconds.
        rng: Decides which sessions a larger variant leaves out.

    Raises:
        BadInput: The experiment has no such variant.

    Source: data-diverted experiments, Brennan et al., Symbiosis bias (arXiv 2309.07107).
    """
    labels, starts = np.asarray(assignments, dtype=str), np.asarray(started, dtype=np.float64)
    names = [each.name for each in experiment.variants if each.weight > 0]
    if variant not in [each.name for each in experiment.variants]:
        raise BadInput(f"experiment {experiment.name!r} has no variant {variant!r} (there is: {', '.join(names)}).")
    if experiment.started_at is None:
        return np.ones(labels.size, dtype=np.bool_)
    before = starts < experiment.started_at.timestamp()
    own = np.flatnonzero(~before & (labels == variant))
    smallest = min(int((~before & (labels == name)).sum()) for name in names)
    if own.size > smallest:
        own = rng.choice(own, size=smallest, replace=False)
    mask = before.copy()
    mask[own] = True
    return mask


def block_labels(experiment: Experiment, started: ArrayLike) -> NDArray[np.str_]:
    """Shape (sessions,): the variant of a switchback that was on as each session began; "" before the experiment.

    Args:
        experiment: A switchback.
        started: Shape (sessions,), unix seconds.

    Raises:
        BadInput: The experiment's unit is no block.
    """
    begun = -np.inf if experiment.started_at is None else experiment.started_at.timestamp()
    starts = np.asarray(started, dtype=np.float64)
    blocks = [block_of(experiment, at) if at >= begun else None for at in starts.tolist()]
    shown = {block: block_variant(experiment, block, bucket) for block in set(blocks) if block is not None}
    return np.array(["" if block is None else shown[block] for block in blocks], dtype=np.str_)


def may_show(experiment: Experiment, variant: str, items: Sequence[str]) -> NDArray[np.bool_]:
    """Which items a variant may show where items are dealt out too: each item belongs to one variant.

    With items apart as well as visitors, a variant cannot live on what the other one found out about an item: what is
    compared is how well each policy makes new items known.

    Args:
        experiment: Whose weights deal the items out.
        variant: Whose.
        items: Ids.

    Returns:
        Shape (items,).

    Raises:
        BadInput: The experiment has no such variant.

    Source: Su et al., Long-term value of exploration (arXiv 2305.07764).
    """
    return ItemDeal(msgspec.structs.replace(experiment, deal_items="all"), variant).own(items)
