"""What the pages of the program and of rehearsals draw: all experiments beside the holdout, estimates beside truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinslice.settings import Workspace
from thinslice.web import charts, wording


def rehearsals_of(workspace: Workspace, tenant: str) -> dict[str, Path]:
    """Name → file of every rehearsal that was kept for a tenant, the newest first."""
    folder = workspace.reports / f"{tenant}.rehearsals"
    paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return {path.stem: path for path in paths}


def program_parts(found: Mapping[str, Any]) -> dict[str, Any]:
    """The program on one scale: every treatment, what was shipped together, and the holdout.

    Args:
        found: As `thinslice experiment ledger --json` prints it, with at least one outcome.
    """
    together = [
        ("What was shipped, all together", "luck taken off by the model of all experiments", found["cumulative"]),
        ("Their reports added up", "counts luck, too", found["naive"]),
        ("Expected of the holdout", "what was shipped while it ran", found.get("expected")),
        ("Shown by the holdout", "visitors who got all of it against visitors who got none", found["holdout"]),
    ]
    told = [(title, note, of) for title, note, of in together if of is not None]
    outcomes = list(found["outcomes"])
    scale = charts.shared_scale([_ends(of) for _, _, of in told])
    each = charts.shared_scale([_ends(row) for row in outcomes])
    return {
        "ticks": scale.ticks(), "own_ticks": each.ticks(), "zero": scale.at(0.0),
        "metric": wording.title(found["metric"]).lower(),
        "sentence": wording.spoken(found["sentence"], [found["metric"]]),
        "agreement": _agreement(found["agreement"]),
        "together": [{"title": title, "note": note, **_row(scale, of)} for title, note, of in told],
        "outcomes": [
            {
                "name": row["experiment"], "variant": row["variant"], "shipped": row["shipped"], **_row(each, row),
                "offline": wording.change(row["offline_change"]),
                "backtest": None if row.get("backtest") is None else _row(each, row["backtest"]),
                "lasts": None if row.get("lasts") is None else row["lasts"]["agrees"],
            }
            for row in outcomes
        ],
        "offline": _offline(found["offline"]),
    }  # fmt: skip


def rehearsal_parts(found: Mapping[str, Any]) -> dict[str, Any]:
    """A rehearsal: what each design said on average with its usual spread, on one scale beside the truth.

    Args:
        found: As `thinslice rehearse --json` prints it.
    """
    control = found["truth"]["mean_control"]
    per = abs(control) if control else 1.0
    truth = found["truth"]["effect_size"]
    spans = []
    for design in found["designs"]:
        middle, spread = design["estimate_mean"], design["estimate_sd"] or 0.0
        spans.append(None if middle is None else ((middle - 1.96 * spread) / per, (middle + 1.96 * spread) / per))
    scale = charts.shared_scale(spans, extra=[truth / per])
    rows = []
    for design, span in zip(found["designs"], spans, strict=True):
        middle = None if design["estimate_mean"] is None else design["estimate_mean"] / per
        most = max(design["actions"].items(), key=lambda pair: pair[1], default=None)
        fired = [f"{wording.title(name)} ({wording.share(share, 0)})" for name, share in design["warnings"].items()]
        rows.append(
            {
                "title": wording.sentence(design["words"]), "bar": charts.bar(scale, middle, span),
                "at": None if design["bias"] is None else scale.at((design["estimate_mean"] - design["bias"]) / per),
                "change": _change(middle, control), "wrong": wording.share(design["wrong_sign_share"], 0),
                "covers": wording.share(design["coverage"], 0), "sees": wording.share(design["rejection_rate"], 0),
                "warns": ", ".join(fired) or "nothing",
                "decides": "–" if most is None else _decides(*most),
                "tone": "none" if most is None else most[0],
            }
        )  # fmt: skip
    return {
        "name": found["scenario"], "says": found["says"], "runs": found["runs"], "rows": rows,
        "sentence": wording.spoken(found.get("sentence", ""), []), "truth": _change(truth / per, control),
        "ticks": scale.ticks(), "zero": scale.at(0.0), "as_of": found.get("as_of", ""),
    }  # fmt: skip


def _decides(action: str, share: float) -> str:
    return f"{wording.SHORT.get(action, action)} ({wording.share(share, 0)})"


def _change(value: float | None, control: float) -> str:
    if value is None:
        return "–"
    return wording.change(value) if control else f"{value:+.3g}".replace("-", wording.MINUS)


def _ends(row: Mapping[str, Any]) -> charts.Bounds | None:
    return None if row["ci"] is None else (row["ci"][0], row["ci"][1])


def _row(scale: charts.Scale, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bar": charts.bar(scale, row["change"], _ends(row)), "change": wording.change(row["change"]),
        "interval": wording.interval(_ends(row)), "tone": _tone(_ends(row)),
    }  # fmt: skip


def _tone(bounds: charts.Bounds | None) -> str:
    low, high = bounds or (None, None)
    if low is not None and low > 0:
        return "better"
    return "worse" if high is not None and high < 0 else "cannot_say"


def _agreement(of: Mapping[str, Any] | None) -> str:
    if of is None:
        return ""
    apart = f"{abs(of['statistic']):.1f} standard errors apart, {wording.chance(of['pvalue'])}"
    return f"They agree ({apart})." if of["agrees"] else f"They do not agree ({apart}): look for what changed since."


def _offline(of: Mapping[str, Any]) -> str:
    if not of["n"] or of["same_sign_share"] is None:
        return ""
    same = wording.share(of["same_sign_share"], 0)
    right = f"Offline figures foretold the sign of {same} of {of['n']} online effects."
    if of["slope"] is None:
        return right
    worth = wording.change(0.1 * of["slope"])
    bounds = ""
    if of["slope_ci"] is not None and None not in of["slope_ci"]:
        low, high = (f"{end:.2f}".replace("-", wording.MINUS) for end in of["slope_ci"])
        bounds = f" (95 % interval {low} to {high})"
    slope = f"{of['slope']:.2f}".replace("-", wording.MINUS)
    return f"{right} 10 % more offline was worth {worth} online: a slope of {slope}{bounds}."
