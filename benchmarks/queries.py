"""Questions of a public data set for benchmarks: train part, beginnings of test sessions, what came next; clocks."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from thinslice.models import from_columns
from thinslice.records import Interactions

Answer = Callable[[NDArray[np.int32]], Sequence[int] | NDArray[Any]]
"""From the codes of a session, oldest first, to the codes of its list, best first."""


class Asked(NamedTuple):
    """Sessions in codes, oldest click first, and the item that each is asked about."""

    sessions: list[NDArray[np.int32]]
    targets: list[int]


def load(data: Path, name: str, count: int) -> tuple[Interactions, Asked]:
    """The train part, and `count` of the queries of the test part (drawn with rng 0); items of the train part only."""
    table = pq.read_table(data / name / "events.parquet")
    session, item, ts, split = (table[column].to_numpy() for column in ("session_id", "item_id", "ts", "split"))
    train, test = (
        from_columns(session[split == part], item[split == part], ts[split == part]) for part in ("train", "test")
    )
    code = {item_id: number for number, item_id in enumerate(train.item_ids)}
    clicks = np.array([code.get(item_id, -1) for item_id in test.item_ids], dtype=np.int32)[test.item]
    sessions, targets = [], []
    for begin, end in zip(test.session_ptr[:-1].tolist(), test.session_ptr[1:].tolist(), strict=True):
        known = clicks[begin:end]
        known = known[known >= 0]
        sessions += [known[:step].copy() for step in range(1, len(known))]
        targets += known[1:].tolist()
    drawn = np.random.default_rng(0).permutation(len(sessions))[:count].tolist()
    return train, Asked([sessions[at] for at in drawn], [targets[at] for at in drawn])


def ask(answer: Answer, asked: Asked) -> dict[str, float]:
    """CPU time of this thread per answer in microseconds, and how often the item was among 20 (by the list's order)."""
    for session in asked.sessions[:200]:
        answer(session)
    taken, place = np.empty(len(asked.sessions)), np.zeros(len(asked.sessions))
    begun = time.perf_counter()
    for number, (session, target) in enumerate(zip(asked.sessions, asked.targets, strict=True)):
        cpu = time.thread_time_ns()
        found = answer(session)
        taken[number] = (time.thread_time_ns() - cpu) / 1000
        at = np.flatnonzero(np.asarray(found)[:20] == target)
        place[number] = at[0] + 1 if len(at) else 0
    wall_us = (time.perf_counter() - begun) / len(taken) * 1e6
    p50, p90, p99 = np.quantile(taken, [0.5, 0.9, 0.99]).round(1).tolist()
    return {
        "p50_us": p50,
        "p90_us": p90,
        "p99_us": p99,
        "wall_mean_us": round(wall_us, 1),
        "hr": round(float((place > 0).mean()), 4),
        "mrr": round(float((1 / place[place > 0]).sum() / len(place)), 4),
    }


def spent(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a piece of work gives, and the CPU seconds of this thread that it took."""
    cpu = time.thread_time()
    result = work()
    return result, time.thread_time() - cpu


def first_answer_s(model: Any) -> float:
    """Seconds from the start of a process to its first answer and end: arrays memory-mapped, compiled code cached."""
    code = (
        "import sys, pathlib, numpy; from thinslice.models import MODELS; "
        "arrays = {p.stem: numpy.load(p, mmap_mode='r') for p in pathlib.Path(sys.argv[1]).iterdir()}; "
        f"model = MODELS[{model.name!r}].from_arrays(arrays); model.recommend([model.item_ids[0]], 20)"
    )
    with tempfile.TemporaryDirectory() as folder:
        for part, array in model.arrays().items():
            np.save(Path(folder) / f"{part}.npy", array)
        taken = []
        for _ in range(4):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code, folder], check=True)
            taken.append(time.perf_counter() - begun)
    return round(min(taken[1:]), 2)
