"""The pictures: small, well-formed, the same every time, different for what looks different."""

import re
from xml.etree import ElementTree

import pytest

from thinslice.simulate import home_goods, picture
from thinslice.simulate.catalog import COLORS

SVG = "{http://www.w3.org/2000/svg}"
EVERYTHING = home_goods("shop", size=960)


def test_every_picture_is_well_formed_small_and_names_its_product():
    for item in EVERYTHING:
        svg = picture(item)
        root = ElementTree.fromstring(svg)
        assert len(svg.encode()) <= 1200
        assert root.get("role") == "img"
        assert root.find(f"{SVG}title").text == item.title
        assert root.find(f"{SVG}title").get("id") == root.get("aria-labelledby")


def test_pictures_of_different_products_differ_and_the_same_product_has_one_picture():
    pictures = {picture(item) for item in EVERYTHING}
    assert len(pictures) == 960
    assert picture(EVERYTHING[7]) == picture(EVERYTHING[7])


def test_two_pictures_on_one_page_share_no_id():
    ids = [name for item in EVERYTHING for name in re.findall(r' id="([^"]+)"', picture(item))]
    assert len(ids) == len(set(ids))


def test_every_reference_inside_a_picture_is_defined_and_none_leaves_it():
    for item in EVERYTHING:
        svg = picture(item)
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
        assert used <= set(re.findall(r' id="([^"]+)"', svg))
        assert not re.search(r'(?:href|src)="[^#]', svg)
        assert "<script" not in svg


def test_the_wall_behind_is_painted_so_that_light_and_dark_pages_look_the_same():
    walls = {}
    for item in EVERYTHING:
        shapes = [part for part in ElementTree.fromstring(picture(item)) if part.tag == f"{SVG}path"]
        assert shapes[0].get("d") == "M0 0h200v200H0z"
        walls.setdefault(item.attributes["color"], set()).add(shapes[0].get("fill"))
    assert set(walls) == set(COLORS)
    assert all(len(wall) == 1 for wall in walls.values())


def test_a_product_of_another_shop_has_no_picture():
    with pytest.raises(KeyError):
        picture(type(EVERYTHING[0])(tenant="t", item_id="i", updated_at=EVERYTHING[0].updated_at))
