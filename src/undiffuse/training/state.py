"""The state of a training: weights, their averages, the optimizer's moments and running sums, each one tensor.

With the weighting "learned" it includes log-variances u(t) of the loss, learned together with the network:

    L = E[l(t) e^{−u(t)} + u(t)],  minimal where e^{u(t)} = E[l | t]

for the weighted error l of a sample, so that every noise level contributes equally to the loss. They are used in
training only.

Reference: Karras et al. (2024), appendix B.2. arXiv:2312.02696; Kendall et al. (2018). arXiv:1705.07115
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from undiffuse.experiment import Experiment
from undiffuse.loss import LEARNED
from undiffuse.model import Denoiser
from undiffuse.nets import Sinusoidal
from undiffuse.training.ema import EXPONENTS, average_, decay, power_rates
from undiffuse.training.optimizers import Adam, Muon, flatten, learning_rate, trainable, unflatten

FEATURES = 16


class Uncertainty:
    """u(t) = b + Σ a_k φ_k(¼ log(½ σ̂/σ_data)) with cosines and sines φ; b and a_k start at 0, learned by Adam."""

    def __init__(self, model: Denoiser, like: Tensor, betas: tuple[float, float]) -> None:
        self.model, self.features = model, Sinusoidal(FEATURES).to(like.device)
        vector = like.new_zeros(1 + FEATURES)
        self.optimizer, self.weights = Adam(vector, betas), vector.requires_grad_()

    def __call__(self, t: Tensor) -> Tensor:
        """u (B,) at times t (B,)."""
        waves: Tensor = self.features(self.model.level(t).to(self.weights))
        return self.weights[0] + waves @ self.weights[1:]

    def objective(self, losses: Tensor, t: Tensor) -> Tensor:
        """l e^{−u} + u per row, (B,)."""
        u = self(t)
        return losses * torch.exp(-u) + u

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint by name."""
        named = {"": self.weights.detach(), ".m": self.optimizer.m, ".v": self.optimizer.v}
        return {f"uncertainty{name}": t for name, t in named.items()}


def _uncertainty_schema(like: Tensor) -> dict[str, Tensor]:
    """Tensors of the shapes of `Uncertainty.tensors`."""
    return {f"uncertainty{name}": like.new_zeros(1 + FEATURES) for name in ("", ".m", ".v")}


class TrainingState:
    """A training after `step` updates: the model that is trained, and `ema_model` with the average of its weights.

    An update whose loss or gradient is not finite changes nothing, and neither do all later ones: `steps_applied` stays
    the number of updates made. Nothing is copied to the host, so that the CPU never waits for a GPU.

    Args:
        experiment: The settings.
        model: The model, whose parameters become views of one vector.
    """

    def __init__(self, experiment: Experiment, model: Denoiser) -> None:
        self.experiment, self.model = experiment, model
        self.parameters = trainable(model.net)
        self.weights = flatten(self.parameters.values())
        self.ema_model = deepcopy(model).requires_grad_(False)
        self.ema_model.moments, self.ema_model.regression = model.moments, model.regression
        averages = dict(self.ema_model.net.named_parameters())
        self.ema_weights = flatten(averages[name] for name in self.parameters)
        self.ema_profiles = self.weights.repeat(len(EXPONENTS), 1)
        self.optimizer = _optimizer(experiment, self.weights, model.net)
        self.uncertainty = (Uncertainty(model, self.weights[:0], experiment.betas)
                            if experiment.weighting == LEARNED else None)
        self.step = 0
        self.steps_applied = torch.zeros((), dtype=torch.int64, device=model.device)
        self.update_ok = torch.ones((), dtype=self.weights.dtype, device=model.device)
        self.sums = torch.zeros(3, dtype=self.weights.dtype, device=model.device)
        size = len(self.weights) + (len(self.uncertainty.weights) if self.uncertainty else 0) + 1
        self._gradient = torch.zeros(size, dtype=self.weights.dtype, device=model.device)

    @torch.no_grad()
    def update(self, gradient_and_loss: Tensor) -> None:
        """One update of all tensors.

        `sums` adds 1, the loss and the norm of the gradient.

        Args:
            gradient_and_loss: The vector of `gradient`, summed over the batch; it is overwritten.
        """
        count = len(self.weights)
        vector = gradient_and_loss
        gradient, of_uncertainty, loss = vector[:count], vector[count:-1], vector[-1].clone()
        norm = gradient_norm(gradient)
        self.update_ok.mul_(torch.isfinite(norm) & torch.isfinite(loss))
        limit = torch.inf if self.experiment.max_grad_norm is None else self.experiment.max_grad_norm
        gradient.mul_((limit / norm).clamp(max=1) * self.update_ok).nan_to_num_(0.0)
        rate = learning_rate(self.experiment, self.step)
        self.optimizer.update(gradient, rate, self.step, self.update_ok)
        if self.uncertainty:
            of_uncertainty.mul_(self.update_ok).nan_to_num_(0.0)
            self.uncertainty.optimizer.update(of_uncertainty, rate, self.step, self.update_ok)
        average_(self.ema_weights, self.weights, (1 - decay(self.experiment.ema_decay, self.step)) * self.update_ok)
        average_(self.ema_profiles, self.weights, power_rates(self.step, self.weights) * self.update_ok)
        self.sums += torch.stack([self.update_ok, loss, norm])
        self.steps_applied += self.update_ok.long()
        self.step += 1

    def gradient(self, loss: Tensor, reported: Tensor | None = None) -> Tensor:
        """The gradient of a loss and, as the last entry, the loss that is reported; the next call overwrites it."""
        leaves = [*self.parameters.values(), *([self.uncertainty.weights] if self.uncertainty else [])]
        pieces = torch.autograd.grad(loss, leaves, materialize_grads=True)
        count = len(self.parameters)
        torch.cat([g.reshape(-1) for g in pieces[:count]], out=self._gradient[: len(self.weights)])
        for of_uncertainty in pieces[count:]:
            self._gradient[len(self.weights) : -1] = of_uncertainty
        self._gradient[-1] = (loss if reported is None else reported).detach()
        return self._gradient

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for a checkpoint; they are views, so that copying into them restores a state."""
        like = list(self.parameters.values())
        m, v = unflatten(self.optimizer.m, like), unflatten(self.optimizer.v, like)
        return {**_named(self.model, self.ema_model.net, m, v, self.ema_profiles, self.sums),
                **self._uncertainty_tensors()}

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Loads the tensors of a checkpoint."""
        for name, t in self.tensors().items():
            t.copy_(tensors[name])
        self.set_step(step)

    def set_step(self, step: int) -> None:
        """Sets the number of updates made."""
        self.step = step
        self.steps_applied.fill_(step)

    def is_finite(self) -> bool:
        """Whether every number of the state is finite."""
        vectors = (self.weights, self.ema_weights, self.ema_profiles, self.optimizer.m, self.optimizer.v)
        return all(math.isfinite(torch.linalg.vector_norm(vector, math.inf))
                   for vector in (*vectors, *self._uncertainty_tensors().values()))

    def _uncertainty_tensors(self) -> dict[str, Tensor]:
        return self.uncertainty.tensors() if self.uncertainty else {}


def gradient_norm(gradient: Tensor) -> Tensor:
    """The Euclidean norm of a vector, from the norms of eight equal parts (the last one padded with zeros)."""
    short = -len(gradient) % 8
    padded = nn.functional.pad(gradient, (0, short)) if short else gradient
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in padded.chunk(8)]))
    return norm


def _optimizer(e: Experiment, weights: Tensor, net: nn.Module) -> Adam:
    if e.optimizer == "muon":
        return Muon(weights, e.betas, e.weight_decay, net)
    return Adam(weights, e.betas, e.weight_decay, e.optimizer == "adamw")


def schema(model: Denoiser, weighting: str = "edm") -> dict[str, Tensor]:
    """Tensors of the names, shapes and types in the checkpoints of a model."""
    like = list(trainable(model.net).values())
    uncertainty = _uncertainty_schema(like[0]) if weighting == LEARNED else {}
    return {**_named(model, model.net, like, like, profiles_schema(model), like[0].new_zeros(3)), **uncertainty}


def profiles_schema(model: Denoiser) -> Tensor:
    """A tensor of the shape of the power averages of a model's weights, (2, P)."""
    like = list(trainable(model.net).values())
    return like[0].new_zeros(len(EXPONENTS), sum(p.numel() for p in like))


def _named(model: Denoiser, average: nn.Module, m: Sequence[Tensor], v: Sequence[Tensor], ema_profiles: Tensor,
           sums: Tensor) -> dict[str, Tensor]:
    tensors = {f"{kind}.{name}": t for kind, owner in (("net", model.net), ("ema", average))
               for name, t in owner.state_dict().items()}
    for kind, vectors in (("m", m), ("v", v)):
        tensors |= {f"adam.{kind}.{name}": t for name, t in zip(trainable(model.net), vectors, strict=True)}
    linear = {"moments": model.moments, "regression": model.regression}
    tensors |= {f"{kind}.{name}": t for kind, part in linear.items() if part for name, t in part.tensors().items()}
    return {**tensors, "ema_profiles": ema_profiles, "sums": sums}
