"""The demo shop in a real browser: it follows the visitor, the tag measures it, and everybody can use it."""

import time

import pytest

from thinslice.simulate import home_goods
from thinslice.store.log import LogKind
from thinslice.web.shop import PERSONAL

pytestmark = pytest.mark.browser

COLOR = {item.item_id: item.attributes["color"] for item in home_goods("shop")}
ITEM = next(iter(COLOR))
PAGES = {
    "home": "/shop/",
    "list": "/shop/all?color=sage",
    "category": "/shop/category/vases",
    "product": f"/shop/item/{ITEM}",
    "cart": "/shop/cart",
    "thanks": "/shop/thanks",
}


@pytest.fixture
def url(demo_shop):
    return f"http://127.0.0.1:{demo_shop.port}"


def shelf(page, name="personal"):
    return page.eval_on_selector_all(f".{name} .tile", "tiles => tiles.map(tile => tile.dataset.thinsliceItem)")


def dock(page):
    return page.eval_on_selector_all(
        "#dock ol a", "links => links.map(link => decodeURIComponent(link.pathname.split('/').pop()))"
    )


def open_from_list(page, url, color, place):
    """Clicks one product in the list of a color, and returns its id."""
    page.goto(f"{url}/shop/all?color={color}")
    page.locator(".grid .tile").nth(place).click()
    page.wait_for_url("**/shop/item/*")
    return page.url.split("/")[-1]


def events_of(log_of, worker, visitor, names, count):
    """The visitor's events of some names, once there are `count` of them."""
    deadline = time.monotonic() + 10
    while True:
        found = {
            each.event_id: each
            for each in log_of(worker, LogKind.EVENTS)
            if each.visitor_id == visitor and each.name in names
        }
        if len(found) >= count or time.monotonic() > deadline:
            return list(found.values())
        time.sleep(0.1)


def visitor_of(page):
    return next(each["value"] for each in page.context.cookies() if each["name"] == "ts_visitor")


def test_three_views_of_one_color_turn_the_shelf_and_are_counted_once_each(
    open_page, url, demo_shop, log_of, complaints
):
    page = open_page()
    page.goto(f"{url}/shop/")
    before, popular = shelf(page), shelf(page, "baseline")
    visitor = visitor_of(page)
    viewed = [open_from_list(page, url, "plum", place) for place in range(3)]
    page.goto(f"{url}/shop/")
    after = shelf(page)
    assert sum(COLOR[item] == "plum" for item in before) <= 2
    assert sum(COLOR[item] == "plum" for item in after) >= 4
    assert shelf(page, "baseline") == popular
    assert dock(page) == viewed[::-1]
    found = events_of(log_of, demo_shop, visitor, {"view_item"}, 3)
    assert sorted(each.item_id for each in found) == sorted(viewed)
    assert {each.source for each in found} == {"browser"}
    sessions = demo_shop.context.live.sessions([("shop", visitor)])
    assert sessions[0].items == viewed
    assert visitor_of(page) == visitor
    assert complaints == []


def test_what_is_seen_and_clicked_on_a_shelf_names_its_slate(open_page, url, demo_shop, log_of):
    page = open_page()
    page.goto(f"{url}/shop/")
    items = shelf(page)
    slate = page.locator(".personal .tile").first.get_attribute("data-thinslice-recommendation")
    page.wait_for_timeout(800)
    page.locator(".personal .tile").nth(1).click()
    page.wait_for_url(f"**/shop/item/{items[1]}")
    visitor = visitor_of(page)
    (click,) = events_of(log_of, demo_shop, visitor, {"select_item"}, 1)
    assert (click.item_id, click.position, click.placement) == (items[1], 1, PERSONAL)
    assert click.recommendation_id == slate
    seen = [
        each for each in events_of(log_of, demo_shop, visitor, {"view_item_list"}, 3) if each.recommendation_id == slate
    ]
    assert {each.item_id for each in seen} >= set(items[:3])
    assert all(items[each.position] == each.item_id for each in seen)


def test_a_page_that_comes_back_from_the_browsers_memory_is_current(open_page, url):
    page = open_page()
    page.goto(f"{url}/shop/")
    first = shelf(page)
    item = open_from_list(page, url, "cobalt", 0)
    page.wait_for_load_state("load")
    page.go_back()
    page.go_back()
    page.wait_for_function("() => document.querySelectorAll('#dock li').length === 1")
    assert page.url == f"{url}/shop/"
    assert dock(page) == [item]
    assert shelf(page) != first


def test_start_over_makes_the_tag_a_stranger_too(open_page, url):
    page = open_page()
    open_from_list(page, url, "sage", 0)
    was = visitor_of(page)
    page.get_by_role("button", name="Start over").click()
    page.wait_for_url("**/shop/")
    assert dock(page) == []
    assert visitor_of(page) != was
    page.wait_for_load_state("load")
    assert page.evaluate("window.thinslice.visitor") == visitor_of(page)
    assert shelf(page) == shelf(page, "baseline")


def test_the_shop_works_without_javascript(open_page, url, demo_shop, log_of):
    page = open_page(java_script_enabled=False)
    for place in range(3):
        page.goto(f"{url}/shop/all?color=terracotta")
        page.locator(".grid .tile").nth(place).click()
    page.goto(f"{url}/shop/")
    tiles = [tile.get_attribute("data-color") for tile in page.locator(".personal .tile").all()]
    assert tiles.count("terracotta") >= 4
    page.locator(".personal .tile").first.click()
    page.get_by_role("button", name="Add to cart").click()
    page.get_by_role("button", name="Buy").click()
    assert page.get_by_role("heading", name="Thank you").is_visible()
    visitor = visitor_of(page)
    assert [each.visitor_id for each in log_of(demo_shop, LogKind.ORDERS)].count(visitor) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_and_nothing_is_out_of_reach(open_page, axe, complaints, url, width, scheme):
    page = open_page(width=width, color_scheme=scheme)
    open_from_list(page, url, "cobalt", 0)
    page.get_by_role("button", name="Add to cart").click()
    for name, path in PAGES.items():
        page.goto(url + path)
        assert axe(page) == [], name
        small = page.evaluate(
            """() => [...document.querySelectorAll('a, button')].map(node => [node, node.getBoundingClientRect()])
            .filter(([node, box]) => box.width && box.right > 0 && (box.width < 44 || box.height < 44))
            .map(([node, box]) => `${node.outerHTML.slice(0, 90)} ${box.width} x ${box.height}`)"""
        )
        assert small == [], name
    assert complaints == []


@pytest.mark.parametrize("width", [1920, 1280, 768, 390, 320])
def test_no_page_is_wider_than_its_screen_and_nothing_jumps(open_page, url, width):
    page = open_page(width=width, height=720)
    page.add_init_script(
        """window.jumps = 0; new PerformanceObserver(list => list.getEntries().forEach(
        entry => { window.jumps += entry.value; })).observe({ type: 'layout-shift', buffered: true });"""
    )
    for name, path in PAGES.items():
        page.goto(url + path)
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate("window.jumps") < 0.05, name
