"""What a launcher such as torchrun says about this process; a RANK without WORLD_SIZE above 1 says nothing."""

from __future__ import annotations

import os


def launched() -> int:
    """The number of processes that a launcher started, by its variable; 1 without a launcher."""
    size = os.environ.get("WORLD_SIZE", "")
    return max(1, int(size)) if size.isdecimal() else 1


def is_first() -> bool:
    """Whether this is the first of the processes of a launcher, or the only one."""
    return launched() == 1 or os.environ.get("RANK", "0") == "0"
