"""The check-up of a workspace: why it is empty, slow, stale or stuck, one finding a check, each with what to do."""

import http.client
import json
import shlex
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import duckdb
import msgspec
from deltalake.exceptions import DeltaError

from thinslice.errors import BadInput, ThinsliceError
from thinslice.experiments import is_running
from thinslice.jobs.compact import log_bytes
from thinslice.jobs.news import last_training, rows_of
from thinslice.records import Arrays
from thinslice.serving.experiments import read_experiments
from thinslice.serving.memory import bytes_of
from thinslice.settings import Settings, Workspace, read_settings
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.keys import Keys
from thinslice.store.lake import Lake

STALE_DAYS = 2.0
"""Newest events older than so many days are worth a look."""

FREE_BYTES = 2_000_000_000
"""Less free disk than this is worth a look; a tenth of it is a problem."""

UNJOINED_SHARE = 0.2
"""More of the events than this naming items that the catalog does not know is worth a look."""

WORKER_SILENT_S = 10.0
"""What a web worker said of itself longer ago (seconds) is of one that is gone."""

QUARANTINE_SHARE = 0.05
"""More refused records than this share of the kept ones is worth a look."""

ORDER = {"ok": 0, "look": 1, "problem": 2}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check says: `status` is ok, look (worth a look) or problem; `advice` is what to do, empty when ok."""

    name: str
    status: str
    message: str
    advice: str = ""


Check = Callable[["Patient"], Finding]


class Patient(msgspec.Struct, kw_only=True):
    """What the checks share."""

    workspace: Workspace
    now: datetime
    settings: Settings | None
    why_no_settings: str = ""

    @property
    def tenants(self) -> list[str]:
        """Names of the tenants, sorted."""
        return sorted(self.settings.tenants) if self.settings is not None else []

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query on the lake."""
        connection = Lake(self.workspace.lake).connect()
        try:
            found: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
        finally:
            connection.close()
        return found


def check_up(workspace: Workspace, now: datetime) -> list[Finding]:
    """All checks, in the order in which things are set up; a check that cannot be made says so and stops no other.

    Args:
        workspace: May be empty, half-filled or healthy.
        now: Aware UTC.
    """
    try:
        patient = Patient(workspace=workspace, now=now, settings=read_settings(workspace))
    except BadInput as error:
        patient = Patient(workspace=workspace, now=now, settings=None, why_no_settings=str(error))
    findings = []
    for name, check in CHECKS.items():
        try:
            findings.append(check(patient))
        except (ThinsliceError, OSError, ValueError, duckdb.Error, DeltaError) as error:
            said = error.message if isinstance(error, ThinsliceError) else str(error).partition("\n")[0]
            advice = getattr(error, "hint", "") or "Restore what the message names from a backup."
            findings.append(Finding(name=name, status="problem", message=f"could not be read: {said}", advice=advice))
    return findings


def check_settings(patient: Patient) -> Finding:
    """The file is there, holds together and names a tenant."""
    if patient.settings is None:
        advice = f"thinslice init --workspace {shlex.quote(str(patient.workspace.root))}"
        if patient.workspace.settings_file.exists():
            advice = f"Mend {patient.workspace.settings_file}: docs/reference/settings.md lists what it may say."
        return Finding(name="settings", status="problem", message=patient.why_no_settings, advice=advice)
    if not patient.tenants:
        advice = f"thinslice init --workspace {shlex.quote(str(patient.workspace.root))} --tenant shop"
        return Finding(name="settings", status="problem", message="no tenant is named.", advice=advice)
    return Finding(name="settings", status="ok", message=f"tenants: {listed(patient.tenants)}.")


def check_keys(patient: Patient) -> Finding:
    """Every tenant has keys that work, and only the owner can read their file."""
    path = patient.workspace.keys_file
    keys = [key for key in Keys(path).all() if not key.revoked]
    without = [
        tenant
        for tenant in patient.tenants
        if not {"publishable", "secret"} <= {key.kind for key in keys if key.tenant == tenant}
    ]
    if without or not keys:
        return Finding(
            name="keys", status="problem", message=f"no publishable or no secret key: {listed(without) or 'nobody'}.",
            advice=f"thinslice init --tenant {without[0]} --new-keys" if without
            else "`thinslice init --tenant NAME` makes a tenant with its keys.",
        )  # fmt: skip
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Finding(
            name="keys",
            status="look",
            message="others on this machine can read the key file.",
            advice=f"chmod 600 {path}",
        )
    return Finding(name="keys", status="ok", message=f"{len(keys)} keys work.")


def check_catalog(patient: Patient) -> Finding:
    """There are items, and some of them may be shown: a feed that says otherwise empties every slate."""
    counts = per_tenant(patient, "SELECT tenant, count(*) FROM items GROUP BY tenant")
    shown = per_tenant(patient, f"SELECT tenant, count(*) FROM items WHERE {_shown(patient.now)} GROUP BY tenant")
    closed = [tenant for tenant in patient.tenants if counts.get(tenant) and not shown.get(tenant)]
    if closed:
        return Finding(
            name="catalog", status="problem",
            message=f"none of the {sum(counts[tenant] for tenant in closed):,} items of {listed(closed)} may be shown: "
            "each is out of stock, not live, not published yet or expired. Slates are empty.",
            advice=f"Look at the newest feed; then thinslice import items FILE --tenant {closed[0]}, or PUT /v1/items.",
        )  # fmt: skip
    without = [tenant for tenant in patient.tenants if not counts.get(tenant)]
    if not without and counts:
        return Finding(name="catalog", status="ok", message=f"{sum(counts.values()):,} items.")
    return Finding(
        name="catalog", status="look", message=f"no items: {listed(without) or 'no tenant'}.",
        advice=f"thinslice import items FILE --tenant {(without or ['shop'])[0]}, or PUT /v1/items.",
    )  # fmt: skip


def _shown(now: datetime) -> str:
    """The condition, in SQL, under which an item may stand in a slate before any rule is asked."""
    at = f"TIMESTAMPTZ '{now.isoformat()}'"
    return (
        f"in_stock AND status = 'live' AND (published_at IS NULL OR published_at <= {at}) "
        f"AND (expires_at IS NULL OR expires_at > {at})"
    )


def check_events(patient: Patient) -> Finding:
    """There are events."""
    counts = per_tenant(patient, "SELECT tenant, count(*) FROM events GROUP BY tenant")
    without = [tenant for tenant in patient.tenants if not counts.get(tenant)]
    waiting = log_bytes(patient.workspace)
    if not without and counts:
        return Finding(name="events", status="ok", message=f"{sum(counts.values()):,} events in the lake.")
    hint = f" ({waiting:,} bytes wait in the log; `thinslice serve` brings them in)" if waiting else ""
    return Finding(
        name="events", status="problem", message=f"no events: {listed(without) or 'no tenant'}{hint}.",
        advice=f"thinslice import events FILE --tenant {(without or ['shop'])[0]}, or put the tag on the shop's pages.",
    )  # fmt: skip


def check_joins(patient: Patient) -> Finding:
    """Events name items that the catalog knows, and slates that were served."""
    rows = patient.rows(
        """
        SELECT count(*) FILTER (WHERE e.item_id IS NOT NULL),
               count(*) FILTER (WHERE e.item_id IS NOT NULL AND i.item_id IS NULL),
               count(*) FILTER (WHERE e.recommendation_id IS NOT NULL),
               count(*) FILTER (WHERE e.recommendation_id IS NOT NULL AND x.recommendation_id IS NULL)
        FROM (SELECT tenant, item_id, recommendation_id FROM events ORDER BY occurred_at DESC LIMIT 100000) e
        LEFT JOIN (SELECT DISTINCT tenant, item_id FROM items) i USING (tenant, item_id)
        LEFT JOIN (SELECT DISTINCT tenant, recommendation_id FROM exposures) x USING (tenant, recommendation_id)
        """
    )
    with_item, unknown_item, with_slate, unknown_slate = rows[0]
    known = per_tenant(patient, "SELECT tenant, count(*) FROM items GROUP BY tenant")
    if known and with_item and unknown_item > UNJOINED_SHARE * with_item:
        return Finding(
            name="unjoined", status="look",
            message=f"{unknown_item:,} of the newest {with_item:,} events name items that the catalog does not know.",
            advice="Do events and catalog use the same ids (variant or product)? Import the missing items.",
        )  # fmt: skip
    if with_slate and unknown_slate > UNJOINED_SHARE * with_slate:
        return Finding(
            name="unjoined", status="look",
            message=f"{unknown_slate:,} of {with_slate:,} events name slates that are not in the lake.",
            advice="If the service has just started, wait for the next compaction; else look at its log.",
        )  # fmt: skip
    joined = f"{with_item - unknown_item:,} of {with_item:,} events join." if known else "no catalog to join with."
    return Finding(name="unjoined", status="ok", message=joined)


def check_model(patient: Patient) -> Finding:
    """Every tenant with events has models that load, and the vectors that the shop supplies can be learned from."""
    artifacts = FileArtifacts(patient.workspace.models)
    rows = rows_of(Lake(patient.workspace.lake))
    untrained, spoiled = [], []
    for tenant in patient.tenants:
        version = artifacts.live(tenant).get("live")
        if version is not None:
            arrays, _ = artifacts.load(tenant, version)  # raises Corrupt, which becomes the finding
            spoiled += [f"{which} of {tenant}" for which in _spoiled_vectors(arrays.get("content", {}))]
        elif rows.get(tenant):
            untrained.append(tenant)
    if untrained:
        return Finding(
            name="model", status="problem", message=f"events but no model: {listed(untrained)}.",
            advice=f"thinslice train --tenant {untrained[0]}; `thinslice serve` does it on a schedule.",
        )  # fmt: skip
    trained = [tenant for tenant in patient.tenants if artifacts.live(tenant).get("live")]
    if not trained:
        return Finding(
            name="model", status="look", message="nothing is trained: the catalog's order is served.",
            advice="Import events, then `thinslice train`.",
        )  # fmt: skip
    if spoiled:
        return Finding(
            name="model", status="look", message=f"vectors that are not learned from: {listed(spoiled, 3)}.",
            advice="Send them again: finite numbers, not all zero, and one length for all items.",
        )  # fmt: skip
    return Finding(name="model", status="ok", message=f"models are live: {listed(trained)}.")


def _spoiled_vectors(arrays: Arrays) -> list[str]:
    """What the content model left out of each name of vectors that the shop supplies."""
    if "evidence" not in arrays:
        return []
    words = {"not_finite": "not finite", "all_zero": "all zero", "wrong_length": "of another length than"}
    found = []
    for name, counts in json.loads(arrays["evidence"].tobytes()).get("vectors", {}).items():
        told = [f"{counts[key]:,} {word}" for key, word in words.items() if counts.get(key)]
        if told:
            length = f" {counts['length']}" if counts.get("wrong_length") else ""
            found.append(f"{name!r} ({', '.join(told)}{length}; {counts.get('used', 0):,} are used)")
    return found


def check_promotion(patient: Patient) -> Finding:
    """What training made went live."""
    artifacts = FileArtifacts(patient.workspace.models)
    held, withheld, forced = [], [], []
    for tenant in patient.tenants:
        live = artifacts.live(tenant)
        held += [f"{slot} of {tenant}" for slot, version in artifacts.held(tenant).items() if live.get(slot) == version]
        if "live" not in live:
            continue
        manifest = artifacts.manifest(tenant, live["live"])
        newest = next((row["version"] for row in artifacts.versions(tenant) if row["name"] == "live"), live["live"])
        refused = artifacts.manifest(tenant, newest).get("refused", {})
        withheld += [f"{name} of {tenant} ({why[0]})" for name, why in sorted(refused.items())]
        forced += [f"{name} of {tenant}" for name in sorted(manifest.get("forced", {}))]
    if held:
        return Finding(
            name="promotion", status="look", message=f"rolled back and held since: {listed(held)}.",
            advice="`thinslice train`, or `thinslice models promote VERSION`, goes on.",
        )  # fmt: skip
    if withheld:
        return Finding(
            name="promotion", status="look", message=f"new models were withheld: {listed(withheld, 3)}.",
            advice="What served before goes on. `thinslice models list` says more; mend the settings or the data.",
        )  # fmt: skip
    if forced:
        return Finding(
            name="promotion", status="look", message=f"live by force: {listed(forced)}.",
            advice="`thinslice models rollback` takes it back.",
        )  # fmt: skip
    return Finding(name="promotion", status="ok", message="nothing was withheld.")


def check_memory(patient: Patient) -> Finding:
    """The models of all tenants fit into what a web worker may take."""
    artifacts = FileArtifacts(patient.workspace.models)
    sizes = {
        tenant: sum(
            bytes_of(artifacts.load(tenant, version)[0]) for version in artifacts.live(tenant).values()
        ) for tenant in patient.tenants
    }  # fmt: skip
    allowed = (patient.settings.models.memory_mb if patient.settings is not None else 0) * 1e6
    total = sum(sizes.values())
    message = f"the models take {total / 1e6:,.0f} of {allowed / 1e6:,.0f} MB in each web worker."
    if gone := _gave_way(patient):
        message += f" Without room now: {listed(gone)}."
    large = [tenant for tenant, size in sizes.items() if size > allowed]
    if large:
        return Finding(
            name="memory", status="problem", message=f"{message} Too large by themselves: {listed(large)}.",
            advice="They answer what is popular only. Raise memory_mb under [models] in thinslice.toml and restart.",
        )  # fmt: skip
    if total > allowed:
        return Finding(
            name="memory", status="look", message=f"{message} Tenants that are asked least give way.",
            advice="They answer what is popular until they are asked. Raise memory_mb under [models] to hold all.",
        )  # fmt: skip
    return Finding(name="memory", status="ok", message=message)


def _gave_way(patient: Patient) -> list[str]:
    """Tenants whose models have no room in some worker that answers now, as the workers say themselves."""
    found: set[str] = set()
    for path in (patient.workspace.run / "counters").glob("*.json"):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        if patient.now.timestamp() - said["at"] < WORKER_SILENT_S:
            found.update(said.get("gave_way", []))
    return sorted(found)


def check_freshness(patient: Patient) -> Finding:
    """Events are recent, and models have learned from most of them."""
    rows = patient.rows("SELECT tenant, max(epoch(received_at)) FROM events GROUP BY tenant")
    newest = {str(tenant): float(at) for tenant, at in rows if tenant in patient.tenants}
    if not newest:
        return Finding(name="freshness", status="ok", message="nothing that could be stale.")
    now = patient.now.timestamp()
    stale = [tenant for tenant, at in sorted(newest.items()) if now - at > STALE_DAYS * 86_400]
    if stale:
        age = (now - newest[stale[0]]) / 86_400
        return Finding(
            name="freshness", status="look",
            message=f"the newest event of {listed(stale)} came {age:.1f} days ago.",
            advice="Is the tag on the pages? Is the key the right one? Look at the quarantine, too.",
        )  # fmt: skip
    counts = rows_of(Lake(patient.workspace.lake))
    behind = []
    for tenant in sorted(newest):
        trained = last_training(FileArtifacts(patient.workspace.models), tenant)
        if trained is not None and now - trained[0] > 3600 and counts.get(tenant, 0) > 1.1 * trained[1]:
            behind.append(tenant)
    if behind:
        return Finding(
            name="freshness", status="look", message=f"models are over an hour behind the events: {listed(behind)}.",
            advice=f"thinslice train --tenant {behind[0]}; look for errors of the job `train` in the service's log.",
        )  # fmt: skip
    age_s = now - max(newest.values())
    return Finding(name="freshness", status="ok", message=f"the newest event came {age_s:,.0f} s ago.")


def check_backlog(patient: Patient) -> Finding:
    """The log is brought into the lake in time."""
    size = log_bytes(patient.workspace)
    oldest = min(
        (path.stat().st_mtime for path in patient.workspace.log.glob("*") if path.stat().st_size > 0),
        default=None,
    ) if patient.workspace.log.is_dir() else None  # fmt: skip
    if oldest is None:
        return Finding(name="backlog", status="ok", message="the log is empty.")
    waited = patient.now.timestamp() - oldest
    allowed = patient.settings.lake.commit_every_s if patient.settings is not None else 60.0
    if service_of(patient.workspace) is None:
        return Finding(
            name="backlog", status="look", message=f"{size:,} bytes of log wait while no service runs; none is lost.",
            advice="`thinslice serve` brings them into the lake when it starts.",
        )  # fmt: skip
    if waited > 5 * allowed + 60 and size > 200_000_000:
        return Finding(
            name="backlog", status="problem", message=f"{size:,} bytes of log, the oldest for {waited:,.0f} s.",
            advice="Look for errors of the job `compact` below and in the service's log.",
        )  # fmt: skip
    return Finding(name="backlog", status="ok", message=f"{size:,} bytes of log.")


def check_service(patient: Patient) -> Finding:
    """A running service answers, and its jobs do not fail."""
    service = service_of(patient.workspace)
    if service is None:
        return Finding(
            name="service", status="look", message="no service runs here.",
            advice=f"thinslice serve --workspace {shlex.quote(str(patient.workspace.root))}",
        )  # fmt: skip
    status, said = ask(service["url"], "/readyz")
    if status != 200:
        return Finding(
            name="service", status="problem", message=f"{service['url']}/readyz answers {status or 'nothing'}: {said}.",
            advice="Look at the service's log and at the findings above.",
        )  # fmt: skip
    path = patient.workspace.run / "jobs.json"
    jobs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if jobs.get("errors"):
        failed = "; ".join(f"{name}: {error['message']}" for name, error in sorted(jobs["errors"].items()))
        return Finding(
            name="service", status="problem", message=f"jobs fail: {failed}",
            advice="The service's log has the whole error; the job is tried again by itself.",
        )  # fmt: skip
    restarts = {name: count for name, count in service["restarts"].items() if count}
    if restarts:
        return Finding(
            name="service", status="look", message=f"restarted since the start: {restarts}.",
            advice="The service's log says with which code each ended (-9: killed, often for memory).",
        )  # fmt: skip
    share = service.get("jobs_share", {})
    if share.get("now") and share["times"]:
        return Finding(
            name="service", status="look",
            message="the machine has no idle time: the jobs starved and were given a share of their own.",
            advice="Slates may wait for them meanwhile. More cores help, or trainings that come less often (every_s).",
        )  # fmt: skip
    return Finding(
        name="service", status="ok", message=f"{service['url']} answers, {len(service['processes'])} processes."
    )


def check_disk(patient: Patient) -> Finding:
    """There is room."""
    folder = patient.workspace.root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    message = f"{free / 1e9:,.1f} GB are free."
    if free < FREE_BYTES:
        status = "problem" if free < FREE_BYTES / 10 else "look"
        return Finding(
            name="disk", status=status, message=message, advice="A full disk refuses events with 503: make room."
        )
    return Finding(name="disk", status="ok", message=message)


def check_quarantine(patient: Patient) -> Finding:
    """Little is refused."""
    rows = patient.rows(
        """
        SELECT code, field, count(*) AS n FROM quarantine WHERE NOT replayed
        GROUP BY code, field ORDER BY n DESC, code, field
        """
    )
    refused = sum(row[2] for row in rows)
    if not refused:
        return Finding(name="quarantine", status="ok", message="nothing was refused.")
    kept = sum(rows_of(Lake(patient.workspace.lake)).values())
    code, field, most = rows[0]
    message = f"{refused:,} records were refused, {most:,} of them for {code}{f' in {field}' if field else ''}."
    status = "look" if refused > QUARANTINE_SHARE * max(kept, 1) else "ok"
    advice = "`thinslice quarantine list` shows them, `thinslice quarantine replay` takes them in once it is mended."
    return Finding(name="quarantine", status=status, message=message, advice=advice if status != "ok" else "")


def per_tenant(patient: Patient, sql: str) -> dict[str, int]:
    """Tenant → count, of the tenants in the settings."""
    return {str(tenant): int(count) for tenant, count in patient.rows(sql) if tenant in patient.tenants}


def service_of(workspace: Workspace) -> dict[str, Any] | None:
    """What the running service wrote about itself; None when none runs here."""
    import fcntl

    path = workspace.run / "service.json"
    try:
        with (workspace.run / "lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except BlockingIOError:
        pass  # held by the service
    except FileNotFoundError:
        return None
    for _ in range(20):
        try:
            state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            time.sleep(0.05)  # between the lock and the file
        else:
            return state
    return None


def ask(url: str, path: str) -> tuple[int, str]:
    """Status and message of one page of the service; 0 when nobody answers within 5 s."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()
    if answer.status == 200:
        return 200, ""
    try:
        return answer.status, str(json.loads(body)["error"]["message"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return answer.status, "no reason given"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Some names in a sentence.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def check_experiments(patient: Patient) -> Finding:
    """Every experiment's file can be read; one that cannot stops the training of its tenant."""
    found, broken = read_experiments(patient.workspace.experiments)
    if broken:
        more = f" (and {len(broken) - 1:,} more)" if len(broken) > 1 else ""
        return Finding(
            name="experiments",
            status="problem",
            message=f"{broken[0].reason}{more}",
            advice="Repair the file or move it away: until then its tenant is not trained.",
        )
    running = sum(map(is_running, found))
    message = f"{running:,} running." if running else "none is running."
    return Finding(name="experiments", status="ok", message=message)


CHECKS: dict[str, Check] = {
    "settings": check_settings,
    "keys": check_keys,
    "catalog": check_catalog,
    "events": check_events,
    "unjoined": check_joins,
    "model": check_model,
    "promotion": check_promotion,
    "memory": check_memory,
    "experiments": check_experiments,
    "freshness": check_freshness,
    "backlog": check_backlog,
    "service": check_service,
    "disk": check_disk,
    "quarantine": check_quarantine,
}
"""Every check, in the order in which things are set up."""
