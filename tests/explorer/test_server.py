"""The loopback server decides rightly about hostile requests, opens no file, and stays alive (reliability, part E)."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import undiffuse as ud
from undiffuse.data.validation import make_table
from undiffuse.errors import InputError
from undiffuse.explorer.run_model import LIMITS, RunModel
from undiffuse.explorer.server import Server, admitted

TOKEN, PORT = "0123456789abcdef0123456789abcdef", 5000
GOOD = {"host": [f"127.0.0.1:{PORT}"]}
ROUTES = ("", "page.css", "page.js", "about", "sample", "field", "stop")


def own(d: int = 2) -> RunModel:
    law = ud.Mixture([0.4, 0.6], np.array([[-1.0, 0.5], [1.0, -0.5]])[:, :d], 0.05)
    data = make_table(law.sample(400, seed=1).numpy(), name="blobs <b>", columns=["<script>", "x2"][:d])
    return RunModel(law.denoiser(ud.VP()), data)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(own()) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def ask(
    server: Server, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def raw(server: Server, text: bytes) -> bytes:
    """What comes back for these bytes; nothing where the connection is closed."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as line:
        line.sendall(text)
        with contextlib.suppress(OSError):  # the server may have answered and closed by now
            line.shutdown(socket.SHUT_WR)
        found = b""
        while part := line.recv(1 << 16):
            found += part
    return found


def test_it_listens_on_this_machine_only(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1" and server.address.startswith("http://127.0.0.1:")
    listening = {
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    }
    assert [a for a in listening if a.endswith(f":{server.server_port:04X}")] == [f"0100007F:{server.server_port:04X}"]


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_well_asked_is_answered(route: str, server: Server) -> None:
    status, body, headers = ask(server, f"/{server.token}/{route}")
    assert status == 200 and len(body) > 1
    assert (
        headers["Content-Security-Policy"].startswith("default-src 'self'")
        and headers["Referrer-Policy"] == "no-referrer"
    )
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


WRONG_TARGETS = (
    "/",
    "",
    "*",
    "//{t}/",
    "/{t}",
    "/{t}//",
    "/{t}/../{t}/",
    "/{t}/%2e%2e/",
    "/{t}/a/b",
    "/{t}/\\",
    "/{t}/\0",
    "/{t}/about#x",
    "/{u}/about",
    "/{t}x/about",
    "http://evil/{t}/about",
    "/{t}/about?<b>",
    "/{T}/about",
    "/{t}/about;x",
    "/{t}/ABOUT",
    "/{t}/about\n",
)
WRONG_HOSTS = (
    [],
    ["evil.example"],
    [f"127.0.0.1:{PORT}", f"127.0.0.1:{PORT}"],
    ["127.0.0.1"],
    [f"127.0.0.1.evil:{PORT}"],
    [f"0.0.0.0:{PORT}"],
    [f"127.0.0.1:{PORT + 1}"],
    [f"LOCALHOST:{PORT}x"],
    [f"evil@127.0.0.1:{PORT}"],
)
WRONG_HEADERS = (
    {"origin": ["null"]},
    {"origin": ["http://evil.example"]},
    {"origin": [f"http://127.0.0.1:{PORT}.evil"]},
    {"origin": [f"https://127.0.0.1:{PORT}"]},
    {"sec-fetch-site": ["cross-site"]},
    {"sec-fetch-site": ["same-site"]},
    {"content-length": ["1"]},
    {"content-length": ["1073741824"]},
    {"transfer-encoding": ["chunked"]},
    {"origin": [f"http://127.0.0.1:{PORT}", "null"]},
)
METHODS = ("POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "get", "TRACE")


def test_two_thousand_hostile_requests_are_refused_and_honest_ones_are_not() -> None:
    names = {"t": TOKEN, "u": TOKEN[::-1], "T": TOKEN.upper()}
    good = [f"/{TOKEN}/{route}" for route in ROUTES]
    assert all(
        admitted("GET", target, GOOD | more, TOKEN, PORT)
        for target in good
        for more in ({}, {"origin": [GOOD["host"][0].join(["http://", ""])]}, {"sec-fetch-site": ["same-origin"]})
    )
    hostile = [("GET", target.format(**names), GOOD) for target in WRONG_TARGETS]
    hostile += [("GET", target, {"host": host}) for target in good for host in WRONG_HOSTS]
    hostile += [("GET", target, GOOD | wrong) for target in good for wrong in WRONG_HEADERS]
    hostile += [(method, target, GOOD | more) for method in METHODS for target in good for more in ({}, *WRONG_HEADERS)]
    hostile += [
        ("GET", target.format(**names), {"host": host, **wrong})
        for target, host, wrong in itertools.product(WRONG_TARGETS, WRONG_HOSTS, WRONG_HEADERS)
    ]
    assert len(hostile) > 2000
    assert [request for request in hostile if admitted(*request, TOKEN, PORT)] == []


def test_the_server_refuses_what_the_guard_refuses_and_opens_no_file(server: Server) -> None:
    opened: list[str] = []
    watching = threading.Event()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and watching.is_set() and threading.current_thread().name.startswith("Thread"):
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    watching.set()
    token, host = server.token.encode(), f"127.0.0.1:{server.server_port}".encode()
    for route in ROUTES:
        assert ask(server, f"/{server.token[::-1]}/{route}")[0] == 403
        assert ask(server, f"/{server.token}/{route}", headers={"Host": "evil.example"})[0] == 403
        assert ask(server, f"/{server.token}/{route}", headers={"Origin": "null"})[0] == 403
        assert ask(server, f"/{server.token}/{route}", "POST")[0] == 403
        assert ask(server, f"/{server.token}/{route}", headers={"Content-Length": "1073741824"})[0] == 403
    for text in (
        b"GET /" + token + b"/about HTTP/1.1\r\n\r\n",
        b"GET /" + token + b"/about HTTP/1.1\r\nHost: " + host + b"\r\nHost: evil\r\n\r\n",
        b"GET /" + token + b"/about HTTP/1.1\r\nHost: " + host + b"\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /" + token + b"/about HTTP/1.1\r\nHost: " + host + b"\r\n" + b"X: a\r\n" * 200 + b"\r\n",
        b"POST /" + token + b"/about HTTP/1.1\r\nHost: " + host + b"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"G" * 100_000,
    ):
        assert b" 200 " not in raw(server, text).split(b"\r\n")[0]
    assert ask(server, f"/{server.token}/about")[0] == 200
    watching.clear()
    assert opened == []


def test_numbers_out_of_range_are_named_and_the_caps_hold(server: Server) -> None:
    for query in ("n=0", f"n={LIMITS['n'] + 1}", "steps=100000", "seed=-1", "method=nonsense", "n=abc"):
        status, body, _ = ask(server, f"/{server.token}/sample?{query}")
        assert status == 400 and "expected" in json.loads(body)["error"]
    assert ask(server, f"/{server.token}/nothing")[0] == 404


def test_samples_are_those_of_the_library(server: Server) -> None:
    body = ask(server, f"/{server.token}/sample?n=50&steps=8&seed=3&method=ddim")[1]
    expected = ud.sample(server.model.model, 50, "ddim", 8, seed=3).x.flatten().tolist()
    assert json.loads(body)["x"][-1] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_one_at_a_time_and_what_is_stopped_ends(server: Server) -> None:
    lock = server.model.lock
    with lock:
        assert ask(server, f"/{server.token}/sample?n=5&steps=2")[0] == 503
        assert ask(server, f"/{server.token}/stop")[0] == 200 and server.model.stopped.is_set()
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: _status(server), range(100)))
    assert set(statuses) <= {200, 503, 0} and ask(server, f"/{server.token}/about")[0] == 200


def _status(server: Server) -> int:
    """The status of one request, 0 where the server has no place for it."""
    try:
        return ask(server, f"/{server.token}/sample?n=20&steps=2&method=ddim")[0]
    except OSError:
        return 0


def test_a_stop_in_the_middle_ends_the_work() -> None:
    asked = own()
    original, asked.stopped = asked.stopped, _SetAfter(3)
    assert original.is_set() is False and asked.answer("sample", "n=10&steps=200&method=ddim") == {"stopped": True}
    assert asked.stopped.looks == 4 and not asked.lock.locked()


class _SetAfter(threading.Event):
    """An event that is set when it is looked at for the fourth time."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left, self.looks = looks, 0

    def is_set(self) -> bool:
        self.looks += 1
        return self.looks > self.left


def test_a_model_of_more_numbers_is_refused() -> None:
    law = ud.Gaussian(torch.zeros(3), 1.0)
    with pytest.raises(InputError, match="one or two numbers"):
        RunModel(law.denoiser(ud.VP()), own().data)
