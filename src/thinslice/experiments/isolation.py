"""Which sessions may teach a variant: its own and those before the test; nobody harvests the other's discoveries."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thinslice.errors import BadInput
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
