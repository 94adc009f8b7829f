"""`undiffuse bench orders | solvers | stochastic | overhead | posteriors | tuned`."""

from __future__ import annotations

from typing import Literal


def bench(what: Literal["orders", "solvers", "stochastic", "overhead", "posteriors", "tuned"], /, *,
          methods: str | None = None) -> None:
    """Measure the samplers against closed-form truth, and print a table.

    Args:
        what: orders: the order of each, claimed and measured, on every process. solvers: error against evaluations on
            laws that are known exactly. stochastic: the same for those with noise, by the law of their samples.
            overhead: the cost of a step beside a minimal loop. posteriors: samplers of p(x | y) beside the exact
            posterior. tuned: samplers fitted to the model, beside the best
            published one on any grid.
        methods: The samplers, such as ddim,heun; those of the documentation by default. For tuned: laws, of plane,
            clusters, digits, with a seed as in plane:3, and folders of runs. For posteriors: methods, and laws of
            plane, lattice, digits.
    """
    from undiffuse.bench.tables import TABLES
    from undiffuse.steps import method_of

    names = methods.split(",") if methods else None
    for name in names or [] if what not in ("posteriors", "tuned") else []:
        method_of("ddim" if name in ("auto", "sde") else name)
    for line in TABLES[what](names):
        print(line, flush=True)
