"""Checks that look for the cause: over time, by day and segment, what was lost, who the bots are, who taught whom."""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.errors import StatisticsError
from thinslice.experiments.evidence import WEIGHT, Evidence, Split, treatments
from thinslice.experiments.wording import percent
from thinslice.records import Check, Experiment
from thinslice.stats import Moments, Quotient, effect, holm, logged_evidence, logged_ratio, sample

ALARM = 0.001
"""Every check alarms falsely with this chance at most, over all of its days, segments or columns together."""

FEWEST = 5.0
"""A slice is tested from so many expected units of its rarest variant on: below, chi-square is not right."""

DAY = "entry day"
"""The slice of `Evidence.splits` that is made of days."""


class _Odd(NamedTuple):
    """One slice's split: how far it is off, and in which direction."""

    where: str
    pvalue: float
    statistic: float
    words: str


UNKNOWN = "unknown"
"""The value of a segment that was not sent."""

KNOWN_SEGMENTS = ("device", "browser", "returning", "country", "entry_page", "placement")
"""Segments that are known without being sent by name, or that a shop usually sends."""


def sample_ratio_over_time(evidence: Evidence, experiment: Experiment) -> Check | None:
    """The split after every entry day, right however often one looks; None where days are unknown."""
    days = list(evidence.splits.get(DAY, {}).items())
    if not days:
        return None
    counts = np.concatenate([split.counts for _, split in days])
    shares = np.concatenate([split.propensities for _, split in days])
    owner = np.concatenate([np.full(len(split.counts), at) for at, (_, split) in enumerate(days)])
    found = logged_evidence(counts, shares)
    alarm = found.alarm(ALARM)
    detail = "as planned on the one entry day" if len(days) == 1 else f"as planned after each of {len(days):,} days"
    if alarm is not None:
        name = days[int(owner[alarm])][0]
        detail = (
            f"off since {name}: {_words(Split(counts[: alarm + 1], shares[: alarm + 1]), experiment)}. Look for what "
            "changed on that day: a release, new weights without a new version, a bot, a filter"
        )
    statistic = float(found.log_evidence.max())
    return Check(
        name="sample_ratio_over_time", passed=alarm is None,
        statistic=statistic if np.isfinite(statistic) else None, pvalue=found.pvalue, detail=detail,
    )  # fmt: skip


def sample_ratio_by_day(evidence: Evidence, experiment: Experiment) -> Check | None:
    """The split of each entry day by itself (Holm over days); None with fewer than two days."""
    days = evidence.splits.get(DAY, {})
    if len(days) < 2:
        return None
    advice = "a day on which one variant lost units: compare its releases and outages"
    return _sliced("sample_ratio_by_day", {DAY: days}, experiment, advice)


def sample_ratio_by_segment(evidence: Evidence, experiment: Experiment) -> Check | None:
    """The split inside of every value of every segment (Holm over all of them); None without segments."""
    slices = {name: values for name, values in evidence.splits.items() if name != DAY}
    if not slices:
        return None
    advice = "this is where units of one variant get lost, or the segment is not known before the assignment"
    return _sliced("sample_ratio_by_segment", slices, experiment, advice)


def odd_segments(evidence: Evidence, experiment: Experiment) -> dict[str, str]:
    """Segments whose values fall unlike all units together, with the worst value in words.

    Such a segment is a result of the treatment (or loses units): an effect inside of it means nothing.
    """
    odd: dict[str, str] = {}
    for found in _against_all(evidence, experiment):
        if found.pvalue < ALARM:
            odd.setdefault(found.where.partition(" = ")[0], f"{found.where}: {found.words}")
    return odd


def unknown_segments(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Whether each declared segment was ever sent with a slate; None where all were.

    Keys of the request's context are free, so a name that nobody sends is found only when units have come.
    """
    known = {**evidence.segments, **evidence.block_segments}
    absent = [name for name in experiment.segments if set(known.get(name, ())) == {UNKNOWN}]
    if not absent:
        return None
    words = []
    for name in absent:
        near = difflib.get_close_matches(name, [each for each in KNOWN_SEGMENTS if each not in absent], 1)
        words.append(f"{name!r}{f' ({near[0]!r} perhaps?)' if near else ''}")
    return Check(
        name="unknown_segments", passed=False, statistic=None, pvalue=None,
        detail=f"no slate of any unit said {' or '.join(words)}, so nothing is known by that",
        advice="Send it in the context of each request, or stop and start anew under another name with a segment that "
        f"is sent: {', '.join(KNOWN_SEGMENTS)} stand there by themselves where they are known.",
    )  # fmt: skip


def segments_before_exposure(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Whether segments of a file were known before the assignment: then each value falls like all units together."""
    ranked = _against_all(evidence, experiment)
    if not ranked:
        return None
    odd = odd_segments(evidence, experiment)
    detail = "the values of each segment fall like all units together"
    if odd:
        detail = "; ".join(
            f"segment {name!r} depends on the variant ({words}), so it was not known before the assignment, or units "
            "are lost there: its effects are not shown"
            for name, words in odd.items()
        )
    worst = ranked[0]
    return Check(
        name="segments_before_exposure", passed=not odd, statistic=worst.statistic, pvalue=worst.pvalue, detail=detail
    )


def _against_all(evidence: Evidence, experiment: Experiment) -> list[_Odd]:
    """Values of segments against the split of all units: a mismatch of the whole is not blamed on each part."""
    expected = evidence.counts.sum(axis=1) @ evidence.propensities
    seen = evidence.counts.sum(axis=0)
    shift = np.divide(seen, expected, out=np.ones_like(expected), where=expected > 0)

    def turned(split: Split) -> Split:
        shares = split.propensities * shift
        total = shares.sum(axis=1, keepdims=True)
        return Split(split.counts, np.divide(shares, total, out=split.propensities.copy(), where=total > 0))

    slices = {
        name: {value: turned(split) for value, split in values.items()}
        for name, values in evidence.splits.items()
        if name != DAY
    }
    return _ranked(slices, experiment)


def covariate_balance(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Before the test variants must not differ: what was known before, compared like an effect (Holm over columns)."""
    columns = list(dict.fromkeys([*evidence.pasts.values(), *([evidence.covariate] if evidence.covariate else [])]))
    control = evidence.variants.get(experiment.control_name)
    if not columns or control is None:
        return None
    unit = WEIGHT if evidence.weighted or evidence.clusters else None
    found: list[tuple[str, float, float | None, float]] = []
    for variant in treatments(experiment):
        treated = evidence.variants.get(variant.name)
        if treated is None or min(control.n, treated.n) < 2:
            continue
        df = float(control.n + treated.n - 2) if evidence.clusters else None
        for column in columns:
            quotient = Quotient(column, unit)
            got = effect(sample(control, quotient), sample(treated, quotient), df=df)
            if got.pvalue is not None:
                found.append((f"{column} in {variant.name}", got.pvalue, got.rel_effect_size, got.effect_size / got.se))
    if not found:
        return None
    adjusted = [1.0 if p is None else p for p in holm([p for _, p, _, _ in found])]
    worst = int(np.argmin(adjusted))
    where, _, change, statistic = found[worst]
    passed = adjusted[worst] >= ALARM
    detail = f"variants were alike before the test in {len(found)} comparison{'' if len(found) == 1 else 's'}"
    if not passed:
        size = "differs" if change is None else f"differs by {percent(change)}"
        detail = (
            f"{where} {size} before anything was shown: the assignment is not random, or units of one kind are lost; "
            "effects are biased by it"
        )
    return Check(name="covariate_balance", passed=passed, statistic=statistic, pvalue=adjusted[worst], detail=detail)


def missing_exposures(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Slates that were served and never seen, by variant; None where pages report no impressions at all.

    The share of served slates of which an impression arrived depends on the browser and the network, not on what the
    slate shows; where it differs by variant, one variant's log gets lost.
    """
    found = _reported({"": evidence.served}, experiment)
    if not found:
        return None
    worst = found[0]
    passed = worst.pvalue >= ALARM
    hint = "" if passed else ": one variant's reports get lost (a slower page, a broken tag, an ad blocker)"
    return Check(
        name="missing_exposures", passed=passed, statistic=worst.statistic, pvalue=worst.pvalue,
        detail=f"{worst.words}{hint}",
    )  # fmt: skip


def log_loss_by_segment(evidence: Evidence, experiment: Experiment) -> Check | None:
    """The same within each value of each segment (such as the browser), by Holm over all of them."""
    slices = {
        f"{segment} = {value}": served
        for segment, values in evidence.served_by.items()
        for value, served in values.items()
    }
    found = _reported(slices, experiment)
    if not found:
        return None
    odd = [of for of in found if of.pvalue < ALARM]
    detail = f"reports get lost alike in each of {len(found)} slices"
    if odd:
        named = "; ".join(f"{of.where}: {of.words}" for of in odd[:3])
        detail = f"one variant's reports get lost in {len(odd)} of {len(found)} slices, the worst first: {named}"
    worst = found[0]
    return Check(
        name="log_loss_by_segment", passed=not odd, statistic=worst.statistic, pvalue=worst.pvalue, detail=detail
    )


def _reported(slices: Mapping[str, Mapping[str, Moments]], experiment: Experiment) -> list[_Odd]:
    """How much more often one variant's slates are reported as seen, by slice and treatment, the worst first (Holm)."""
    rows: list[tuple[str, float, float, str]] = []
    for where, served in slices.items():
        control = served.get(experiment.control_name)
        if control is None or control.n < 2:
            continue
        for variant in treatments(experiment):
            treated = served.get(variant.name)
            if treated is None or treated.n < 2 or control.mean_of("seen") + treated.mean_of("seen") == 0:
                continue
            try:
                got = effect(*(sample(of, Quotient("seen", "served")) for of in (control, treated)))
            except StatisticsError:
                continue
            if got.pvalue is not None:
                words = f"{percent(got.mean_control, signed=False)} of control's slates were reported as seen, "
                words += f"{percent(got.mean_treatment, signed=False)} of {variant.name}'s"
                rows.append((where, got.pvalue, got.effect_size / got.se, words))
    adjusted = holm([row[1] for row in rows])
    odd = [
        _Odd(where, 1.0 if p is None else p, statistic, words)
        for (where, _, statistic, words), p in zip(rows, adjusted, strict=True)
    ]
    return sorted(odd, key=lambda found: (found.pvalue, -abs(found.statistic)))


def duplicate_exposures(evidence: Evidence) -> Check | None:
    """Whether slates were logged more than once; None where nobody looked."""
    looked = sum(slates for slates, _ in evidence.duplicates.values())
    if not looked:
        return None
    twice = {name: again for name, (_, again) in evidence.duplicates.items() if again}
    detail = f"each of {looked:,} slates was logged once"
    if twice:
        parts = ", ".join(f"{again:,} of {name}" for name, again in sorted(twice.items(), key=lambda row: -row[1]))
        detail = f"of {looked:,} slates these were logged more than once: {parts}"
    return Check(
        name="duplicate_exposures", passed=not twice, statistic=float(sum(twice.values())), pvalue=None, detail=detail
    )


def causes(evidence: Evidence, experiment: Experiment, *, most: int = 3) -> str:
    """Where most of a mismatch of the whole split lies: slices by what they add to it, in words; empty without any.

    A slice adds how far it is off more than the whole would make it (chi-square), so the days and values of segments
    stand in one order.
    """
    ranked = sorted(_ranked(evidence.splits, experiment), key=lambda found: -found.statistic)
    told = [found for found in ranked if found.pvalue < ALARM][:most]
    return "; ".join(f"{found.where} ({found.words})" for found in told)


def bots_by_variant(evidence: Evidence, experiment: Experiment) -> Check | None:
    """Whether bots were left out evenly; None without bots."""
    split = evidence.bots
    if split is None or split.counts.sum() == 0:
        return None
    if (split.counts.sum(axis=1) @ split.propensities)[split.propensities.max(axis=0) > 0].min() < FEWEST:
        return None
    got = logged_ratio(split.counts, split.propensities)
    passed = got.pvalue >= ALARM
    detail = f"{int(split.counts.sum()):,} units were left out as bots: {_words(split, experiment)}"
    if not passed:
        detail += ". What marks a bot depends on the variant: use a sign that is known before the slate"
    return Check(name="bots_by_variant", passed=passed, statistic=got.statistic, pvalue=got.pvalue, detail=detail)


def contamination(evidence: Evidence) -> Check | None:
    """Whose models learned from what another variant caused; None where manifests say nothing."""
    if not evidence.contamination:
        return None
    worst = max(evidence.contamination, key=lambda name: evidence.contamination[name])
    share = evidence.contamination[worst]
    detail = "no model learned from another variant's rows"
    if share > 0:
        explored = f", and {', '.join(sorted(evidence.explorers))} explores" if evidence.explorers else ""
        detail = (
            f"{percent(share, signed=False)} of the rows that taught {worst} were caused by another variant{explored}: "
            "the effect may be too small or have the wrong sign"
        )
    return Check(name="contamination", passed=share == 0, statistic=share, pvalue=None, detail=detail)


def _sliced(name: str, slices: Mapping[str, Mapping[str, Split]], experiment: Experiment, advice: str) -> Check | None:
    ranked = _ranked(slices, experiment)
    if not ranked:
        return None
    odd = [found for found in ranked if found.pvalue < ALARM]
    if not odd:
        detail = f"as planned in each of {len(ranked):,} slices"
    else:
        named = "; ".join(f"{found.where}: {found.words}" for found in odd[:3])
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        detail = f"off in {len(odd)} of {len(ranked)} slices, the worst first: {named}{more}. Likely {advice}"
    worst = ranked[0]
    return Check(name=name, passed=not odd, statistic=worst.statistic, pvalue=worst.pvalue, detail=detail)


def _ranked(slices: Mapping[str, Mapping[str, Split]], experiment: Experiment) -> list[_Odd]:
    """Every slice that is large enough, the one that is furthest off first; p-values are corrected by Holm."""
    rows: list[tuple[str, float, float, str]] = []
    for slice_, values in slices.items():
        for value, split in values.items():
            expected = _expected(split)
            if expected.size == 0 or expected[split.propensities.max(axis=0) > 0].min() < FEWEST:
                continue
            got = logged_ratio(split.counts, split.propensities)
            statistic = np.inf if got.statistic is None else got.statistic
            rows.append((f"{slice_} = {value}", got.pvalue, statistic, _words(split, experiment)))
    adjusted = holm([row[1] for row in rows])
    odd = [
        _Odd(where, 1.0 if p is None else p, statistic if np.isfinite(statistic) else 0.0, words)
        for (where, _, statistic, words), p in zip(rows, adjusted, strict=True)
    ]
    return sorted(odd, key=lambda found: (found.pvalue, -found.statistic))


def _expected(split: Split) -> NDArray[np.float64]:
    expected: NDArray[np.float64] = split.counts.sum(axis=1) @ split.propensities
    return expected


def _words(split: Split, experiment: Experiment) -> str:
    """How a slice fell, with what was expected."""
    total, expected = split.counts.sum(), _expected(split)
    seen: Sequence[float] = split.counts.sum(axis=0).tolist()
    return ", ".join(
        f"{variant.name} {int(count):,} ({count / total:.1%}, planned {share / total:.1%})"
        for variant, count, share in zip(experiment.variants, seen, expected, strict=True)
    )
