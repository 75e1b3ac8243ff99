"""What an interval says: better, not worse, worse, or that one cannot say."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a web worker reads intervals too, and never imports the library that makes them
    from thinslice.stats import Interval


def read(ci: "Interval | None", *, margin: float | None = None, direction: str = "up") -> str:
    """The reading of a relative interval.

    Turned so that up is good; the first that matches: low > 0 is better; low > -margin is not worse; high < 0 is worse;
    else one cannot say. "Not significant" is never "not worse".

    >>> read((-0.01, 0.04), margin=0.02)
    'not_worse'
    """
    if ci is None:
        return "cannot_say"
    low = -math.inf if ci[0] is None else ci[0]
    high = math.inf if ci[1] is None else ci[1]
    if direction == "down":
        low, high = -high, -low
    if low > 0:
        return "better"
    if margin is not None and low > -margin:
        return "not_worse"
    return "worse" if high < 0 else "cannot_say"
