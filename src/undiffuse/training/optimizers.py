"""PyTorch's Adam on one vector, and the learning rate of each step.

The parameters of the network are views of one vector; the optimiser, the clipping and the moving average are then ten
operations whatever the number of layers, and a checkpoint is exact because nothing else has a state.

Muon: the steps of hidden matrices have all their singular values near 1, so that no direction is learned last.

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
    """The rate of update number `step` = 0, 1, ...: a linear rise over the warm-up, then the schedule.

    With u the share of the steps after the warm-up that is done: constant 1, linear 1 − u, cosine (1 + cos πu)/2.
    """
    if step < experiment.warmup:
        return experiment.lr * (step + 1) / experiment.warmup
    u = (step - experiment.warmup) / max(1, experiment.steps - experiment.warmup)
    shape = {"constant": 1.0, "linear": 1 - u, "cosine": (1 + math.cos(math.pi * u)) / 2}
    return experiment.lr * shape[experiment.schedule]


def trained(net: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are learned, by name."""
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def flatten(parameters: Iterable[nn.Parameter]) -> Tensor:
    """One vector of all these parameters, which become views of it."""
    parameters = list(parameters)
    vector = torch.cat([p.detach().reshape(-1) for p in parameters])
    for p, part in zip(parameters, parts(vector, parameters), strict=True):
        p.data = part
    return vector


def parts(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The views of a vector that have the shapes of the parameters."""
    sizes = [p.numel() for p in parameters]
    pieces = torch.split(vector, sizes)
    return [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]


class Adam:
    """PyTorch's fused Adam (`decoupled` = False, decay added to the gradient) or AdamW on one vector, changed in place.

    The functions, not the classes, whose first use imports torch._dynamo and takes a second in every process.

    Reference: Kingma and Ba (2015), algorithm 1. arXiv:1412.6980. Loshchilov and Hutter (2019). arXiv:1711.05101
    """

    def __init__(self, weights: Tensor, betas: tuple[float, float], weight_decay: float = 0.0,
                 decoupled: bool = False) -> None:
        self.weights, self.betas, self.weight_decay = weights, betas, weight_decay
        self.m, self.v = torch.zeros_like(weights), torch.zeros_like(weights)
        self._step, self._torch = torch.zeros((), device=weights.device), adamw if decoupled else adam

    @torch.no_grad()
    def update(self, gradient: Tensor, rate: float, step: int, live: Tensor) -> None:
        """Update number `step`; nothing changes where `live`, a scalar on the device, is 0."""
        self._torch([self.weights], [gradient], [self.m], [self.v], [], [self._step.fill_(step)], fused=True,
                    found_inf=1 - live.float(), amsgrad=False, beta1=self.betas[0], beta2=self.betas[1], lr=rate,
                    weight_decay=self.weight_decay, eps=EPS, maximize=False)


POLYNOMIAL = (3.4445, -4.775, 2.0315)
ITERATIONS = 5
_ENDS = ("first.", "last.")  # the layers that read the data and write them


class Muon(Adam):
    """Muon on the hidden matrices and kernels of a network, AdamW on the rest; state and rate are those of AdamW."""

    def __init__(self, weights: Tensor, betas: tuple[float, float], weight_decay: float, net: nn.Module) -> None:
        super().__init__(weights, betas, weight_decay, decoupled=True)
        self.like, self.chosen = list(trained(net).values()), hidden(net)

    def update(self, gradient: Tensor, rate: float, step: int, live: Tensor) -> None:
        """Update number `step`; nothing changes where `live`, a scalar on the device, is 0."""
        before = [w.clone() for w in self._hidden(self.weights)]
        super().update(gradient, rate, step, live)
        for w, old, m, g in zip(self._hidden(self.weights), before, self._hidden(self.m), self._hidden(gradient),
                                strict=True):
            matrix = g.lerp(m, self.betas[0]).flatten(1)
            length = 0.2 * math.sqrt(max(matrix.shape)) * rate
            w.copy_(old).mul_(1 - rate * self.weight_decay * live)
            w.sub_(orthogonal(matrix).mul_(length * live).view(w.shape))

    def _hidden(self, vector: Tensor) -> list[Tensor]:
        return [p for p, chosen in zip(parts(vector, self.like), self.chosen, strict=True) if chosen]


def hidden(net: nn.Module) -> Sequence[bool]:
    """For every parameter that is learned whether it is a matrix or kernel between hidden layers.

    The first and the last layer and tables of embeddings are not.
    """
    tables = {f"{name}.weight" for name, module in net.named_modules() if isinstance(module, nn.Embedding)}
    return [p.ndim > 1 and not name.startswith(_ENDS) and name not in tables for name, p in trained(net).items()]


def orthogonal(matrix: Tensor) -> Tensor:
    """U f(S) Vᵀ of a matrix U S Vᵀ (a, b), where f is x ↦ α x + β x³ + γ x⁵ five times after division by ‖S‖."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / wide.norm().clamp_min(1e-7)
    a, b, c = POLYNOMIAL
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    found: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return found
