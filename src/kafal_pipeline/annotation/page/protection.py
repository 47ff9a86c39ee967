"""Keeps everybody else away from the page: other people on this machine, and other sites in the same browser."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from flask import Flask, Response, request
from werkzeug.exceptions import Forbidden, UnsupportedMediaType

HOSTS = {"127.0.0.1", "localhost"}
"""Names that the page may have: another one would be one that an attacker has led to this machine."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

LARGEST = 64 * 1024
"""Bytes of a request."""


def protect(app: Flask, token: str) -> None:
    """Have `app` refuse every request without the token, and every host but this machine.

    The token comes in the address or, to change anything, in a header, which no other site's page can set. There is no
    cookie: browsers send those of one port to every other port of the machine.
    """
    app.config["MAX_CONTENT_LENGTH"] = LARGEST

    @app.before_request
    def check() -> None:
        if urlsplit(f"//{request.host}").hostname not in HOSTS:
            raise Forbidden(f"{request.host!r} is not this machine: open the address that the terminal shows.")
        given = request.headers.get("X-Token", "") if request.method == "POST" else request.args.get("token", "")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise Forbidden("Open the address that the terminal shows now: it holds a token, which is missing here.")
        if request.method == "POST" and not request.is_json:
            raise UnsupportedMediaType("JSON is needed.")

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response
