"""`undiffuse bench orders | solvers | stochastic | overhead | posteriors | tuned`."""

from __future__ import annotations

from functools import partial
from typing import Literal


def bench(what: Literal["orders", "solvers", "stochastic", "overhead", "posteriors", "tuned"], /, *,
          methods: str | None = None, evaluations: str | None = None, starts: int | None = None) -> None:
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
        evaluations: For tuned: numbers of evaluations, such as 3,5,8.
        starts: For tuned: how many paths each model is measured on. A path that ends in another mode, one in some
            hundreds, weighs much in the mean square of a few.
    """
    from undiffuse.bench.tables import TABLES
    from undiffuse.bench.tuned import tuned_table
    from undiffuse.cli.select import budgets_of
    from undiffuse.errors import InputError
    from undiffuse.steps import method_of
    from undiffuse.tuning import EVALUATIONS

    if what != "tuned" and (evaluations, starts) != (None, None):
        raise InputError(f"got --evaluations or --starts for {what}; they are for tuned, so leave them out")
    if starts is not None and starts < 16:
        raise InputError(f"got --starts {starts}; expected 16 or more, such as 2048")

    names = methods.split(",") if methods else None
    for name in names or [] if what not in ("posteriors", "tuned") else []:
        method_of("ddim" if name in ("auto", "sde") else name)
    table = TABLES[what]
    if what == "tuned":
        table = partial(tuned_table, budgets=tuple(budgets_of(evaluations)) if evaluations else EVALUATIONS, n=starts)
    for line in table(names):
        print(line, flush=True)
