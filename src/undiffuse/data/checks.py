"""What every reader refuses: broken files, files that unpack to something enormous, unknown names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from undiffuse.errors import InputError, UndiffuseError, quote

_SMALL = 256 << 20
_RATIO = 100


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """A block that decodes a file: what a decoder raises becomes one InputError naming the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UndiffuseError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"there is no file {quote(path)}") from None
    except Exception as error:
        reason = " ".join(ascii(str(error))[1:-1].split())[:160] or type(error).__name__
        raise InputError(f"{quote(path)} cannot be read as {what} ({reason}); "
                         "check that the file is whole and of this type") from error


def refuse_bomb(path: Path, unpacked: int) -> None:
    """Refuse a compressed file that says it unpacks to over 256 MiB and over a hundred times its own size."""
    if unpacked > max(_SMALL, _RATIO * path.stat().st_size):
        raise InputError(f"{quote(path)} would unpack to {unpacked:,} bytes, more than {_RATIO} times its "
                         "size; if this is meant, save it without compression")


def check_first(first: int | None) -> None:
    """Refuse a number of first rows that is less than two."""
    if first is not None and first < 2:
        raise InputError(f"got first={first}; expected at least 2 rows, or none, which is all of them")


def first_line(error: Exception) -> str:
    """What an error says, or else what it is, in at most 200 characters."""
    return " ".join(str(error).split("\n")[0].split())[:200] or type(error).__name__
