"""Writes the sessions in which a model is most wrong as one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from thinslice.evaluation.mistakes import Mistake
    from thinslice.records import Item

SHOWN = 10
"""How many places of a list are drawn."""

QUERIES = 3
"""How many queries of a session are drawn, the worst."""

LARGEST_PICTURE = 200_000
"""Larger picture files (bytes) are not put into the page."""

_KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp",
          ".gif": "image/gif", ".svg": "image/svg+xml"}  # fmt: skip


def page(
    model: str,
    found: Sequence[Mistake],
    items: Mapping[str, Item],
    facts: Mapping[str, Any],
    *,
    where: str,
    k: int,
    pictures: Path | None = None,
) -> str:
    """The page as text.

    Args:
        model: Its name.
        found: The sessions, the worst first.
        items: The catalog by item id; what is not there is shown by its id.
        facts: As `mistakes.summary` gives it.
        where: Which log this is.
        k: Length of a list.
        pictures: The folder that relative picture addresses of the catalog are looked up in; nothing is fetched.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("thinslice.cli").joinpath("mistakes_page.html").read_text("utf-8"))
    style = files("thinslice.web").joinpath("static", "app.css").read_text("utf-8")
    style = re.sub(r"@font-face \{[^}]*\}", "", style)  # the letters of the system: nothing is fetched
    drawn = {name for mistake in found for one in mistake.missed[:QUERIES]
             for name in (*mistake.session, *one.shown[:SHOWN], one.clicked)}  # fmt: skip
    tiles = {name: _tile(number, name, items.get(name), pictures) for number, name in enumerate(sorted(drawn))}
    return template.render(
        model=model, found=found, tiles=tiles, facts=facts, where=where, k=k, style=style, shown=SHOWN, queries=QUERIES
    )


def _tile(number: int, item_id: str, item: Item | None, pictures: Path | None) -> dict[str, Any]:
    """What is drawn of one item."""
    title = item_id if item is None or not item.title else item.title
    facts = [] if item is None else [item.brand, *item.categories[:1], *(_text(item.attributes))]
    picture = None if item is None else _picture(item, pictures)
    hue = int.from_bytes(item_id.encode()[-4:], "big") * 47 % 360
    return {
        "class": f"i{number}",
        "id": item_id,
        "title": title,
        "facts": ", ".join(dict.fromkeys(fact for fact in facts if fact and fact != title)),
        "picture": picture,
        "letter": (title.strip() or "?")[:2],
        "hue": hue,
    }


def _text(attributes: Mapping[str, Any]) -> list[str]:
    plain = [(name, value) for name, value in sorted(attributes.items()) if isinstance(value, str | int | float | bool)]
    return [str(value) if isinstance(value, str) else f"{name} {value}" for name, value in plain][:4]


def _picture(item: Item, pictures: Path | None) -> str | None:
    """A picture as a data address: the generated shop's drawing, or a file on this disk; nothing is fetched."""
    from thinslice.simulate.pictures import picture

    try:
        return _data("image/svg+xml", picture(item).encode())
    except KeyError:
        pass  # not of the generated shop
    address = item.image_url or ""
    if re.match(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=]+$", address):
        return address
    if pictures is None or not address or "://" in address:
        return None
    path = (pictures / address.removeprefix("file:").lstrip("/")).resolve()
    kind = _KINDS.get(path.suffix.lower())
    if kind is None or not path.is_relative_to(pictures.resolve()) or not path.is_file():
        return None
    return _data(kind, path.read_bytes()) if path.stat().st_size <= LARGEST_PICTURE else None


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
