"""The console: what happens now, and what each experiment says; pages read what jobs computed and never compute."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import jinja2
import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from thinslice.errors import BadSettings, NotAllowed
from thinslice.metrics.built_in import DEFAULT_METRICS, unit_of
from thinslice.records import Experiment, Report
from thinslice.serving.experiments import read_experiment_file, read_experiments
from thinslice.store.keys import key_id
from thinslice.web import charts, wording
from thinslice.web.context import Context
from thinslice.web.door import BodyTooLong, SenderGone, read_body
from thinslice.web.evidence import counted, health, lasting, method, neighbors, parts, progress, randomized, said
from thinslice.web.ledger import program_parts, rehearsal_parts, rehearsals_of
from thinslice.web.login import COOKIE, COOKIE_LIFE_S, Visitor, redeem_token, same_origin, seal, visitor_of

TICK_S = 2.0
"""How often the Live page is told what is new."""

STREAM_S = 300.0
"""A stream ends after so many seconds and the page asks for the next, so that no worker keeps old pages for ever."""

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

FORM_BYTES = 4096
"""A longer login form is refused."""

WIDE_MARGIN = 0.2
"""A wider margin is told in words alone: drawn, it would leave no room for the intervals."""

ROLES = ("goal", "driver", "guardrail", "diagnostic")

Page = Callable[[Request, Visitor], Awaitable[Response]]

_report = msgspec.json.Decoder(Report)


def routes(context: Context) -> list[Route]:
    """Every page of the console."""
    pages = Console(context)
    read = ["GET"]
    return [
        Route("/", pages.home, methods=read),
        Route("/console", pages.home, methods=read),
        Route("/console/", pages.home, methods=read),
        Route("/console/login", pages.login, methods=["GET", "POST"]),
        Route("/console/logout", pages.logout, methods=["POST"]),
        Route("/console/live", pages.inside(pages.live), methods=read),
        Route("/console/live/stream", pages.inside(pages.stream), methods=read),
        Route("/console/experiments", pages.inside(pages.experiments), methods=read),
        Route("/console/experiments/{name}.json", pages.inside(pages.report_json), methods=read),
        Route("/console/experiments/{name}", pages.inside(pages.experiment), methods=read),
        Route("/console/program", pages.inside(pages.program), methods=read),
        Route("/console/rehearsals", pages.inside(pages.rehearsals), methods=read),
        Route("/console/rehearsals/{name}", pages.inside(pages.rehearsal), methods=read),
    ]


class Console:
    """The pages of one worker.

    Args:
        context: The worker's belongings.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(wording=wording, randomized=randomized)

    def inside(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """A page that only those who are logged in may see; others are asked to log in."""

        async def guarded(request: Request) -> Response:
            visitor = self._who(request)
            if visitor is None:
                return RedirectResponse("/console/login", status_code=303, headers=SECURITY)
            return await page(request, visitor)

        return guarded

    def _who(self, request: Request) -> Visitor | None:
        return visitor_of(request, self._context.workspace, self._context.keys)

    async def home(self, _request: Request) -> Response:
        """Goes to the Live page."""
        return RedirectResponse("/console/live", status_code=303, headers=SECURITY)

    async def login(self, request: Request) -> Response:
        """A form for the admin key; a one-time link logs in at once."""
        if request.method == "POST":
            return await self._login_by_key(request)
        token = request.query_params.get("token")
        if token:
            visitor = await asyncio.to_thread(redeem_token, self._context.workspace, token)
            if visitor is not None:
                return self._welcome(visitor)
            if self._who(request) is None:
                return self._show("login.html", 403, said="This link was used already, or is older than an hour.")
        if self._who(request) is not None:
            return RedirectResponse("/console/live", status_code=303, headers=SECURITY)
        return self._show("login.html", said="")

    async def _login_by_key(self, request: Request) -> Response:
        if not same_origin(request):
            return self._show("login.html", 403, said="This form was sent from another page.")
        try:
            body = await read_body(dict(request.scope["headers"]), request.receive, limit=FORM_BYTES)
        except (BodyTooLong, SenderGone):
            return self._show("login.html", 413, said="This form is too long to hold a key.")
        text = dict(parse_qsl(body.decode("utf-8", "replace"))).get("key", "")
        try:
            key = self._context.keys.lookup(text.strip())
        except NotAllowed as error:
            return self._show("login.html", 403, said=error.message.capitalize())
        if key.kind != "admin":
            return self._show("login.html", 403, said=f"This is a {key.kind} key; the console opens with an admin key.")
        return self._welcome(Visitor(key.tenant, "admin", key_id(text.strip())))

    def _welcome(self, visitor: Visitor) -> Response:
        answer = RedirectResponse("/console/live", status_code=303, headers=SECURITY)
        answer.set_cookie(
            COOKIE, seal(self._context.workspace, visitor),
            max_age=COOKIE_LIFE_S, path="/console", httponly=True, samesite="strict",
        )  # fmt: skip
        return answer

    async def logout(self, request: Request) -> Response:
        """Forgets the login."""
        if not same_origin(request):
            return self._show("login.html", 403, said="This form was sent from another page.")
        answer = RedirectResponse("/console/login", status_code=303, headers=SECURITY)
        answer.delete_cookie(COOKIE, path="/console")
        return answer

    async def live(self, _request: Request, visitor: Visitor) -> Response:
        """What happens now."""
        return self._show("live.html", visitor=visitor, here="live", **await self._now(visitor.tenant))

    async def stream(self, _request: Request, visitor: Visitor) -> Response:
        """The Live page's inner part, every two seconds, as server-sent events."""
        fragment = self._templates.get_template("console/_now.html")

        async def beats() -> AsyncIterator[str]:
            end = time.monotonic() + STREAM_S
            while time.monotonic() < end:
                html = fragment.render(**await self._now(visitor.tenant))
                yield "".join(f"data: {line}\n" for line in html.splitlines() if line.strip()) + "\n"
                await asyncio.sleep(TICK_S)

        headers = {**SECURITY, "X-Accel-Buffering": "no"}
        return StreamingResponse(beats(), media_type="text/event-stream", headers=headers)

    async def _now(self, tenant: str) -> dict[str, Any]:
        now = time.time()
        summary = await asyncio.to_thread(self._context.live_summary, tenant, now=now)
        rate = summary["events_per_s"]
        return {
            "now": datetime.fromtimestamp(now, UTC),
            "summary": summary,
            "spark": charts.sparkline(
                summary["events_by_second"],
                f"Events per second over the last minute, at most {max(summary['events_by_second'])}, now {rate:.1f}.",
            ),
        }

    async def experiments(self, _request: Request, visitor: Visitor) -> Response:
        """Every experiment of the tenant with what it says."""
        folder = self._context.workspace.experiments
        found, broken = read_experiments(folder, visitor.tenant)
        broken = [each._replace(reason=_without(folder, each.reason)) for each in broken]
        newest = sorted(found, key=lambda each: _moment(each.started_at), reverse=True)
        in_order = sorted(newest, key=lambda each: each.stopped_at is not None)
        rows = [(each, self._report(visitor.tenant, each.name)) for each in in_order]
        return self._show("experiments.html", visitor=visitor, here="experiments", rows=rows, broken=broken)

    async def experiment(self, request: Request, visitor: Visitor) -> Response:
        """One experiment: decision, checks, effects, how the effect came about."""
        name = request.path_params["name"]
        why = ""
        try:
            found = self._experiment(visitor.tenant, name)
        except BadSettings as error:
            found, why = None, _without(self._context.workspace.experiments, str(error))
        if found is None:
            return self._show("missing.html", 404, visitor=visitor, here="experiments", name=name, why=why)
        report = self._report(visitor.tenant, name)
        money = self._context.settings.tenant(visitor.tenant).currency
        rehearsed = rehearsals_of(self._context.workspace, visitor.tenant).get(name)
        return self._show(
            "experiment.html", visitor=visitor, here="experiments", experiment=found, report=report,
            rehearsed=rehearsed is not None,
            **({} if report is None else effects(found, report, money)),
        )  # fmt: skip

    async def program(self, _request: Request, visitor: Visitor) -> Response:
        """What all experiments together brought, beside the holdout."""
        path = self._context.workspace.reports / f"{visitor.tenant}.program.json"
        found = msgspec.json.decode(path.read_bytes()) if path.is_file() else None
        drawn = None if found is None or not found["outcomes"] else program_parts(found)
        return self._show("program.html", visitor=visitor, here="program", program=found, drawn=drawn)

    async def rehearsals(self, _request: Request, visitor: Visitor) -> Response:
        """Every rehearsal that was kept, with what it says."""
        found = rehearsals_of(self._context.workspace, visitor.tenant)
        rows = [rehearsal_parts(msgspec.json.decode(path.read_bytes())) for path in found.values()]
        return self._show("rehearsals.html", visitor=visitor, here="rehearsals", rows=rows)

    async def rehearsal(self, request: Request, visitor: Visitor) -> Response:
        """One rehearsal: the truth, and what each design of the experiment said of it."""
        name = request.path_params["name"]
        path = rehearsals_of(self._context.workspace, visitor.tenant).get(name)
        if path is None:
            return self._show("missing.html", 404, visitor=visitor, here="rehearsals", name=name, why="")
        drawn = rehearsal_parts(msgspec.json.decode(path.read_bytes()))
        experiment = self._report_file(visitor.tenant, name) is not None
        return self._show("rehearsal.html", visitor=visitor, here="rehearsals", drawn=drawn, experiment=experiment)

    async def report_json(self, request: Request, visitor: Visitor) -> Response:
        """The report as programs read it."""
        path = self._report_file(visitor.tenant, request.path_params["name"])
        if path is None or not path.is_file():
            error = {"code": "not_found", "message": "there is no report of that name.", "field": "", "hint": ""}
            return Response(msgspec.json.encode({"error": error}), 404, SECURITY, "application/json")
        return Response(path.read_bytes(), 200, SECURITY, "application/json")

    def _report_file(self, tenant: str, name: str) -> Path | None:
        """Where a report lies; None when there is no experiment of that name, so that no path can be made up."""
        folder = self._context.workspace.experiments / tenant
        if name not in {path.stem for path in folder.glob("*.toml")}:
            return None
        return self._context.workspace.reports / tenant / f"{name}.json"

    def _experiment(self, tenant: str, name: str) -> Experiment | None:
        if self._report_file(tenant, name) is None:
            return None
        return read_experiment_file(self._context.workspace.experiments / tenant / f"{name}.toml", tenant)

    def _report(self, tenant: str, name: str) -> Report | None:
        path = self._report_file(tenant, name)
        return _report.decode(path.read_bytes()) if path is not None and path.is_file() else None

    def _show(self, template: str, status: int = 200, **values: Any) -> Response:
        html = self._templates.get_template(f"console/{template}").render(**values)
        return HTMLResponse(html, status_code=status, headers=SECURITY)


def _moment(at: datetime | None) -> float:
    return 0.0 if at is None else at.timestamp()


def _without(folder: Path, text: str) -> str:
    """A message without where the workspace lies on this machine."""
    return text.replace(f"{folder}/", "")


def effects(experiment: Experiment, report: Report, money: str) -> dict[str, Any]:
    """What the page draws of a report: rows of metrics by role on one scale, and the curve of the goal."""
    metrics = {metric.name: metric for metric in experiment.metrics or DEFAULT_METRICS}
    scale = charts.shared_scale(
        [row.rel_effect_size_ci for row in report.metrics if row.role != "diagnostic"],
        extra=[row.margin for row in report.metrics if row.margin is not None and row.margin < WIDE_MARGIN],
    )
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(report.metrics, key=lambda each: ROLES.index(each.role)):
        metric = metrics.get(row.name)
        unit = unit_of(metric) if metric is not None else "count"
        down = metric is not None and metric.direction == "down"
        shown = row.margin is not None and row.margin <= scale.high
        margin = scale.at((row.margin or 0.0) * (1 if down else -1)) if shown else None
        rows.setdefault(row.role, []).append(
            {
                "result": row,
                "bar": charts.bar(scale, row.rel_effect_size, row.rel_effect_size_ci),
                "margin": margin,
                "down": down,
                "levels": [wording.level(mean, unit, money) for mean in (row.mean_control, row.mean_treatment)],
            }
        )
    return {
        "rows": rows, "ticks": scale.ticks(), "zero": scale.at(0.0), "method": method(report),
        "lasting": lasting(report), "parts": parts(report), "health": health(report), "said": said(report),
        "neighbors": neighbors(report), "blocks": experiment.unit == "block", "counted": counted(experiment),
        "progress": progress(experiment, report),
        **goal_curve(report),
    }  # fmt: skip


def goal_curve(report: Report) -> dict[str, Any]:
    """The curve of the first goal (or the first metric) and the table that says the same."""
    if not report.metrics:
        return {"curve": None, "curve_of": "", "points": []}
    goal = next((row for row in report.metrics if row.role == "goal"), report.metrics[0])
    points = [row for row in report.cumulative if row["name"] == goal.name and row["variant"] == goal.variant]
    words = f"{wording.title(goal.name)}: {wording.change(goal.rel_effect_size)}, 95 % interval "
    curve = charts.cumulative_curve(
        [row["rel_effect_size"] for row in points],
        [_bounds(row["rel_effect_size_ci"]) for row in points],
        [_always(row) for row in points],
        words + f"{wording.interval(goal.rel_effect_size_ci)}.",
    )
    table = [
        {
            "until": wording.until(row["until"]),
            "effect": wording.change(row["rel_effect_size"]),
            "interval": wording.interval(_bounds(row["rel_effect_size_ci"])),
            "units": row["n_control"] + row["n_treatment"],
        }
        for row in points
    ]
    return {"curve": curve, "curve_of": goal.name, "points": table}


def _bounds(value: Any) -> charts.Bounds | None:
    return None if value is None else (value[0], value[1])


def _always(row: dict[str, Any]) -> charts.Bounds | None:
    """The always-valid interval on the relative scale; older reports hold only the absolute one."""
    if row.get("always_valid_rel_ci") is not None:
        return _bounds(row["always_valid_rel_ci"])
    bounds, effect, relative = _bounds(row["always_valid_ci"]), row["effect_size"], row["rel_effect_size"]
    if bounds is None or not effect or relative is None:
        return None
    low, high = bounds
    per = relative / effect
    return (None if low is None else low * per, None if high is None else high * per)
