"""The console: closed without a login, strict about scripts, and showing what the report says."""

import json
import re
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from thinslice.cli.program import program
from thinslice.experiments import dump_experiment
from thinslice.records import Check
from thinslice.store.keys import Keys
from thinslice.web.login import COOKIE, Visitor, issue_token, seal

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
POLICIES = {"old": "popular", "new": "session-knn"}
PAGES = ["/console/live", "/console/live/stream", "/console/experiments", "/console/experiments/ranker"]


@pytest.fixture(scope="module")
def console(worker, metric_row, put_experiment):
    metrics = [
        metric_row("revenue_per_visitor", "goal", 0.1),
        metric_row("views_per_visitor", "guardrail", -0.01, "not_worse", 0.05),
    ]
    checks = [Check(name="sample_ratio", passed=False, statistic=1.0, pvalue=0.0004, detail="500 to 510")]
    path, experiment = put_experiment(worker, metrics, checks, hypothesis="It <b>sells</b> more.")
    (path.parent / "young.toml").write_text(dump_experiment(experiment).replace('"ranker"', '"young"'))
    cookie = f"{COOKIE}={seal(worker.workspace, Visitor('shop', 'admin'))}"

    def get(path, **headers):
        return worker.ask("GET", path, headers={"Cookie": cookie, **headers})

    return get


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_closed_without_a_login(worker, console, path):
    answer = worker.ask("GET", path)
    assert answer.status == 303
    assert answer.headers["location"] == "/console/login"


def test_a_link_logs_in_once_with_a_cookie_that_scripts_and_other_sites_cannot_use(worker):
    path = f"/console/login?token={issue_token(worker.workspace, 'shop')}"
    first, second = worker.ask("GET", path), worker.ask("GET", path)
    assert (first.status, second.status) == (303, 403)
    cookie = first.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "path=/console"))


@pytest.mark.parametrize(("key", "status"), [("admin", 303), ("secret", 403), ("publishable", 403)])
def test_only_the_admin_key_logs_in(worker, key, status):
    headers = {"Origin": f"http://127.0.0.1:{worker.port}", "Content-Type": "application/x-www-form-urlencoded"}
    assert worker.ask("POST", "/console/login", f"key={worker.keys[key]}".encode(), headers=headers).status == status


def test_a_form_of_another_page_is_refused(worker):
    headers = {"Origin": "http://evil.test", "Content-Type": "application/x-www-form-urlencoded"}
    answer = worker.ask("POST", "/console/login", f"key={worker.keys['admin']}".encode(), headers=headers)
    assert answer.status == 403
    assert "set-cookie" not in answer.headers


def test_every_page_forbids_scripts_and_requests_of_others(console):
    for path in ("/console/live", "/console/experiments", "/console/experiments/ranker"):
        answer = console(path)
        assert answer.status == 200
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        html = answer.body.decode()
        assert "<script>" not in html
        assert re.findall(r'(?:src|href)="(?!/|#)[^"]*"', html) == []


def test_the_experiment_page_says_what_the_report_says(console):
    html = console("/console/experiments/ranker").body.decode()
    wanted = ["Extend: 9 days to go.", "Sample ratio: failed", "p = 0.0004", "Better", "Not worse, better not shown",
              "€1.10", "+10.0", "Show as table", "It &lt;b&gt;sells&lt;/b&gt; more."]  # fmt: skip
    assert [text for text in wanted if text not in html] == []
    assert html.count('class="zero" style="left:50.0%"') == 2
    assert 'class="margin" style="left:' in html


def test_a_report_has_its_json_twin(console):
    assert json.loads(console("/console/experiments/ranker.json").body)["decision"]["action"] == "extend"


@pytest.mark.parametrize("path", ["/console/experiments/young", "/console/experiments"])
def test_an_experiment_without_a_report_is_told_to_be_young(console, path):
    answer = console(path)
    assert answer.status == 200
    assert "no report yet" in answer.body.decode().lower()


@pytest.mark.parametrize("name", ["nothing", "..%2Franker", "%2e%2e%2f%2e%2e%2fkeys"])
def test_a_made_up_name_finds_nothing(console, name):
    assert console(f"/console/experiments/{name}").status == 404
    assert console(f"/console/experiments/{name}.json").status == 404


def test_the_live_page_shows_events_as_they_come(worker, console):
    event = {"name": "view_item", "visitor_id": "someone", "item_id": "i1", "consent": "personalization"}
    assert worker.ask("POST", "/v1/events", [event], key="publishable").status == 202
    html = console("/console/live").body.decode()
    assert "someone" in html
    assert 'role="img"' in html


def test_a_long_login_form_is_refused(worker):
    headers = {"Origin": f"http://127.0.0.1:{worker.port}", "Content-Type": "application/x-www-form-urlencoded"}
    assert worker.ask("POST", "/console/login", b"key=" + b"x" * 5000, headers=headers).status == 413


def test_a_revoked_key_opens_nothing_from_its_next_request_on_and_ends_its_login(worker):
    keys = Keys(worker.workspace.keys_file)
    key = keys.create("shop", "admin")
    headers = {"Origin": f"http://127.0.0.1:{worker.port}", "Content-Type": "application/x-www-form-urlencoded"}
    answer = worker.ask("POST", "/console/login", f"key={key}".encode(), headers=headers)
    cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    assert worker.ask("GET", "/console/live", headers=cookie).status == 200
    place = ["--workspace", str(worker.workspace.root)]
    assert CliRunner().invoke(program, ["keys", "revoke", key[:12], *place]).exit_code == 0
    assert worker.ask("GET", "/console/live", headers=cookie).status == 303
    assert worker.ask("POST", "/console/login", f"key={key}".encode(), headers=headers).status == 403
    refused = worker.ask("POST", "/v1/events", [{"name": "share"}], key=key)
    assert (refused.status, refused.json["error"]["code"]) == (401, "revoked_key")


def test_the_bare_address_leads_to_the_console(worker):
    answer = worker.ask("GET", "/")
    assert (answer.status, answer.headers["location"]) == (303, "/console/live")


def test_an_experiment_file_that_is_no_text_is_named_beside_the_others(worker, console):
    path = worker.workspace.experiments / "shop" / "broken.toml"
    path.write_bytes(b'name = "broken"\n\xff\xfe')
    try:
        pages = [console("/console/experiments"), console("/console/experiments/broken")]
    finally:
        path.unlink()
    assert [page.status for page in pages] == [200, 404]
    assert "/console/experiments/ranker" in pages[0].body.decode()
    for page in pages:
        assert "shop/broken.toml is no text in UTF-8" in page.body.decode()
        assert str(worker.workspace.root) not in page.body.decode()
