"""The arithmetic of experiments: moments, effects, intervals, balance, designs, plans; knows no shop."""

from thinslice.stats.adaptive import SCORE_WEIGHT, Cell, adaptive_scores, cells_of, score_column, unit_scores
from thinslice.stats.always_valid import (
    always_valid_alpha,
    always_valid_ci,
    always_valid_half_width,
    always_valid_pvalue,
)
from thinslice.stats.balance import Balance, logged_ratio, sample_ratio
from thinslice.stats.block_quantiles import BlockValues, block_quantile_effect
from thinslice.stats.clusters import (
    CLUSTER_UNITS,
    Clustering,
    cluster_effect,
    cluster_totals,
    clustering,
    design_effect,
)
from thinslice.stats.day_levels import DayTrend, day_mean, day_trend, share_step
from thinslice.stats.effects import Effect, effect, paired_effect
from thinslice.stats.estimates import Estimate, estimate
from thinslice.stats.group_sequential import Looks, obrien_fleming_looks
from thinslice.stats.heterogeneity import (
    Heterogeneity,
    dersimonian_laird,
    heterogeneity,
    paule_mandel,
    shrink,
    worst,
)
from thinslice.stats.hierarchy import Agreement, Cumulative, agreement, cumulative, partial_sum
from thinslice.stats.interaction import Interaction, Ramp, Stage, interaction, ramp, spillover
from thinslice.stats.moments import Moments, merge, moments, moments_from_sums
from thinslice.stats.multiplicity import benjamini_hochberg, holm, smaller_of_two
from thinslice.stats.novelty import EARLY_DAYS, LATE_FROM, Cohort, Trend, late_minus_early, shared_variance, trend
from thinslice.stats.power import (
    days_needed,
    power,
    smallest_effect,
    smallest_margin,
    units_needed,
    with_correlation,
)
from thinslice.stats.quantiles import pooled_cap, quantile_sample, winsorize
from thinslice.stats.relative import Interval, fieller, log_ratio, relative_change
from thinslice.stats.samples import Quotient, Sample, cuped_theta, sample
from thinslice.stats.sequential_balance import BalanceOverTime, logged_evidence, sequential_ratio
from thinslice.stats.switchback import (
    Blocks,
    SwitchbackEffect,
    carry_over_effect,
    redraw,
    switchback_blocks,
    switchback_effect,
)

__all__ = [
    "CLUSTER_UNITS", "EARLY_DAYS", "LATE_FROM", "SCORE_WEIGHT", "Agreement", "Balance", "BalanceOverTime",
    "BlockValues", "Blocks", "Cell", "Clustering", "Cohort", "Cumulative", "DayTrend", "Effect", "Estimate",
    "Heterogeneity", "Interaction", "Interval", "Looks", "Moments", "Quotient", "Ramp", "Sample", "Stage",
    "SwitchbackEffect", "Trend", "adaptive_scores", "agreement", "always_valid_alpha", "always_valid_ci",
    "always_valid_half_width", "always_valid_pvalue", "benjamini_hochberg", "block_quantile_effect",
    "carry_over_effect", "cells_of", "cluster_effect", "cluster_totals", "clustering", "cumulative", "cuped_theta",
    "day_mean", "day_trend", "days_needed", "dersimonian_laird", "design_effect", "effect", "estimate", "fieller",
    "heterogeneity", "holm", "interaction", "late_minus_early", "log_ratio", "logged_evidence", "logged_ratio",
    "merge", "moments", "moments_from_sums", "obrien_fleming_looks", "paired_effect", "partial_sum", "paule_mandel",
    "pooled_cap", "power", "quantile_sample", "ramp", "redraw", "relative_change", "sample", "sample_ratio",
    "score_column", "sequential_ratio", "share_step", "shared_variance", "shrink", "smaller_of_two", "smallest_effect",
    "smallest_margin", "spillover",
    "switchback_blocks", "switchback_effect", "trend", "unit_scores", "units_needed", "winsorize",
    "with_correlation", "worst",
]  # fmt: skip
