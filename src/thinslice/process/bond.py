"""Bonds between parent and child processes: a child never outlives its parent, and jobs never take a core from it."""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKIO_WORKER_THREADS": "1",
}
"""Environment of a process that shall use one thread for computing."""


def die_with(parent: int) -> None:
    """Asks the system to kill this process when its parent dies; ends it at once when that has happened already.

    Args:
        parent: Process id of the parent, taken before this process was started.

    Raises:
        OSError: The system refuses.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process with this id exists and is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:  # noqa: PTH123 (no disk)
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return sys.platform != "linux"


SHARE_NICE = 10
"""At this priority a process gets about a tenth of a core that others could use whole."""


def computed_s(pid: int) -> float:
    """How many seconds a process has computed so far; infinite where the system does not say, or it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:  # noqa: PTH123 (no disk)
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return sum(int(each) for each in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def stand_back(*, keep_share: bool = False, nice: int = SHARE_NICE) -> None:
    """Lets everything else go first: the lowest priority, and on Linux the class that only fills idle time.

    A process of the lowest priority still keeps one that wakes up waiting for its turn; one of the idle class yields at
    once. Training uses it, because a late model is no loss and a late slate is. Where the kernel groups processes by
    session, this holds only against those of the same session.

    Args:
        keep_share: Keeps a share of a core, for what must end some time on a machine without any idle time; it is
            taken for work in bulk, that wakes up behind everybody else. A process that stands back
            already, or whose parent did, stays there.
        nice: How large that share is; about a tenth of a core when nothing is said.
    """
    if keep_share:
        os.nice(max(0, nice - os.nice(0)))
        if hasattr(os, "SCHED_BATCH"):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return
    os.nice(19 - os.nice(0))
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def stay_on(processor: int) -> None:
    """Keeps this process, and the threads that it begins, on one processor; only Linux can.

    Args:
        processor: As `os.sched_getaffinity` numbers them.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {processor})


def processors_for(workers: int) -> list[int | None]:
    """The processor on which each worker stays, when there are as many; else they roam (None).

    A busy worker never sleeps, and a processor that runs the jobs in idle time never looks for other work: so Linux
    has left two workers on one processor for half a second, each with half of it, beside one that trained.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [None] * workers
    there = sorted(os.sched_getaffinity(0))
    return [*there] if len(there) == workers > 1 else [None] * workers


def push_back(pid: int) -> None:
    """Does to another process what `stand_back` does to this one; its children stay as they are.

    Threads that begin meanwhile take after the one that starts them, so it looks until it finds none left.
    """
    if not hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, pid, 19)
        return
    done: set[int] = set()
    with contextlib.suppress(FileNotFoundError):
        while threads := {int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()} - done:
            for thread in threads:
                with contextlib.suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, thread, 19)
                    os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
            done |= threads
