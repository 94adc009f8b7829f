"""Who may ask the loopback server: one check, before anything else is looked at.

A page of another origin, a rebound name and a guessed address all fail it: the address must hold the token, the Host
must be this loopback address and be said once, the Origin must be absent or this one, nothing may come with a body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hmac import compare_digest

_TARGET = re.compile(r"/([0-9a-f]{32})/([a-z.]{0,16})(?:\?([a-z0-9_=&.,-]{0,200}))?", re.ASCII)
_SITES = ("none", "same-origin")

Headers = Mapping[str, Sequence[str]]


def admitted(method: str, target: str, headers: Headers, token: str, port: int) -> tuple[str, str] | None:
    """(route, query) of a request that may be answered, None of any other; headers by lower-case name, all values.

    A navigation by the user (Sec-Fetch-Site: none), a request of the page itself (same-origin) and a client that sends
    no such header are let in, each with the token only.
    """
    found = _TARGET.fullmatch(target)
    hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
    host = headers.get("host", ())
    if found is None or method != "GET" or len(host) != 1 or host[0] not in hosts:
        return None
    fine = (compare_digest(found[1], token), not headers.get("content-length"), not headers.get("transfer-encoding"),
            all(origin == f"http://{host[0]}" for origin in headers.get("origin", ())),
            all(site in _SITES for site in headers.get("sec-fetch-site", ())))
    return (found[2], found[3] or "") if all(fine) else None
