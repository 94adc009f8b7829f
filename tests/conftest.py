"""What holds in every test: one thread each, no screen, no network, and the same examples every time."""

from __future__ import annotations

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # two workers of xdist would fight for two cores
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"

from hypothesis import settings

settings.register_profile("house", derandomize=True, deadline=None, database=None)
settings.load_profile("house")


def _refuse_network(event: str, args: tuple[object, ...]) -> None:
    """An audit hook: a connection that leaves this machine is an error."""
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in ("127.0.0.1", "::1", "localhost"):
        raise PermissionError(f"a test tried to reach {args[1]}; the tests work without a network")


sys.addaudithook(_refuse_network)
