"""Bots: visitors that are programs are tagged, never dropped, and no model or metric counts them."""

import re
from functools import lru_cache

_AGENTS = re.compile(
    r"(?<!cu)bot\b|crawl|spider|slurp|headless|phantomjs|selenium|puppeteer|playwright|scrapy|python-requests|"
    r"python-urllib|httpx/|aiohttp|curl/|wget/|libwww|java/|go-http-client|okhttp|facebookexternalhit|preview|"
    r"lighthouse|pagespeed|monitor|uptime|pingdom|archiver|feedfetcher",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def is_bot_agent(user_agent: str) -> bool:
    """Whether a browser's User-Agent names a program; an empty one says nothing.

    >>> is_bot_agent("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")
    True
    >>> is_bot_agent("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
    False
    """
    return bool(user_agent) and _AGENTS.search(user_agent) is not None
