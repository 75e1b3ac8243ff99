"""The tag that a shop puts on its pages: one small script, stripped of comments when a worker starts."""

import gzip
import hashlib
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thinslice.web.context import Context

SOURCE = Path(__file__).parent / "static" / "tag.js"

TOKEN = re.compile(
    r"""
    (?P<text>'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")
    | (?P<comment>//[^\n]*|/\*.*?\*/)
    | (?P<space>\s+)
    | (?P<word>[\w$]+)
    | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def stripped(source: str) -> str:
    r"""JavaScript without comments and without white space that means nothing.

    It knows texts in quotes, comments, words and marks; the source must end its statements with semicolons and must
    hold neither regular expressions nor template texts, which a test checks.

    >>> stripped("var a = 1; // one\nif (a + +a) { call('a  // b'); }")
    "var a=1;if(a+ +a){call('a  // b');}"
    """
    out: list[str] = []
    gap = False
    for token in TOKEN.finditer(source):
        kind, text = token.lastgroup, token.group()
        if kind in ("comment", "space"):
            gap = True
            continue
        before = out[-1][-1] if out else ""
        joins = (_wordy(before) and _wordy(text[0])) or (before == text[0] and text in "+-")
        if gap and joins:
            out.append(" ")
        out.append(text)
        gap = False
    return "".join(out)


def _wordy(letter: str) -> bool:
    return letter.isalnum() or letter in ("_", "$")


def routes(context: Context) -> list[Route]:  # noqa: ARG001
    """`/tag.js`, packed when the browser takes it so, kept for ten minutes and asked for by its hash after that."""
    plain = stripped(SOURCE.read_text(encoding="utf-8")).encode()
    packed = gzip.compress(plain, 9, mtime=0)
    name = hashlib.sha256(plain).hexdigest()[:16]
    shared = {
        "Cache-Control": "public, max-age=600",
        "Vary": "Accept-Encoding",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
    }

    async def tag(request: Request) -> Response:
        takes_gzip = takes(request.headers.get("accept-encoding", ""), "gzip")
        etag = f'"{name}-gzip"' if takes_gzip else f'"{name}"'
        headers = {**shared, "ETag": etag}
        known = request.headers.get("if-none-match", "").split(",")
        if any(each.strip().removeprefix("W/") in (etag, "*") for each in known):
            return Response(status_code=304, headers=headers)
        if takes_gzip:
            headers["Content-Encoding"] = "gzip"
        return Response(packed if takes_gzip else plain, media_type="text/javascript", headers=headers)

    return [Route("/tag.js", tag)]


def takes(accepted: str, coding: str) -> bool:
    """Whether a browser that sent this Accept-Encoding takes a coding.

    >>> takes("gzip, deflate, br", "gzip"), takes("br;q=1.0, gzip;q=0", "gzip"), takes("", "gzip")
    (True, False, False)
    """
    for part in accepted.lower().split(","):
        name, *settings = (each.strip() for each in part.split(";"))
        if name == coding:
            return not any(re.fullmatch(r"q\s*=\s*0(\.0*)?", each) for each in settings)
    return False
