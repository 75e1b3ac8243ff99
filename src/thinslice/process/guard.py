"""The guard of the lake: the jobs fill idle time, but where the lake falls behind for want of it they get a share.

Nobody without privileges gets a process out of the idle class. So the parent, which is always there, ends the jobs that
starve (whatever is killed, nothing is lost) and starts them with a share of their own; some minutes later they stand
back again. Each time that this was too early, they keep their share twice as long.
"""

import json
import logging
from pathlib import Path
from typing import Any

BEHIND_S = 20.0
"""A compaction that is due for so long (seconds) and has not been done has starved."""

FIRST_HOLD_S = 300.0
LONGEST_HOLD_S = 3600.0
"""How long the jobs keep a share at first, and at most, in seconds."""

log = logging.getLogger("thinslice.process")


class Guard:
    """Whether the jobs of one service have a share of their own, by what they say in `run/jobs.json`.

    Args:
        said: That file.
        commit_every_s: How often the logs become lake tables, in seconds.
        opened_at: When the service started, in unix seconds: nothing is due before.
        shares: Whether they have a share from the start, as where no shop has a model yet: a first one is not to wait.

    Attributes:
        shares: Whether the jobs have a share now; else they fill idle time.
        times: How often they got one.

    >>> guard = Guard(Path("there-is-none.json"), 60.0, 1000.0)
    >>> guard.look(1080.0), guard.look(1081.0), guard.shares
    (False, True, True)
    """

    def __init__(self, said: Path, commit_every_s: float, opened_at: float, *, shares: bool = False) -> None:
        self.shares = shares
        self.times = 0
        self._said = said
        self._commit_every_s = commit_every_s
        self._opened_at = self._since = opened_at
        self._hold_s = FIRST_HOLD_S

    def look(self, now: float) -> bool:
        """Decides anew; returns whether `shares` changed.

        Args:
            now: Unix seconds.
        """
        said = said_in(self._said)
        waits_s = now - max(self._opened_at, float(said.get("covered_until") or 0.0))
        behind = waits_s > self._commit_every_s + BEHIND_S
        starved = said.get("starved") or []
        if behind or starved:
            if self.shares:
                return False
            if self.times:
                early = now - self._since <= self._hold_s
                self._hold_s = min(LONGEST_HOLD_S, 2 * self._hold_s) if early else FIRST_HOLD_S
            self.shares, self._since, self.times = True, now, self.times + 1
            what = f"the lake has not been written for {waits_s:.0f} s" if behind else "a training starved"
            log.warning("%s, since the machine has no idle time: the jobs get a share for %.0f s", what, self._hold_s)
            return True
        if self.shares and now - self._since > self._hold_s:
            self.shares, self._since = False, now
            return True
        return False


def said_in(path: Path) -> dict[str, Any]:
    """What the jobs said last; nothing when they never did, or the machine lost its power at that moment."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found
