"""Guided denoisers: D_y = D + V Aᵀ (A W Aᵀ + R)⁻¹ (y − A D), the mean of x_0 given x_t and y if x_0 | x_t ~ N(D, V).

The methods differ in the W that stands for Cov(x_0 | x_t) inside the inverse:

    mmps     V itself, σ̂² times the denoiser's Jacobian
    tmpd     the diagonal of its row sums
    pigdm    s² σ̂²/(s² + σ̂²) I, as for Gaussian data of deviation s in every direction
    wiener   the same in the frame of the data's moments

All are exact if x_0 is Gaussian with the moments that W assumes; on other data all are approximations.

Reference: Song et al. (2023), PiGDM, ICLR; Boys et al. (2023), TMPD, arXiv:2310.06721; Rozet et al. (2024), MMPS,
arXiv:2405.13712.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.inverse.belief import Belief, belief
from undiffuse.inverse.observation import Apply, Local, Observation
from undiffuse.model import Model, Wrapper
from undiffuse.sde import Time, as_time

Surrogate = Callable[[Belief], Tensor | Apply]
"""The W of a method."""


class Guided(Wrapper):
    """The denoiser of p(x | y) as a method has it; `y=` as a condition of the call takes the place of the observed y.

    iterations: of conjugate gradients, where events have over 64 entries; a trained network's Jacobian is not quite
    symmetric, and more than two or three follow its errors.
    """

    takes = ("y",)

    def __init__(self, inner: Model, observation: Observation, surrogate: Surrogate, iterations: int = 2) -> None:
        super().__init__(inner)
        self.observation, self.surrogate, self.iterations = observation, surrogate, iterations

    def denoise(self, x: Tensor, t: Time, *, y: Tensor | None = None, **cond: Any) -> Tensor:
        """D_y."""
        if float(self.sde.alpha(as_time(t)).min()) == 0:
            return self.inner.denoise(x, t, **cond)
        seen = belief(self.inner, x, t, cond)
        local = self.observation.local(seen.mean, seen.left, y)
        w = local.solve(self.surrogate(seen), self.iterations)
        return seen.mean + moved(seen, local, w).reshape(x.shape).to(x)


def moved(seen: Belief, local: Local, w: Tensor) -> Tensor:
    """V Aᵀ w, (B, d)."""
    pulled = local.pull(w)
    if seen.dense:
        return (seen.matrix @ pulled.double()[..., None])[..., 0]
    return seen.apply(pulled)


def mmps(seen: Belief) -> Tensor | Apply:
    """V."""
    return seen.matrix if seen.dense else seen.apply


def tmpd(seen: Belief) -> Tensor | Apply:
    """diag(V 1), its negative entries 0."""
    rows = seen.matrix.sum(2) if seen.dense else seen.apply(torch.ones_like(seen.x).flatten(1))
    return _diagonal(seen, rows.clamp_min(0))


def pigdm(seen: Belief) -> Tensor | Apply:
    """s² σ̂²/(s² + σ̂²) I."""
    return _diagonal(seen, seen.left.reshape(-1, 1).expand(len(seen.x), math.prod(seen.x.shape[1:])))


def wiener(seen: Belief) -> Tensor | Apply:
    """U diag(s² σ̂²/(s² + σ̂²)) Uᵀ with the data's moments."""
    frame = seen.model.moments
    if frame is None:
        raise InputError("got a model without the data's moments for method wiener; expected one that stores them")
    spectrum = frame.spectrum.to(seen.x.device)
    level2 = seen.level2.reshape(-1, 1).to(spectrum)
    kept = (spectrum * level2 / (spectrum + level2)).to(seen.x)

    def apply(u: Tensor) -> Tensor:
        return frame.back(kept * frame.rotate(u.reshape(-1, *frame.shape))).flatten(1)

    return apply if not seen.dense else _formed(apply, seen)


SURROGATES: dict[str, Surrogate] = {"mmps": mmps, "tmpd": tmpd, "pigdm": pigdm, "wiener": wiener}


def _diagonal(seen: Belief, values: Tensor) -> Tensor | Apply:
    if seen.dense:
        return torch.diag_embed(values.double())
    return lambda u: values.to(u) * u


def _formed(apply: Apply, seen: Belief) -> Tensor:
    """The matrix of a function, (B or 1, d, d)."""
    d = math.prod(seen.x.shape[1:])
    rows = [apply(e.expand(len(seen.x), d)) for e in torch.eye(d).to(seen.x)]
    return torch.stack(rows, 1).double()
