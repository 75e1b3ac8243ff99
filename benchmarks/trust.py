"""Can an experiment be trusted? Every figure of docs/explain/trust.md: `python -m benchmarks.trust [SECTION …]`."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from benchmarks.detectors import DETECTORS
from benchmarks.figures import SHARE, Figure, Part, design, played
from benchmarks.machine import describe
from thinslice.experiments.analyze import analyze
from thinslice.experiments.compare import compare
from thinslice.experiments.evidence import Evidence, Units, gather, planned_shares
from thinslice.experiments.novelty import novelty as check_novelty
from thinslice.jobs.rehearsal.allocation import Steered, conducted, steered
from thinslice.jobs.rehearsal.crowd import CONVERSION, NAMES, SIDES, end_of, two_variants
from thinslice.jobs.rehearsal.granular import VIEWS, ages_of
from thinslice.jobs.rehearse import Design
from thinslice.simulate.scenarios import find_scenario
from thinslice.stats import Moments, logged_evidence, logged_ratio, sample_ratio, sequential_ratio

EFFECTS = (0.0, 0.05, 0.2)
"""Relative effects at which intervals have to hold the truth."""


def held(found: Design) -> float:
    """How often its interval held the truth, %."""
    return SHARE * (found.coverage or 0.0)


def tested(name: str, found: Design, effect: float) -> Iterator[Figure]:
    """What a design said of an effect that is known: how often wrong, and whether its interval held it."""
    if effect == 0:
        yield Figure(f"A/A, {name}: rejects, %", SHARE * found.rejection_rate, 3.7, 6.3)
    yield Figure(f"effect {effect:+.0%}, {name}: interval holds truth, %", held(found), 93.7, 96.3)


def aa(effect: float, runs: int = 2_000) -> Iterator[Figure]:
    plain = {name: name for name in ("mean", "ratio", "cuped", "cluster", "switchback")}
    for each in played("aa", runs, effect=effect, designs=plain).designs:
        yield from tested(each.name, each, effect)


def bandit(units: int, effect: float, runs: int = 2_000) -> Iterator[Figure]:
    found = played("aa", runs, effect=effect, designs={"bandit": "bandit"}, bandit_units=units)
    yield from tested(f"revenue under a bandit, {units:,} units", design(found, "bandit"), effect)


def rare(chance: float, batch: int, runs: int = 2_000) -> Iterator[Figure]:
    """Few buyers under a bandit without effect: refused, or right."""
    experiment = two_variants("rare", 14, metrics=[CONVERSION])
    refused = rejected = 0
    for run in range(runs):
        draw, units = np.random.default_rng([0, run]), 20 * batch
        buys = (draw.random(units) < chance).astype(np.float64)
        got = steered(draw.random(units), np.stack([buys, buys]), batches=20, floor=0.1, draw=draw)
        known = gather(
            Units(NAMES[got.code], {"converted": buys}, propensities=got.propensities, batch=got.batch), experiment
        )
        (row,) = compare(known.variants, experiment, known, whole=True)
        refused += row.pvalue is None
        rejected += row.pvalue is not None and row.pvalue < 0.05
    words = f"{chance:.0%} buyers, 20 batches of {batch} under a bandit ({runs:,} runs)"
    yield Figure(f"{words}: refused for too few buyers, %", SHARE * refused / runs)
    yield Figure(f"{words}: the others reject, %", SHARE * rejected / max(runs - refused, 1), None, 6.3)


LEAVES = {"phone": (1.0, 150, 0), "desktop": (4.0, 40, 20)}
"""Leaf → views of a visitor, visitors of the first day, and how many more each day: the mix shifts."""


def leaves(runs: int = 2_000, days: int = 10) -> Iterator[Figure]:
    """A contextual bandit without effect: results steer two leaves of visitors apart, whose levels differ."""
    experiment = two_variants("leaves", days, metrics=[VIEWS], allocation="thompson")
    now = end_of(days)
    found = dict.fromkeys(("an ordinary test", "by logged probabilities"), 0)
    for run in range(runs):
        draw = np.random.default_rng([0, run])
        parts = []
        for level, first, more in LEAVES.values():
            day = np.repeat(np.arange(days), first + more * np.arange(days))
            views = draw.poisson(level, day.size).astype(np.float64)
            got = conducted(experiment, draw.random(day.size), np.stack([views, views]), batches=day, draw=draw)
            parts.append((got, views))
        code, shares, batch = (np.concatenate(columns) for columns in zip(*(got for got, _ in parts), strict=True))
        views = np.concatenate([views for _, views in parts])
        logged = Units(NAMES[code], {"views": views}, propensities=shares, batch=batch)
        plain = Units(NAMES[code], {"views": views})
        for name, units in (("an ordinary test", plain), ("by logged probabilities", logged)):
            pvalue = analyze(units, experiment, now).metrics[0].pvalue
            found[name] += pvalue is not None and pvalue < 0.05
    words = f"A/A, leaves steered apart ({runs:,} runs)"
    yield Figure(f"{words}, an ordinary test: rejects, %", SHARE * found["an ordinary test"] / runs)
    yield Figure(
        f"{words}, by logged probabilities: rejects, %", SHARE * found["by logged probabilities"] / runs, 3.7, 6.3
    )


def shared_training(runs: int = 20) -> Iterator[Figure]:
    churn = played("shared-training", runs)
    pooled, isolated = design(churn, "pooled"), design(churn, "isolated")
    yield Figure("shared-training, truth, points of click-through", SHARE * churn.truth["effect_size"])
    yield Figure("shared-training, pooled says", SHARE * pooled.estimate_mean)
    yield Figure("shared-training, isolated says", SHARE * isolated.estimate_mean)
    yield Figure("shared-training, pooled: wrong sign, %", SHARE * pooled.wrong_sign_share, 90.0)
    yield Figure("shared-training, isolated: wrong sign, %", SHARE * isolated.wrong_sign_share, None, 5.0)
    yield Figure("shared-training, pooled: report warns, %", SHARE * pooled.warned_share, 100.0)


def half_training(runs: int = 20) -> Iterator[Figure]:
    """What the same rankers do that learn from half as many visitors."""
    visits, visitors = (
        find_scenario("shared-training").visits_per_day // 2,
        find_scenario("shared-training").visitors // 2,
    )
    half = played("shared-training", runs, visits_per_day=visits, visitors=visitors, designs={})
    yield Figure("shared-training, truth of rankers that learn from half as many", SHARE * half.truth["effect_size"])


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


def adaptive_own_rule(runs: int = 500) -> Iterator[Figure]:
    ours = played("adaptive-allocation", runs, rule="weighted")
    for name, words in (("naive", "ordinary test"), ("aipw", "logged probabilities")):
        share = SHARE * design(ours, name).rejection_rate
        yield Figure(f'allocation = "thompson" A/A ({ours.runs} runs), {words}: rejects, %', share)


def lost_rows(name: str, plays: int, units: int = 60_000, batches: int = 60, lost: float = 0.05) -> Iterator[Figure]:
    """A bandit steers an A/A test, and some of treatment's rows never arrive: the split against the log."""
    base = np.linspace(0.05, 0.1, batches)[np.arange(units) * batches // units]
    own = two_variants("lost-rows", 14, metrics=[CONVERSION], allocation="thompson")
    found = dict.fromkeys(("false", "naive", "fixed", "sequential"), 0)
    for run in range(plays):
        draw = np.random.default_rng([0, run])
        where, outcomes = draw.random(units), np.stack([draw.random(units) < base] * 2).astype(np.float64)
        if name == OWN_RULE:
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
    low = 85.0 if name == OWN_RULE else None
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


def novelty(decay: float, runs: int = 200) -> Iterator[Figure]:
    told = SHARE * design(played("novelty", runs, decay=decay), "steady").warned_share
    if decay:
        yield Figure(f"novelty of {decay:g} s.d., 20,000 a variant ({runs} runs): found, %", told, 80.0)
    else:
        yield Figure(f"no novelty ({runs} runs): false alarms, %", told, None, 6.3)


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


def sample_ratios(runs: int = 200_000) -> Iterator[Figure]:
    """How often the test finds a broken split: counted out over the binomial distribution, and by drawing."""
    draw = np.random.default_rng(0)
    for share, n in ((0.52, 13_069), (0.51, 52_264), (0.505, 209_144)):
        counts = np.arange(n // 2 - round(6 * n**0.5), n // 2 + round(6 * n**0.5))
        alarms = np.array([sample_ratio([count, n - count], [0.5, 0.5]).pvalue < 0.001 for count in counts.tolist()])
        power, size = (1.0 - float(binom.pmf(counts[~alarms], n, of).sum()) for of in (share, 0.5))
        words = f"sample ratio {share:.1%} at {n:,} units"
        yield Figure(f"{words}: found, counted out, %", SHARE * power, 89.95)
        yield Figure(f"{words}: false alarms, counted out, %", SHARE * size, None, 0.1005)
        seen = draw.binomial(n, share, size=runs)
        found = float(alarms[np.clip(seen - counts[0], 0, counts.size - 1)].mean())
        off = 3 * SHARE * (power * (1 - power) / runs) ** 0.5
        yield Figure(f"{words}: found in {runs:,} draws, %", SHARE * found, SHARE * power - off, SHARE * power + off)


def sample_ratio_over_time(runs: int = 500) -> Iterator[Figure]:
    draw, until, alarms = np.random.default_rng(0), 500 * np.arange(1, 1_201), []
    for _ in range(runs):
        second = draw.binomial(500, 0.505, until.size).cumsum()
        alarm = sequential_ratio(np.stack([until - second, second], axis=1), [0.5, 0.5]).alarm()
        alarms.append(np.inf if alarm is None else float(until[alarm]))
    words = "sample ratio 50.5 %, looked at after every 500 units"
    yield Figure(f"{words}: found at a median of, units", float(np.median(alarms)), None, 170_000)


def lost_logs(runs: int = 60) -> Iterator[Figure]:
    found = design(played("sample-ratio", runs), "checked").warned_share
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
    yield Figure("60 experiments, added up: interval holds truth, %", held(design(found, "sum")))
    yield Figure("60 experiments, hierarchy: interval holds truth, %", held(design(found, "hierarchy")), 92, 98)


def world(name: str, runs: int) -> Iterator[Figure]:
    found = played(name, runs)
    truth = found.truth["effect_size"]
    yield Figure(f"{name}: truth, relative, %", SHARE * found.truth["rel_effect_size"])
    for each in found.designs:
        said = (each.estimate_mean or 0.0) / truth * found.truth["rel_effect_size"]
        yield Figure(f"{name}, {each.name}: says, relative, %", SHARE * said)
        yield Figure(f"{name}, {each.name}: report warns, %", SHARE * each.warned_share)


OWN_RULE = "of our own rule"

SECTIONS: dict[str, Sequence[Part]] = {
    "shared-training": [shared_training, half_training],
    "others": [
        partial(world, "cold-start", 5), partial(world, "feedback-loop", 5), partial(world, "harmed-segment", 20),
        partial(world, "interference", 20), partial(world, "interference-social", 20),
    ],
    "detectors": DETECTORS,
    "aa": [partial(aa, effect) for effect in EFFECTS],
    "bandit": [
        *(partial(bandit, 4_000, effect) for effect in EFFECTS), partial(bandit, 1_000, 0.0),
        partial(bandit, 20_000, 0.0), leaves, partial(rare, 0.01, 100), partial(rare, 0.01, 200),
    ],
    "static": [static_training], "adaptive": [adaptive, adaptive_own_rule],
    "lost-rows": [partial(lost_rows, "that steers by means", 1_000), partial(lost_rows, OWN_RULE, 50)],
    "peeking": [partial(peeking, looks=14), partial(peeking, looks=100)],
    "novelty": [partial(novelty, 0.02), partial(novelty, 0.0), novelty_sizes],
    "sample-ratio": [sample_ratios, sample_ratio_over_time, lost_logs], "not-worse": [not_worse],
    "winners-curse": [winners_curse],
}  # fmt: skip
"""Section → its parts; those that take longest come first, so that no process waits for another at the end."""

ALONE = {
    "assignment": "-m benchmarks.assignment",
    "report": "-m benchmarks.report --rows 100_000_000",
    "agreement": "-m pytest -q tests/stats/test_oracles.py tests/stats/test_effects.py tests/stats/test_power.py",
}
"""What is timed, and agreement with other libraries: commands that run at the end, one after the other."""


def measured(part: Part) -> tuple[list[Figure], float]:
    """The figures of one part, and the CPU seconds that they took."""
    began = time.process_time()
    return list(part()), time.process_time() - began


def main(names: list[str]) -> int:
    there = [*SECTIONS, *ALONE]
    unknown = [name for name in names if name not in there]
    if unknown:
        print(f"there is no section {unknown[0]!r} (there is: {', '.join(there)}).", file=sys.stderr)
        return 2
    began, processes = time.perf_counter(), min(2, os.cpu_count() or 1)
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[threads] = "1"  # before the processes start: each takes one core
    print("machine:", describe(), flush=True)
    counted, missed = 0, []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = {
            name: [pool.submit(measured, part) for part in SECTIONS[name]]
            for name in names or there
            if name in SECTIONS
        }
        for name, parts in running.items():
            print(f"\n{name}", flush=True)
            spent = 0.0
            for future in parts:
                figures, seconds = future.result()
                spent += seconds
                for figure in figures:
                    counted += bool(figure.bounds)
                    missed += [] if figure.passed else [figure.name]
                    bounds = f"  [{figure.bounds}]" if figure.bounds else ""
                    mark = "" if figure.passed else "MISSED "
                    print(f"  {figure.value:>12,.2f}  {mark}{figure.name}{bounds}", flush=True)
            print(f"  ({name}: {spent:.0f} CPU seconds)", flush=True)
    for name in [each for each in names or there if each in ALONE]:
        print(f"\n{name}: python {ALONE[name]}", flush=True)
        if subprocess.run([sys.executable, *ALONE[name].split()], check=False).returncode:
            missed.append(name)
    print(f"\n{time.perf_counter() - began:.0f} seconds on {processes} processes", flush=True)
    if missed:
        print(f"{len(missed)} of {counted} figures with bounds lie outside, or failed: {'; '.join(missed)}")
        return 1
    print(f"All {counted} figures with bounds lie inside." if counted else "Nothing failed.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
