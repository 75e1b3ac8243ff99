"""Files of one's own become rows of the lake."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thinslice.collect.columns import guess, is_order_index, read_money
from thinslice.errors import BadInput, BadRecord
from thinslice.jobs.imports import readings
from thinslice.jobs.load import load, replay
from thinslice.records import Edge, Event, Item, Order, Quarantined, User
from thinslice.settings import Workspace
from thinslice.store.lake import Lake
from thinslice.store.live import LiveDB
from thinslice.store.schemas import to_records

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
RECORDS = {"events": Event, "items": Item, "orders": Order, "users": User, "edges": Edge, "quarantine": Quarantined}


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "thinslice.toml").write_text("[live]\nmap_mb = 8\n[tenants.shop]\n", encoding="utf-8")
    return Workspace(tmp_path)


def rows(workspace, table):
    connection = Lake(workspace.lake).connect(tenant="shop")
    try:
        return to_records(RECORDS[table], connection.sql(f"SELECT * FROM {table}").to_arrow_table())
    finally:
        connection.close()


def file(workspace, name, text):
    path = workspace.root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load_events(workspace, path, **told):
    return load(workspace, "events", path, "shop", now=NOW, **told)


CSV = """session_id,ItemId,ts,event
s1,7,1775000000,view
s1,8,1775000060,view
s1,8,1775000060,view
s2,7,1775000000,buy
"""


def test_the_usual_columns_are_guessed_and_equal_rows_are_all_kept(workspace):
    result = load_events(workspace, file(workspace, "log.csv", CSV))
    assert (result.read, result.kept, result.known, result.quarantined) == (4, 4, 0, 0)
    events = rows(workspace, "events")
    assert sorted((e.session_id, e.item_id, e.name) for e in events) == [
        ("s1", "7", "view_item"), ("s1", "8", "view_item"), ("s1", "8", "view_item"), ("s2", "7", "purchase"),
    ]  # fmt: skip
    assert {event.source for event in events} == {"import"}
    assert len({event.event_id for event in events}) == 4


def test_the_same_file_twice_changes_nothing(workspace):
    path = file(workspace, "log.csv", CSV + "s3,,1775000000,view\n")
    load_events(workspace, path)
    versions = Lake(workspace.lake).versions()
    again = load_events(workspace, path)
    assert (again.kept, again.known, again.quarantined) == (0, 4, 1)
    assert Lake(workspace.lake).versions() == versions


def test_the_same_file_with_another_map_is_refused_and_nothing_is_counted_twice(workspace):
    path = file(workspace, "log.csv", CSV)
    load_events(workspace, path)
    with pytest.raises(
        BadInput, match=r"log\.csv are in the lake already.*2026-05-01, session_id → session_id.*twice"
    ) as no:
        load_events(workspace, path, told={"session_id": "visitor_id"})
    assert "--replace" in no.value.hint
    assert "--add" in no.value.hint
    longer = file(workspace, "longer.csv", CSV + "".join(f"s4,9,{1775000000 + n},view\n" for n in range(3000)))
    with pytest.raises(BadInput, match="would count twice"):
        load_events(workspace, longer, told={"session_id": "visitor_id"})
    assert len(rows(workspace, "events")) == 4


def test_replace_takes_back_what_the_file_brought_and_nothing_else(workspace):
    other = file(workspace, "other.csv", "session_id,ItemId,ts\nx,1,1775000000\n")
    load(workspace, "events", other, "shop", now=NOW - timedelta(days=1))
    path = file(workspace, "log.csv", CSV)
    load_events(workspace, path)
    load(workspace, "events", file(workspace, "log.csv", CSV + "s9,9,1775000000,view\n"), "shop",
         now=NOW + timedelta(hours=1))  # fmt: skip
    told = {"session_id": "visitor_id"}
    again = load(workspace, "events", path, "shop", now=NOW + timedelta(hours=2), told=told, read_before="replace")
    assert (again.taken_back, again.kept, again.known) == (5, 5, 0)
    assert sorted((e.session_id or "", e.visitor_id or "") for e in rows(workspace, "events")) == [
        ("", "s1"), ("", "s1"), ("", "s1"), ("", "s2"), ("", "s9"), ("x", ""),
    ]  # fmt: skip
    later = load(workspace, "events", path, "shop", now=NOW + timedelta(hours=3), told=told)
    assert (later.kept, later.known, later.note) == (0, 5, "")


def test_add_keeps_both_readings_and_either_may_come_again(workspace):
    path = file(workspace, "log.csv", "session_id,viewed,bought,ts\ns1,7,8,1775000000\n")
    maps = [{"viewed": "item_id"}, {"bought": "item_id"}]
    for told in maps:
        load_events(workspace, path, told=told, read_before="add")
    assert sorted(event.item_id for event in rows(workspace, "events")) == ["7", "8"]
    for told in maps:
        assert load_events(workspace, path, told=told).known == 1


def test_a_column_that_changes_no_id_is_told_that_known_rows_stay_as_they_are(workspace):
    load_events(workspace, file(workspace, "log.csv", "session_id,item_id,ts\ns1,7,1775000000\n"))
    path = file(workspace, "log.csv", "session_id,item_id,ts,price\ns1,7,1775000000,9.99\n")
    told = load_events(workspace, path)
    assert (told.kept, told.known) == (0, 1)
    assert "known stay as they were read before (2026-05-01, without price); --replace" in told.note
    load_events(workspace, path, read_before="replace")
    assert [event.price_minor for event in rows(workspace, "events")] == [999]


def test_an_import_that_was_killed_is_remembered_by_how_it_read(workspace):
    path = file(workspace, "log.csv", CSV)
    load_events(workspace, path)
    with (workspace.root / "imports" / "shop.jsonl").open("ab") as journal:
        journal.write(b'{"kind":"events","fi')  # the power went
    with pytest.raises(BadInput, match="would count twice"):
        load_events(workspace, path, told={"session_id": "visitor_id"})
    load_events(workspace, path)
    assert len(readings(workspace, "shop", "events")) == 2


def test_orders_under_another_id_are_refused_too(workspace):
    path = file(workspace, "orders.csv", "order_id,number,total,ts\na,1,9.99,1775000000\n")
    load(workspace, "orders", path, "shop", now=NOW)
    with pytest.raises(BadInput, match="would count twice"):
        load(workspace, "orders", path, "shop", now=NOW, told={"number": "order_id"})
    load(workspace, "orders", path, "shop", now=NOW, told={"number": "order_id"}, read_before="replace")
    assert [order.order_id for order in rows(workspace, "orders")] == ["1"]


def test_the_three_formats_of_one_log_are_the_same_rows(workspace):
    load_events(workspace, file(workspace, "log.csv", CSV))
    lines = [line.split(",") for line in CSV.splitlines()]
    columns = dict(zip(lines[0], zip(*lines[1:], strict=True), strict=True))
    table = pa.table({"session_id": columns["session_id"], "ItemId": [int(x) for x in columns["ItemId"]],
                      "ts": [int(x) for x in columns["ts"]],
                      "event": pa.array(columns["event"]).dictionary_encode()})  # fmt: skip
    pq.write_table(table, workspace.root / "log.parquet")
    objects = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    jsonl = file(workspace, "log.jsonl", "\n".join(json.dumps(each) for each in objects) + "\n")
    array = file(workspace, "log.json", json.dumps(objects))
    tabs = file(workspace, "log.tsv", "\ufeff" + CSV.replace(",", "\t"))
    for path in (workspace.root / "log.parquet", jsonl, array, tabs):
        result = load_events(workspace, path)
        assert (result.read, result.kept, result.known) == (4, 0, 4)


def test_each_bad_row_is_named_by_its_line_and_quarantined(workspace):
    text = "item_id,time,price\na,2026-04-01,1.50\n,2026-04-01,1\nb,soon,1\nc,2026-04-01,much\n" + (
        '"d\nd",2026-04-01,1\ne,2026-04-01\nf,1970-01-05,1\ng,2026-05-03,1\n'
    )
    result = load_events(workspace, file(workspace, "log.csv", text.encode() + b"h\xff,2026-04-01,1\n"))
    assert [(bad.line, bad.code) for bad in result.bad] == [
        (3, "missing_field"), (4, "bad_time"), (5, "bad_price"), (7, "bad_id"), (8, "bad_csv"), (9, "too_old"),
        (10, "too_far_ahead"), (11, "bad_utf8"),
    ]  # fmt: skip
    assert (result.read, result.kept, result.quarantined) == (9, 1, 8)
    kept = rows(workspace, "quarantine")
    assert {(each.file, each.line, each.code) for each in kept} == {
        ("log.csv", bad.line, bad.code) for bad in result.bad
    }
    assert sorted((event.item_id, event.price_minor) for event in rows(workspace, "events")) == [
        ("a", 150)
    ]  # fmt: skip


def test_bad_lines_of_json_are_named_and_the_good_are_kept(workspace):
    text = '{"item_id": "a", "ts": 1775000000}\n{broken\n\n[1]\n{"item_id": "b", "ts": 1775000000, "items": 3}\n'
    result = load_events(workspace, file(workspace, "log.jsonl", text))
    assert [(bad.line, bad.code) for bad in result.bad] == [
        (2, "bad_json"), (4, "not_an_object"), (5, "wrong_type")
    ]  # fmt: skip
    assert result.kept == 1


def test_a_column_can_be_told(workspace):
    path = file(workspace, "log.csv", "what,when,who,shade\na,2026-04-01T10:00:00+02:00,v,blue\n")
    told = {"what": "item_id", "when": "occurred_at", "who": "visitor_id", "shade": "context.color"}
    result = load_events(workspace, path, told=told)
    (event,) = rows(workspace, "events")
    assert (event.visitor_id, event.context) == ("v", {"color": "blue"})
    assert event.occurred_at == datetime(2026, 4, 1, 8, tzinfo=UTC)
    assert result.ignored == []


def test_times_that_only_tell_the_order_are_recognized(workspace):
    path = file(workspace, "log.csv", "session_id,item_id,ts\ns,a,0\ns,b,1\ns,c,2\n")
    result = load_events(workspace, path)
    assert result.order_only
    events = sorted(rows(workspace, "events"), key=lambda event: event.occurred_at)
    assert [event.item_id for event in events] == ["a", "b", "c"]
    assert events[1].occurred_at - events[0].occurred_at == timedelta(seconds=1)


def test_our_own_records_are_taken_as_they_are(workspace):
    own = {"event_id": "e1", "tenant": "shop", "name": "add_to_cart", "occurred_at": "2026-04-01T10:00:00Z",
           "received_at": "2026-04-01T10:00:01Z", "item_id": "a", "visitor_id": "v", "context": {"url": "x"},
           "source": "browser"}  # fmt: skip
    load_events(workspace, file(workspace, "own.jsonl", json.dumps(own)))
    (event,) = rows(workspace, "events")
    assert (event.event_id, event.name, event.context) == ("e1", "add_to_cart", {"url": "x"})


def test_items_reach_the_lake_and_the_running_service_and_only_changes_count(workspace):
    text = "id,title,link,price,availability,product_type,color\n" + (
        "a,Vase,https://x/a,15.00 EUR,in stock,Home > Vases,blue\nb,Lamp,https://x/b,9.99,out of stock,Home,red\n"
    )
    path = file(workspace, "feed.csv", text)
    first = load(workspace, "items", path, "shop", now=NOW, told={"color": "attributes.color"})
    assert first.kept == 2
    again = load(workspace, "items", path, "shop", now=NOW + timedelta(hours=1), told={"color": "attributes.color"})
    assert (again.kept, again.known) == (0, 2)
    changed = file(workspace, "feed2.csv", text.replace("out of stock", "in_stock"))
    third = load(workspace, "items", changed, "shop", now=NOW + timedelta(hours=2), told={"color": "attributes.color"})
    assert (third.kept, third.known) == (1, 1)
    live = LiveDB(workspace.live, 8)
    try:
        items = {item.item_id: item for item in live.item_changes("shop", 0)[1]}
    finally:
        live.close()
    assert {item.item_id: item for item in rows(workspace, "items")} == items
    vase = items["a"]
    assert (vase.title, vase.price_minor, vase.currency, vase.in_stock) == ("Vase", 1500, "EUR", True)
    assert (vase.categories, vase.attributes) == (["Home", "Vases"], {"color": "blue"})
    assert items["b"].in_stock


def test_a_word_that_says_nothing_of_the_stock_is_refused_and_not_taken_for_out_of_stock(workspace):
    path = file(workspace, "feed.csv", "id,availability\na,yes\nb,SoldOut\nc,perhaps\nd,1\ne,\n")
    result = load(workspace, "items", path, "shop", now=NOW)
    assert [(bad.line, bad.code, bad.field) for bad in result.bad] == [(4, "bad_value", "in_stock")]
    assert {item.item_id: item.in_stock for item in rows(workspace, "items")} == {
        "a": True, "b": False, "d": True, "e": True,
    }  # fmt: skip


def test_the_lines_of_an_order_may_lie_scattered_over_the_file(workspace):
    text = "order_id,item_id,quantity,price,ts,customer_id\no1,a,2,5.00,1775000000,u\no2,b,1,1.00,1775000000,u\n" + (
        "o1,b,1,0.50,1775000000,u\no3,,1,1.00,1775000000,u\n"
    )
    path = file(workspace, "orders.csv", text)
    result = load(workspace, "orders", path, "shop", now=NOW)
    assert (result.read, result.kept, result.quarantined) == (4, 3, 1)
    assert {(o.order_id, o.total_minor, len(o.lines), o.user_id) for o in rows(workspace, "orders")} == {
        ("o1", 1050, 2, "u"), ("o2", 100, 1, "u"),
    }  # fmt: skip
    again = load(workspace, "orders", path, "shop", now=NOW + timedelta(hours=1))
    assert (again.kept, again.known) == (0, 3)


PEOPLE = "customer_id,lat,lon,tier,interests,consent,hashed_email,shoe\n" + (
    "u1,47.4,8.5,gold,knives; pans,,5e884898da28047151d0e56f8dc62927,42\n"
    "u2,,,,,measurement,,40\nu3,,,silver,,none,,38\nu4,91,,,,,,\nNaN,,,,,,,\nu5,,,,,,ada@example.test,\n"
)


def test_people_are_imported_once_and_one_who_consents_to_nothing_is_not_stored(workspace):
    told = {"shoe": "attributes.shoe"}
    path = file(workspace, "people.csv", PEOPLE)
    result = load(workspace, "users", path, "shop", now=NOW, told=told)
    assert (result.read, result.kept, result.known, result.not_stored_no_consent) == (6, 2, 0, 1)
    assert [(bad.line, bad.code) for bad in result.bad] == [
        (5, "out_of_range"), (6, "missing_field"), (7, "not_hashed")
    ]  # fmt: skip
    first, second = sorted(rows(workspace, "users"), key=lambda user: user.user_id)
    assert (first.user_id, first.latitude, first.loyalty_tier, first.entries, first.attributes, first.consent) == (
        "u1", 47.4, "gold", ["knives", "pans"], {"shoe": "42"}, "personalization",
    )  # fmt: skip
    assert (second.user_id, second.consent) == ("u2", "measurement")
    assert not any("ada@example" in each.raw for each in rows(workspace, "quarantine"))
    versions = Lake(workspace.lake).versions()
    again = load(workspace, "users", path, "shop", now=NOW + timedelta(hours=1), told=told)
    assert (again.kept, again.known) == (0, 2)
    assert Lake(workspace.lake).versions() == versions


def test_a_person_who_withdraws_keeps_nothing_but_the_withdrawal(workspace):
    load(workspace, "users", file(workspace, "a.csv", "id,tier\nu1,gold\n"), "shop", now=NOW)
    later = NOW + timedelta(days=1)
    load(workspace, "users", file(workspace, "b.csv", "id,tier,consent\nu1,gold,none\n"), "shop", now=later)
    assert rows(workspace, "users") == [User(tenant="shop", user_id="u1", updated_at=later, consent="none")]


@pytest.mark.parametrize("time", ["", "2026-04-01T10:00:00Z"])
def test_ties_are_imported_once_with_or_without_a_time(workspace, time):
    text = f"from,to,relation,weight,since\na,b,follow,2,{time}\nb,a,,,{time}\na,a,follow,1,\na,c,marriage,1,\n"
    path = file(workspace, "ties.csv", text)
    result = load(workspace, "edges", path, "shop", now=NOW)
    assert (result.kept, [(bad.line, bad.code) for bad in result.bad]) == (2, [(4, "self_edge"), (5, "unknown_kind")])
    ties = sorted(rows(workspace, "edges"), key=lambda edge: edge.from_id)
    assert [(tie.from_id, tie.to_id, tie.kind, tie.weight) for tie in ties] == [
        ("a", "b", "follow", 2.0), ("b", "a", "connection", 1.0)
    ]  # fmt: skip
    versions = Lake(workspace.lake).versions()
    again = load(workspace, "edges", path, "shop", now=NOW + timedelta(hours=1))
    assert (again.kept, again.known) == (0, 2)
    assert Lake(workspace.lake).versions() == versions
    heavier = file(workspace, "more.csv", "from,to,relation,weight\na,b,follow,3\n")
    assert load(workspace, "edges", heavier, "shop", now=NOW + timedelta(hours=2)).kept == 1
    assert {tie.weight for tie in rows(workspace, "edges")} == {1.0, 3.0}


@pytest.mark.parametrize(
    ("kind", "header", "row", "replacement"),
    [("events", "item_id,ts", "{},1775000000", "item_id"), ("items", "item_id,title", "{},Vase", "item_id"),
     ("orders", "order_id,ts,total,currency", "{},1775000000,1,EUR", "order_id"),
     ("users", "user_id,tier", "{},gold", "user_id"), ("edges", "from,to", "{},b", "from_id")],
)  # fmt: skip
@pytest.mark.parametrize("cell", ["NaN", "null", "None", " nan ", ""])
def test_a_cell_that_stands_for_nothing_never_becomes_an_id(workspace, kind, header, row, replacement, cell):
    path = file(workspace, "holes.csv", f"{header}\n{row.format(cell)}\n")
    result = load(workspace, kind, path, "shop", now=NOW)
    assert (result.kept, result.quarantined) == (0, 1)
    (kept,) = rows(workspace, "quarantine")
    assert (kept.code, kept.field) == ("missing_field", replacement)
    assert f"the cell says {cell!r}" in kept.reason or not cell
    fixed = "a" if kind != "edges" else "c"
    assert replay(workspace, [kept], now=NOW, change={replacement: fixed}) == 1
    assert len(rows(workspace, kind)) == 1


def test_a_session_id_that_stands_for_nothing_is_left_out(workspace):
    load_events(workspace, file(workspace, "log.csv", "session_id,visitor,item_id,ts\nNaN,v,a,1775000000\n"))
    assert [(event.session_id, event.visitor_id) for event in rows(workspace, "events")] == [(None, "v")]


def test_json_lines_may_begin_with_a_byte_order_mark(workspace):
    assert load_events(workspace, file(workspace, "a.jsonl", '\ufeff{"item_id": "a", "ts": 1775000000}\n')).kept == 1


def test_a_quarantined_row_can_be_set_right_and_taken_in_again(workspace):
    path = file(workspace, "log.csv", "visitor,item_id,time\nv,a,soon\nv,,2026-04-01\n")
    load_events(workspace, path)
    waiting = rows(workspace, "quarantine")
    assert replay(workspace, waiting, now=NOW, change={}) == 0
    assert replay(workspace, waiting, now=NOW, change={"occurred_at": "2026-04-01"}) == 1
    assert [(event.item_id, event.visitor_id) for event in rows(workspace, "events")] == [("a", "v")]
    assert sorted(each.replayed for each in rows(workspace, "quarantine")) == [False, True]


def test_a_garbled_row_is_never_replayed_and_no_row_of_a_file_is_given_a_time(workspace):
    content = b'session_id,item_id,ts\ns,caf\xe9,1775000000\ns,a,1775000000,more\ns,"b,1775000000\n'
    result = load_events(workspace, file(workspace, "log.csv", content))
    assert (result.read, result.kept) == (3, 0)
    load_events(workspace, file(workspace, "timeless.csv", "session_id,item_id,ts\ns,c,\n"))
    load(workspace, "orders", file(workspace, "orders.csv", "order_id,total,currency,ts\no,3,EUR,\n"), "shop", now=NOW)
    waiting = rows(workspace, "quarantine")
    assert sorted(row.code for row in waiting) == ["bad_csv", "bad_csv", "bad_utf8", "missing_field", "missing_field"]
    assert replay(workspace, waiting, now=NOW, change={}) == 0
    assert replay(workspace, waiting, now=NOW, change={"currency": "EUR"}) == 0
    assert rows(workspace, "events") == rows(workspace, "orders") == []
    assert replay(workspace, waiting, now=NOW, change={"occurred_at": "2026-04-01"}) == 2


def test_map_takes_the_names_that_the_guess_knows_and_each_field_once():
    assert guess("events", ["a", "b", "c"], {"a": "session", "b": "item_id", "c": "ts"}) == {
        "a": "session_id", "b": "item_id", "c": "occurred_at",
    }  # fmt: skip
    with pytest.raises(BadInput, match=r"'a' and 'b' are both said to be item_id"):
        guess("events", ["a", "b", "ts"], {"a": "item_id", "b": "sku"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "is empty"),
        ("log.csv", b"a,b\n1,2\n", "no column is item_id"),
        ("log.csv", b"item_id,item_id,ts\n", "each once"),
        ("log.parquet", b"no parquet", "no Parquet file"),
        ("log.json", b"[{]", "no JSON array"),
        ("log.csv", "item_id,ts\n".encode("utf-16"), "UTF-16"),
        ("log.csv.gz", gzip.compress(b"item_id,ts\n", mtime=0), "packed .gzip."),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(workspace, name, content, message):
    with pytest.raises(BadInput, match=message):
        load_events(workspace, file(workspace, name, content))


def test_a_told_column_or_field_that_does_not_exist_is_refused(workspace):
    path = file(workspace, "log.csv", CSV)
    with pytest.raises(BadInput, match="no column 'nope'"):
        load_events(workspace, path, told={"nope": "item_id"})
    with pytest.raises(BadInput, match="no field of events"):
        load_events(workspace, path, told={"ts": "nope"})
    with pytest.raises(BadInput, match="there is no file"):
        load_events(workspace, Path("nowhere.csv"))


odd_cells = ["a", "2026-04-01", "1775000000", "-1", "1e999", "nan", "view", '"', "\x00", "\udcff"]
cells = st.one_of(st.sampled_from(odd_cells), st.text(max_size=8))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["events", "items", "orders", "users", "edges"]),
    st.lists(st.lists(cells, min_size=1, max_size=5), max_size=6),
)
def test_no_file_raises_anything_but_our_errors_and_every_row_is_counted(workspace, kind, table):
    header = (
        ("from,to" if kind == "edges" else "item_id,user_id")
        + ",ts,order_id,price,quantity\n"
        + "\n".join(",".join(row) for row in table)
    )
    path = file(workspace, "any.csv", header.encode("utf-8", "surrogateescape") + b"\n")
    try:
        result = load(workspace, kind, path, "shop", now=NOW)
    except BadInput:
        return
    assert result.read == result.kept + result.known + result.quarantined + result.not_stored_no_consent


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=30), max_size=5))
def test_no_json_lines_raise_anything_but_our_errors(workspace, lines):
    first = b'{"item_id": "a", "ts": 1775000000, "context": {"x": 1}}\n'
    result = load_events(workspace, file(workspace, "any.jsonl", first + b"\n".join(lines)))
    assert result.read == result.kept + result.known + result.quarantined
    assert result.kept + result.known >= 1


def test_the_first_column_that_fits_a_field_is_taken():
    assert guess("events", ["g:id", "Product ID", "Timestamp"], {}) == {
        "Product ID": "item_id", "Timestamp": "occurred_at"
    }  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9))
def test_money_keeps_every_cent(minor):
    assert read_money(f"{minor / 100:.2f}", "EUR", "price") == (minor, None)
    assert read_money(f"{minor} JPY", "EUR", "price") == (minor, "JPY")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_an_amount_or_a_bad_one(text):
    try:
        amount, _ = read_money(text, None, "price")
    except BadRecord:
        return
    assert isinstance(amount, int)


def test_times_of_our_age_are_no_order():
    assert not is_order_index(["2026-01-01"])
    assert not is_order_index([1_775_000_000, 5])
    assert is_order_index([3.0, None, "17"])
