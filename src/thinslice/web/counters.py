"""What the service counts while it answers: for /metrics (every worker, summed) and for the Live page (per tenant).

Prometheus files are shared by all workers when PROMETHEUS_MULTIPROC_DIR is set, as the parent process does. An answer
is counted in plain numbers, which go to those files about once a second and before this worker shows them. Beside
them each worker writes one small JSON file a second with its last minute, per tenant, which the Live page adds up.
"""

import json
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from thinslice.settings import Workspace

WINDOW_S = 60
"""How far back the Live page looks, in seconds."""

STALE_S = 5.0
"""A worker's file that is older than this many seconds belongs to a dead worker and is passed over."""

BOUNDS_MS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 75.0, 100.0, 200.0,
             500.0, 1000.0, 2000.0, 5000.0)  # fmt: skip
"""Upper bounds of the latency buckets in milliseconds; the last bucket is open."""

NOTHING = "nothing"
"""What answered a slate without any item."""

CHOSEN = ("pin", "newcomer")
"""Sources that are no fallback: the shop's own choice, and items that a policy shows to learn about them."""

REGISTRY = CollectorRegistry()

_ACCEPTED = Counter("thinslice_events_accepted", "Events acknowledged as durable.", ["tenant"], registry=REGISTRY)
_REJECTED = Counter("thinslice_events_rejected", "Events refused with a reason.", ["tenant"], registry=REGISTRY)
_LATENCY = Histogram(
    "thinslice_recommendation_seconds",
    "From the request's last byte to its slate.",
    ["tenant"],
    registry=REGISTRY,
    buckets=[bound / 1000 for bound in BOUNDS_MS],
)
_SOURCES = Counter(
    "thinslice_slate_items",
    "Items served, by the source that ranked them; sources other than the policy's model are fallbacks.",
    ["tenant", "source", "fallback"],
    registry=REGISTRY,
)
_SLATES = Counter(
    "thinslice_slates", "Slates, by the source that ranked their first item.", ["tenant", "source"], registry=REGISTRY
)
_RULES = Counter(
    "thinslice_rule_removed_items",
    "Items that a rule took out by itself, added up over slates; divided by slates it is a mean.",
    ["tenant", "rule"],
    registry=REGISTRY,
)
_LATE = Counter(
    "thinslice_late_slates",
    "Slates for which a costly model was passed over, as their request had waited too long for a worker.",
    ["tenant"],
    registry=REGISTRY,
)
_ANSWERS = Counter("thinslice_http_answers", "Answers by path and status.", ["path", "status"], registry=REGISTRY)


class Second:
    """One second of one tenant."""

    __slots__ = ("accepted", "answered", "at", "fallback", "items", "latency", "rejected", "slates")

    def __init__(self, at: int) -> None:
        self.at = at
        self.accepted = self.rejected = self.slates = self.items = self.fallback = 0
        self.latency = [0] * (len(BOUNDS_MS) + 1)
        self.answered: dict[str, int] = {}


class Took:
    """How long slates took that are not published yet: a count a bucket, and their sum."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_MS) + 1)
        self.seconds = 0.0


class Counters:
    """The counting of one worker.

    Args:
        folder: Where the workers' minute files lie (`workspace/run/counters`).
        worker_name: Names this worker's file.
    """

    def __init__(self, folder: Path, worker_name: str) -> None:
        self._folder = folder
        self._path = folder / f"{worker_name}.json"
        self._minute: dict[str, list[Second]] = {}
        self._counts: dict[tuple[Counter, tuple[str, ...]], int] = {}
        self._took: dict[str, Took] = {}

    def events(self, tenant: str, *, accepted: int, rejected: int) -> None:
        """Counts one batch of events."""
        second = self._second(tenant)
        if accepted:
            second.accepted += accepted
            self._add(_ACCEPTED, (tenant,), accepted)
        if rejected:
            second.rejected += rejected
            self._add(_REJECTED, (tenant,), rejected)

    def slate(self, tenant: str, *, latency_ms: float, model: str, sources: Sequence[str]) -> None:
        """Counts one slate: how long it took, and which source ranked each item; not `model` is a fallback."""
        second = self._second(tenant)
        second.slates += 1
        bucket = bisect_left(BOUNDS_MS, latency_ms)
        second.latency[bucket] += 1
        took = self._took.get(tenant)
        if took is None:
            took = self._took[tenant] = Took()
        took.buckets[bucket] += 1
        took.seconds += latency_ms / 1000
        first = sources[0] if sources else NOTHING
        second.answered[first] = second.answered.get(first, 0) + 1
        self._add(_SLATES, (tenant, first), 1)
        alone = sources.count(first) == len(sources)
        for source in sources[:1] if alone else dict.fromkeys(sources):
            count = sources.count(source)
            fallback = source != model and source not in CHOSEN
            second.items += count
            second.fallback += count if fallback else 0
            self._add(_SOURCES, (tenant, source, "yes" if fallback else "no"), count)

    def rules(self, removed: Mapping[tuple[str, str], int]) -> None:
        """Counts what rules took out: (tenant, rule) → items, since the last time."""
        for (tenant, rule), count in removed.items():
            self._add(_RULES, (tenant, rule), count)

    def late(self, passed_over: Mapping[str, int]) -> None:
        """Counts slates for which a costly model was passed over: tenant → how many, since the last time."""
        for tenant, count in passed_over.items():
            self._add(_LATE, (tenant,), count)

    def answer(self, path: str, status: int) -> None:
        """Counts one HTTP answer of a known path."""
        self._add(_ANSWERS, (path, str(status)), 1)

    def publish(self) -> None:
        """Adds what was counted since the last time to the numbers for /metrics."""
        counts, self._counts = self._counts, {}
        for (metric, labels), count in counts.items():
            metric.labels(*labels).inc(count)
        times, self._took = self._took, {}
        for tenant, took in times.items():
            histogram: Any = _LATENCY.labels(tenant)
            histogram._sum.inc(took.seconds)  # what `observe` does, for many at once
            for bucket, count in zip(histogram._buckets, took.buckets, strict=True):
                if count:
                    bucket.inc(count)

    def write(self, gave_way: Sequence[str] = ()) -> None:
        """Writes this worker's last minute for the Live page, and for /metrics; called about once a second.

        Args:
            gave_way: Tenants whose models had to give way in this worker, for `doctor`.
        """
        self.publish()
        now = int(time.time())
        rows: dict[str, list[list[Any]]] = {}
        for tenant, seconds in self._minute.items():
            rows[tenant] = [
                [
                    each.at,
                    each.accepted,
                    each.rejected,
                    each.slates,
                    each.items,
                    each.fallback,
                    each.latency,
                    each.answered,
                ]
                for each in seconds
                if each.at > now - WINDOW_S - 2
            ]
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps({"at": time.time(), "tenants": rows, "gave_way": list(gave_way)}), encoding="utf-8")
        draft.replace(self._path)

    def _second(self, tenant: str) -> Second:
        seconds = self._minute.setdefault(tenant, [])
        at = int(time.time())
        if not seconds or seconds[-1].at != at:
            seconds.append(Second(at))
            if len(seconds) > WINDOW_S + 5:
                del seconds[0]
        return seconds[-1]

    def _add(self, metric: Counter, labels: tuple[str, ...], count: int) -> None:
        key = (metric, labels)
        self._counts[key] = self._counts.get(key, 0) + count


def last_minute(folder: Path, tenant: str, now: float) -> dict[str, Any]:
    """The last minute of one tenant, added up over the workers that are alive.

    Args:
        folder: `workspace/run/counters`.
        tenant: Whose.
        now: Unix seconds.

    Returns:
        `events_per_s` and `slates_per_s` over the last 10 whole seconds, `rejected` and `slates` in the window,
        `latency_ms` with p50, p90 and p99 (None without slates), `fallback_share` 0..1 or None, `answered_by` (source →
        share of the slates whose first item it ranked, the largest first), `events_by_second`
        (the last 60 whole seconds, oldest first), and `workers`.
    """
    last = int(now) - 1
    by_second = [0] * WINDOW_S
    slates_by_second = [0] * WINDOW_S
    rejected = items = fallback = workers = 0
    latency = [0] * (len(BOUNDS_MS) + 1)
    answered: dict[str, int] = {}
    for path in folder.glob("*.json"):
        try:
            minute = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        if now - minute["at"] > STALE_S:
            continue
        workers += 1
        for at, accepted, refused, slates, shown, fell, buckets, firsts in minute["tenants"].get(tenant, []):
            place = WINDOW_S - 1 - (last - at)
            if not 0 <= place < WINDOW_S:
                continue
            by_second[place] += accepted
            slates_by_second[place] += slates
            rejected += refused
            items += shown
            fallback += fell
            for source, count in firsts.items():
                answered[source] = answered.get(source, 0) + count
            latency = [have + more for have, more in zip(latency, buckets, strict=True)]
    return {
        "events_per_s": sum(by_second[-10:]) / 10,
        "slates_per_s": sum(slates_by_second[-10:]) / 10,
        "rejected": rejected,
        "slates": sum(slates_by_second),
        "latency_ms": {name: quantile(latency, share) for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))},
        "fallback_share": fallback / items if items else None,
        "answered_by": {
            source: count / sum(answered.values())
            for source, count in sorted(answered.items(), key=lambda pair: (-pair[1], pair[0]))
        },
        "events_by_second": by_second,
        "workers": workers,
    }


def quantile(buckets: list[int], share: float) -> float | None:
    """The upper bound in milliseconds of the bucket that holds the `share` quantile; None when nothing was counted.

    >>> quantile([0, 9, 1, *[0] * 20], 0.9)
    0.5
    """
    total = sum(buckets)
    if total == 0:
        return None
    seen = 0
    for count, bound in zip(buckets, (*BOUNDS_MS, BOUNDS_MS[-1]), strict=True):
        seen += count
        if seen >= share * total:
            return bound
    return BOUNDS_MS[-1]


def exposition(metrics_folder: Path | None) -> bytes:
    """The text of /metrics: of all workers when they share a folder, else of this process."""
    if metrics_folder is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(metrics_folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def counters_folder(workspace: Workspace) -> Path:
    """Where the workers' minute files lie."""
    return workspace.run / "counters"
