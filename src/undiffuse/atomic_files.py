"""Files that are whole or absent: written beside their place under a random name, flushed, then renamed.

A temporary file is created exclusively, never through a link, and locked while its writer lives. What a killed writer
leaves is not locked, and the next writer of the same name removes it.
"""

from __future__ import annotations

import glob
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from undiffuse.errors import InputError, MachineError, quote

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed: no lock is needed
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".tmp"


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name when it is complete.

    Raises:
        MachineError: if writing fails; the file is as before then.
    """
    with atomic_set([path]) as (file,):
        yield file


@contextmanager
def atomic_set(paths: Sequence[Path]) -> Iterator[tuple[IO[bytes], ...]]:
    """Binary files that appear under their names when all of them are complete.

    Raises:
        MachineError: if writing fails; all files are as before then, except after a failed renaming.
    """
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(temporary(path)) for path in paths]
            yield tuple(files)
            for file in files:
                file.flush()
                os.fsync(file.fileno())
            for file, path in zip(files, paths, strict=True):
                if fcntl is None:
                    file.close()  # Windows does not rename an open file
                os.replace(file.name, path)
    except OSError as error:
        raise _not_written(paths, error) from error


@contextmanager
def temporary(path: Path, ending: str = "") -> Iterator[IO[bytes]]:
    """A new locked file .NAME.RANDOM[ENDING].tmp beside a path, removed at the end unless it was renamed.

    Args:
        path: the path that the file will get, or belongs to.
        ending: what stands before .tmp.
    """
    remove_stale(path.parent, path.name)
    name = ""
    try:
        with _created(path, ending) as file:
            name = file.name
            yield file
    finally:
        with suppress(OSError):
            os.unlink(name)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder that appears under its name, in place of an empty one, when everything in it is complete.

    Raises:
        MachineError: if writing fails; nothing is left then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent, path.name)
        folder = path.with_name(_hidden(path.name))
        folder.mkdir()
        try:
            with _locked_folder(folder):
                yield folder
                if path.is_dir():
                    path.rmdir()
                os.replace(folder, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise _not_written([path], error) from error


def _not_written(paths: Sequence[Path], error: OSError) -> MachineError:
    names = ", ".join(map(quote, paths))
    return MachineError(f"{names} cannot be written ({error.strerror or error}); nothing was left behind")


def remove_stale(folder: Path, name: str | None = None) -> None:
    """Remove what killed writers have left in a folder: temporary files and folders that nobody has locked.

    Args:
        folder: the folder.
        name: the name that they were to get; None: any.
    """
    pattern = ".*" if name is None else f".{glob.escape(name)}.*"
    for path in folder.glob(pattern + _SUFFIX):
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            try:
                if _lock(handle):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(handle)


def check_places(outputs: Sequence[Path], inputs: Sequence[str | os.PathLike[str]]) -> None:
    """InputError if a file that will be written is one that is read, or a second one would replace a user's file.

    Args:
        outputs: files that will be written; one that exists although the first does not is a user's.
        inputs: names and paths of what is read; those that are no files are ignored.
    """
    first, *others = outputs
    if users := [path for path in others if path.exists() and not first.exists()]:
        raise InputError(f"got {quote(first)} to write, beside which {quote(users[0])} would be replaced; choose "
                         "another name")
    if read := [output for output in outputs if any(_same(output, source) for source in inputs)]:
        raise InputError(f"got {quote(read[0])} to write, which is read too; choose another name")


def _same(output: Path, source: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(output, os.path.expanduser(source))
    except (OSError, ValueError):  # one of them is no file
        return False


@contextmanager
def _created(path: Path, ending: str) -> Iterator[IO[bytes]]:
    """A new locked file; another is made if someone removed it before it was locked."""
    while True:
        with path.with_name(_hidden(path.name, ending)).open("x+b") as file:
            if _lock(file.fileno()) and os.path.exists(file.name):
                yield file
                return


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def _hidden(name: str, ending: str = "") -> str:
    return f".{name}.{uuid.uuid4().hex[:12]}{ending}{_SUFFIX}"


def _lock(handle: int) -> bool:
    """Lock an open file until it is closed; whether that was possible. True where the system has no such locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
