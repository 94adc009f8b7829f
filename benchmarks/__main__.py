"""`python -m benchmarks [orders | solvers | overhead | auto | search | figures] [arguments]`."""

from __future__ import annotations

import sys

import torch

from benchmarks import auto, figures, overhead, search
from undiffuse.bench.tables import order_table, solver_table

BENCHMARKS = {"orders": order_table, "solvers": solver_table, "overhead": overhead.table, "auto": auto.table,
              "search": search.table, "figures": figures.draw}


def main(words: list[str]) -> int:
    """Run one benchmark, or the quick ones, on one thread."""
    torch.set_num_threads(1)
    names = words[:1] or ["solvers", "overhead"]
    if names[0] not in BENCHMARKS:
        print(f"benchmarks: got {names[0]!r}; expected one of {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names:
        for line in BENCHMARKS[name](*words[1:]):
            print(line, flush=True)
    return 0


sys.exit(main(sys.argv[1:]))
