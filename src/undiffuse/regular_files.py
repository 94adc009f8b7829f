"""Opening of files that a user names: pipes and devices, which may never end, are refused."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from undiffuse.errors import InputError, quote


def open_regular(path: Path | str) -> BufferedReader:
    """A file, open for reading in binary; InputError if it is a pipe or a device, OSError as by `open`."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(21, "Is a directory", str(path))
        raise InputError(f"got {quote(path)}, which is a pipe or a device; expected a file")
    return os.fdopen(handle, "rb")
