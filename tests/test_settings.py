"""Settings: what is wrong in the file is said with its place, and defaults hold."""

import re

import pytest

from thinslice.cli.init import make_tenant
from thinslice.errors import BadSettings, UnknownName
from thinslice.records import CONSENTS
from thinslice.settings import BUILT_IN_POLICIES, PRESETS, Settings, Workspace, parse_settings, read_settings


def test_an_empty_file_is_all_defaults():
    assert parse_settings("") == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serve]\nport = 'x'", "serve.port"),
        ("[serve]\nportt = 1", "there is no setting serve.portt; 'port' perhaps?"),
        ("[server]\nport = 1", "there is no setting server; 'serve' perhaps?"),
        ("[serve", "not valid TOML"),
        ("[tenants.shop]\norigins = 'a'", "tenants.shop.origins must be a list, it is text"),
        ("[tenants.shop]\n[tenants.toys]\nmargn = 1", "there is no setting tenants.toys.margn; 'margin' perhaps?"),
        (
            "[tenants.shop]\n[tenants.toys]\nconsent_secret = 'maybe'",
            "tenants.toys: consent_secret is 'maybe' (there is",
        ),
        ("[tenants.toys]\ndefault_policy = 'sesion-knn'", "no such policy; 'session-knn' perhaps?"),
        ("[tenants.toys.placements]\nhome = 'mine'", "tenants.toys: placements.home is 'mine', and there is no such"),
        ("[tenants.toys]\ncurrency = 'euro'", "tenants.toys: currency is 'euro'"),
        ("[tenants.toys]\nmargin = nan", "margin must be between 0 and 0.99, got nan"),
        ("[tenants.toys]\npreset = 'shopp'", "tenants.toys: preset is 'shopp'"),
        (
            "[tenants.toys.policies.mine]\ndiversity = 2",
            "tenants.toys.policies.mine: diversity must be between 0 and 1",
        ),
        ("[tenants.toys.policies]\nmine = 2", "tenants.toys.policies.mine must be a table"),
        ("[[tenants.toys.rules]]\nkind = 'quota'", "tenants.toys.rules[0] needs most"),
        ("[[tenants.toys.rules]]\nkind = 'quota'\nmost = 1\nmuch = 2", "no setting tenants.toys.rules[0].much"),
        ("tenants = 3", "tenants must be a table, it is a whole number"),
        ("[serve]\nport = 99999", "serve: port must be between 0 and 65535, got 99999"),
        ("[serve]\nworkers = 0", "serve: workers must be between 1 and 1024, got 0"),
        ("[lake]\ncommit_every_s = -1.0", "lake: commit_every_s must be"),
    ],
)
def test_a_wrong_setting_is_named(text, said):
    with pytest.raises(BadSettings, match=re.escape(said)):
        parse_settings(text)


def test_an_unknown_tenant_is_told_which_there_are():
    with pytest.raises(UnknownName, match="there is: shop"):
        parse_settings("[tenants.shop]").tenant("shopp")


def test_a_folder_without_settings_is_told_how_to_become_a_workspace(tmp_path):
    with pytest.raises(BadSettings, match="thinslice init"):
        read_settings(Workspace(tmp_path))


def test_settings_that_are_no_text_are_refused_by_name(tmp_path):
    (tmp_path / "thinslice.toml").write_bytes(b'title = "caf\xe9"')
    with pytest.raises(BadSettings, match=r"thinslice\.toml is no text in UTF-8: .* at byte 12"):
        read_settings(Workspace(tmp_path))


def test_what_init_writes_can_be_read_whatever_it_recommends(tmp_path):
    for preset in PRESETS:
        make_tenant(Workspace(tmp_path), preset, preset=preset)
    assert [shop.preset for shop in read_settings(Workspace(tmp_path)).tenants.values()] == list(PRESETS)


def test_every_consent_of_the_records_and_every_policy_that_is_built_in_may_be_the_default():
    for consent in CONSENTS:
        parse_settings(f"[tenants.shop]\nconsent_publishable = '{consent}'\nconsent_secret = '{consent}'")
    for policy in BUILT_IN_POLICIES:
        parse_settings(f"[tenants.shop]\ndefault_policy = '{policy}'\n[tenants.shop.placements]\nhome = '{policy}'")
