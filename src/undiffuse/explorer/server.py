"""The loopback server of `undiffuse explore --run RUN`: the page's files from memory, and the model's answers.

It binds 127.0.0.1 only. Every request passes `admitted` before anything else is read: the path must contain the token,
the one Host header must be this loopback address, the Origin must be absent or this server, and the request must not
have a body. This refuses pages of other origins, DNS rebinding and guessed addresses. No request opens a file;
connections close after the answer or ten seconds of silence, and at most 32 are open at a time.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
import threading
from collections.abc import Mapping, Sequence
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from undiffuse.errors import InputError
from undiffuse.explorer.page import data, read, script
from undiffuse.explorer.run_model import Busy, RunModel

_TARGET = re.compile(r"/([0-9a-f]{32})/([a-z.]{0,16})(?:\?([a-z0-9_=&.,-]{0,200}))?", re.ASCII)
_SITES = ("none", "same-origin")

Headers = Mapping[str, Sequence[str]]


def admitted(method: str, target: str, headers: Headers, token: str, port: int) -> tuple[str, str] | None:
    """(route, query) of a request that may be answered, else None.

    Sec-Fetch-Site may be none (navigation by the user), same-origin (the page itself) or absent.

    Args:
        method: HTTP method; only GET is answered.
        target: path and query.
        headers: all values by lower-case name.
        token: the secret part of the path.
        port: port of the server.
    """
    match = _TARGET.fullmatch(target)
    hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
    host = headers.get("host", ())
    if match is None or method != "GET" or len(host) != 1 or host[0] not in hosts:
        return None
    checks = (compare_digest(match[1], token), not headers.get("content-length"), not headers.get("transfer-encoding"),
            all(origin == f"http://{host[0]}" for origin in headers.get("origin", ())),
            all(site in _SITES for site in headers.get("sec-fetch-site", ())))
    return (match[2], match[3] or "") if all(checks) else None


_OPEN = 32
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; worker-src blob:; "
                               "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
}
_START = """
fetch("about").then((answer) => answer.json()).then((own) => {
  window.undiffuse = explorer();
  window.app = window.undiffuse.page(document.getElementById("explorer"), DATA, {source: explorer, own});
});
"""
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>SDE explorer</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="page.css">
</head><body><div id="explorer"></div><script src="page.js"></script></body></html>"""


class Server(ThreadingHTTPServer):
    """The server of one model; `address` is the address of the page, with its token."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, model: RunModel, port: int = 0) -> None:
        self.model, self.token, self.slots = model, secrets.token_hex(16), threading.BoundedSemaphore(_OPEN)
        start = f"{script()}\nconst DATA = {data()};\n{_START}"
        self.files: Mapping[str, tuple[str, bytes]] = {
            "": ("text/html; charset=utf-8", _PAGE.encode()),
            "page.css": ("text/css; charset=utf-8", read("explorer.css").encode()),
            "page.js": ("text/javascript; charset=utf-8", start.encode()),
        }
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/#v=1&view=own"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for the connection, or close it if too many are open."""
        if self.slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection and release its slot."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Ignore clients that disconnect."""

    def respond(self, route: str, query: str) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer to an admitted request."""
        if route in self.files:
            return 200, *self.files[route]
        try:
            status, answer = 200, self.model.answer(route, query)
        except KeyError:
            status, answer = 404, {"error": "unknown route"}
        except Busy:
            status, answer = 503, {"error": "busy"}
        except (InputError, ValueError) as error:
            status, answer = 400, {"error": str(error)}
        return status, "application/json", json.dumps(answer).encode()


class _Handler(BaseHTTPRequestHandler):
    """One request per connection."""

    server: Server
    timeout = 10
    server_version, sys_version = "undiffuse", ""

    def _answer(self) -> None:
        headers = {name.lower(): self.headers.get_all(name, []) for name in self.headers}
        allowed = admitted(self.command, self.path, headers, self.server.token, self.server.server_port)
        status, kind, body = self.server.respond(*allowed) if allowed else (403, "text/plain", b"refused\n")
        self.close_connection = True
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
