"""What a report's page draws besides its effects: how they were estimated, whether they last, and where they differ."""

from collections.abc import Mapping
from typing import Any

from thinslice.records import Report
from thinslice.web import charts, wording

MOST_METRICS = 4
"""Segments are drawn for so many metrics and treatments; the JSON holds all."""


def method(report: Report) -> str:
    """How effects were estimated, in a sentence; empty for the plain way."""
    said = [f"Estimated by {report.method}."] if report.method not in ("", "Welch") else []
    if report.looks:
        said.append(f"Look {report.looks['look']} of {report.looks['of']} that were planned; intervals allow for it.")
    return " ".join(said)


def lasting(report: Report) -> dict[str, Any] | None:
    """The effect by days since the first exposure, on one scale; None when a report knows nothing of it."""
    found = report.novelty
    variants = [row for row in found.get("variants", []) if "steady" in row]
    if not variants:
        return None
    scale = charts.shared_scale([_bounds(day["rel_effect_size_ci"]) for row in variants for day in row["by_day"]])
    return {
        "metric": found["metric"], "ticks": scale.ticks(), "zero": scale.at(0.0),
        "variants": [{"words": _words(found, row), "days": [_day(scale, day) for day in row["by_day"]]}
                     for row in variants],
    }  # fmt: skip


def parts(report: Report) -> dict[str, Any] | None:
    """Effects within segments, the first metrics' on one scale; None without segments."""
    rows = [row for row in report.segments if row["rel_effect_size"] is not None]
    if not rows:
        return None
    drawn = list(dict.fromkeys((row["name"], row["variant"]) for row in rows))[:MOST_METRICS]
    several = len({row["variant"] for row in rows}) > 1
    scale = charts.shared_scale([_believed(row)[1] for row in rows if (row["name"], row["variant"]) in drawn])
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


def _words(found: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    early, steady = (wording.change(row[name]["rel_effect_size"]) for name in ("early", "steady"))
    stable = "It is not stable" if row["stable"] is False else "No change with time is shown"
    return (
        f"{row['variant']}: {early} in a unit's first {found['early_days']} days, {steady} from day "
        f"{found['late_from']} on ({wording.interval(_bounds(row['steady']['rel_effect_size_ci']))}). {stable}."
    )


def _day(scale: charts.Scale, day: Mapping[str, Any]) -> dict[str, Any]:
    bounds = _bounds(day["rel_effect_size_ci"])
    return {
        "day": day["day"], "units": day["n_control"] + day["n_treatment"],
        "bar": charts.bar(scale, day["rel_effect_size"], bounds), "change": wording.change(day["rel_effect_size"]),
        "interval": wording.interval(bounds),
    }  # fmt: skip


def _part(scale: charts.Scale, row: Mapping[str, Any]) -> dict[str, Any]:
    change, bounds = _believed(row)
    return {
        "title": f"{row['segment']} {row['value']}", "share": wording.share(row.get("share")),
        "reading": row["reading"], "bar": charts.bar(scale, change, bounds), "change": wording.change(change),
        "interval": wording.interval(bounds), "measured": wording.change(row["rel_effect_size"]),
    }  # fmt: skip


def _believed(row: Mapping[str, Any]) -> tuple[float | None, charts.Bounds | None]:
    """The shrunken effect; where there is none, the measured one."""
    if row.get("shrunken_rel_effect_size") is not None:
        return row["shrunken_rel_effect_size"], _bounds(row["shrunken_rel_effect_size_ci"])
    return row["rel_effect_size"], _bounds(row["rel_effect_size_ci"])


def _difference(report: Report, name: str, variant: str) -> str:
    found = [row for row in report.heterogeneity if (row["name"], row["variant"]) == (name, variant)]
    said = [f"{row['segment']} p = {row['pvalue']:.2g}" for row in found if row["pvalue"] is not None]
    return f"Whether the values of a segment differ: {', '.join(said)}." if said else ""


def _bounds(value: Any) -> charts.Bounds | None:
    return None if value is None else (value[0], value[1])
