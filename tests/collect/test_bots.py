"""Who is a program."""

import pytest

from thinslice.collect import is_bot_agent


@pytest.mark.parametrize(
    "agent",
    ["Googlebot/2.1", "curl/8.5.0", "python-requests/2.32", "Mozilla/5.0 (X11) HeadlessChrome/126.0", "AhrefsBot/7.0"],
)
def test_programs_that_say_so_are_bots(agent):
    assert is_bot_agent(agent)


@pytest.mark.parametrize(
    "agent",
    [
        "",
        "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
        "Mozilla/5.0 (Linux; Android 14; CUBOT X70) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36",
    ],
)
def test_browsers_are_not_bots(agent):
    assert not is_bot_agent(agent)
