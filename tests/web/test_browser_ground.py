"""The ground that browser tests stand on: a real Chromium, and axe-core that finds what is wrong and only that."""

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

pytestmark = pytest.mark.browser

GOOD = """<!doctype html><html lang="en"><head><title>A page</title></head>
<body><main><h1>A page</h1><p>Some text.</p></main></body></html>"""
BAD = """<!doctype html><html><head><title>A page</title><script src="data:text/javascript,1"></script></head>
<body><main><h1>A page</h1><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<p style="color:#ddd;background:#fff">Faint.</p></main></body></html>"""
STRICT = {"Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"}


@pytest.fixture(scope="module")
def site(serve_app):
    routes = [
        Route("/good", lambda request: HTMLResponse(GOOD, headers=STRICT)),
        Route("/bad", lambda request: HTMLResponse(BAD, headers=STRICT)),
    ]
    with serve_app(Starlette(routes=routes)) as url:
        yield url


def test_axe_finds_nothing_on_a_good_page_under_a_strict_policy(open_page, axe, complaints, site):
    page = open_page()
    page.goto(f"{site}/good")
    assert axe(page) == []
    assert complaints == []


def test_axe_names_what_is_wrong_and_where(open_page, axe, complaints, site):
    page = open_page(width=390, color_scheme="dark")
    page.goto(f"{site}/bad")
    found = axe(page)
    assert {line.split()[0] for line in found} >= {"image-alt", "html-has-lang", "color-contrast"}
    assert any(" at img" in line for line in found)
    assert any("Content Security Policy" in line for line in complaints)
