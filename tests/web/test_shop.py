"""The demo shop over HTTP, as browsers without JavaScript meet it: shelves, lists, cart, orders, who is followed."""

import contextlib
import http.client
import http.cookies
import json
import re
import time
from dataclasses import dataclass
from html import unescape
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.cli import demo
from thinslice.experiments import dump_experiment
from thinslice.metrics import DEFAULT_METRICS
from thinslice.records import Experiment, Variant
from thinslice.simulate import home_goods
from thinslice.store.log import LogKind
from thinslice.web.shop import MOST_LINES, PERSONAL, POPULAR, read_cart

ITEMS = {item.item_id: item for item in home_goods("shop")}
TILE = re.compile(r'<a class="tile" href="/shop/item/([^"]+)"(.*?)</a>', re.DOTALL)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class Guest:
    """A browser that keeps cookies and runs no scripts."""

    def __init__(self, worker, **headers):
        self.worker, self.headers, self.cookies = worker, headers, {}

    def ask(self, method, path, form=None, **headers):
        sent = {**self.headers, **headers, "Host": f"127.0.0.1:{self.worker.port}"}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = urlencode(form).encode() if form is not None else None
        connection = http.client.HTTPConnection("127.0.0.1", self.worker.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            reply = Reply(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
        for line in answer.headers.get_all("set-cookie", []):
            for name, morsel in http.cookies.SimpleCookie(line).items():
                if morsel["max-age"] == "0" or not morsel.value:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.coded_value
        return reply

    def get(self, path, status=200):
        answer = self.ask("GET", path)
        assert answer.status == status, answer.body
        return answer.body.decode()

    def post(self, path, **form):
        answer = self.ask("POST", path, form, Origin=f"http://127.0.0.1:{self.worker.port}")
        assert answer.status == 303, answer.body
        return self.get(answer.headers["location"])


@pytest.fixture(scope="module")
def shop(demo_shop):
    return demo_shop


@pytest.fixture
def guest(shop):
    return Guest(shop)


def shelf(page, name):
    """Item ids of one shelf, in order, and the attributes of its tiles."""
    section = re.search(rf'<section class="shelf {name}".*?</section>', page, re.DOTALL).group()
    return [item for item, _ in TILE.findall(section)], section


def colors(items):
    return [ITEMS[item].attributes["color"] for item in items]


def of_color(color, count=3):
    """Things of one color, of different kinds."""
    kinds = {}
    for item in ITEMS.values():
        if item.attributes["color"] == color:
            kinds.setdefault(item.attributes["kind"], item.item_id)
    return list(kinds.values())[:count]


def dock(page):
    aside = re.search(r'<aside class="dock".*?</aside>', page, re.DOTALL).group()
    return re.findall(r'href="/shop/item/([^"]+)"', aside)


def test_the_first_page_shows_what_was_chosen_beside_what_is_popular(guest, shop):
    page = guest.get("/shop/")
    for name, placement, words in (("personal", PERSONAL, "Chosen for you"), ("baseline", POPULAR, "Popular, same")):
        items, section = shelf(page, name)
        assert len(items) == 6
        assert words in section
        assert re.findall(r'data-thinslice-position="(\d)"', section) == list("012345")
        assert re.findall(r'data-thinslice-item="([^"]+)"', section) == items
        assert set(re.findall(r'data-thinslice-placement="([^"]+)"', section)) == {placement}
        (slate,) = set(re.findall(r'data-thinslice-recommendation="([^"]+)"', section))
        event = {"name": "select_item", "item_id": items[0], "recommendation_id": slate, "consent": "personalization"}
        assert shop.ask("POST", "/v1/events", [event], key="publishable").status == 202
        assert ("reason" in section) == (name == "personal")
    assert len(TILE.findall(page)) == 12 + 24


def test_three_views_of_one_color_turn_the_personal_shelf_and_leave_the_other(shop):
    for color in ("sage", "plum", "charcoal"):
        guest = Guest(shop)
        page = guest.get("/shop/")
        before, popular = colors(shelf(page, "personal")[0]).count(color), shelf(page, "baseline")[0]
        for item in of_color(color):
            guest.get(f"/shop/item/{item}")
        page = guest.get("/shop/")
        after, section = shelf(page, "personal")
        assert before <= 2
        assert colors(after).count(color) >= 4, (color, colors(after))
        assert shelf(page, "baseline")[0] == popular
        assert "Because you viewed" in section
        assert set(re.findall(r'data-source="([^"]+)"', section)) == {"session-knn"}
        assert dock(page) == of_color(color)[::-1]


def test_the_page_of_a_product_already_counts_it(guest):
    item = of_color("terracotta")[0]
    page = guest.get(f"/shop/item/{item}")
    items, section = shelf(page, "personal")
    assert item not in items
    assert f"Because you viewed {ITEMS[item].title}" in unescape(section)
    assert dock(page) == [item]


def test_what_only_the_tag_reported_is_on_the_shelf_and_in_the_dock(guest, shop):
    guest.get("/shop/")
    visitor, session = guest.cookies["ts_visitor"], guest.cookies["ts_session"].partition(".")[0]
    views = [
        {"name": "view_item", "item_id": item, "visitor_id": visitor, "session_id": session,
         "consent": "personalization"}
        for item in of_color("plum")
    ]  # fmt: skip
    assert shop.ask("POST", "/v1/events", views, key="publishable").status == 202
    page = guest.get("/shop/")
    assert dock(page) == of_color("plum")[::-1]
    assert colors(shelf(page, "personal")[0]).count("plum") >= 4


def test_the_tag_alone_counts_views(guest, shop, log_of):
    item = of_color("ochre")[0]
    page = guest.get(f"/shop/item/{item}")
    assert page.count("data-thinslice-view=") == 1
    assert f'data-thinslice-view="{item}"' in page
    assert "data-thinslice-view=" not in guest.get("/shop/")
    mine = [e for e in log_of(shop, LogKind.EVENTS) if e.visitor_id == guest.cookies["ts_visitor"]]
    assert mine == []


def test_shelves_are_exposures_outside_of_the_demos_experiment(guest, shop, log_of):
    assert demo.PLACEMENT not in (PERSONAL, POPULAR)
    variants = [Variant(name="a", policy="popular", weight=0.5), Variant(name="b", policy="newest", weight=0.5)]
    experiment = Experiment(
        name="on-home", tenant="shop", hypothesis="", variants=variants, metrics=list(DEFAULT_METRICS),
        placement=demo.PLACEMENT,
    )  # fmt: skip
    path = shop.workspace.experiments / "shop" / "on-home.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump_experiment(experiment))
    try:
        page = guest.get("/shop/")
    finally:
        path.unlink()
    slates = set(re.findall(r'data-thinslice-recommendation="([^"]+)"', page))
    logged = {each.placement: each for each in log_of(shop, LogKind.EXPOSURES) if each.recommendation_id in slates}
    assert set(logged) == {PERSONAL, POPULAR}
    assert all(each.experiments == [] for each in logged.values())
    assert logged[PERSONAL].visitor_id == guest.cookies["ts_visitor"]
    assert logged[PERSONAL].session_id == guest.cookies["ts_session"].partition(".")[0]
    assert logged[PERSONAL].policy == "session-knn"
    assert logged[POPULAR].policy == "popular"
    assert logged[POPULAR].visitor_id is None
    assert logged[POPULAR].items == shelf(page, "baseline")[0]


def test_an_order_counts_once_and_what_was_bought_is_not_shown_again(guest, shop, log_of):
    bought, other = of_color("blush")[:2]
    guest.get(f"/shop/item/{bought}")
    page = guest.post("/shop/cart", item_id=bought)
    guest.post("/shop/cart", item_id=bought)
    page = guest.post("/shop/cart", item_id=other)
    page = guest.post("/shop/cart", item_id=other, remove="1")
    basket = re.search(r'<section class="basket".*?</section>', page, re.DOTALL).group()
    assert other not in basket
    assert bought in basket
    price = ITEMS[bought].price_minor
    assert f"€{2 * price / 100:,.2f}" in page
    order_id = re.search(r'name="order_id" value="([^"]+)"', page).group(1)
    cookies = dict(guest.cookies)
    assert "Thank you" in guest.post("/shop/buy", order_id=order_id)
    guest.cookies, fresh = cookies, guest.cookies
    guest.post("/shop/buy", order_id=order_id)
    guest.cookies = fresh
    orders = [each for each in log_of(shop, LogKind.ORDERS) if each.order_id == order_id]
    assert {each.total_minor for each in orders} == {2 * price}
    assert {each.visitor_id for each in orders} == {guest.cookies["ts_visitor"]}
    assert [(line.item_id, line.quantity) for line in orders[0].lines] == [(bought, 2)]
    mine = [e for e in log_of(shop, LogKind.EVENTS) if e.visitor_id == guest.cookies["ts_visitor"]]
    assert [e.name for e in mine if e.name != "purchase"] == [
        "add_to_cart", "add_to_cart", "add_to_cart", "remove_from_cart",
    ]  # fmt: skip
    assert {e.event_id for e in mine if e.name == "purchase"} == {f"{order_id}#0"}
    assert {e.source for e in mine} == {"api"}
    for path in ("/shop/", f"/shop/item/{other}"):
        assert bought not in shelf(guest.get(path), "personal")[0]
    assert "There is nothing in it yet" in guest.get("/shop/cart")


def test_an_empty_cart_and_an_invented_order_id_buy_nothing(guest, shop, log_of):
    before = len(log_of(shop, LogKind.ORDERS))
    guest.post("/shop/buy", order_id="order-" + "0" * 24)
    guest.post("/shop/cart", item_id=of_color("cream")[0])
    guest.post("/shop/buy", order_id="order-1")
    guest.post("/shop/buy")
    assert len(log_of(shop, LogKind.ORDERS)) == before


def test_start_over_makes_a_stranger(guest):
    for item in of_color("sage"):
        guest.get(f"/shop/item/{item}")
    guest.post("/shop/cart", item_id=of_color("sage")[0])
    was = dict(guest.cookies)
    page = guest.post("/shop/start-over")
    assert guest.cookies["ts_visitor"] != was["ts_visitor"]
    assert guest.cookies["ts_session"].partition(".")[0] != was["ts_session"].partition(".")[0]
    assert dock(page) == []
    assert shelf(page, "personal")[0] == shelf(page, "baseline")[0]
    assert set(guest.cookies) == {"ts_visitor", "ts_session"}


@pytest.mark.parametrize("path", ["/shop/cart", "/shop/buy", "/shop/start-over"])
def test_a_form_from_elsewhere_does_nothing(guest, path):
    guest.get("/shop/")
    was = dict(guest.cookies)
    for origin in ("https://evil.example", "null", f"http://localhost:{guest.worker.port}"):
        answer = guest.ask("POST", path, {"item_id": of_color("sage")[0]}, Origin=origin)
        assert answer.status == 403
    assert guest.cookies == was
    assert guest.ask("POST", path, {"item_id": "x" * 20_000}).status == 413


def test_a_browser_that_asks_not_to_be_followed_is_not(shop, log_of):
    guest = Guest(shop, **{"Sec-GPC": "1"})
    before = len(log_of(shop, LogKind.EVENTS))
    item = of_color("sage")[0]
    page = guest.get(f"/shop/item/{item}")
    assert guest.cookies == {}
    assert f"Because you viewed {ITEMS[item].title}" in unescape(shelf(page, "personal")[1])
    assert 'data-consent="required"' in page
    slate = re.search(r'data-thinslice-recommendation="([^"]+)"', shelf(page, "personal")[1]).group(1)
    assert slate not in {each.recommendation_id for each in log_of(shop, LogKind.EXPOSURES)}
    guest.post("/shop/cart", item_id=item)
    assert set(guest.cookies) == {"shop_cart"}
    assert len(log_of(shop, LogKind.EVENTS)) == before


def test_lists_hold_every_product_once(guest):
    found = []
    for page in range(1, 14):
        found += [item for item, _ in TILE.findall(guest.get(f"/shop/all?page={page}"))]
    assert sorted(found) == sorted(ITEMS)
    cobalt = [item for item, _ in TILE.findall(guest.get("/shop/category/vases?color=cobalt"))]
    assert set(cobalt) == {
        name for name, item in ITEMS.items() if item.categories == ["vases"] and item.attributes["color"] == "cobalt"
    }


@pytest.mark.parametrize(
    "path",
    [
        "/shop/item/nothing", "/shop/category/cars", "/shop/all?color=infrared", "/shop/all?page=0",
        "/shop/all?page=14", "/shop/all?page=x", "/shop/all?page=%C2%B2",
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_on_a_page(guest, path):
    page = guest.get(path, status=404)
    assert "<h1" in page
    assert "Not here" in page


def test_strange_cookies_and_forms_break_nothing(shop):
    guest = Guest(shop)
    guest.cookies = {
        "ts_visitor": "a b<script>", "ts_session": "x.99999999999999999999", "shop_views": "%ff|nothing|%00",
        "shop_cart": "nothing:3|:1|%:2|" + of_color("sage")[0] + ":0",
    }  # fmt: skip
    page = guest.get("/shop/")
    assert "<script>" not in page
    assert dock(page) == []
    assert guest.cookies["ts_visitor"] != "a b<script>"
    answer = guest.ask("POST", "/shop/cart", {"item_id": "nothing"})
    assert answer.status == 404
    assert guest.ask("POST", "/shop/cart").status == 404
    assert guest.ask("DELETE", "/shop/cart").status == 405


@given(text=st.text(alphabet="ab%2C|:19\u0663 \x00", max_size=60))
def test_any_cookie_is_a_cart_of_few_pieces(text):
    cart = read_cart(text)
    assert len(cart) <= MOST_LINES
    assert all(name and 1 <= pieces <= 9 for name, pieces in cart.items())


def test_no_more_than_nine_of_one_and_twenty_products(guest):
    first, *others = list(ITEMS)[: MOST_LINES + 1]
    for _ in range(11):
        page = guest.post("/shop/cart", item_id=first)
    assert "Cart, 9 pieces" in page
    for item in others[:-1]:
        guest.post("/shop/cart", item_id=item)
    assert guest.ask("POST", "/shop/cart", {"item_id": others[-1]}).status == 409


def test_a_sold_out_product_is_shown_and_not_sold(guest, shop):
    item = of_color("charcoal")[2]
    record = ITEMS[item]
    as_sent = {
        "item_id": item, "title": record.title, "price_minor": record.price_minor, "currency": "EUR",
        "categories": record.categories, "attributes": record.attributes,
    }  # fmt: skip
    guest.post("/shop/cart", item_id=item)
    try:
        assert shop.ask("PUT", "/v1/items", [{**as_sent, "in_stock": False}], key="secret").status == 202
        wait_until(lambda: "Sold out" in guest.get(f"/shop/item/{item}"))
        assert "Add to cart" not in guest.get(f"/shop/item/{item}")
        assert guest.ask("POST", "/shop/cart", {"item_id": item}).status == 409
        assert "There is nothing in it yet" in guest.get("/shop/cart")
    finally:
        assert shop.ask("PUT", "/v1/items", [as_sent], key="secret").status == 202
        wait_until(lambda: "Add to cart" in guest.get(f"/shop/item/{item}"))


def test_a_shops_own_words_are_text_on_the_page_and_its_items_have_pictures(guest, shop):
    nasty = {"item_id": "x/<b>", "title": '"><script>alert(1)</script>', "categories": ["<i>"]}
    shelf_path, item_path = "/shop/category/%3Ci%3E", "/shop/item/x%2F%3Cb%3E"
    try:
        assert shop.ask("PUT", "/v1/items", [nasty], key="secret").status == 202
        wait_until(lambda: shelf_path in guest.get("/shop/"))
        for path in (shelf_path, item_path):
            page = guest.get(path)
            assert "<script>alert" not in page
            assert "&lt;script&gt;alert" in page
            assert "/shop/picture/x%2F%3Cb%3E.svg" in page
        picture = guest.get("/shop/picture/x%2F%3Cb%3E.svg")
        assert "<script>" not in picture
        assert "&lt;script&gt;" in picture
        guest.get("/shop/picture/nothing.svg", status=404)
    finally:
        shop.ask("PUT", "/v1/items", [{**nasty, "status": "retired"}], key="secret")
        wait_until(lambda: guest.ask("GET", item_path).status == 404)
    assert shelf_path not in guest.get("/shop/")


def test_pictures_are_kept_by_browsers_until_they_change(guest, shop):
    for item in list(ITEMS)[::60]:
        path = f"/shop/picture/{item}.svg"
        answer = shop.ask("GET", path)
        assert answer.status == 200
        assert answer.headers["content-type"] == "image/svg+xml"
        assert "max-age=86400" in answer.headers["cache-control"]
        assert ITEMS[item].title.encode() in answer.body
        assert shop.ask("GET", path, headers={"If-None-Match": answer.headers["etag"]}).status == 304


def test_every_page_is_strict_and_takes_scripts_from_here_alone(guest):
    for path in ("/shop/", "/shop/all", "/shop/item/nothing", f"/shop/item/{of_color('sage')[0]}", "/shop/cart"):
        answer = guest.ask("GET", path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert answer.headers["cache-control"] == "no-store"
        page = answer.body.decode()
        assert re.findall(r"<script(?![^>]*\bsrc=\"/)", page) == []
        assert re.findall(r"\son\w+=", page) == []
        for address in re.findall(r'(?:src|href)="([^"]+)"', page):
            assert address.startswith(("/", "#"))


def test_what_a_page_names_is_there(guest):
    page = guest.get(f"/shop/item/{of_color('sage')[0]}")
    for address in sorted(set(re.findall(r'(?:src|href)="(/[^"#]*)"', page))):
        assert guest.ask("GET", unescape(address)).status == 200, address


def test_a_workspace_that_is_no_demo_has_no_shop(worker):
    answer = worker.ask("GET", "/shop/")
    assert answer.status == 404
    assert b"thinslice demo" in answer.body


def wait_until(holds):
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_keys_of_the_demo_are_read_again_when_they_change(guest, shop):
    path = shop.workspace.root / "demo.json"
    text = path.read_text()
    try:
        path.write_text(json.dumps({"keys": {"publishable": "ts_pub_wrong"}, "run": 1}))
        assert guest.ask("GET", "/shop/").status == 404
    finally:
        path.write_text(text)
    assert guest.ask("GET", "/shop/").status == 200
