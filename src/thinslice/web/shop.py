"""The demo shop: a generated home-goods shop that personalizes while a visitor browses, beside what is popular.

Pages are made on the server and work without JavaScript. Who the visitor is follows from the tag's own first-party
cookies, so that the slates on a page and the events of the tag belong to the same visitor. The tag reports what is
viewed, seen and clicked; carts and orders come from this server, which is the side that may be trusted with money.
"""

import hashlib
import re
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import jinja2
import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from thinslice.errors import LogFull, NotAllowed
from thinslice.records import Item, RecommendationRequest
from thinslice.records.session import SESSION_GAP_S
from thinslice.serving.catalog import is_available
from thinslice.sessions import live_keys
from thinslice.store.keys import KeyInfo
from thinslice.web.context import Context
from thinslice.web.door import BodyTooLong, SenderGone, read_body
from thinslice.web.storefront import (
    Line,
    Place,
    Product,
    Shelf,
    address,
    categories,
    currency_of,
    draw,
    heading,
    hues,
    mixed,
    money,
    price_of,
    things,
    total_of,
    why,
)

PERSONAL, POPULAR = "shop-window", "shop-popular"
"""The placements of the two shelves. The demo's settings give each its policy, and its experiment runs elsewhere."""

SHELF = 6
"""Products on a shelf."""

PAGE = 48
"""Products on a page of a list."""

FIRST_LOOK = 24
"""Products that the first page shows of the whole shop."""

DOCK = 8
"""Products that the dock shows: those looked at last, the newest first."""

MOST_OF_ONE = 9
"""Pieces of one product in a cart."""

MOST_LINES = 20
"""Products in a cart."""

VIEWS, CART = "shop_views", "shop_cart"
"""Cookies of the shop itself: the pages of this visit, which the tag may not have reported yet, and the cart."""

YEAR_S = 365 * 86_400
MAX_FORM_BYTES = 10_000

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What the pages may load: nothing from anywhere else."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Demo(msgspec.Struct):
    """What the demo left in its workspace for its shop."""

    keys: dict[str, str]


class Visit(NamedTuple):
    """Who looks at a page, as far as this person lets us know.

    Attributes:
        visitor_id: The tag's visitor; None when the browser asks not to be followed (Global Privacy Control).
        session_id: The tag's session.
        items: What was viewed in this visit, oldest first: what the service knows, and after that what it does not
            know yet.
        views: The pages of this visit by the shop's own cookie, oldest first.
        cart: Item id → pieces.
    """

    visitor_id: str | None
    session_id: str | None
    items: list[str]
    views: list[str]
    cart: dict[str, int]


Handler = Callable[[Request], Awaitable[Response]]


class Shop:
    """The pages of the shop of one worker.

    Args:
        context: The worker's belongings.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pages = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._pages.globals["static"] = versions(HERE / "static", ("favicon.svg", "shop.css", "shop.js"))
        self._demo: tuple[int, Demo] | None = None

    # Pages

    async def home(self, request: Request) -> Response:
        """The shop window: what was chosen for this visitor, what is popular, and a first look at everything."""
        tenant = self._tenant()
        visit = self._visit(request, tenant)
        everything = self._products(tenant)
        return self._page(
            "home",
            request,
            visit,
            shelves=self._shelves(tenant, visit),
            products=[self._product(item) for item in mixed(everything)[:FIRST_LOOK]],
            count=len(everything),
            hues=hues(everything),
        )

    async def listing(self, request: Request) -> Response:
        """All products, or those of one category or one color, page by page."""
        tenant = self._tenant()
        visit = self._visit(request, tenant)
        category = request.path_params.get("category", "")
        of_kind = [item for item in self._products(tenant) if not category or category in item.categories]
        color = request.query_params.get("color", "")
        found = [item for item in of_kind if not color or item.attributes.get("color") == color]
        pages = max(1, -(-len(found) // PAGE))
        wanted = request.query_params.get("page", "1")
        page = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 5 else 0
        if not found or not 1 <= page <= pages:
            return self._missing(request, visit, "There is no such shelf in this shop.")
        shown = (found if category else mixed(found))[(page - 1) * PAGE : page * PAGE]
        path = f"/shop/category/{quote(category)}" if category else "/shop/all"
        return self._page(
            "list",
            request,
            visit,
            title=heading(category, color),
            category=category,
            products=[self._product(item) for item in shown],
            count=len(found),
            hues=hues(of_kind),
            color=color,
            path=path,
            page=page,
            pages=pages,
            before=address(path, color, page - 1) if page > 1 else "",
            after=address(path, color, page + 1) if page < pages else "",
        )

    async def item(self, request: Request) -> Response:
        """One product, and both shelves as they are with this view."""
        tenant = self._tenant()
        visit = self._visit(request, tenant)
        found = self._item(tenant, request.path_params["item_id"])
        if found is None:
            return self._missing(request, visit, "This product is not in the shop.")
        product = self._product(found)
        seen = [*(each for each in visit.items if each != found.item_id), found.item_id]
        views = [*(each for each in visit.views if each != found.item_id), found.item_id][-2 * DOCK :]
        visit = visit._replace(items=seen, views=views if visit.visitor_id else [])
        like = {name: str(value) for name, value in found.attributes.items()}
        return self._page(
            "item",
            request,
            visit,
            shelves=self._shelves(tenant, visit, found.item_id),
            product=product,
            description=found.description or "",
            category=found.categories[0] if found.categories else "",
            details=[(name.capitalize(), value) for name, value in like.items()],
            in_cart=visit.cart.get(found.item_id, 0),
        )

    async def cart(self, request: Request) -> Response:
        """What is in the cart, and the button that buys it."""
        tenant = self._tenant()
        visit = self._visit(request, tenant)
        lines = self._lines(tenant, visit.cart)
        return self._page(
            "cart",
            request,
            visit,
            lines=lines,
            total=money(total_of(lines), currency_of(lines)),
            order_id=f"order-{secrets.token_hex(12)}",
        )

    async def thanks(self, request: Request) -> Response:
        """After an order."""
        tenant = self._tenant()
        return self._page("thanks", request, self._visit(request, tenant))

    # Forms

    async def change_cart(self, request: Request) -> Response:
        """Puts one piece of a product into the cart, or takes the product out of it."""
        tenant, form = self._tenant(), await self._form(request)
        visit = self._visit(request, tenant)
        found = self._item(tenant, form.get("item_id", ""))
        if found is None:
            return self._missing(request, visit, "This product is not in the shop.")
        cart = dict(visit.cart)
        if form.get("remove"):
            pieces = cart.pop(found.item_id, 0)
            name = "remove_from_cart"
        else:
            if not self._sellable(found) or (found.item_id not in cart and len(cart) >= MOST_LINES):
                return self._missing(request, visit, "This product cannot be bought now.", status=409)
            pieces = 1 if cart.get(found.item_id, 0) < MOST_OF_ONE else 0
            cart[found.item_id] = cart.get(found.item_id, 0) + pieces
            name = "add_to_cart"
        if pieces:
            event = {"name": name, "item_id": found.item_id, "quantity": pieces, **price_of(found)}
            await self._report(tenant, visit, event)
        return self._leave(request, visit._replace(cart=cart), "/shop/cart")

    async def buy(self, request: Request) -> Response:
        """Takes an order: this server reports it, so that it counts as revenue; the same form twice is one order."""
        tenant, form = self._tenant(), await self._form(request)
        visit = self._visit(request, tenant)
        lines = self._lines(tenant, visit.cart)
        order_id = form.get("order_id", "")
        if not lines or not re.fullmatch(r"order-[0-9a-f]{24}", order_id):
            return self._leave(request, visit, "/shop/cart")
        sold = [
            {"item_id": line.item.item_id, "quantity": line.quantity, "price_minor": line.item.price_minor}
            for line in lines
        ]
        who = {"visitor_id": visit.visitor_id, "session_id": visit.session_id}
        order = {
            "order_id": order_id,
            "currency": currency_of(lines),
            "total_minor": total_of(lines),
            "lines": sold,
            "occurred_at": datetime.now(UTC),
            **{name: value for name, value in who.items() if value},
        }
        body = msgspec.json.encode([order])
        await self._context.intake.orders(body, KeyInfo(tenant=tenant, kind="secret"), datetime.now(UTC))
        await self._report(
            tenant,
            visit,
            {"event_id": order_id, "name": "purchase", "order_id": order_id, "currency": currency_of(lines),
             "items": sold},
        )  # fmt: skip
        return self._leave(request, visit._replace(cart={}), "/shop/thanks")

    async def start_over(self, request: Request) -> Response:
        """Makes the visitor a stranger: a new visitor and session, nothing viewed, nothing in the cart."""
        await self._form(request)
        visit = Visit(new_id() if follows(request) else None, new_id(), [], [], {})
        return self._leave(request, visit, "/shop/")

    # Pictures

    async def picture(self, request: Request) -> Response:
        """The drawing of a product."""
        found = self._context.recommender.catalog(self._tenant(), time.time()).items.get(request.path_params["item_id"])
        if found is None:
            return Response("there is no such picture\n", status_code=404, media_type="text/plain")
        drawing = draw(found)
        etag = f'"{hashlib.sha256(drawing.encode()).hexdigest()[:16]}"'
        headers = {
            "ETag": etag,
            "Cache-Control": "public, max-age=86400, stale-while-revalidate=604800",
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
            "X-Content-Type-Options": "nosniff",
        }
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(drawing, media_type="image/svg+xml", headers=headers)

    # What the pages are made of

    def _demo_of(self) -> Demo | None:
        path = self._context.workspace.root / "demo.json"
        try:
            changed = path.stat().st_mtime_ns
            if self._demo is None or self._demo[0] != changed:
                self._demo = changed, msgspec.json.decode(path.read_bytes(), type=Demo)
        except (FileNotFoundError, msgspec.DecodeError):
            self._demo = None
            return None
        return self._demo[1]

    def _key(self) -> str:
        demo = self._demo_of()
        return demo.keys.get("publishable", "") if demo is not None else ""

    def _tenant(self) -> str:
        """Whose shop it is.

        Raises:
            NotAllowed: The workspace is not a demo's, or its key is no longer good.
        """
        return self._context.keys.lookup(self._key()).tenant

    def _products(self, tenant: str) -> list[Item]:
        now = time.time()
        items = self._context.recommender.catalog(tenant, now).items.values()
        return [item for item in items if item.status == "live" and is_available(item, now)]

    def _item(self, tenant: str, item_id: str) -> Item | None:
        item = self._context.recommender.catalog(tenant, time.time()).items.get(item_id)
        return item if item is not None and item.status == "live" else None

    def _sellable(self, item: Item) -> bool:
        return item.price_minor is not None and is_available(item, time.time())

    def _product(self, item: Item) -> Product:
        name = quote(item.item_id, safe="")
        return Product(
            item_id=item.item_id,
            title=item.title or item.item_id,
            url=f"/shop/item/{name}",
            image=f"/shop/picture/{name}.svg",
            price=money(item.price_minor, item.currency or "EUR") if item.price_minor is not None else "",
            color=str(item.attributes.get("color", "")),
            sold_out=not self._sellable(item),
        )

    def _visit(self, request: Request, tenant: str) -> Visit:
        """Who asks: from the tag's cookies, or a new visitor."""
        now = time.time()
        known = self._context.recommender.catalog(tenant, now).items
        cart = {
            item_id: pieces for item_id, pieces in read_cart(request.cookies.get(CART, "")).items() if item_id in known
        }
        if not follows(request):
            return Visit(None, None, [], [], cart)
        visitor_id = request.cookies.get("ts_visitor", "")
        if not _ID.fullmatch(visitor_id):
            visitor_id = new_id()
        session_id, _, at_ms = request.cookies.get("ts_session", "").partition(".")
        alive = at_ms.isascii() and at_ms.isdigit() and len(at_ms) < 16 and now - int(at_ms) / 1000 < SESSION_GAP_S
        if not alive or not _ID.fullmatch(session_id):
            session_id = new_id()
        found = self._context.live.sessions([(tenant, key) for key in live_keys(visitor_id, None)])[0]
        items = found.items if found is not None and now - found.last_at <= SESSION_GAP_S else []
        views = [unquote(each) for each in request.cookies.get(VIEWS, "").split("|") if each][-2 * DOCK :]
        views = [each for each in views if each in known]
        items = [*items, *(each for each in views if each not in items)]
        return Visit(visitor_id, session_id, items, views, cart)

    def _shelves(self, tenant: str, visit: Visit, item_id: str | None = None) -> list[Shelf]:
        """What this visitor gets, and what everybody gets."""
        personal = RecommendationRequest(
            placement=PERSONAL,
            k=SHELF,
            visitor_id=visit.visitor_id,
            session_id=visit.session_id,
            item_id=item_id,
            items=visit.items,
            consent="personalization" if visit.visitor_id else "none",
        )
        popular = RecommendationRequest(placement=POPULAR, k=SHELF, items=[], consent="measurement")
        return [self._shelf(tenant, "personal", personal), self._shelf(tenant, "baseline", popular)]

    def _shelf(self, tenant: str, name: str, question: RecommendationRequest) -> Shelf:
        recommender = self._context.recommender
        began = time.perf_counter()
        answer = recommender.recommend(tenant, question, "publishable", datetime.now(UTC))
        took_ms = (time.perf_counter() - began) * 1000
        sources = [each.source for each in answer.items]
        model = recommender.policy(tenant, answer.policy).model
        self._context.counters.slate(tenant, latency_ms=took_ms, model=model, sources=sources)
        items = recommender.catalog(tenant, time.time()).items
        places = [
            Place(self._product(items[each.item_id]), position, each.source, why(each, items[each.item_id]))
            for position, each in enumerate(answer.items)
            if each.item_id in items
        ]
        seen = len(set(question.items or []))
        if name == "baseline":
            note = "What sold and was viewed most. It does not know you."
        elif seen:
            note = f"Ranked from the {things(seen)} you looked at, in {took_ms:.1f} ms."
        else:
            note = "Nothing viewed yet: open three things of one color and watch this shelf."
        return Shelf(name, question.placement, answer.recommendation_id, places, note)

    def _lines(self, tenant: str, cart: dict[str, int]) -> list[Line]:
        """The cart, as far as it can be bought now."""
        items = [(self._item(tenant, item_id), pieces) for item_id, pieces in cart.items()]
        return [
            Line(item, self._product(item), pieces, money((item.price_minor or 0) * pieces, item.currency or "EUR"))
            for item, pieces in items
            if item is not None and self._sellable(item)
        ]

    async def _report(self, tenant: str, visit: Visit, event: dict[str, Any]) -> None:
        """One event from this server; of a visitor who may be followed."""
        if visit.visitor_id is None:
            return
        event = {"event_id": new_id(), "occurred_at": datetime.now(UTC), "visitor_id": visit.visitor_id,
                 "session_id": visit.session_id, **event}  # fmt: skip
        now = datetime.now(UTC)
        body = msgspec.json.encode([event])
        result = await self._context.intake.events(body, KeyInfo(tenant=tenant, kind="secret"), now)
        self._context.counters.events(tenant, accepted=result.accepted, rejected=len(result.rejected))

    async def _form(self, request: Request) -> dict[str, str]:
        """A small form that one of our own pages sent.

        Raises:
            NotAllowed: A page from elsewhere sent it.
        """
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise NotAllowed("foreign_origin", "this form came from another site.")
        body = await read_body(dict(request.scope["headers"]), request.receive, MAX_FORM_BYTES)
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=20))

    def _page(self, name: str, request: Request, visit: Visit, *, status: int = 200, **values: Any) -> Response:
        tenant = self._tenant()
        items = self._context.recommender.catalog(tenant, time.time()).items
        newest = [item_id for item_id in dict.fromkeys(reversed(visit.items)) if item_id in items]
        text = self._pages.get_template(f"shop/{name}.html").render(
            shop=self._context.settings.tenant(tenant).title or tenant,
            key=self._key(),
            follows=visit.visitor_id is not None,
            categories=categories(self._products(tenant)),
            pieces=sum(visit.cart.values()),
            dock=[self._product(items[item_id]) for item_id in newest[:DOCK]],
            seen=things(len(newest)),
            **{"category": "", **values},
        )
        answer = Response(text, status_code=status, media_type="text/html; charset=utf-8")
        answer.headers["Content-Security-Policy"] = POLICY
        answer.headers["Referrer-Policy"] = "same-origin"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return self._remember(request, answer, visit)

    def _leave(self, request: Request, visit: Visit, to: str) -> Response:
        return self._remember(request, RedirectResponse(to, status_code=303), visit)

    def _remember(self, request: Request, answer: Response, visit: Visit) -> Response:
        """Sets the cookies. Those of the tag are named and written as the tag does it, so that both agree."""
        answer.headers["Cache-Control"] = "no-store"
        secure = request.url.scheme == "https"
        own: list[tuple[str, str, int]] = [
            (CART, "|".join(f"{quote(each, safe='')}:{pieces}" for each, pieces in visit.cart.items()), YEAR_S)
        ]
        if visit.visitor_id is not None and visit.session_id is not None:
            own.append((VIEWS, "|".join(quote(each, safe="") for each in visit.views), SESSION_GAP_S))
            session = f"{visit.session_id}.{int(time.time() * 1000)}"
            answer.set_cookie("ts_visitor", visit.visitor_id, max_age=YEAR_S, samesite="lax", secure=secure)
            answer.set_cookie("ts_session", session, max_age=SESSION_GAP_S, samesite="lax", secure=secure)
        for name, value, life_s in own:
            if value:
                answer.set_cookie(name, value, max_age=life_s, samesite="lax", httponly=True, secure=secure)
            elif name in request.cookies:
                answer.delete_cookie(name, samesite="lax", httponly=True)
        return answer

    def _missing(self, request: Request, visit: Visit, what: str, *, status: int = 404) -> Response:
        return self._page("missing", request, visit, status=status, what=what)

    def guarded(self, page: Handler) -> Handler:
        """A page that says in plain words what is wrong when it cannot be shown."""

        async def answer(request: Request) -> Response:
            try:
                return await page(request)
            except NotAllowed as error:
                if error.code == "foreign_origin":
                    return plain(403, "This form came from another site; nothing was done.")
                return plain(404, "There is no demo shop in this workspace; `thinslice demo` makes one.")
            except BodyTooLong:
                return plain(413, "This form is too long.")
            except SenderGone:
                return plain(400, "The form did not arrive whole.")
            except LogFull:
                return plain(503, "The disk is full; nothing was bought. Please try again later.")

        return answer


def plain(status: int, text: str) -> Response:
    """An answer where no page can be made."""
    return Response(text + "\n", status_code=status, media_type="text/plain; charset=utf-8")


def follows(request: Request) -> bool:
    """Whether this browser may be followed: not with Global Privacy Control."""
    return request.headers.get("sec-gpc") != "1"


def new_id() -> str:
    """A random id, as the tag makes it."""
    return str(uuid.uuid4())


def read_cart(text: str) -> dict[str, int]:
    """A cart from its cookie; what makes no sense is left out.

    >>> read_cart("vase%2C1:2|mug:x|bowl:1|cup:4000")
    {'vase,1': 2, 'bowl': 1}
    """
    cart: dict[str, int] = {}
    for part in text.split("|")[:MOST_LINES]:
        name, _, pieces = part.rpartition(":")
        if name and pieces.isascii() and pieces.isdigit() and len(pieces) == 1 and pieces != "0":
            cart[unquote(name)] = int(pieces)
    return cart


def versions(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """File name → address that changes with the file's content."""
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()[:10] for name in names}
    return {name: f"/static/{name}?v={digest}" for name, digest in digests.items()}


def routes(context: Context) -> list[Route]:
    """The pages, forms and pictures of the shop."""
    shop = Shop(context)
    paths: list[tuple[str, Handler, str]] = [
        ("/shop/", shop.home, "GET"),
        ("/shop/all", shop.listing, "GET"),
        ("/shop/category/{category}", shop.listing, "GET"),
        ("/shop/item/{item_id:path}", shop.item, "GET"),
        ("/shop/picture/{item_id:path}.svg", shop.picture, "GET"),
        ("/shop/cart", shop.cart, "GET"),
        ("/shop/cart", shop.change_cart, "POST"),
        ("/shop/buy", shop.buy, "POST"),
        ("/shop/thanks", shop.thanks, "GET"),
        ("/shop/start-over", shop.start_over, "POST"),
    ]

    async def enter(_request: Request) -> Response:
        return RedirectResponse("/shop/")

    return [
        Route("/shop", enter),
        *(Route(path, shop.guarded(page), methods=[method]) for path, page, method in paths),
    ]
