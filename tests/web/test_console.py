"""The console: closed without a login, strict about scripts, and showing what the report says."""

import json
import re
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from thinslice.cli.program import program
from thinslice.experiments import dump_experiment
from thinslice.experiments.program import Outcome
from thinslice.experiments.program import program as programmed
from thinslice.jobs.program import write_program
from thinslice.jobs.rehearsal.kept import keep_rehearsal
from thinslice.records import Check
from thinslice.stats import estimate
from thinslice.store.keys import Keys
from thinslice.web.login import COOKIE, Visitor, issue_token, seal

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
POLICIES = {"old": "popular", "new": "session-knn"}
REHEARSED = {
    "scenario": "shelf", "says": "A shelf.", "runs": 3,
    "truth": {"effect_size": 0.0, "rel_effect_size": 0.0, "mean_control": 0.1, "mean_treatment": 0.1},
    "designs": [
        {"name": name, "words": words, "estimate_mean": mean, "estimate_se": 0.001, "estimate_sd": 0.002, "bias": mean,
         "wrong_sign_share": None, "coverage": 0.9, "rejection_rate": seen, "warned_share": 0.0, "warnings": warned,
         "actions": actions, "width": None}
        for name, words, mean, seen, warned, actions in (
            ("shelf", "a test of its own clicks", 0.02, 1.0, {}, {"ship": 1.0}),
            ("page", "the test of the page", 0.0, 0.0, {"cannibalization": 1.0}, {"extend": 1.0}),
        )
    ],
}  # fmt: skip
PAGES = ["/console/live", "/console/live/stream", "/console/experiments", "/console/experiments/ranker",
         "/console/program", "/console/rehearsals", "/console/rehearsals/shelf"]  # fmt: skip


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
    wanted = ["Extend: 9 days to go.", "The split came out as planned: warns", "Sample ratio: 500 to 510", "p = 0.0004",
              "Better", "Not worse, better not shown",
              "€1.10", "+10.0", "Show as table", "It &lt;b&gt;sells&lt;/b&gt; more."]  # fmt: skip
    assert [text for text in wanted if text not in html] == []
    assert html.count('class="zero" style="left:50.0%"') == 2
    assert 'class="margin" style="left:' in html


def test_the_program_and_rehearsals_are_empty_until_something_is_known_and_are_this_tenants_alone(worker, console):
    assert "No experiment has ended with a decision yet" in console("/console/program").body.decode()
    assert "No rehearsal yet" in console("/console/rehearsals").body.decode()
    kept = keep_rehearsal(worker.workspace, "other", REHEARSED, "Theirs.", NOW)
    assert console("/console/rehearsals/shelf").status == 404
    assert console(f"/console/rehearsals/..%2Fother.rehearsals%2F{kept.stem}").status == 404


def test_the_program_page_shows_each_outcome_beside_the_holdout(worker, console):
    outcomes = [
        Outcome("knn", "new", True, estimate(0.05, 0.01), 0.1, again=estimate(0.04, 0.01)),
        Outcome("fresh", "b", False, estimate(-0.03, 0.01), 0.2),
        Outcome("third", "b", False, estimate(0.0, 0.01)),
    ]
    write_program(worker.workspace, "shop", programmed("revenue_per_visitor", outcomes, holdout=estimate(0.045, 0.01)))
    html = console("/console/program").body.decode().replace("\N{NO-BREAK SPACE}", " ")
    wanted = ["1 of 3 treatments were shipped", "changed revenue per visitor", "The holdout agrees", "They agree (",
              "+5.1 %", "taken back for some later: +4.1 %", "agrees", "not shipped",
              "of 50 % of 2 online effects"]  # fmt: skip
    assert [text for text in wanted if text not in html] == []
    assert html.count('<i class="bar') == 4 + 3


def test_a_rehearsal_shows_the_truth_beside_what_each_design_tells(worker, console):
    keep_rehearsal(worker.workspace, "shop", REHEARSED, "It would have been <shipped>.", NOW)
    assert 'href="/console/rehearsals/shelf"' in console("/console/rehearsals").body.decode()
    html = console("/console/rehearsals/shelf").body.decode().replace("\N{NO-BREAK SPACE}", " ")
    wanted = ["It would have been &lt;shipped&gt;.", "A test of its own clicks", "warned of: Cannibalization (100 %)",
              "Ship (100 %)", "+20.0 %", "Extend (100 %)"]  # fmt: skip
    assert [text for text in wanted if text not in html] == []
    assert html.count('class="truth"') == 2


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


def test_an_experiment_in_shadow_is_told_to_be_shown_to_nobody(worker, console):
    path = worker.workspace.experiments / "shop" / "shadowy.toml"
    plan = 'name = "shadowy"\nshadow_at = 2026-03-01T09:00:00Z\n'
    path.write_text(plan + 'variants = [{name = "a", policy = "popular"}, {name = "b", policy = "session-knn"}]\n')
    try:
        pages = [console("/console/experiments").body.decode(), console("/console/experiments/shadowy").body.decode()]
    finally:
        path.unlink()
    assert "in shadow since 1 Mar 2026" in pages[0]
    assert "shown to nobody" in pages[0]
    assert "<code>thinslice experiment shadow shadowy</code> says what it told." in pages[1]
    assert "No report yet" not in pages[1]
