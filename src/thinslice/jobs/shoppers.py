"""Simulated shoppers who come in through the real doors: events, slates and orders over HTTP, for the demo.

They behave as browsers with the tag do: what happened is sent before a slate is asked for, slates that were seen and
clicks in them name their recommendation, and the shop's server reports what was paid with the secret key. Thinking
takes them about a second instead of half a minute.

`python -m thinslice.jobs.shoppers FILE` reads a `Traffic` as JSON from FILE (it holds keys: keep it readable by the
owner alone) and goes on until SIGTERM, or until its parent is gone.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from thinslice.errors import BadInput, NotAllowed, ThinsliceError
from thinslice.jobs.client import Answer, Client
from thinslice.simulate import Ask, Buy, Cart, Click, Crowd, See, Shop, Slate, View, crowd, home_goods, open_shop, visit
from thinslice.simulate.shoppers import keys_of

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
"""Pauses between two tries while the service is away: doubled from the first to the longest."""

_AGAIN = frozenset({429, 500, 502, 503, 504})
_REMEMBERED = 500
_log = logging.getLogger("thinslice.shoppers")


class Traffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who comes, how many, how fast, and where to.

    Attributes:
        url: Of the service, `http://HOST:PORT`.
        publishable: The browser's key.
        secret: The shop server's key, for orders.
        tenant: Whose generated catalog it is; must be the one of the keys.
        catalog_rng: The seed of the catalog.
        seed: Of the shoppers; another seed brings other people.
        first: The number of the first shopper; None takes one from the clock, so that whoever comes after a restart is
            new.
        visitors_per_s: Mean arrivals a second, at random (Poisson) times.
        think_s: Mean seconds between looking at a slate and the next step.
        returning: Share of the visits, 0..1, that are second visits.
        k: Length of the slates.
        placement: Where the slates stand.
        at_once: Visits under way at most; further arrivals wait.
        connections: Connections at most.
        patience_s: How long one request is tried again before the visit goes on without it.
        visits: Ends after so many; None goes on until cancelled.
    """

    url: str
    publishable: str
    secret: str
    tenant: str = "shop"
    catalog_rng: int = 0
    seed: int = 0
    first: int | None = None
    visitors_per_s: float = 12.0
    think_s: float = 1.0
    returning: float = 0.1
    k: int = 6
    placement: str = "shop"
    at_once: int = 200
    connections: int = 8
    patience_s: float = 60.0
    visits: int | None = None


@dataclass
class Counts:
    """What the shoppers did so far, as they know it."""

    visits: int = 0
    events: int = 0
    slates: int = 0
    clicks: int = 0
    orders: int = 0
    revenue_minor: int = 0
    retries: int = 0
    refused: int = 0
    given_up: int = 0


async def drive(
    traffic: Traffic, *, counts: Counts | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Counts:
    """Sends shoppers until `traffic.visits` are over or the task is cancelled.

    A service that restarts is waited for; events and orders carry ids of their own, so trying again counts nothing
    twice.

    Args:
        traffic: Who comes, how fast, and where to.
        counts: Filled while it runs, for those who watch.
        now: The clock of the shoppers' browsers, aware UTC.

    Raises:
        NotAllowed: A key is wrong; there is no use in trying again.
        BadInput: The address or a number in `traffic` makes no sense.
    """
    if traffic.visitors_per_s <= 0 or traffic.think_s < 0 or traffic.at_once < 1 or not 0 <= traffic.returning < 1:
        raise BadInput(
            "visitors_per_s must be above 0, think_s not below 0, at_once at least 1, and returning in 0..1."
        )
    counts = Counts() if counts is None else counts
    shop = open_shop(home_goods(traffic.tenant, traffic.catalog_rng))
    luck = np.random.default_rng([traffic.seed, 2])
    client = Client(traffic.url, connections=traffic.connections)
    room = asyncio.Semaphore(traffic.at_once)
    gone_home: list[tuple[int, int]] = []
    loop = asyncio.get_running_loop()
    arrives_at = loop.time()
    started = 0
    newcomers = int(now().timestamp()) * 1000 if traffic.first is None else traffic.first

    async def come(number: int, again: int) -> None:
        try:
            await _Visit(traffic, shop, client, counts, number, again, luck, now).run()
            gone_home.append((number, again))
            del gone_home[:-_REMEMBERED]
            counts.visits += 1
        finally:
            room.release()

    try:
        async with asyncio.TaskGroup() as visits:
            while traffic.visits is None or started < traffic.visits:
                arrives_at = max(arrives_at + luck.exponential(1.0 / traffic.visitors_per_s), loop.time() - 1.0)
                await asyncio.sleep(arrives_at - loop.time())
                await room.acquire()
                if gone_home and luck.random() < traffic.returning:
                    number, again = gone_home.pop(int(luck.integers(len(gone_home))))
                    visits.create_task(come(number, again + 1))
                else:
                    visits.create_task(come(newcomers, 0))
                    newcomers += 1
                started += 1
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    finally:
        client.close()
    return counts


class _Visit:
    """One visit of one shopper."""

    def __init__(
        self,
        traffic: Traffic,
        shop: Shop,
        client: Client,
        counts: Counts,
        number: int,
        again: int,
        luck: np.random.Generator,
        now: Callable[[], datetime],
    ) -> None:
        self._traffic, self._shop, self._client, self._counts = traffic, shop, client, counts
        self._luck, self._now = luck, now
        self._visitor = f"shopper-{traffic.seed}-{number}"
        self._session = f"{self._visitor}-{again}"
        self._shopper = _person(number, traffic.seed, again)
        self._waiting: list[dict[str, Any]] = []
        self._noted = 0

    async def run(self) -> None:
        """Everything from the first page to the last."""
        moves = visit(self._shop, self._shopper)
        action = next(moves)
        while True:
            slate = None
            match action:
                case View(item_id):
                    self._note("view_item", item_id=item_id)
                case Cart(item):
                    price = {"price_minor": item.price_minor, "currency": item.currency}
                    self._note("add_to_cart", item_id=item.item_id, quantity=1, **price)
                case Ask(item_id):
                    await self._flush()
                    slate = await self._ask(item_id)
                case See(seen, positions):
                    if positions:
                        items = [{"item_id": seen.item_ids[position], "position": position} for position in positions]
                        self._note("view_item_list", items=items, **self._slate(seen))
                    await asyncio.sleep(self._luck.exponential(self._traffic.think_s))
                case Click(seen, position, item_id):
                    self._counts.clicks += 1
                    self._note("select_item", item_id=item_id, position=position, **self._slate(seen))
                case Buy(items):
                    await self._pay([(item.item_id, item.price_minor or 0) for item in items], items[0].currency)
            try:
                action = moves.send(slate)
            except StopIteration:
                break
        await self._flush()

    def _slate(self, slate: Slate) -> dict[str, Any]:
        return {"recommendation_id": slate.recommendation_id, "placement": self._traffic.placement}

    def _note(self, name: str, **fields: Any) -> None:
        """Keeps one event until the next flush, with an id of its own and the browser's time."""
        self._waiting.append(
            {
                "event_id": f"{self._session}-{self._noted}",
                "name": name,
                "occurred_at": self._now(),
                "visitor_id": self._visitor,
                "session_id": self._session,
                "consent": "personalization",
                **fields,
            }
        )
        self._noted += 1

    async def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        if batch and await self._send("/v1/events", self._traffic.publishable, batch) is not None:
            self._counts.events += len(batch)

    async def _ask(self, item_id: str) -> Slate | None:
        question = {
            "placement": self._traffic.placement,
            "k": self._traffic.k,
            "visitor_id": self._visitor,
            "session_id": self._session,
            "item_id": item_id,
            "consent": "personalization",
        }
        answer = await self._send("/v1/recommendations", self._traffic.publishable, question)
        if answer is None:
            return None
        self._counts.slates += 1
        said = msgspec.json.decode(answer.body)
        return Slate(said["recommendation_id"], [item["item_id"] for item in said["items"]])

    async def _pay(self, bought: list[tuple[str, int]], currency: str | None) -> None:
        """The browser says `purchase`; the shop's server reports the order, and only that is money."""
        total = sum(price for _, price in bought)
        lines = [{"item_id": item_id, "quantity": 1, "price_minor": price} for item_id, price in bought]
        order_id = f"order-{self._session}"
        order = {
            "order_id": order_id,
            "occurred_at": self._now(),
            "currency": currency or "EUR",
            "total_minor": total,
            "lines": lines,
            "visitor_id": self._visitor,
            "session_id": self._session,
        }
        self._note("purchase", order_id=order_id, currency=currency or "EUR", items=lines)
        if await self._send("/v1/orders", self._traffic.secret, [order]) is not None:
            self._counts.orders += 1
            self._counts.revenue_minor += total

    async def _send(self, path: str, key: str, value: Any) -> Answer | None:
        """Posts until it is taken; None when it was refused or patience ran out.

        Raises:
            NotAllowed: The key is wrong.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._traffic.patience_s
        pause = FIRST_PAUSE_S
        while True:
            wait = pause
            try:
                answer = await self._client.post(path, key, value)
            except OSError:
                answer = None
            if answer is not None:
                if answer.status in (200, 202):
                    return answer
                if answer.status in (401, 403):
                    raise NotAllowed(*_reason(answer))
                if answer.status not in _AGAIN:
                    self._counts.refused += 1
                    _log.warning("%s answered %d: %s", path, answer.status, _reason(answer)[1])
                    return None
                with suppress(ValueError):
                    wait = max(pause, float(answer.headers.get("retry-after", "")))
            if loop.time() + wait > give_up_at:
                self._counts.given_up += 1
                return None
            self._counts.retries += 1
            await asyncio.sleep(min(wait, LONGEST_PAUSE_S) * (0.5 + self._luck.random()))
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _person(number: int, seed: int, again: int) -> Crowd:
    """The same tastes at every visit, new luck at each."""
    numbers = np.array([number])
    person = crowd(numbers, seed)
    return person if again == 0 else person._replace(key=keys_of(numbers, seed + 1_000_003 * again))


def _reason(answer: Answer) -> tuple[str, str]:
    """Code and message of a refusal."""
    try:
        error = msgspec.json.decode(answer.body)["error"]
        return str(error["code"]), str(error["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "unknown", f"HTTP status {answer.status}"


async def _until_told(traffic: Traffic) -> Counts:
    """`drive` until SIGTERM, SIGINT or the end of the parent process."""
    counts = Counts()
    driving = asyncio.ensure_future(drive(traffic, counts=counts))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, driving.cancel)
    parent = os.getppid()
    while not (await asyncio.wait([driving], timeout=1.0))[0]:
        if os.getppid() != parent:
            driving.cancel()
    with suppress(asyncio.CancelledError):
        driving.result()
    return counts


def main(arguments: list[str]) -> int:
    """The process of the demo's shoppers; prints what they did as one line of JSON when it ends."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m thinslice.jobs.shoppers FILE\n")
        return 2
    try:
        traffic = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Traffic)
        counts = asyncio.run(_until_told(traffic))
    except (OSError, msgspec.DecodeError) as error:
        sys.stderr.write(f"{arguments[0]}: {error}\n")
        return 2
    except ThinsliceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(counts).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
