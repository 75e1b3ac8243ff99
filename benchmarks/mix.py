"""What shelves, rules and exploration cost over HTTP, each beside the plain policy: p50, p90 and p99 of their slates.

Every way of asking is measured by itself, in Poisson arrivals, while the service's compactor runs and models train.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load import Outcome, poisson, post
from benchmarks.machine import describe
from benchmarks.service import VISITORS, Shop, clicks, prepare, service, show, thinslice, visit

MORE = """\

[tenants.shop.policies.learning]
model = "session-knn"
explore = "position-thompson"

[tenants.shop.policies.varied]
model = "session-knn"
diversity = 0.3

[[tenants.shop.rules]]
kind = "price"
placement = "priced"
min_share = 0.3
max_share = 3.0

[[tenants.shop.rules]]
kind = "exclude"
placement = "kinds"
categories = ["kind 1", "kind 2", "kind 3"]

[[tenants.shop.rules]]
kind = "quota"
placement = "quotas"
by = "brand"
most = 2

[[tenants.shop.rules]]
kind = "boost"
placement = "boosted"
brands = ["brand 1", "brand 2"]
factor = 1.5

[[tenants.shop.rules]]
kind = "pin"
placement = "pinned"
item_id = "42"
position = 0

[[tenants.shop.rules]]
kind = "seen"
placement = "unseen"
viewed = true
"""
"""Rules, each at a placement of its own, and policies that explore and spread."""

RULES = ("priced", "kinds", "quotas", "boosted", "pinned", "unseen")
SHELVES = ("similar", "bought-together", "complete-cart", "recently-viewed", "trending-in-category", "buy-again")


def ways(policy: str) -> dict[str, dict[str, Any]]:
    """Name → what a request of this kind holds beside visitor and item; the plain policy comes first."""
    return {
        policy: {"policy": policy},
        **{f"shelf {name}": {"policy": name} for name in SHELVES},
        **{f"rule {name}": {"policy": policy, "placement": name} for name in RULES},
        "policy varied": {"policy": "varied"},
        "policy learning": {"policy": "learning"},
        "once a page": {"policy": policy, "context": {"page_id": "PAGE"}},
    }


def ask(port: int, key: str, shop: Shop, way: dict[str, Any], rate: float, seconds: float) -> Outcome:
    """Slates of one kind for random visitors on pages of random items."""
    rng = np.random.default_rng(1)
    visitors = rng.integers(0, VISITORS, 100_000)
    items = rng.integers(0, shop.items, (100_000, 3)).astype(str).tolist()

    def request(number: int) -> bytes:
        page, *cart = items[number % len(items)]
        context = {**way.get("context", {}), "cart": [page, *cart]}
        if "page_id" in context:
            context["page_id"] = f"page-{number // 3}"
        body = {"k": 20, "visitor_id": f"v{visitors[number % len(visitors)]}", "item_id": page, **way}
        return post("/v1/recommendations", key, json.dumps({**body, "context": context}).encode())

    poisson("127.0.0.1", port, request, rate=rate, seconds=1, connections=32)
    return poisson("127.0.0.1", port, request, rate=rate, seconds=seconds, connections=32)


def baskets(folder: Path, shop: Shop) -> None:
    """Orders of two or three neighbors, of one in twenty sessions."""
    bought, times = clicks(shop, np.random.default_rng(0))
    with (folder / "orders.jsonl").open("w") as file:
        for number in range(0, shop.sessions, 20):
            lines = [
                {"item_id": str(each), "quantity": 1, "price_minor": 900} for each in set(bought[number][:3].tolist())
            ]
            order = {"order_id": f"o{number}", "occurred_at": times[number][4], "visitor_id": f"v{number % VISITORS}",
                     "user_id": f"u{number % VISITORS}", "lines": lines}  # fmt: skip
            file.write(json.dumps(order) + "\n")
    workspace = ["--workspace", str(folder), "--tenant", "shop"]
    thinslice("import", "orders", str(folder / "orders.jsonl"), *workspace)
    thinslice("train", *workspace)


def main() -> None:
    """Prepares, serves, and prints one line a way of asking."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=300.0, help="slates a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each way of asking")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--policy", default="session-ranker")
    options = parser.parse_args()
    shop = Shop(options.items, options.sessions, options.policy)
    print("machine:", describe(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "workspace"
        keys = prepare(folder, shop, MORE)
        baskets(folder, shop)
        visit(folder, shop)
        with service(folder, 2) as port:
            time.sleep(5)
            for what, way in ways(shop.policy).items():
                show(what, ask(port, keys["secret"], shop, way, options.rate, options.seconds).row())


if __name__ == "__main__":
    main()
