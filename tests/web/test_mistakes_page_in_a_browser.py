"""The page of `evaluate --errors` in a real browser: axe-core finds nothing, and nothing leaves the file."""

from pathlib import Path

import pytest

from thinslice.cli.mistakes_page import page
from thinslice.evaluation.mistakes import Missed, Mistake, summary
from thinslice.records import Item
from thinslice.simulate.catalog import home_goods

AXE = Path(__file__).parent / "third_party" / "axe.min.js"


def drawn():
    shop = home_goods("shop")[:12]
    plain = Item(tenant="shop", item_id="plain", updated_at=shop[0].updated_at, title="A title without a picture")
    missed = Missed([shop[0].item_id], [*(item.item_id for item in shop), "unknown"], "plain", None, 3)
    right = Missed([shop[0].item_id], [shop[1].item_id], shop[1].item_id, 1, 3)
    found = [Mistake([shop[0].item_id, "plain"], "ann", 9.0, [missed, right, right, right, right])]
    items = {item.item_id: item for item in [*shop, plain]}
    return page("popular", found, items, summary(found), where="A test", k=20)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(tmp_path, browser, scheme, width):
    path = tmp_path / "errors.html"
    path.write_text(drawn())
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    tab = context.new_page()
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri())
    tab.add_script_tag(content=AXE.read_text())
    wrong = tab.evaluate("async () => (await axe.run()).violations.map(v => `${v.id}: ${v.nodes[0].html}`)")
    assert wrong == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    context.close()
