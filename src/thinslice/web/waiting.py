"""How long a request has waited for its worker: nobody measures it on the way in, so it follows from the loop's rounds.

An event loop works in rounds: it looks which connections have something, then reads one after the other. Whoever is
read late in a round has waited since it began; whoever came while the round before was under way has waited about as
long as that took, since connections are read in the order in which they became ready.
"""

SLEPT_S = 0.002
"""After a longer gap (seconds) between the last answer of a round and the next round, the loop slept: nobody waited."""


class Rounds:
    """The rounds of one worker's loop.

    >>> rounds = Rounds()
    >>> round(rounds.waited_s(began=10.0, now=10.001), 3)
    0.001
    >>> rounds.answered(now=10.03)
    >>> round(rounds.waited_s(began=10.03, now=10.031), 3)
    0.03
    """

    def __init__(self) -> None:
        self._began = self._ended = float("-inf")
        self._before = 0.0

    def waited_s(self, began: float, now: float) -> float:
        """How long the request that is read now has waited, in seconds, at most a round more or less.

        Args:
            began: When this round began: `loop.time()`, which uvloop sets once a round.
            now: By the same clock.
        """
        if began != self._began:
            self._before = self._ended - self._began if began - self._ended < SLEPT_S else 0.0
            self._began = self._ended = began
        return max(now - began, self._before)

    def answered(self, now: float) -> None:
        """An answer went out."""
        self._ended = now
