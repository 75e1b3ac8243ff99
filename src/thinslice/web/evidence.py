"""What a report's page draws besides its effects: how they were estimated, whether they last, and where they differ."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from thinslice.experiments.definition import look_times
from thinslice.experiments.readings import read
from thinslice.experiments.wording import times_in_words
from thinslice.records import Experiment, Report
from thinslice.web import charts, wording

METHODS = {
    "switchback: blocks of time, re-randomization": (
        "Blocks of time are compared; what chance does is told by dealing the blocks out again."
    ),
    "clusters: t, clusters - 2 degrees of freedom": "Whole clusters are compared, not the visitors in them.",
    "AIPW by logged probabilities": "Everybody counts by the logged probability of the variant they got (AIPW).",
    "IPW by logged probabilities": "Everybody counts by the logged probability of the variant they got (IPW).",
    "CUPED": "What they did before the start is taken off (CUPED).",
    "capped sums": "What one does counts up to the cap that was declared.",
}
"""How effects were estimated, in words."""

DAY = timedelta(days=1)

DIFFERS = 0.05
"""Below this p-value the values of a segment are said to differ."""

MOST_METRICS = 4
"""Segments are drawn for so many metrics and treatments; the JSON holds all."""


def method(report: Report) -> str:
    """How effects were estimated, in a sentence; empty for the plain way."""
    told = [METHODS.get(part, f"Estimated by {part}.") for part in _methods(report.method)]
    if report.looks:
        told.append(f"Look {report.looks['look']} of {report.looks['of']} that were planned; intervals allow for it.")
    return " ".join(told)


def _methods(method: str) -> list[str]:
    """The parts of a method; the comma in one of its names separates nothing."""
    whole = next((name for name in METHODS if method == name), None)
    if whole is not None or method in ("", "Welch"):
        return [whole] if whole is not None else []
    found = [name for name in METHODS if name in method]
    return found or [method]


def progress(experiment: Experiment, report: Report) -> str:
    """How far an experiment is and when it is looked at next; empty where no end is planned."""
    start, end, now = experiment.started_at, experiment.ends_at, report.as_of
    if start is None or end is None or now is None:
        return ""
    days = max(1, round((end - start) / DAY))
    day = min(max(1, int((now - start) / DAY) + 1), days)
    told = f"day {day} of {days}" if now < end else f"ran {days} day{'' if days == 1 else 's'}"
    coming = next((at for at in look_times(experiment) if at > now), None)
    return told if coming is None else f"{told}, next look {wording.day(coming)}"


def counted(experiment: Experiment) -> str:
    """What a report counts of an experiment, in the plural: units, also where they lie in clusters, or blocks."""
    if experiment.unit == "block":
        return "blocks of time"
    if experiment.unit == "cluster":
        return "visitors" if experiment.tenant else "units"
    return f"{experiment.unit}s"


def randomized(experiment: Experiment) -> str:
    """What was randomized, in words."""
    if experiment.unit == "block" and experiment.block_minutes is None:
        return "in blocks of time"
    if experiment.unit == "block":
        width = times_in_words(timedelta(minutes=experiment.block_minutes or 0.0))
        left_out = times_in_words(timedelta(minutes=experiment.burn_in_minutes))
        return f"in blocks of {width}" + (f", the first {left_out} left out" if experiment.burn_in_minutes else "")
    return f"by {experiment.cluster if experiment.unit == 'cluster' else experiment.unit}"


def health(report: Report) -> dict[str, list[dict[str, Any]]]:
    """The checks: those that failed with their details, then those that passed."""
    word = "failed" if report.decision.action == "invalid" else "warns"
    rows: dict[str, list[dict[str, Any]]] = {"failed": [], "passed": []}
    for check in report.checks:
        rows["passed" if check.passed else "failed"].append(
            {"title": wording.check(check.name), "name": wording.title(check.name), "detail": check.detail,
             "chance": wording.chance(check.pvalue), "word": "passed" if check.passed else word,
             "advice": check.advice}
        )  # fmt: skip
    return rows


def said(report: Report) -> dict[str, Any]:
    """The decision in words: its sentence and its reasons, without those that stand among the checks."""
    names = {row.name for row in report.metrics}
    checks = tuple(f"{check.name}: " for check in report.checks)
    reasons = [reason for reason in report.decision.reasons if not reason.startswith(checks)]
    words = [wording.spoken(reason, names) for reason in reasons]
    return {
        "sentence": wording.spoken(report.decision.sentence, names),
        "reasons": [reason.replace(", cannot say", ", one cannot say yet") for reason in words],
    }


def neighbors(report: Report) -> list[dict[str, str]]:
    """What an experiment's placement gained and its neighbors lost, in words; empty where it is on all placements."""
    rows = []
    for row in report.placements:
        share, bounds = row["cannibalized_share"], _bounds(row["cannibalized_share_ci"])
        ends = (
            ""
            if bounds is None or None in bounds
            else f" (95 % interval {wording.share(bounds[0])} to {wording.share(bounds[1])})"
        )
        rows.append(
            {
                "placement": row["placement"], "variant": row["variant"],
                "own": _clicks(row["own_effect_size"], _bounds(row["own_effect_size_ci"])),
                "others": _clicks(row["others_effect_size"], _bounds(row["others_effect_size_ci"])),
                "taken": "it gained no clicks" if share is None else f"{wording.share(share)}{ends}",
            }
        )  # fmt: skip
    return rows


def _clicks(change: float, bounds: charts.Bounds | None) -> str:
    ends = "" if bounds is None or None in bounds else f" ({bounds[0]:+.3f} to {bounds[1]:+.3f})"
    return f"{change:+.3f}{ends}".replace("-", wording.MINUS)


def lasting(report: Report) -> dict[str, Any] | None:
    """The effect by days since the first exposure, on one scale; None when a report knows nothing of it."""
    found = report.novelty
    variants = [row for row in found.get("variants", []) if "steady" in row]
    if not variants:
        return None
    scale = charts.shared_scale([_bounds(day["rel_effect_size_ci"]) for row in variants for day in row["by_day"]])
    return {
        "metric": found["metric"], "ticks": scale.ticks(), "zero": scale.at(0.0),
        "variants": [{"words": _words(report, row), "days": [_day(scale, day) for day in row["by_day"]]}
                     for row in variants],
    }  # fmt: skip


def parts(report: Report) -> dict[str, Any] | None:
    """Effects within segments, the first metrics' on one scale; None without segments."""
    rows = [row for row in report.segments if row["rel_effect_size"] is not None and row["role"] != "diagnostic"]
    if not rows:
        return None
    drawn = list(dict.fromkeys((row["name"], row["variant"]) for row in rows))[:MOST_METRICS]
    several = len({row["variant"] for row in rows}) > 1
    scale = charts.shared_scale([believed(row)[1] for row in rows if (row["name"], row["variant"]) in drawn])
    return {
        "ticks": scale.ticks(), "zero": scale.at(0.0),
        "metrics": [
            {
                "name": name, "variant": variant if several else "", "words": _difference(report, name, variant),
                "rows": [_part(scale, row) for row in rows if (row["name"], row["variant"]) == (name, variant)],
            }
            for name, variant in drawn
        ],
    }  # fmt: skip


def _words(report: Report, row: Mapping[str, Any]) -> str:
    found = report.novelty
    early, steady = (wording.change(row[name]["rel_effect_size"]) for name in ("early", "steady"))
    stable = "The effect is not stable" if row["stable"] is False else "No change with time is shown"
    if row["same_share"]:
        stable = "Less is done later; that the effect on it changes is not shown"
    late = (
        f"{steady} from day {found['late_from']} on ({wording.interval(_bounds(row['steady']['rel_effect_size_ci']))})"
    )
    if row["steady"]["rel_effect_size"] is None:
        late = f"nothing to compare from day {found['late_from']} on"
        stable = "Whether it lasts cannot be told"
    return f"{row['variant']}: {early} in a visitor's first {found['early_days']} days, {late}. {stable}."


def _day(scale: charts.Scale, day: Mapping[str, Any]) -> dict[str, Any]:
    bounds = _bounds(day["rel_effect_size_ci"])
    return {
        "day": day["day"], "units": day["n_control"] + day["n_treatment"],
        "bar": charts.bar(scale, day["rel_effect_size"], bounds), "change": wording.change(day["rel_effect_size"]),
        "interval": wording.interval(bounds),
    }  # fmt: skip


def _part(scale: charts.Scale, row: Mapping[str, Any]) -> dict[str, Any]:
    change, bounds, reading = believed(row)
    return {
        "title": f"{wording.title(row['segment'])}: {row['value']}", "share": wording.share(row.get("share")),
        "reading": reading, "bar": charts.bar(scale, change, bounds), "change": wording.change(change),
        "interval": wording.interval(bounds), "measured": wording.change(row["rel_effect_size"]),
    }  # fmt: skip


def believed(row: Mapping[str, Any]) -> tuple[float | None, charts.Bounds | None, str]:
    """A segment's shrunken effect, its interval and what that says; where there is none, the measured one."""
    name = "rel_effect_size" if row.get("shrunken_rel_effect_size") is None else "shrunken_rel_effect_size"
    bounds = _bounds(row[f"{name}_ci"])
    return row[name], bounds, read(bounds, margin=row["margin"], direction=row["direction"])


def _difference(report: Report, name: str, variant: str) -> str:
    found = [row for row in report.heterogeneity if (row["name"], row["variant"]) == (name, variant)]
    told = []
    for row in found:
        if row["pvalue"] is not None:
            differ = "The effect differs by" if row["pvalue"] < DIFFERS else "No difference is shown by"
            told.append(f"{differ} {row['segment']} ({wording.chance(row['pvalue'])}).")
    return " ".join(told)


def _bounds(value: Any) -> charts.Bounds | None:
    return None if value is None else (value[0], value[1])
