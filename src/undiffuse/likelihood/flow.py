"""The probability-flow ODE of a block of samples in the frame, each with its own steps, the network in packs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from undiffuse.likelihood.frame import Frame
from undiffuse.likelihood.rows import pack_size, packed, pick
from undiffuse.ode import DORMAND_PRINCE, Solution, Step, solve


class Flow:
    """dy/dλ of the first `keep` of `rows` samples under conditions with one entry a row; here y = u (B, k)."""

    def __init__(self, frame: Frame, rows: int, keep: int | None = None, cond: dict[str, Any] | None = None) -> None:
        self.frame, self.cond, self.keep = frame, cond or {}, rows if keep is None else keep
        self.size, self.real = pack_size(frame.dim), torch.arange(rows) < self.keep
        self.going = self.real

    def watch(self, going: Tensor) -> None:
        """Evaluate only these samples from now on."""
        self.going = going.cpu() & self.real

    def field(self, y: Tensor, lam: Tensor) -> Tensor:
        """dy/dλ (B, ·) at λ (B,), 0 for samples that are finished."""
        rows = self.going.nonzero()[:, 0].to(y.device)
        (slopes,) = packed(lambda part: (self.slope(part, y[part], lam[part]),), rows, self.size)
        return torch.zeros_like(y).index_copy(0, rows, slopes)

    def slope(self, rows: Tensor, y: Tensor, lam: Tensor) -> Tensor:
        """dy/dλ of one pack."""
        D = self.frame.denoise(self.frame.leave(y, lam), lam, self.given(rows))
        return self.frame.slope(y, D.to(y), lam)

    def given(self, rows: Tensor) -> dict[str, Any]:
        """The conditions of some rows."""
        return pick(self.cond, rows)

    def judge(self, step: Step, kept: Tensor) -> Tensor:
        """What the error of a step matters, (B,): here nothing."""
        return torch.zeros_like(step.s)

    def solve(self, y: Tensor, start: Tensor, end: Tensor, rtol: float, atol: float) -> Solution:
        """y at λ = `end` from y at λ = `start`."""
        return solve(DORMAND_PRINCE, self.field, y, start, end, rtol, atol, judge=self.judge, watch=self.watch)
