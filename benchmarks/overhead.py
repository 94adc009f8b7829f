"""The cost of a step against a loop whose noise is torch.randn."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.measure.overhead import overheads


def table(*methods: str) -> Iterator[str]:
    """A row per sampler and shape; of stochastic ones the limits are 10 and 2.5, of the others 4 and 1.5."""
    yield f"{'sampler':16}{'shape':>18}{'ours, us':>10}{'loop, us':>10}{'ratio':>8}"
    for row in overheads(draw=lambda x: torch.randn(x.shape), methods=list(methods) or None):
        yield f"{row.method:16}{row.shape!s:>18}{row.ours:10.1f}{row.loop:10.1f}{row.ratio:8.2f}"
