"""One run of a rehearsal: what was true, and what each design of the experiment said of it."""

from typing import NamedTuple

from thinslice.records import Report
from thinslice.stats import Interval


class Trial(NamedTuple):
    """What one design said in one run.

    Attributes:
        design: Its name.
        truth: The true effect, absolute.
        estimate: The effect that was found; None when there was nothing to compare.
        ci: Its interval.
        rejected: Whether the design said that there is a difference.
        warnings: Names of the checks that failed.
        action: What the report decides.
        width: How wide an interval was, compared with one that is looked at once; None where nobody asks.
    """

    design: str
    truth: float
    estimate: float | None
    ci: Interval | None
    rejected: bool
    warnings: tuple[str, ...]
    action: str = ""
    width: float | None = None

    @property
    def covered(self) -> bool:
        """Whether the interval holds the truth."""
        if self.ci is None:
            return False
        low, high = self.ci
        return (low is None or low <= self.truth) and (high is None or self.truth <= high)


class Play(NamedTuple):
    """One run: the means under each policy alone, and what the designs said.

    Attributes:
        control: The metric's true mean under control alone.
        treatment: Under treatment alone.
        trials: One or more a design.
    """

    control: float
    treatment: float
    trials: list[Trial]


def trial_of(report: Report, design: str, truth: float, *, alpha: float = 0.05) -> Trial:
    """What a production report says of its goal."""
    goal = next(row for row in report.metrics if row.role == "goal")
    rejected = goal.pvalue is not None and goal.pvalue < alpha
    return Trial(
        design, truth, goal.effect_size, goal.effect_size_ci, rejected, warnings_of(report), report.decision.action
    )


def warnings_of(report: Report) -> tuple[str, ...]:
    """The checks of a report that failed."""
    return tuple(check.name for check in report.checks if not check.passed)
