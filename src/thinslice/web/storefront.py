"""What stands on the demo shop's pages: products, shelves, lines of a cart, and their words, prices and pictures."""

import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from itertools import chain, zip_longest
from typing import Any, NamedTuple
from urllib.parse import urlencode

from thinslice.records import Item, SlateItem
from thinslice.simulate.catalog import COLORS, KINDS, category_of
from thinslice.simulate.pictures import picture

SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£"}


class Product(NamedTuple):
    """One product as a page shows it."""

    item_id: str
    title: str
    url: str
    image: str
    price: str
    color: str
    sold_out: bool


class Place(NamedTuple):
    """One place of a shelf: the product, why it stands there, and what the tag reports about it."""

    product: Product
    position: int
    source: str
    reason: str


class Shelf(NamedTuple):
    """One slate as a page shows it."""

    name: str
    placement: str
    recommendation_id: str
    places: list[Place]
    note: str


class Line(NamedTuple):
    """One line of a cart."""

    item: Item
    product: Product
    quantity: int
    total: str


def money(minor: int, currency: str) -> str:
    """An amount of money for people.

    >>> money(1795, "EUR"), money(123456700, "USD"), money(500, "CHF")
    ('€17.95', '$1,234,567.00', '5.00 CHF')
    """
    amount = f"{minor / 100:,.2f}"
    return f"{SYMBOLS[currency]}{amount}" if currency in SYMBOLS else f"{amount} {currency}"


def things(count: int) -> str:
    """How many, in words.

    >>> things(1), things(3)
    ('one thing', '3 things')
    """
    return "one thing" if count == 1 else f"{count} things"


def total_of(lines: Iterable[Line]) -> int:
    """What a cart costs, in minor units."""
    return sum((line.item.price_minor or 0) * line.quantity for line in lines)


def currency_of(lines: Sequence[Line]) -> str:
    """The currency of a cart."""
    return (lines[0].item.currency or "EUR") if lines else "EUR"


def price_of(item: Item) -> dict[str, Any]:
    """Price and currency as an event carries them."""
    if item.price_minor is None:
        return {}
    return {"price_minor": item.price_minor, "currency": item.currency or "EUR"}


def why(place: SlateItem, item: Item) -> str:
    """The reason of a place in words; nobody is told to like a thing because of the thing itself."""
    own = f"Because you viewed {item.title or item.item_id}"
    return "You viewed this before" if place.reason == own else place.reason


def mixed(items: Iterable[Item]) -> list[Item]:
    """One of each kind, then the next of each, in an order that looks like chance and is always the same."""
    kinds: dict[str, list[tuple[str, Item]]] = {}
    for item in items:
        name = hashlib.sha256(item.item_id.encode()).hexdigest()
        kinds.setdefault(item.categories[0] if item.categories else "", []).append((name, item))
    rows = zip_longest(*(sorted(each, key=lambda pair: pair[0]) for each in kinds.values()))
    return [pair[1] for pair in chain.from_iterable(rows) if pair is not None]


def categories(items: Iterable[Item]) -> list[str]:
    """The categories of some items: those of the generated catalog in its order, then any others by name."""
    known = [category_of(kind) for kind in KINDS]
    there = {each for item in items for each in item.categories[:1]}
    return [*(each for each in known if each in there), *sorted(there.difference(known))]


def hues(items: Iterable[Item]) -> list[str]:
    """The colors that items come in, in the order of the catalog's palette."""
    there = {item.attributes.get("color") for item in items}
    return [color for color in COLORS if color in there]


def heading(category: str, color: str) -> str:
    """The heading of a list.

    >>> heading("vases", "cobalt"), heading("", "cobalt"), heading("vases", ""), heading("", "")
    ('Vases in cobalt', 'Everything in cobalt', 'Vases', 'All products')
    """
    if color:
        return f"{category.capitalize() or 'Everything'} in {color}"
    return category.capitalize() or "All products"


def address(path: str, color: str, page: int) -> str:
    """The address of one page of a list.

    >>> address("/shop/all", "sage", 2), address("/shop/all", "", 1)
    ('/shop/all?color=sage&page=2', '/shop/all')
    """
    query = {**({"color": color} if color else {}), **({"page": str(page)} if page > 1 else {})}
    return f"{path}?{urlencode(query)}" if query else path


def draw(item: Item) -> str:
    """The picture of a product; one that is not of the generated catalog gets its first letter."""
    try:
        return picture(item)
    except KeyError:
        title = escape(item.title or item.item_id)
        letter = escape((item.title or item.item_id)[:1].upper())
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200" role="img">'
            f'<title>{title}</title><path fill="#e4e6e9" d="M0 0h200v200H0z"/>'
            '<text x="100" y="128" text-anchor="middle" font-family="system-ui,sans-serif" font-size="80" '
            f'font-weight="600" fill="#3c424b">{letter}</text></svg>'
        )
