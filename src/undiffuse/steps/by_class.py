"""A step fitted class by class: every class has coefficients, and where that helps a linear part, of its own.

All classes have the same nodes, and the model is asked once for a whole batch. A batch as a whole is turned to the
coordinates of each linear part, and every class keeps its own rows, so that a row is the same bytes whatever is beside
it. The class `REST` stands for all that have nothing of their own.
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

REST = -1


class Part(NamedTuple):
    """A linear part, and the rows, one a step, of the classes that have it."""

    kernel: Data
    rows: dict[int, list[Row]]


@dataclass(frozen=True)
class ByClass:
    """The multistep method that combines `order` values, made of such parts."""

    parts: Sequence[Part]
    order: int

    def __call__(self, state: State, s: Node) -> State:
        """One step: evaluate once, move every row by the numbers of its class."""
        i, node, label, parts = state.index, state.node, *self._there(state)
        D = state.model.denoise(state.x, node)
        ys = [part.kernel.enter(state.x, node) for part in parts]
        new = [(part.kernel.value(y, D, node), *values)[: self.order]
               for part, y, values in zip(parts, ys, state.memory or [()] * len(parts), strict=True)]
        moved = [{c: rows[i](y, values, None) for c, rows in part.rows.items()}
                 for part, y, values in zip(parts, ys, new, strict=True)]
        return state.moved(self._left(state.x, s, label, parts, moved), s, new)

    def jump(self, state: State, s: Node) -> State:
        """The flow of a Gaussian with the moments of the part, at no evaluation (`start.jump`)."""
        label, parts = self._there(state)
        ys = [part.kernel.enter(state.x, state.node) for part in parts]
        moved = [dict.fromkeys(part.rows, y * row(part.kernel, state.node, s, [0.0], like=y).carry)
                 for part, y in zip(parts, ys, strict=True)]
        return state.moved(self._left(state.x, s, label, parts, moved), s)

    def _there(self, state: State) -> tuple[Tensor, list[Part]]:
        """The classes (B,) of a batch, and the parts with those that it has."""
        asked, own = state.model.cond["label"], {c for part in self.parts for c in part.rows}
        label = torch.as_tensor(REST if asked is None else asked).expand(len(state.x))
        label = torch.tensor([c if c in own else REST for c in label.tolist()], device=state.x.device)
        there = set(label.tolist())
        found = (Part(kernel, {c: each for c, each in rows.items() if c in there}) for kernel, rows in self.parts)
        return label, [part for part in found if part.rows]

    @staticmethod
    def _left(like: Tensor, s: Node, label: Tensor, parts: Sequence[Part], moved: Sequence[dict[int, Tensor]]
              ) -> Tensor:
        """The states at s, of every row in the coordinates and by the numbers of its class."""
        x = torch.zeros_like(like)
        for part, ys in zip(parts, moved, strict=True):
            y, mine = torch.zeros_like(next(iter(ys.values()))), torch.zeros_like(label, dtype=torch.bool)
            for c, each in ys.items():
                y, mine = torch.where((label == c)[:, None], each, y), mine | (label == c)
            x = torch.where(mine.view(-1, *[1] * (x.ndim - 1)), part.kernel.leave(y, s), x)
        return x
