"""`evaluate --errors`: one page that needs nothing but itself, with pictures where they are at hand."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from thinslice.cli.mistakes_page import page
from thinslice.cli.program import program
from thinslice.evaluation.mistakes import Missed, Mistake, summary
from thinslice.records import Item
from thinslice.simulate.catalog import home_goods
from thinslice.simulate.pictures import picture


def run(*arguments):
    return CliRunner().invoke(program, ["evaluate", *map(str, arguments)])


@pytest.fixture
def log(tmp_path):
    draw = np.random.default_rng(0)
    rows = [(s, draw.integers(20) + 100 * (s % 2), 1.7e9 + 3600 * s + c) for s in range(120) for c in range(4)]
    path = tmp_path / "events.parquet"
    pq.write_table(
        pa.table({"session_id": [r[0] for r in rows], "item_id": [r[1] for r in rows], "ts": [r[2] for r in rows]}),
        path,
    )
    items = tmp_path / "items.parquet"
    ids = sorted({row[1] for row in rows})
    titles = [f"<b>Chair {number}</b>" for number in ids]
    colors = ["green" if number > 50 else "red" for number in ids]
    pq.write_table(
        pa.table({"item_id": ids, "title": titles, "color": colors, "image_url": ["chair.png"] * len(ids)}), items
    )
    return path, items


def self_contained(text):
    """Every address in the page is inside of it."""
    found = re.findall(r"(?:src|href)=[\"']([^\"']*)", text) + re.findall(r"url\([\"']?([^\"')]*)", text)
    return all(address.startswith(("#", "data:image/")) for address in found) and "@import" not in text


def test_the_page_shows_what_was_known_shown_and_clicked_and_fetches_nothing(log, tmp_path):
    events, items = log
    (tmp_path / "chair.png").write_bytes(b"\x89PNG not really")
    out = tmp_path / "pages" / "errors.html"
    result = run("--events", events, "--items", items, "--models", "session-knn", "--errors", "--out", out)
    assert result.exit_code == 0, result.output
    assert f"all of them in pictures are in {out}" in result.stdout
    text = out.read_text()
    assert self_contained(text)
    assert "<b>Chair" not in text
    assert "&lt;b&gt;Chair" in text
    assert "data:image/png;base64," in text
    assert "Clicked was" in text


def test_json_names_the_sessions_and_the_file(log, tmp_path):
    out = tmp_path / "errors.html"
    found = json.loads(run("--events", log[0], "--models", "popular", "--errors", "--out", out, "--json").stdout)
    assert found["file"] == str(out)
    assert found["model"] == "popular"
    assert found["summary"]["sessions"] == len(found["sessions"]) > 0
    assert set(found["sessions"][0]["missed"][0]) == {"known", "shown", "clicked", "rank", "clicks"}
    places = [mistake["bits"] for mistake in found["sessions"]]
    assert places == sorted(places, reverse=True)


def test_out_without_errors_and_refitting_with_it_are_refused(log):
    for arguments, says in [(("--out", "x.html"), "--out names the page of --errors"),
                            (("--errors", "--refit-hours", 6), "learned once")]:  # fmt: skip
        result = run("--events", log[0], *arguments)
        assert (result.exit_code, says in result.stderr) == (2, True), result.stderr


def drawn(folder, items):
    missed = Missed([items[0].item_id], [item.item_id for item in items[:12]], items[-1].item_id, None, 3)
    right = Missed([items[0].item_id], [items[1].item_id], items[1].item_id, 1, 3)
    found = [Mistake([missed.known[0], missed.clicked], "ann", 9.0, [missed, right, right, right, right])]
    return page("popular", found, {item.item_id: item for item in items}, summary(found), where="A test", k=20,
                pictures=folder)  # fmt: skip


def test_the_generated_shop_is_drawn_and_an_item_without_picture_is_a_tile(tmp_path):
    shop = home_goods("shop")[:13]
    text = drawn(tmp_path, shop)
    assert self_contained(text)
    assert text.count("data:image/svg+xml;base64,") == 11  # ten that were shown and the clicked one
    assert picture(shop[0])[:4] == "<svg"
    plain = [Item(tenant="shop", item_id=item.item_id, updated_at=item.updated_at, title=item.title) for item in shop]
    assert "data:image" not in drawn(tmp_path, plain)


def test_a_picture_outside_of_the_folder_or_on_another_machine_is_not_taken(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "shop").mkdir()
    when = home_goods("shop")[0].updated_at
    items = [
        Item(tenant="shop", item_id=str(number), updated_at=when, image_url=address)
        for number, address in enumerate(["../secret.png", "https://x.example/a.png", "javascript:alert(1)", "a.txt"])
    ]
    text = drawn(tmp_path / "shop", items)
    assert "data:image" not in text
    assert "x.example" not in text
    assert "alert(1)" not in text
