"""Can an experiment be trusted? Every figure of docs/explain/trust.md: `python -m benchmarks.trust [SECTION …]`."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe
from thinslice.experiments.compare import compare
from thinslice.experiments.evidence import Evidence, planned_shares
from thinslice.experiments.novelty import novelty as check_novelty
from thinslice.jobs.rehearsal.allocation import Steered, conducted, steered
from thinslice.jobs.rehearsal.crowd import CONVERSION, SIDES, two_variants
from thinslice.jobs.rehearsal.granular import VIEWS, ages_of
from thinslice.jobs.rehearse import Design, Rehearsal, rehearse
from thinslice.simulate.scenarios import find_scenario
from thinslice.stats import Moments, logged_evidence, logged_ratio, sample_ratio, sequential_ratio

SHARE = 100.0
"""Figures are printed in percent."""


class Figure(NamedTuple):
    """One figure: what it is of, its value, and between which values it has to lie (None: no bound)."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def passed(self) -> bool:
        """Whether it lies there."""
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)


def played(name: str, runs: int, **numbers: object) -> Rehearsal:
    return rehearse(name, msgspec.structs.replace(find_scenario(name), **numbers), runs=runs, rng=0)


def design(found: Rehearsal, name: str) -> Design:
    return next(each for each in found.designs if each.name == name)


EFFECTS = (0.0, 0.05, 0.2)
"""Relative effects at which intervals have to hold the truth."""


def tested(name: str, found: Design, effect: float) -> Iterator[Figure]:
    """What a design said of an effect that is known: how often wrong, and whether its interval held it."""
    if effect == 0:
        yield Figure(f"A/A, {name}: rejects, %", SHARE * found.rejection_rate, 3.7, 6.3)
    yield Figure(f"effect {effect:+.0%}, {name}: interval holds truth, %", SHARE * found.coverage, 93.7, 96.3)


def aa(runs: int = 2_000) -> Iterator[Figure]:
    plain = {name: name for name in ("mean", "ratio", "cuped", "cluster", "switchback")}
    for effect in EFFECTS:
        for each in played("aa", runs, effect=effect, designs=plain).designs:
            yield from tested(each.name, each, effect)


def bandit(runs: int = 2_000) -> Iterator[Figure]:
    for units, effects in ((1_000, (0.0,)), (4_000, EFFECTS), (20_000, (0.0,))):
        for effect in effects:
            found = played("aa", runs, effect=effect, designs={"bandit": "bandit"}, bandit_units=units)
            yield from tested(f"revenue under a bandit, {units:,} units", design(found, "bandit"), effect)


def shared_training(runs: int = 20) -> Iterator[Figure]:
    churn = played("shared-training", runs)
    pooled, isolated = design(churn, "pooled"), design(churn, "isolated")
    yield Figure("shared-training, truth, points of click-through", SHARE * churn.truth["effect_size"])
    visits, visitors = (
        find_scenario("shared-training").visits_per_day // 2,
        find_scenario("shared-training").visitors // 2,
    )
    half = played("shared-training", runs, visits_per_day=visits, visitors=visitors, designs={})
    yield Figure("shared-training, truth of rankers that learn from half as many", SHARE * half.truth["effect_size"])
    yield Figure("shared-training, pooled says", SHARE * pooled.estimate_mean)
    yield Figure("shared-training, isolated says", SHARE * isolated.estimate_mean)
    yield Figure("shared-training, pooled: wrong sign, %", SHARE * pooled.wrong_sign_share, 90.0)
    yield Figure("shared-training, isolated: wrong sign, %", SHARE * isolated.wrong_sign_share, None, 5.0)
    yield Figure("shared-training, pooled: report warns, %", SHARE * pooled.warned_share, 100.0)


def static_training(runs: int = 10) -> Iterator[Figure]:
    static = played("shared-training-static", runs)
    truth = static.truth["effect_size"]
    lost = 1.0 - design(static, "pooled").estimate_mean / truth
    yield Figure("static, truth, points of click-through", SHARE * truth)
    yield Figure("static, pooled: effect that is lost, %", SHARE * lost, 80.0)
    off = abs(design(static, "isolated").bias) / truth
    yield Figure("static, isolated: off the truth by, %", SHARE * off, None, 15.0)


def adaptive(runs: int = 2_000) -> Iterator[Figure]:
    found = played("adaptive-allocation", runs)
    yield Figure("adaptive A/A, ordinary test: rejects, %", SHARE * design(found, "naive").rejection_rate, 50.0)
    yield Figure(
        "adaptive A/A, logged probabilities: rejects, %", SHARE * design(found, "aipw").rejection_rate, 3.7, 6.3
    )
    falsely = design(found, "aipw").warnings.get("sample_ratio", 0.0)
    yield Figure("adaptive A/A, sample ratio against the log: false alarms, %", SHARE * falsely, None, 0.5)
    ours = played("adaptive-allocation", runs // 4, rule="weighted")
    for name, words in (("naive", "ordinary test"), ("aipw", "logged probabilities")):
        share = SHARE * design(ours, name).rejection_rate
        yield Figure(f'allocation = "thompson" A/A ({ours.runs} runs), {words}: rejects, %', share)


def lost_rows(runs: int = 1_000, units: int = 60_000, batches: int = 60, lost: float = 0.05) -> Iterator[Figure]:
    """A bandit steers an A/A test, and some of treatment's rows never arrive: the split against the log."""
    base = np.linspace(0.05, 0.1, batches)[np.arange(units) * batches // units]
    own = two_variants("lost-rows", 14, metrics=[CONVERSION], allocation="thompson")
    for name, plays in (("that steers by means", runs), ("of our own rule", runs // 20)):
        found = dict.fromkeys(("false", "naive", "fixed", "sequential"), 0)
        for run in range(plays):
            draw = np.random.default_rng([0, run])
            where, outcomes = draw.random(units), np.stack([draw.random(units) < base] * 2).astype(np.float64)
            if name == "of our own rule":
                got = conducted(own, where, outcomes, batches=batches, draw=draw)
            else:
                got = steered(where, outcomes, batches=batches, floor=0.05, draw=draw)
            kept = (got.code == 0) | (draw.random(units) >= lost)
            shares = got.propensities[np.searchsorted(got.batch, np.arange(batches))]
            whole, parts = (_by_batch(got, rows, batches) for rows in (np.ones(units, dtype=bool), kept))
            found["false"] += logged_ratio(whole, shares).pvalue < 0.001
            found["naive"] += sample_ratio(whole.sum(axis=0), [0.5, 0.5]).pvalue < 0.001
            found["fixed"] += logged_ratio(parts, shares).pvalue < 0.001
            found["sequential"] += logged_evidence(parts, shares).alarm() is not None
        rate = {key: SHARE * times / plays for key, times in found.items()}
        words = f"sample ratio under a bandit {name} ({plays} runs)"
        yield Figure(f"{words}, against 50/50: false alarms, %", rate["naive"])
        yield Figure(f"{words}, against the log: false alarms, %", rate["false"], None, 0.5)
        low = 85.0 if name == "of our own rule" else None
        yield Figure(f"{words}, 5 % of a variant's 60,000 units lost: found, %", rate["fixed"], low)
        yield Figure(f"{words}, the same by bets after every batch: found, %", rate["sequential"])


def _by_batch(got: Steered, rows: NDArray[np.bool_], batches: int) -> NDArray[np.int64]:
    """Shape (batches, 2): units of each variant among some rows."""
    counts = [np.bincount(got.batch[rows & (got.code == side)], minlength=batches) for side in (0, 1)]
    return np.stack(counts, axis=1)


def peeking(runs: int = 2_000, looks: int = 14) -> Iterator[Figure]:
    found = played("peeking", runs, looks=looks)
    naive, sequence, planned = (design(found, name) for name in ("naive", "sequence", "planned"))
    yield Figure(f"{looks} looks, ordinary test: any look rejects, %", SHARE * naive.rejection_rate)
    yield Figure(f"{looks} looks, always-valid: any look rejects, %", SHARE * sequence.rejection_rate, None, 6.0)
    yield Figure(f"{looks} looks, planned: any look rejects, %", SHARE * planned.rejection_rate, None, 6.0)
    yield Figure(f"{looks} looks, always-valid: width", sequence.width, None, 1.7)
    yield Figure(f"{looks} looks, planned: width", planned.width, None, 1.15)


def peeking_100() -> Iterator[Figure]:
    yield from peeking(looks=100)


def novelty(runs: int = 200) -> Iterator[Figure]:
    fades, stays = played("novelty", runs), played("novelty", runs, decay=0.0)
    yield Figure("novelty of 0.02 s.d., 20,000 a variant: found, %", SHARE * design(fades, "steady").warned_share, 80.0)
    yield Figure("no novelty: false alarms, %", SHARE * design(stays, "steady").warned_share, None, 6.3)
    yield from novelty_sizes()


def novelty_sizes(runs: int = 2_000, units: int = 1_000, days: int = 14) -> Iterator[Figure]:
    """The two tests behind the check, each by itself, where nothing fades."""
    experiment, draw = two_variants("novelty", days, metrics=[VIEWS]), np.random.default_rng(0)
    found = dict.fromkeys(("late minus early", "slope by log(1 + days)", "both together"), 0)
    for _ in range(runs):
        code = draw.integers(0, 2, units)
        views = draw.standard_normal((units, days)) + 0.6 * draw.standard_normal((units, 1))
        evidence = Evidence({}, np.zeros((1, 2)), planned_shares(experiment), {}, ages=ages_of(views, code))
        row = check_novelty(evidence, experiment, 0.05)["variants"][0]
        said = (row["late_minus_early"]["pvalue"] < 0.05, row["trend"]["pvalue"] < 0.05, not row["stable"])
        found = {name: times + each for (name, times), each in zip(found.items(), said, strict=True)}
    for name, times in found.items():
        yield Figure(f"no novelty, {name} ({runs} runs): rejects, %", SHARE * times / runs, 3.7, 6.3)


def sample_ratios(runs: int = 2_000) -> Iterator[Figure]:
    draw = np.random.default_rng(0)
    for share, n in ((0.52, 13_069), (0.51, 52_264), (0.505, 209_144)):
        counts = draw.binomial(n, share, size=runs)
        found = sum(sample_ratio([count, n - count], [0.5, 0.5]).pvalue < 0.001 for count in counts)
        yield Figure(f"sample ratio {share:.1%} at {n:,} units: found, %", SHARE * found / runs, 88.0)
    until = 500 * np.arange(1, 1_201)
    alarms = []
    for _ in range(runs // 4):
        second = draw.binomial(500, 0.505, until.size).cumsum()
        alarm = sequential_ratio(np.stack([until - second, second], axis=1), [0.5, 0.5]).alarm()
        alarms.append(np.inf if alarm is None else float(until[alarm]))
    median = float(np.median(alarms))
    yield Figure(
        "sample ratio 50.5%, looked at after every 500 units: found at a median of, units", median, None, 170_000
    )
    found = design(played("sample-ratio", 60), "checked").warned_share
    yield Figure("5 % of one variant's logs lost in one browser: found, %", SHARE * found, 85.0)


def not_worse(runs: int = 6_000) -> Iterator[Figure]:
    goal = msgspec.structs.replace(CONVERSION, margin=0.05)
    experiment = two_variants("margin", 14, metrics=[goal])
    draw, n = np.random.default_rng(0), 20_000
    said = 0
    nothing = Evidence({}, np.array([[n, n]], dtype=np.float64), planned_shares(experiment), {})
    for pair in draw.binomial(n, [0.1, 0.095], size=(runs, 2)) / n:
        sides = {
            name: Moments(("converted",), n, np.array([p]), np.array([[p * (1 - p) * n / (n - 1)]]))
            for name, p in zip(SIDES, pair.tolist(), strict=True)
        }
        said += compare(sides, experiment, nothing._replace(variants=sides))[0].reading in ("not_worse", "better")
    yield Figure("true effect at the margin: said to be not worse, %", SHARE * said / runs, 1.9, 3.1)


def winners_curse(runs: int = 400) -> Iterator[Figure]:
    found = played("winners-curse", runs)
    yield Figure("60 experiments, added up: interval holds truth, %", SHARE * design(found, "sum").coverage)
    yield Figure(
        "60 experiments, hierarchy: interval holds truth, %", SHARE * design(found, "hierarchy").coverage, 92, 98
    )


def others(runs: int = 20) -> Iterator[Figure]:
    for name in ("cold-start", "harmed-segment", "interference", "interference-social", "feedback-loop"):
        found = played(name, 5 if name in ("cold-start", "feedback-loop") else runs)
        truth = found.truth["effect_size"]
        yield Figure(f"{name}: truth, relative, %", SHARE * found.truth["rel_effect_size"])
        for each in found.designs:
            said = (each.estimate_mean or 0.0) / truth * found.truth["rel_effect_size"]
            yield Figure(f"{name}, {each.name}: says, relative, %", SHARE * said)
            yield Figure(f"{name}, {each.name}: report warns, %", SHARE * each.warned_share)


SECTIONS: dict[str, Callable[[], Iterator[Figure]]] = {
    "aa": aa, "bandit": bandit, "shared-training": shared_training, "static": static_training,
    "adaptive": adaptive, "lost-rows": lost_rows, "peeking": peeking, "peeking-100": peeking_100, "novelty": novelty,
    "sample-ratio": sample_ratios, "not-worse": not_worse, "winners-curse": winners_curse, "others": others,
}  # fmt: skip


def main(names: list[str]) -> int:
    print("machine:", describe(), flush=True)
    failed = 0
    for name in names or list(SECTIONS):
        began = time.perf_counter()
        for figure in SECTIONS[name]():
            bounds = "" if figure.low is figure.high is None else f"  [{figure.low}, {figure.high}]"
            failed += not figure.passed
            print(f"{'' if figure.passed else 'MISSED '}{figure.name}: {figure.value:.2f}{bounds}", flush=True)
        print(f"({name}: {time.perf_counter() - began:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
