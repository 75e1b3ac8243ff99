"""The tag as it is served: small, kept by its hash, and the same program as its source."""

import gzip
import http.client
import itertools
import re

import pytest
from starlette.applications import Starlette

from thinslice.web import tag
from thinslice.web.tag import SOURCE, TOKEN, stripped, takes

LIMIT = 2_300
"""Bytes, packed; other shops' tags of this kind have 2.7 to 18 kB."""


@pytest.fixture(scope="module")
def ask(serve_app):
    with serve_app(Starlette(routes=tag.routes(None))) as url:

        def asked(**headers):
            line = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
            line.request("GET", "/tag.js", headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = line.getresponse()
            body = answer.read()
            line.close()
            return answer.status, {name.lower(): text for name, text in answer.getheaders()}, body

        yield asked


def tokens(text):
    found = ((token.lastgroup, token.group()) for token in TOKEN.finditer(text))
    return [(kind, text) for kind, text in found if kind not in ("comment", "space")]


def test_the_tag_is_at_most_2300_bytes_on_the_wire(ask):
    status, headers, body = ask(accept_encoding="gzip, deflate, br")
    assert status == 200
    assert headers["content-encoding"] == "gzip"
    assert int(headers["content-length"]) == len(body) <= LIMIT


def test_the_tag_is_served_plain_to_those_who_do_not_unpack(ask):
    _, headers, plain = ask()
    assert "content-encoding" not in headers
    _, _, packed = ask(accept_encoding="gzip")
    assert gzip.decompress(packed) == plain == stripped(SOURCE.read_text()).encode()


def test_a_known_tag_is_not_sent_again_and_a_packed_one_is_another_than_a_plain_one(ask):
    for accepted in ({}, {"accept_encoding": "gzip"}):
        _, headers, _ = ask(**accepted)
        etag = headers["etag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            status, again, body = ask(if_none_match=known, **accepted)
            assert (status, body, again["etag"]) == (304, b"", etag)
        assert ask(if_none_match='"other"', **accepted)[0] == 200
    assert ask(if_none_match=ask()[1]["etag"], accept_encoding="gzip")[0] == 200


def test_any_page_may_load_the_tag_and_its_type_cannot_be_guessed_otherwise(ask):
    _, headers, _ = ask()
    assert headers["content-type"].startswith("text/javascript")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert headers["access-control-allow-origin"] == "*"
    assert headers["vary"] == "Accept-Encoding"
    assert "max-age=600" in headers["cache-control"]


def test_stripping_leaves_every_word_and_mark_in_its_order():
    source = SOURCE.read_text()
    assert tokens(stripped(source)) == tokens(source)
    assert stripped(stripped(source)) == stripped(source)


def test_the_source_holds_nothing_that_the_stripper_does_not_know():
    parts = tokens(SOURCE.read_text())
    assert ("mark", "`") not in parts
    for (kind, before), (_, mark) in itertools.pairwise(parts):
        if mark == "/":  # a division, never the start of a regular expression
            assert kind == "word" or before in (")", "]"), f"a regular expression after {before}"
            assert before not in ("return", "typeof", "case", "in", "of")


def test_no_line_of_the_source_ends_where_a_browser_would_put_a_semicolon():
    kept = [re.sub(r"(^|\s)//.*$", "", line).strip() for line in SOURCE.read_text().splitlines()]
    kept = [line for line in (re.sub(r"/\*.*?\*/", "", line).strip() for line in kept) if line]
    for line, after in itertools.pairwise(kept):
        assert line[-1] in ";{},(+?:|&" or after[0] == "}", line


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("a = 'it // stays  \\' so';  // gone", "a='it // stays  \\' so';"),
        ('b = "/* not a comment */"; /* a\ncomment */ c();', 'b="/* not a comment */";c();'),
        ("x = a - -b; y = a + ++b; z = a-- - b;", "x=a- -b;y=a+ ++b;z=a-- -b;"),
        ("return 'x' in  y ;", "return'x'in y;"),
        ("get visitor() { return 1; }", "get visitor(){return 1;}"),
        ("", ""),
    ],
)
def test_the_stripper_keeps_texts_and_the_gaps_that_mean_something(source, wanted):
    assert stripped(source) == wanted


@pytest.mark.parametrize(
    ("accepted", "yes"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip; q=0.0", False), ("identity", False), ("x-gzip", False)],
)
def test_a_browser_that_refuses_packed_answers_gets_none(accepted, yes):
    assert takes(accepted, "gzip") is yes


@pytest.mark.parametrize(
    "attribute",
    ["key", "consent", "endpoint", "thinsliceItem", "thinsliceRecommendation", "thinslicePosition",
     "thinslicePlacement", "thinsliceView"],
)  # fmt: skip
def test_the_tag_reads_its_attributes(attribute):
    assert re.search(rf"\b(dataset|data)\.{attribute}\b", SOURCE.read_text())
