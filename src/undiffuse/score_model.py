"""Models given by a score of any process, and the reverse of a process as a process.

dx = [f − ½ (1 + η²) (∇(g²) + g² ∇log p_t)] dt + η g dw, run with decreasing t; η = 1 is Anderson's, η = 0 the ODE.

Reference: Anderson (1982); Song et al. (2021), eqs. 6 and 13. arXiv:2011.13456
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from undiffuse.model import ReverseModel
from undiffuse.random import Purpose, normal
from undiffuse.sde import SDE, Time
from undiffuse.tensors import ArrayLike


class ScoreModel(ReverseModel):
    """A score s(x, t) ≈ ∇log p_t(x) of any process, non-linear ones too, with the prior N(mean, std²) at T.

    `score_fn(x, t)` is a function or a network. The reverse drift includes ∇(g²) where the diffusion depends on x.
    """

    def __init__(self, score_fn: Callable[[Tensor, Time], Tensor], sde: SDE, *, shape: tuple[int, ...],
                 prior_mean: Tensor | float = 0.0, prior_std: Tensor | float = 1.0) -> None:
        super().__init__()
        self.score_fn, self.sde, self.shape = score_fn, sde, tuple(shape)
        self.prior_mean, self.prior_std = torch.as_tensor(prior_mean), torch.as_tensor(prior_std)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def process(self) -> SDE:
        """The process."""
        return self.sde

    def score(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """s(x, t)."""
        return self.score_fn(self.states(x), t)

    def reverse_drift(self, x: ArrayLike, t: Time, eta: float = 1.0, **cond: Any) -> Tensor:
        """f − ½ (1 + η²) (∇(g²) + g² s)."""
        x = self.states(x)
        g2, gradient = self._g2_and_gradient(x, t)
        return self.sde.drift(x, t) - 0.5 * (1 + eta**2) * (gradient + g2 * self.score(x, t))

    def prior_sample(self, n: int, seed: int, first_index: int, t: float | None = None) -> Tensor:
        """Draws of N(mean, std²), (n, *shape).

        Args:
            n: number of draws.
            seed: seed of the draws.
            first_index: index of the first draw.
            t: the start time; not used, the prior is the same for all.
        """
        z = normal(seed, Purpose.INIT, 0, first_index, n, self.shape, self.dtype)
        return self.prior_mean.to(z) + self.prior_std.to(z) * z

    def _g2_and_gradient(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """g² and its gradient in x."""
        with torch.enable_grad():
            y = x.detach().requires_grad_(True)
            g2 = self.sde.diffusion(y, t) ** 2
            gradient = torch.autograd.grad(g2.sum(), y)[0] if g2.requires_grad else torch.zeros_like(x)
        return g2.detach(), gradient


@dataclass(frozen=True)
class ReverseSDE(SDE):
    """The reverse of a process is a process: dx = [f − ½ (1 + η²) g² s] dt + η g dw, run with decreasing t."""

    model: ReverseModel
    eta: float
    cond: dict[str, Any]

    @property
    def T(self) -> float:  # type: ignore[override]
        """The time at which it starts."""
        return self.model.process().T

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """f − ½ (1 + η²) g² s."""
        return self.model.reverse_drift(x, t, self.eta, **self.cond)

    def diffusion(self, x: Tensor, t: Time) -> Tensor:
        """η g."""
        return self.eta * self.model.process().diffusion(x, t)


def reverse(model: ReverseModel, eta: float = 1.0, **cond: Any) -> ReverseSDE:
    """The reverse SDE of a model: η = 1 is Anderson's, η = 0 the probability-flow ODE; all η share the marginals p_t.

    Reference: Anderson (1982); Song et al. (2021), eqs. 6 and 13. arXiv:2011.13456
    """
    return ReverseSDE(model, eta, cond)
