"""A step fitted class by class: every class has coefficients, and where that helps a linear part, of its own.

All classes have the same nodes, and the model is asked once for a whole batch. A batch as a whole is turned to the
coordinates of each linear part, and every class keeps its own rows, so that a row is the same bytes whatever is beside
it. In `Part.rows`, None stands for all classes that have nothing of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.steps.kernel import Data
from undiffuse.steps.rows import Row, row
from undiffuse.steps.state import Node, State


class Part(NamedTuple):
    """A linear part, and the rows, one a step, of the classes that have it."""

    kernel: Data
    rows: dict[int | None, list[Row]]


@dataclass(frozen=True)
class ByClass:
    """The multistep method that combines `order` values, made of such parts."""

    parts: Sequence[Part]
    order: int

    def __call__(self, state: State, s: Node) -> State:
        """One step: evaluate once, move every row by the numbers of its class."""
        i, node, old = state.index, state.node, state.memory or [()] * len(self.parts)
        D = state.model.denoise(state.x, node)
        ys = [part.kernel.enter(state.x, node) for part in self.parts]
        new = [(part.kernel.value(y, D, node), *values)[: self.order]
               for part, y, values in zip(self.parts, ys, old, strict=True)]
        return state.moved(self._left(state, s, [
            {c: rows[i](y, values, None) for c, rows in part.rows.items()}
            for part, y, values in zip(self.parts, ys, new, strict=True)]), s, new)

    def jump(self, state: State, s: Node) -> State:
        """The flow of a Gaussian with the moments of the part, at no evaluation (`start.jump`)."""
        ys = [part.kernel.enter(state.x, state.node) for part in self.parts]
        moved = [y * row(part.kernel, state.node, s, [0.0], like=y).carry
                 for part, y in zip(self.parts, ys, strict=True)]
        return state.moved(self._left(state, s, [dict.fromkeys(part.rows, y) for part, y in
                                                 zip(self.parts, moved, strict=True)]), s)

    def _left(self, state: State, s: Node, moved: Sequence[dict[int | None, Tensor]]) -> Tensor:
        """The states at s, of every row in the coordinates and by the numbers of its class."""
        asked = state.model.cond["label"]  # None: as all classes that have nothing of their own
        label = torch.as_tensor(-1 if asked is None else asked, device=state.x.device).expand(len(state.x))
        own = torch.tensor([c for ys in moved for c in ys if c is not None], device=label.device)
        x = torch.zeros_like(state.x)
        for part, ys in zip(self.parts, moved, strict=True):
            y, mine = torch.zeros_like(next(iter(ys.values()))), torch.zeros_like(label, dtype=torch.bool)
            for c, each in ys.items():
                rows = ~torch.isin(label, own) if c is None else label == c
                y, mine = torch.where(rows[:, None], each, y), mine | rows
            there = part.kernel.leave(y, s)
            x = torch.where(mine.view(-1, *[1] * (x.ndim - 1)), there, x)
        return x
