"""`undiffuse bench orders | solvers | overhead`."""

from __future__ import annotations

from typing import Literal


def bench(what: Literal["orders", "solvers", "overhead"], /, *, methods: str | None = None) -> None:
    """Measure the samplers against closed-form truth, and print a table.

    Args:
        what: orders: the order of each, claimed and measured, on every process. solvers: error against evaluations on
            laws that are known exactly. overhead: the cost of a step beside a minimal loop.
        methods: The samplers, such as ddim,heun; those of the documentation by default.
    """
    from undiffuse.bench.tables import TABLES
    from undiffuse.steps import method_of

    names = methods.split(",") if methods else None
    for name in names or []:
        method_of(name if name != "auto" else "ddim")
    for line in TABLES[what](names):
        print(line, flush=True)
