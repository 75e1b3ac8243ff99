"""The graphs over items that the session ranker looks into: two steps, same sessions, soon after, soon before."""

import numpy as np

from thinslice.models.item_graph import CSR, company, cosine, transitions, transposed, walk
from thinslice.models.item_vectors import item_vectors
from thinslice.records import Arrays, Interactions

GRAPHS = ("walk", "cosine", "next", "before")
"""Each is three arrays: `_ptr` (items + 1), `_item` and `_weight`, the items of a row in rising order."""

GRAPH_ARRAYS = (
    *(f"{name}_{part}" for name in GRAPHS for part in ("ptr", "item", "weight")),
    "cosine_company",
)  # fmt: skip
"""In the order in which the kernels take them; the last one weighs the edges of the cosine a second time."""

WINDOW, DECAY, BACKWARD = 10, 2.0, 0.7
"""Clicks apart that still count as one step; clicks after which a step counts 1/e; what a step back counts."""

WALK_TOP, COSINE_TOP, NEXT_TOP = 100, 200, 200
"""So many neighbors of an item are kept, the strongest."""

PRIOR_CLICKS = 5.0
"""What came next is a share of an item's clicks and these: after few clicks nothing is sure."""


def graphs(interactions: Interactions) -> Arrays:
    """Builds the four graphs and the vectors of items from the clicks, a few seconds of CPU time a million."""
    count = len(interactions.item_ids)
    clicks = (interactions.session_ptr, interactions.item, count)
    step = transitions(*clicks, decay=DECAY, window=WINDOW, backward=BACKWARD, top=WALK_TOP, loops=False)
    counted = transitions(*clicks, decay=DECAY, window=WINDOW, top=NEXT_TOP)
    total = np.bincount(interactions.item, minlength=count) + PRIOR_CLICKS
    share = counted.weight / np.repeat(total, np.diff(counted.ptr))
    after = CSR(counted.ptr, counted.item, share.astype(np.float32))
    alike = cosine(*clicks, top=COSINE_TOP)
    made = (walk(step, WALK_TOP), alike, after, transposed(after, NEXT_TOP))
    vectors, vector_step = item_vectors(step)
    arrays = {
        f"{name}_{part}": array
        for name, graph in zip(GRAPHS, made, strict=True)
        for part, array in zip(("ptr", "item", "weight"), graph, strict=True)
    }
    arrays["cosine_company"] = company(*clicks, alike)
    return {**arrays, "vectors": vectors, "vector_step": vector_step}
