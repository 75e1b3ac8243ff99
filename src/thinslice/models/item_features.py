"""What a feed says of its items, as numbers: attributes and words, the rarer the heavier, and supplied vectors."""

import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinslice.models.factors import one_thread
from thinslice.records import Item

WORDS = re.compile(r"\w+")

MOST_WORDS = 150
"""Words of a description beyond these say little more."""

LONG_TEXT = 60
"""Letters: an attribute longer than this is text, not a value."""

PRICE_STEP = math.log(1.5)
"""Prices within half again of each other share a bucket, at least in part."""

MOST_NUMBERS = 64
"""Supplied vectors longer than this are projected onto their main directions."""


class Features(NamedTuple):
    """Items × features, the rows of unit length or empty, in compressed rows.

    Attributes:
        ptr: Shape (items + 1,), int64.
        feature: int32, rising within a row.
        weight: float32.
        size: How many features there are.
    """

    ptr: NDArray[np.int64]
    feature: NDArray[np.int32]
    weight: NDArray[np.float32]
    size: int


def features(items: Sequence[Item | None], *, attributes: float, text: float) -> Features:
    """Attributes and words of items; a feature of one item only, or of all, tells nothing and is left out.

    A feature weighs (1 + ln times) × ln((1 + items) / (1 + items that have it)); the attributes and the words of an
    item each have unit length before they are weighed against each other. Words of every tenth item are left out of
    catalogs of 1,000 items or more: they tell little and cost most.

    Args:
        items: None for an item of which nothing is known.
        attributes: Weight of kind, categories, brand, level, creator, price and attributes.
        text: Weight of title and description.
    """
    values, tokens = _Column(), _Column()
    for place, item in enumerate(items):
        if item is not None:
            said, about = _values(item)
            values.add(place, list(said), list(said.values()))
            tokens.add(place, about, None)
    described = max(sum(item is not None for item in items), 1)
    most_words = described / 10 if described >= 1000 else described
    blocks = [values.weighted(len(items), described, described), tokens.weighted(len(items), described, most_words)]
    row = np.concatenate([block[0] for block in blocks])
    code = np.concatenate([blocks[0][1], blocks[1][1] + len(values.number)])
    weight = np.concatenate(
        [block[2] * math.sqrt(share) for block, share in zip(blocks, (attributes, text), strict=True)]
    )
    kept = np.flatnonzero(weight)
    row, code, weight = row[kept], code[kept], weight[kept]
    weight /= _lengths(row, weight, len(items))[row]
    used = np.zeros(len(values.number) + len(tokens.number), dtype=np.bool_)
    used[code] = True
    code = (np.cumsum(used) - 1)[code]
    order = np.argsort(row * len(used) + code, kind="stable")  # two rows of sorted numbers: merged, not sorted
    ptr = np.zeros(len(items) + 1, dtype=np.int64)
    np.cumsum(np.bincount(row, minlength=len(items)), out=ptr[1:])
    return Features(ptr, code[order].astype(np.int32), weight[order].astype(np.float32), int(used.sum()))


class _Column:
    """One kind of feature of all items while it is read: codes in the order of their first coming."""

    def __init__(self) -> None:
        self.number: defaultdict[str, int] = defaultdict(count().__next__)
        self.code, self.worth = array("q"), array("d")
        self.place, self.length = array("q"), array("q")

    def add(self, place: int, names: list[str], worth: list[float] | None) -> None:
        """Notes what one item says; without `worth` a name counts each time that it is said."""
        self.code.extend(map(self.number.__getitem__, names))
        if worth is not None:
            self.worth.extend(worth)
        self.place.append(place)
        self.length.append(len(names))

    def weighted(self, items: int, described: int, most: float) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Item, feature and weight, each pair once, every item's weights of unit length."""
        width = max(len(self.number), 1)
        row = np.repeat(np.asarray(self.place, dtype=np.int64), np.asarray(self.length, dtype=np.int64))
        pair = row * width + np.asarray(self.code, dtype=np.int64)
        if len(self.worth):
            order = np.argsort(pair, kind="stable")
            pair, weight = pair[order], np.asarray(self.worth, dtype=np.float64)[order]
        else:
            pair, times = np.unique(pair, return_counts=True)
            weight = 1 + np.log(times)
        row, code = np.divmod(pair, width)
        have = np.bincount(code, minlength=width)
        told = (have[code] > 1) & (have[code] <= most) & (weight > 0)
        row, code, weight = row[told], code[told], weight[told]
        weight = weight * np.log((1 + described) / (1 + have[code]))
        there = weight > 0
        row, code, weight = row[there], code[there], weight[there]
        return row, code, weight / _lengths(row, weight, items)[row]


def _lengths(row: NDArray[np.int64], weight: NDArray[np.float64], items: int) -> NDArray[np.float64]:
    return np.sqrt(np.bincount(row, np.square(weight), items))


def words(text: str) -> list[str]:
    """Words in lower case; scripts without spaces are cut into pairs of letters.

    >>> words("Tall MUG, 350 ml"), words("陶瓷花瓶")
    (['tall', 'mug', '350', 'ml'], ['陶瓷', '瓷花', '花瓶'])
    """
    plain: list[str] = WORDS.findall(text.lower())
    if text.isascii():
        return plain
    found: list[str] = []
    for word in plain:
        if "\u3040" <= word[0] <= "\u9fff" and len(word) > 2:
            found.extend(word[at : at + 2] for at in range(len(word) - 1))
        else:
            found.append(word)
    return found


def _values(item: Item) -> tuple[dict[str, float], list[str]]:
    """The values of an item's attributes with what they count, and its words; those of a title come twice."""
    about = words(item.description or "")[:MOST_WORDS]
    values: dict[str, float] = {}
    plain = (("kind", item.kind), ("brand", item.brand), ("level", item.level), ("creator", item.creator_id))
    for name, value in plain:
        if value:
            values[f"{name}={value.lower()}"] = 1.0
    for category in item.categories:
        values[f"category={category.lower()}"] = 1.0
    if item.price_minor is not None and item.price_minor > 0:
        values.update(_bucket(f"price {item.currency or ''}", float(item.price_minor)))
    for name, each in _flat(item.attributes):
        if isinstance(each, int | float) and not isinstance(each, bool) and 0 < each < math.inf:
            values.update(_bucket(name, float(each)))
        elif len(str(each)) > LONG_TEXT:
            about += words(str(each))[:MOST_WORDS]
        else:
            values[f"{name}={str(each).lower()}"] = 1.0
    title = words(item.title or "")
    return values, title + title + about


def _bucket(name: str, value: float) -> dict[str, float]:
    """A positive number in the two buckets next to it, so that neighbors share one."""
    place = math.log(value) / PRICE_STEP
    low = math.floor(place)
    return {f"{name}~{low}": 1 - (place - low), f"{name}~{low + 1}": place - low}


def _flat(attributes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and single values of attributes; lists give several, mappings in them are joined by a dot."""
    for name, value in attributes.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            for each in value:
                yield f"{prefix}{name}", each
        else:
            yield f"{prefix}{name}", value


def supplied(items: Sequence[Item | None]) -> tuple[NDArray[np.float32], dict[str, dict[str, int]]]:
    """The vectors that the shop supplies, each name of unit length and in at most 64 numbers, side by side.

    Of each name the most frequent length holds. A vector of another length, one with a number that is not finite and
    one that is all zero are left out and counted.

    Returns:
        Shape (numbers, items), zero where an item has no vector; and name → length, used, wrong_length, not_finite,
        all_zero.
    """
    names = sorted({name for item in items if item is not None for name in item.vectors})
    blocks: list[NDArray[np.float32]] = [np.zeros((0, len(items)), dtype=np.float32)]
    report = {}
    for name in names:
        given = [
            (place, item.vectors[name]) for place, item in enumerate(items) if item is not None and name in item.vectors
        ]
        lengths = Counter(len(vector) for _, vector in given)
        length = max(lengths, key=lambda each: (lengths[each] if each else 0, each))
        right = [(place, vector) for place, vector in given if len(vector) == length and length]
        table = np.array([vector for _, vector in right], dtype=np.float64).reshape(len(right), length)
        with np.errstate(over="ignore"):
            size = np.sqrt(np.square(table).sum(axis=1))
        finite = np.isfinite(size)
        used = finite & (size > 0)
        report[name] = {
            "length": length,
            "used": int(used.sum()),
            "wrong_length": len(given) - len(right),
            "not_finite": int((~finite).sum()),
            "all_zero": int((finite & (size == 0)).sum()),
        }
        if used.any():
            block = np.zeros((min(length, MOST_NUMBERS), len(items)), dtype=np.float32)
            at = np.array([place for place, _ in right])[used]
            block[:, at] = shortened(table[used] / size[used, None]).T
            blocks.append(block)
    return np.concatenate(blocks), report


def shortened(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit rows on their main directions, at most 64 of them, and of unit length again."""
    if table.shape[1] <= MOST_NUMBERS:
        return table
    with one_thread():
        _, directions = np.linalg.eigh(table.T @ table)
        main = directions[:, -MOST_NUMBERS:]
        sign = np.sign(main[np.abs(main).argmax(axis=0), np.arange(main.shape[1])])
        near = table @ (main * sign)
    size = np.sqrt(np.square(near).sum(axis=1, keepdims=True))
    found: NDArray[np.float64] = near / np.maximum(size, 1e-12)
    return found
