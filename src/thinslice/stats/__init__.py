"""The arithmetic of experiments: moments, effects, intervals, balance; knows no shop."""

from thinslice.stats.always_valid import always_valid_half_width
from thinslice.stats.balance import Balance, logged_ratio, sample_ratio
from thinslice.stats.effects import Effect, effect
from thinslice.stats.moments import Moments, merge, moments, moments_from_sums
from thinslice.stats.multiplicity import holm
from thinslice.stats.relative import Interval, fieller, log_ratio, relative_change
from thinslice.stats.samples import Quotient, Sample, cuped_theta, sample

__all__ = [
    "Balance", "Effect", "Interval", "Moments", "Quotient", "Sample", "always_valid_half_width", "cuped_theta",
    "effect", "fieller", "holm", "log_ratio", "logged_ratio", "merge", "moments", "moments_from_sums",
    "relative_change", "sample", "sample_ratio",
]  # fmt: skip
