"""Settings: what is wrong in the file is said with its place, and defaults hold."""

import pytest

from thinslice.errors import BadSettings, UnknownName
from thinslice.settings import Settings, Workspace, parse_settings, read_settings


def test_an_empty_file_is_all_defaults():
    assert parse_settings("") == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serve]\nport = 'x'", "serve.port"),
        ("[serve]\nportt = 1", "portt"),
        ("[serve", "not valid TOML"),
        ("[tenants.shop]\norigins = 'a'", "origins"),
    ],
)
def test_a_wrong_setting_is_named(text, said):
    with pytest.raises(BadSettings, match=said.replace(".", r"\.")):
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
