"""`python -m benchmarks NAME [arguments]`: a table of `benchmarks.measure`, or a file of this folder with a `table`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.measure.tables import TABLES
from undiffuse.errors import UndiffuseError

HERE = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))


def main(words: list[str]) -> int:
    """Run one benchmark, or the quick ones, on one thread."""
    torch.set_num_threads(1)
    names = words[:1] or ["solvers", "overhead"]
    if names[0] not in (*TABLES, *HERE):
        print(f"benchmarks: got {names[0]!r}; expected one of {', '.join((*TABLES, *HERE))}", file=sys.stderr)
        return 2
    try:
        for name in names:
            for line in table(name)(*words[1:]):
                print(line, flush=True)
    except UndiffuseError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


def table(name: str) -> Callable[..., Iterator[str]]:
    """The lines of a benchmark."""
    if name in HERE:
        found: Callable[..., Iterator[str]] = import_module(f"benchmarks.{name}").table
        return found
    return lambda *words: TABLES[name](list(words) or None)


sys.exit(main(sys.argv[1:]))
