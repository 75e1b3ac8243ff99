"""What else a shop could install for session recommendations, asked the same questions in the same run.

`implicit` with TF-IDF (K = 200, the session's own items may be shown) and `wsknn` (weighted session kNN). Their
input is prepared outside the clock: only fitting and answering are timed.
"""

import os
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.queries import Asked, ask, spent
from thinslice.records import Interactions


def implicit_tfidf(train: Interactions, asked: Asked) -> dict[str, Any]:
    """Item to item by TF-IDF; a query is one row of a sparse matrix that is made beforehand."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from implicit.nearest_neighbours import TFIDFRecommender

    items = len(train.item_ids)
    session = np.repeat(np.arange(len(train.session_ptr) - 1), np.diff(train.session_ptr))
    clicks = csr_matrix((np.ones(len(train.item), np.float32), (session, train.item)), (session[-1] + 1, items))
    model = TFIDFRecommender(K=200, num_threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells how long it took to turn its own matrix around
        _, fit_s = spent(lambda: model.fit(clicks, show_progress=False))
    rows = {
        id(codes): csr_matrix((np.ones(len(codes), np.float32), (np.zeros(len(codes), np.int32), codes)), (1, items))
        for codes in asked.sessions
    }

    def answer(codes: Any) -> Any:
        return model.recommend(0, rows[id(codes)], N=20, filter_already_liked_items=False)[0]

    table = model.similarity
    size = table.data.nbytes + table.indices.nbytes + table.indptr.nbytes
    return row(ask(answer, asked), fit_s, size / len(train.item), {"K": 200})


def wsknn(train: Interactions, asked: Asked, *, sample: int = 5000, neighbors: int = 500) -> dict[str, Any]:
    """Weighted session kNN; its index is Python objects, so its size is what the process grew by."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from wsknn import fit
    bounds = train.session_ptr.tolist()
    names, times = train.item.tolist(), train.time.tolist()
    sessions = {number: [names[begin:end], times[begin:end]] for number, (begin, end) in enumerate(pairwise(bounds))}
    before = resident_bytes()
    model, fit_s = spent(
        lambda: fit(
            sessions,
            number_of_recommendations=20,
            number_of_neighbors=neighbors,
            sampling_strategy="recent",
            sample_size=sample,
        )
    )
    size = resident_bytes() - before
    questions = {id(codes): [codes.tolist(), list(range(len(codes)))] for codes in asked.sessions}

    def answer(codes: Any) -> list[int]:
        return [item for item, _ in model.recommend(questions[id(codes)])]

    settings = {"sample": sample, "neighbors": neighbors}
    return row(ask(answer, asked), fit_s, size / len(train.item), settings)


def row(measured: dict[str, float], fit_s: float, bytes_per_click: float, settings: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    return {
        "settings": settings,
        **measured,
        "fit_cpu_s": round(fit_s, 2),
        "bytes_per_click": round(bytes_per_click, 2),
    }


def resident_bytes() -> int:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
