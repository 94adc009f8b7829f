"""Runs small enough to be made, broken and continued many times in a test."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from undiffuse.data import Dataset
from undiffuse.experiment import Experiment
from undiffuse.random import Purpose, normal

TINY = {"width": 8, "depth": 1, "condition": 4}


def points(n: int = 50, classes: int = 0) -> Dataset:
    """Points in the plane, with labels if there are classes."""
    x = normal(9, Purpose.DATA, 99, 0, n, (2,)) * torch.tensor([2.0, 0.5])
    y = torch.arange(n) % classes if classes else None
    return Dataset(x, y, "points", "test points", tuple(map(str, range(classes))), ("a", "b"))


def experiment(**changes: object) -> Experiment:
    """An experiment of 12 updates of a tiny network on `points`."""
    return Experiment(**{"data": "memory", "net_args": TINY, "steps": 12, "batch_size": 16, "warmup": 3,
                         "save_every": 4,
                         "device": "cpu", "lr": 0.01, **changes})


def final(folder: Path) -> dict[str, Tensor]:
    """All tensors of the last checkpoint of a run, as any safetensors reader sees them."""
    files = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.stem.removeprefix("checkpoint-")))
    return load_file(files[-1])


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two sets of tensors are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name].view(torch.int32), b[name].view(torch.int32)) for name in a)


def measured(folder: Path) -> list[dict[str, object]]:
    """The entries of metrics.jsonl without what a clock decides."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("rate", "seconds")} for line in lines]


def in_child(work: Callable[[], object]) -> int:
    """The process number of a fork that does some work and exits, with 0, the code it asks for, or 99 for an error."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        work()
        code = 0
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def code_of(pid: int) -> int:
    """The exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is one: these tests are about order and kills, not about the disk."""
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shm if os.access(shm, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Crash:
    """Counts the system calls of a save in this process, and ends it in the middle of number `last`."""

    def __init__(self, last: int) -> None:
        self.left = last
        self.calls: list[str] = []

    def tick(self, name: str, torn: object = None) -> None:
        self.calls.append(name)
        self.left -= 1
        if self.left == 0:
            if callable(torn):
                torn()
            os._exit(77)

    def install(self) -> None:
        for name in ("fsync", "replace", "unlink"):
            self._wrap(name)
        opened = Path.open

        def open_(path: Path, *args: object) -> object:
            self.tick("open")
            stream = opened(path, *args, buffering=0)
            return Torn(stream, self) if args and args[0] in ("wb", "x+b") else stream

        Path.open = open_  # type: ignore[assignment, method-assign]

    def _wrap(self, name: str) -> None:
        real = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            self.tick(f"{name} {'folder' if name == 'fsync' and os.path.isdir(f'/proc/self/fd/{args[0]}') else ''}")
            return real(*args, **kwargs)

        setattr(os, name, call)


class Torn:
    """A file of which the last write before the crash arrives by half."""

    def __init__(self, stream: object, crash: Crash) -> None:
        self.stream, self.crash = stream, crash

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def write(self, data: bytes) -> None:
        self.crash.tick("write", lambda: self.stream.write(data[: len(data) // 2]))
        self.stream.write(data)
