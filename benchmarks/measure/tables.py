"""What the benchmarks print, a line at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.measure import posteriors, stochastic
from benchmarks.measure.orders import PROCESSES, measurable, orders
from benchmarks.measure.solvers import BUDGETS, PUBLISHED, SHOWN, law_distance, problems, solvers
from undiffuse.samplers import ALL


def order_table(methods: list[str] | None = None) -> Iterator[str]:
    """A row per sampler: the claimed order, and the one measured on each process."""
    yield f"{'sampler':20}{'claimed':>9}" + "".join(f"{name:>16}" for name in PROCESSES)
    for name in methods or measurable():
        kind = " weak" if ALL[name].stochastic else ""
        found = "".join(f"{order.measured:16.2f}" for order in orders([name]))
        yield f"{name:20}{ALL[name].order:>4}{kind:5}{found}"


def solver_table(methods: list[str] | None = None) -> Iterator[str]:
    """A row per sampler and law: the median error at each budget; and the distance between laws beside its floor."""
    for law, problem in problems().items():
        yield f"{law}: median error per coordinate after so many evaluations"
        yield f"{'sampler':20}" + "".join(f"{budget:>10}" for budget in BUDGETS)
        yield f"{'best of 57 public':20}" + "".join(f"{error:10.1e}" for error in PUBLISHED[law])
        for name in methods or SHOWN:
            errors = {cell.evaluations: cell.error for cell in solvers([name], on={law: problem})}
            best = (min((e for n, e in errors.items() if n <= budget), default=float("nan")) for budget in BUDGETS)
            yield f"{name:20}" + "".join(f"{error:10.1e}" for error in best)
        found, floor = law_distance(problem, "auto", 10)
        yield f"sliced W2 to the law: {found:.3f} with auto at 10 evaluations, {floor:.3f} between two real samples"


def stochastic_table(methods: list[str] | None = None) -> Iterator[str]:
    """A row per sampler with noise and law: the distance of the radii, and sliced W₂, at each budget."""
    for law, problem in stochastic.problems().items():
        yield f"{law}: Kolmogorov-Smirnov distance of the radii / sliced W2, {problem.n} draws"
        yield f"{'sampler':20}" + "".join(f"{budget:>14}" for budget in stochastic.FEW)
        yield f"{'real draws':20}{_figures(problem.floor)}"
        for name in methods or stochastic.SHOWN:
            yield f"{name:20}" + "".join(map(_figures, stochastic.scores(problem, name)))


def _figures(score: stochastic.Score) -> str:
    return f"{score.radii:8.4f}/{score.distance:.3f}"


TABLES: dict[str, Callable[[list[str] | None], Iterator[str]]] = {
    "orders": order_table, "solvers": solver_table, "stochastic": stochastic_table, "posteriors": posteriors.table,
}
