"""Rehearses an experiment before it is run: the same steps as in production, on shoppers whose truth is known."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from thinslice.jobs.rehearsal import (
    Play,
    Trial,
    allocation,
    granular,
    looks,
    market,
    markets,
    own,
    placements,
    program,
    replaying,
    shoppers,
)
from thinslice.simulate.scenario import (
    Fading,
    Harming,
    Learning,
    LostLogs,
    Meeting,
    Peeking,
    Program,
    Replaying,
    SameForAll,
    Scenario,
    Stealing,
    Switching,
)

Tell = Callable[[int, int], None]
"""Is told after each run: how many are done, and of how many."""


class Design(NamedTuple):
    """What one design of the experiment said over all runs.

    Attributes:
        name: Its name.
        words: How it is called in a sentence.
        estimate_mean: The mean of its estimates.
        estimate_se: The standard error of that mean; None with one run.
        estimate_sd: How much one estimate differs from the next; None with one run.
        bias: Mean of estimate minus truth.
        wrong_sign_share: Share of runs in which the estimate had the other sign than the truth; None where truth is 0.
        coverage: Share of the runs with a 95 % interval in which it held the truth; None where no run had one.
        rejection_rate: Share of runs in which the design said that there is a difference.
        warned_share: Share of runs in which the report warned.
        warnings: Check → share of runs in which it failed.
        actions: Decision → share of runs.
        width: Mean width of the interval, compared with one that is looked at once; None where nobody asks.
    """

    name: str
    words: str
    estimate_mean: float | None
    estimate_se: float | None
    estimate_sd: float | None
    bias: float | None
    wrong_sign_share: float | None
    coverage: float | None
    rejection_rate: float
    warned_share: float
    warnings: dict[str, float]
    actions: dict[str, float]
    width: float | None = None


class Rehearsal(NamedTuple):
    """What a rehearsal found.

    Attributes:
        scenario: Its name.
        says: What it shows.
        runs: How often it was played.
        truth: `effect_size` and `rel_effect_size`, `mean_control` and `mean_treatment`: means over the runs.
        designs: What each design said.
    """

    scenario: str
    says: str
    runs: int
    truth: dict[str, float | None]
    designs: list[Design]

    def as_json(self) -> dict[str, Any]:
        """As `rehearse --json` prints it."""
        return {**self._asdict(), "designs": [design._asdict() for design in self.designs]}


def rehearse(name: str, scenario: Scenario, *, runs: int = 20, rng: int = 0, tell: Tell | None = None) -> Rehearsal:
    """Plays a scenario several times and counts what each design said.

    Args:
        name: What it is called.
        scenario: The world and the designs.
        runs: How often; each time with other shoppers.
        rng: The seed; the same arguments give the same result.
        tell: Is told how far it is.
    """
    play = STAGES[type(scenario)](scenario, rng)
    plays = []
    for run in range(runs):
        plays.append(play(run))
        if tell is not None:
            tell(run + 1, runs)
    return conclude(name, scenario, plays)


STAGES: dict[type[Scenario], Callable[[Any, int], Callable[[int], Play]]] = {
    SameForAll: shoppers.stage,
    Learning: markets.stage,
    Switching: allocation.stage_switching,
    LostLogs: allocation.stage_lost_logs,
    Peeking: looks.stage,
    Fading: granular.stage_fading,
    Harming: granular.stage_harming,
    Meeting: market.stage,
    Program: program.stage,
    Replaying: replaying.stage,
    Stealing: placements.stage,
    own.Own: own.stage,
}
"""Kind of scenario → what prepares its play; each call of a play with the number of a run is one run."""


def conclude(name: str, scenario: Scenario, plays: Sequence[Play]) -> Rehearsal:
    """What many plays of one scenario say together."""
    control = float(np.mean([play.control for play in plays]))
    treatment = float(np.mean([play.treatment for play in plays]))
    effect = treatment - control
    truth = {
        "effect_size": effect,
        "rel_effect_size": effect / control if control else None,
        "mean_control": control,
        "mean_treatment": treatment,
    }
    designs = []
    for design, words in scenario.designs.items():
        trials = [trial for play in plays for trial in play.trials if trial.design == design]
        if trials:
            designs.append(_design(design, words, trials))
    return Rehearsal(name, scenario.says, len(plays), truth, designs)


def _design(name: str, words: str, trials: Sequence[Trial]) -> Design:
    n = len(trials)
    known = [(trial.estimate, trial.truth) for trial in trials if trial.estimate is not None]
    estimates = np.array([estimate for estimate, _ in known])
    sd = float(estimates.std(ddof=1)) if len(known) > 1 else None
    signed = [estimate * truth < 0 for estimate, truth in known if truth]
    warned = Counter(warning for trial in trials for warning in set(trial.warnings))
    actions = Counter(trial.action for trial in trials if trial.action)
    covered = [trial.covered for trial in trials if trial.ci is not None]
    widths = [trial.width for trial in trials if trial.width is not None]
    return Design(
        name=name,
        words=words,
        estimate_mean=float(estimates.mean()) if known else None,
        estimate_se=None if sd is None else sd / math.sqrt(len(known)),
        estimate_sd=sd,
        bias=float(np.mean([estimate - truth for estimate, truth in known])) if known else None,
        wrong_sign_share=float(np.mean(signed)) if signed else None,
        coverage=float(np.mean(covered)) if covered else None,
        rejection_rate=sum(trial.rejected for trial in trials) / n,
        warned_share=sum(bool(trial.warnings) for trial in trials) / n,
        warnings={check: times / n for check, times in warned.most_common()},
        actions={action: times / n for action, times in actions.most_common()},
        width=float(np.mean(widths)) if widths else None,
    )
