"""The door of the console: a link opens it once, a cookie cannot be forged, another page's form is refused."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinslice.settings import Workspace
from thinslice.web.login import (
    COOKIE_LIFE_S,
    TOKEN_LIFE_S,
    Visitor,
    issue_token,
    redeem_token,
    same_origin,
    seal,
    unseal,
)


def test_a_link_opens_the_console_once(tmp_path):
    workspace = Workspace(tmp_path)
    token = issue_token(workspace, "shop")
    assert redeem_token(workspace, token) == Visitor("shop", "admin")
    assert redeem_token(workspace, token) is None


def test_an_old_link_opens_nothing_and_is_forgotten(tmp_path):
    workspace = Workspace(tmp_path)
    token = issue_token(workspace, "shop", now=0.0)
    assert redeem_token(workspace, token, now=TOKEN_LIFE_S + 1.0) is None
    assert (workspace.run / "login-tokens.json").read_text() == "{}"


def test_the_token_itself_is_not_on_the_disk_and_only_the_owner_reads_its_hash(tmp_path):
    workspace = Workspace(tmp_path)
    token = issue_token(workspace, "shop")
    path = workspace.run / "login-tokens.json"
    assert token not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_cookie_says_who_it_is_until_it_is_too_old(tmp_path):
    workspace = Workspace(tmp_path)
    value = seal(workspace, Visitor("shop", "admin"), now=0.0)
    assert unseal(workspace, value, now=COOKIE_LIFE_S - 1) == Visitor("shop", "admin")
    assert unseal(workspace, value, now=COOKIE_LIFE_S) is None


@given(st.integers(0, 200), st.characters(codec="ascii"))
def test_a_changed_cookie_says_nothing(tmp_path_factory, place, letter):
    workspace = Workspace(tmp_path_factory.getbasetemp())
    value = seal(workspace, Visitor("shop", "admin"), now=0.0)
    at = place % len(value)
    changed = value[:at] + letter + value[at + 1 :]
    assert changed == value or unseal(workspace, changed, now=0.0) is None


def test_a_cookie_has_one_spelling(tmp_path):
    workspace = Workspace(tmp_path)
    for at in range(40):
        value = seal(workspace, Visitor("shop", "admin"), now=float(at))
        for other in (value.replace("-", "+"), value.replace("_", "/"), f"{value}=", f"{value}\n"):
            assert other == value or unseal(workspace, other, now=0.0) is None


@given(st.text())
def test_any_text_as_cookie_is_refused_without_an_error(tmp_path_factory, text):
    assert unseal(Workspace(tmp_path_factory.getbasetemp()), text) is None


@pytest.mark.parametrize(
    ("method", "origin", "good"),
    [
        ("GET", "", True),
        ("POST", "http://console.test", True),
        ("POST", "", False),
        ("POST", "null", False),
        ("POST", "http://evil.test", False),
    ],
)
def test_an_unsafe_request_must_come_from_our_own_page(method, origin, good):
    headers = {"host": "console.test", **({"origin": origin} if origin else {})}
    assert same_origin(SimpleNamespace(method=method, headers=headers)) is good
