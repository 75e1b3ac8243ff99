"""Product pictures of the generated shop: small drawings in which kind, shape, pattern and color can be seen."""

from html import escape
from typing import NamedTuple

from thinslice.records import Item
from thinslice.simulate.catalog import COLORS, KINDS, PATTERNS, SHAPES


class _Paint(NamedTuple):
    """A color as it is painted: the body, its dark parts, what a pattern is printed in, and the wall behind."""

    body: str
    dark: str
    light: str
    chip: str
    wall: str


_PAINTS = {
    "cobalt": _Paint("#2f57cb", "#24429a", "#e9eefc", "#e07a4f", "#e3e9f6"),
    "cream": _Paint("#ede2cb", "#b9ae97", "#b08d57", "#c4633f", "#efeee8"),
    "terracotta": _Paint("#c5623d", "#964628", "#f8ddcf", "#3b4048", "#f4e8e4"),
    "sage": _Paint("#7d9b79", "#5a7657", "#eef5ea", "#f0c987", "#e7eee5"),
    "plum": _Paint("#7c4a88", "#593363", "#f3e3f6", "#e6a85c", "#ece7ef"),
    "ochre": _Paint("#d8a12f", "#a67718", "#fff4d6", "#7c4a88", "#f6f0e2"),
    "charcoal": _Paint("#3c424b", "#23272d", "#dfe3e8", "#d8a12f", "#e4e6e9"),
    "blush": _Paint("#e3a6a3", "#b77572", "#fff3f1", "#2f57cb", "#f7eeee"),
}

_BODIES = {
    ("vase", "angular"): "M82 50h36l-6 22 32 36-24 58H80l-24-58 32-36z",
    ("vase", "rounded"): "M84 50h32c-2 16 0 22 10 32 30 30 22 70-6 84H80c-28-14-36-54-6-84 10-10 12-16 10-32z",
    ("vase", "tall"): "M86 26h28l-4 34c18 26 16 76 8 106H82c-8-30-10-80 8-106z",
    ("lamp", "angular"): "M82 36h36l32 58H50z",
    ("lamp", "rounded"): "M48 94c0-76 104-76 104 0z",
    ("lamp", "tall"): "M80 22h40l12 72H68z",
    ("mug", "angular"): "M62 78h68v88H62z",
    ("mug", "rounded"): "M58 78h76v36c0 38-16 52-38 52s-38-14-38-52z",
    ("mug", "tall"): "M70 50h52v116H70z",
    ("chair", "angular"): "M62 32h76v72H62z",
    ("chair", "rounded"): "M62 104V70c0-52 76-52 76 0v34z",
    ("chair", "tall"): "M70 14h60v90H70z",
    ("planter", "angular"): "M58 98h84l-14 68H72z",
    ("planter", "rounded"): "M56 98h88c6 44-14 68-44 68s-50-24-44-68z",
    ("planter", "tall"): "M70 88h60l-8 78H78z",
    ("cushion", "angular"): "M48 56q52 10 104 0-8 54 0 108-52-8-104 0 8-54 0-108z",
    ("cushion", "rounded"): "M100 54a56 56 0 1 1-.1 0z",
    ("cushion", "tall"): "M64 32q36 8 72 0-6 66 0 134-36-6-72 0 6-68 0-134z",
    ("clock", "angular"): "M74 34h52l38 38v54l-38 38H74l-38-38V72z",
    ("clock", "rounded"): "M100 34a65 65 0 1 1-.1 0z",
    ("clock", "tall"): "M64 22h72v144H64z",
    ("bowl", "angular"): "M40 90h120l-32 76H72z",
    ("bowl", "rounded"): "M38 90h124c0 54-30 76-62 76s-62-22-62-76z",
    ("bowl", "tall"): "M54 64h92l-24 102H78z",
    ("candle", "angular"): "M68 78h64v88H68z",
    ("candle", "rounded"): "M68 96q0-20 32-20t32 20v50q0 20-32 20t-32-20z",
    ("candle", "tall"): "M80 58h40v108H80z",
    ("print", "angular"): "M50 46h100v112H50z",
    ("print", "rounded"): "M50 158V86c0-66 100-66 100 0v72z",
    ("print", "tall"): "M62 28h76v130H62z",
}


def picture(item: Item) -> str:
    """One product as an SVG, 200 by 200, at most 1.2 kB; the same item always gives the same bytes.

    The drawing brings its own wall, so that it looks the same on a light and on a dark page, and a `title` for
    people who listen to pages.

    Raises:
        KeyError: The item's attributes are not those of the generated shop.

    >>> from thinslice.simulate.catalog import home_goods
    >>> picture(home_goods("shop")[0]).count("Angular vase, cobalt")
    1
    """
    kind, shape, pattern, color = (str(item.attributes[name]) for name in ("kind", "shape", "pattern", "color"))
    paint, body = _PAINTS[color], _BODIES[kind, shape]
    code = f"{KINDS.index(kind)}{SHAPES.index(shape)}{PATTERNS.index(pattern)}{COLORS.index(color)}"
    print_definition, fill = _fill(pattern, paint, code)
    behind, before = _parts(kind, shape, paint)
    title = escape(item.title or kind, quote=False)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200" role="img" aria-labelledby="t{code}">'
        f'<title id="t{code}">{title}</title><defs>{print_definition}<linearGradient id="s{code}">'
        '<stop offset=".5" stop-opacity=".14"/><stop offset=".5" stop-opacity="0"/></linearGradient>'
        f'<path id="b{code}" d="{body}"/></defs><path fill="{paint.wall}" d="M0 0h200v200H0z"/>'
        '<ellipse cx="100" cy="168" rx="62" ry="8" opacity=".12"/>'
        f'{behind}<use href="#b{code}" fill="{fill}"/><use href="#b{code}" fill="url(#s{code})"/>{before}</svg>'
    )


def _fill(pattern: str, paint: _Paint, code: str) -> tuple[str, str]:
    """The definition of a pattern and what to fill the body with."""
    if pattern == "plain":
        return "", paint.body
    size, marks = {
        "dotted": (16, f'<g fill="{paint.light}"><circle cx="4" cy="4" r="2.8"/><circle cx="12" cy="12" r="2.8"/></g>'),
        "striped": (18, f'<path fill="{paint.light}" d="M0 5h18v6H0z"/>'),
        "terrazzo": (
            34,
            f'<path fill="{paint.light}" d="M3 5l6-2 3 5-6 3zM20 22l7-2 1 5-6 2z"/>'
            f'<path fill="{paint.chip}" d="M21 6l5 2-2 5-5-2zM5 24l5-3 3 4-5 3z"/>'
            f'<path fill="{paint.dark}" d="M12 15l4 1-1 4-4-1zM29 14l3 1-1 3-3-1zM15 31l4-1v3z"/>',
        ),
    }[pattern]
    definition = (
        f'<pattern id="p{code}" width="{size}" height="{size}" patternUnits="userSpaceOnUse">'
        f'<path fill="{paint.body}" d="M0 0h{size}v{size}H0z"/>{marks}</pattern>'
    )
    return definition, f"url(#p{code})"


def _parts(kind: str, shape: str, paint: _Paint) -> tuple[str, str]:
    """What stands behind the body and what stands before it."""
    tall = shape == "tall"
    dark, light = paint.dark, paint.light
    if kind == "vase":
        return "", _ellipse(100, 26 if tall else 50, 14 if tall else 17, 4, dark)
    if kind == "lamp":
        glow = '<path fill="#ffedb0" opacity=".45" d="M58 94h84l20 70H38z"/>'
        foot = '<path fill="#a9793f" d="M97 92h6v70h-6z"/>' + _ellipse(100, 163, 26, 6, "#8a5f2d")
        return glow + foot, ""
    if kind == "mug":
        top, width, right = (50, 26, 122) if tall else (78, 34 if shape == "angular" else 38, 131)
        middle = 96
        handle = f'<path fill="none" stroke="{dark}" stroke-width="11" d="M{right - 4} 98c38-8 38 50-4 44"/>'
        return handle, _ellipse(middle, top, width, 7, dark) + _ellipse(middle, top + 1, width - 6, 4, "#4b2e22")
    if kind == "chair":
        feet = "M70 122l-8 43m20-43v36m36-36v36m12-36l8 43"
        legs = f'<path stroke="#a2714a" stroke-width="7" stroke-linecap="round" d="{feet}"/>'
        return legs, f'<rect x="52" y="102" width="96" height="22" rx="9" fill="{dark}"/>'
    if kind == "planter":
        top = 88 if tall else 98
        outer = f"M100 {top}c-8-34-20-52-38-62 0 28 14 50 38 62zm0 0c4-34 18-52 38-64 2 30-14 52-38 64z"
        inner = f"M100 {top}c-12-30-10-52 0-72 10 20 12 42 0 72z"
        leaves = f'<path fill="#4c8055" d="{outer}"/><path fill="#6aa46a" d="{inner}"/>'
        left, width = (66, 68) if tall else (52, 96)
        return leaves, f'<rect x="{left}" y="{top - 4}" width="{width}" height="10" rx="3" fill="{dark}"/>'
    if kind == "cushion":
        return "", f'<circle cx="100" cy="{99 if tall else 110}" r="5" fill="{dark}"/>'
    if kind == "clock":
        middle = 66 if tall else 99
        radius = 28 if tall else 42
        time = f"M100 {middle - radius + 10}v{radius - 10}l{radius // 2} 9"
        hands = f'<path fill="none" stroke="#23272d" stroke-width="4" stroke-linecap="round" d="{time}"/>'
        face = f'<circle cx="100" cy="{middle}" r="{radius}" fill="#fffdf8" stroke="{dark}" stroke-width="5"/>'
        return "", face + hands
    if kind == "bowl":
        top, width = (64, 46) if tall else (90, 60 if shape == "angular" else 62)
        return "", _ellipse(100, top, width, 10, dark)
    if kind == "candle":
        top = 58 if tall else 77
        flame = (
            f'<path fill="#f4a93a" d="M100 {top - 44}c14 18 10 32 0 32s-14-14 0-32z"/>'
            f'<path fill="#fff0b8" d="M100 {top - 28}c6 8 5 14 0 14s-6-6 0-14z"/>'
        )
        return f'<path stroke="#23272d" stroke-width="3" d="M100 {top - 12}v20"/>' + flame, ""
    frame = '<rect x="{}" y="{}" width="{}" height="{}" fill="#fffdf8" stroke="#5b4636" stroke-width="6"/>'
    hills = "M64 156l24-44 16 24 12-16 20 36z" if tall else "M52 156l30-44 20 24 14-16 32 36z"
    art = f'<circle cx="100" cy="92" r="20" fill="{light}"/><path fill="{dark}" d="{hills}"/>'
    return frame.format(*((52, 18, 96, 150) if tall else (38, 26, 124, 142))), art


def _ellipse(x: int, y: int, width: int, height: int, color: str) -> str:
    return f'<ellipse cx="{x}" cy="{y}" rx="{width}" ry="{height}" fill="{color}"/>'
