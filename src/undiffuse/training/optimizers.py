"""Adam, AdamW and Muon on one vector, and the learning rate schedule.

The parameters of the network are views of one vector, so that an update is ten operations for any number of layers, and
the optimizer's state is three tensors.

Muon updates hidden matrices by steps whose singular values are all near 1, so that every direction learns equally fast:

    m ← β₁ m + (1 − β₁) g,   w ← (1 − η·decay) w − η · 0.2 √max(a, b) · O(g + β₁ (m − g))   for w of a x b numbers

O is five steps of a polynomial iteration that brings the singular values of a matrix to about 1 and keeps its singular
vectors; with the factor before it a step is as long as one of AdamW at the same rate η.

Reference: Jordan et al. (2024), "Muon". Liu et al. (2025), section 2.2, for the factor. arXiv:2502.16982
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from undiffuse.experiment import Experiment

EPS = 1e-8


def learning_rate(experiment: Experiment, step: int) -> float:
    """The rate of update number `step` = 0, 1, ...: a linear rise during the warm-up, then the schedule.

    With u the fraction of the steps after the warm-up: constant 1, linear 1 − u, cosine (1 + cos πu)/2.
    """
    if step < experiment.warmup:
        return experiment.lr * (step + 1) / experiment.warmup
    u = (step - experiment.warmup) / max(1, experiment.steps - experiment.warmup)
    shape = {"constant": 1.0, "linear": 1 - u, "cosine": (1 + math.cos(math.pi * u)) / 2}
    return experiment.lr * shape[experiment.schedule]


def trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name."""
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def flatten(parameters: Iterable[nn.Parameter]) -> Tensor:
    """One vector of all parameters, which become views of it."""
    parameters = list(parameters)
    vector = torch.cat([p.detach().reshape(-1) for p in parameters])
    for p, part in zip(parameters, unflatten(vector, parameters), strict=True):
        p.data = part
    return vector


def unflatten(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Views of a vector with the shapes of the parameters."""
    sizes = [p.numel() for p in parameters]
    pieces = torch.split(vector, sizes)
    return [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]


class Adam:
    """PyTorch's fused Adam or, with `decoupled` weight decay, AdamW on one vector, which is changed in place.

    It calls the functions, because the first use of the classes imports torch._dynamo, which takes a second.

    Reference: Kingma and Ba (2015), algorithm 1. arXiv:1412.6980. Loshchilov and Hutter (2019). arXiv:1711.05101
    """

    def __init__(self, weights: Tensor, betas: tuple[float, float], weight_decay: float = 0.0,
                 decoupled: bool = False) -> None:
        self.weights, self.betas, self.weight_decay = weights, betas, weight_decay
        self.m, self.v = torch.zeros_like(weights), torch.zeros_like(weights)
        self._step, self._torch = torch.zeros((), device=weights.device), adamw if decoupled else adam

    @torch.no_grad()
    def update(self, gradient: Tensor, rate: float, step: int, update_ok: Tensor) -> None:
        """One update of the weights, in place.

        Args:
            gradient: Gradient, of the shape of the weights.
            rate: Learning rate.
            step: Number of the update.
            update_ok: Scalar on the device; the update has no effect if it is 0.
        """
        self._torch([self.weights], [gradient], [self.m], [self.v], [], [self._step.fill_(step)], fused=True,
                    found_inf=1 - update_ok.float(), amsgrad=False, beta1=self.betas[0], beta2=self.betas[1], lr=rate,
                    weight_decay=self.weight_decay, eps=EPS, maximize=False)


POLYNOMIAL = (3.4445, -4.775, 2.0315)
ITERATIONS = 5
_ENDS = ("first.", "last.")  # names of the first and the last layer


class Muon(Adam):
    """Muon for the hidden matrices and kernels of a network, AdamW for the rest; state and rate as for AdamW."""

    def __init__(self, weights: Tensor, betas: tuple[float, float], weight_decay: float, net: nn.Module) -> None:
        super().__init__(weights, betas, weight_decay, decoupled=True)
        self.parameters, self.uses_muon = list(trainable(net).values()), hidden_matrices(net)

    def update(self, gradient: Tensor, rate: float, step: int, update_ok: Tensor) -> None:
        """One update of the weights, in place.

        Args:
            gradient: Gradient, of the shape of the weights.
            rate: Learning rate.
            step: Number of the update.
            update_ok: Scalar on the device; the update has no effect if it is 0.
        """
        before = [w.clone() for w in self._hidden(self.weights)]
        super().update(gradient, rate, step, update_ok)
        for w, old, m, g in zip(self._hidden(self.weights), before, self._hidden(self.m), self._hidden(gradient),
                                strict=True):
            matrix = g.lerp(m, self.betas[0]).flatten(1)
            length = 0.2 * math.sqrt(max(matrix.shape)) * rate
            w.copy_(old).mul_(1 - rate * self.weight_decay * update_ok)
            w.sub_(orthogonal(matrix).mul_(length * update_ok).view(w.shape))

    def _hidden(self, vector: Tensor) -> list[Tensor]:
        return [p for p, muon in zip(unflatten(vector, self.parameters), self.uses_muon, strict=True) if muon]


def hidden_matrices(net: nn.Module) -> Sequence[bool]:
    """For each trainable parameter, whether it is a matrix or kernel of a hidden layer.

    The first layer, the last layer and embeddings are not.
    """
    tables = {f"{name}.weight" for name, module in net.named_modules() if isinstance(module, nn.Embedding)}
    return [p.ndim > 1 and not name.startswith(_ENDS) and name not in tables for name, p in trainable(net).items()]


def orthogonal(matrix: Tensor) -> Tensor:
    """U f(S) Vᵀ for a matrix U S Vᵀ (a, b), where f applies x ↦ α x + β x³ + γ x⁵ five times, after division by ‖S‖."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / wide.norm().clamp_min(1e-7)
    a, b, c = POLYNOMIAL
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    out: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return out
