"""Checks of an installation, or of the model of a run, against closed forms; they take seconds and need no data.

Each check reports the error that it measured and its limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from undiffuse.loss import denoising_loss
from undiffuse.mixture import Gaussian, Mixture
from undiffuse.model import Denoiser, Model
from undiffuse.nets import build
from undiffuse.processes import PROCESSES, VP
from undiffuse.random import Purpose, normal, raw_words
from undiffuse.samplers.driver import sample
from undiffuse.sde import GaussianSDE, as_time, euler_maruyama
from undiffuse.training import load

_PHILOX = "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"
_ORDERS = {"euler": 1, "ddim": 1, "heun": 2, "dpmpp_2m": 2, "rk4": 4}


class Check(NamedTuple):
    """Result of a check: its name, whether it passed, and the numbers."""

    name: str
    ok: bool
    detail: str


def verify(run: Path | str | None = None) -> list[Check]:
    """The results of all checks; one that raises has failed, with the error as its detail.

    Args:
        run: folder of a run, whose model is checked; None: the installation.

    Raises:
        InputError: for a folder without a run.
    """
    checks = _installation_checks() if run is None else _run_checks(Path(run))
    return [_run_check(name, check) for name, check in checks.items()]


_Result = tuple[bool, str]
_Checks = dict[str, Callable[[], _Result]]


def _installation_checks() -> _Checks:
    every = [cls() for cls in PROCESSES.values()]
    nets = {"mlp": (3,), "unet": (1, 8, 8)}
    return {
        "random numbers": _random_numbers,
        "schedules": partial(_schedules, every),
        "kernels": partial(_kernels, every),
        "score": _score,
        **{f"gradients of {name}": partial(_gradients, _small(name, shape)) for name, shape in nets.items()},
        "order of solvers": _orders,
        "samples by index": partial(_samples, _small("mlp", (3,))),
    }


def _run_checks(run: Path) -> _Checks:
    model = load(run, device="cpu")
    return {
        "schedule": partial(_schedules, [model.sde]),
        "kernel": partial(_kernels, [model.sde]),
        "score, noise, velocity": partial(_check_identities, model),
        "gradients": partial(_gradients, model),
        "transform": partial(_transform, model),
        "samples by index": partial(_samples, model),
    }


def _run_check(name: str, check: Callable[[], _Result]) -> Check:
    try:
        return Check(name, *check())
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}")


def _within(value: float, limit: float, what: str) -> _Result:
    return value <= limit, f"{what} {value:.1e}, at most {limit:.0e}"


def _max_error(a: Tensor, b: Tensor) -> float:
    """The largest difference relative to the scale of b; NaN counts as infinite."""
    error = (a - b).detach().abs().max() / b.detach().abs().max().clamp_min(1e-300)
    return math.inf if error.isnan() else float(error)


def _small(name: str, shape: tuple[int, ...]) -> Denoiser:
    """A small network with random non-zero weights, under VP."""
    args = {"width": 16, "depth": 1} if name == "mlp" else {}
    model = Denoiser(build(name, shape, 2, **args), VP(), shape=shape, classes=2)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(0.2 * normal(0, Purpose.WEIGHTS, i, 0, 1, tuple(p.shape))[0])
    return model


def _random_numbers() -> _Result:
    """The published output of Philox4x64-10 for key and counter 0."""
    got = " ".join(f"{word:016x}" for word in raw_words(0, 0, 0, 0, 4))
    return got == _PHILOX, "Philox4x64-10 gives its published output" if got == _PHILOX else f"got {got}"


def _schedules(processes: Iterable[GaussianSDE]) -> _Result:
    """Round trip t → λ → t, compared as λ."""
    errors = []
    for sde in processes:
        lam = sde.log_snr(sde.T * torch.linspace(0.001, 0.999, 200, dtype=torch.float64))
        errors.append(_max_error(sde.log_snr(sde.time_of(lam)), lam))
    return _within(max(errors), 1e-9, "round trip time, log-SNR, time: error")


def _kernels(processes: Iterable[GaussianSDE]) -> _Result:
    """Mean and variance of an Euler-Maruyama simulation, extrapolated to step size 0, against α and σ²."""
    errors = []
    for sde in processes:
        end = 0.8 * sde.T
        coarse, fine = _forward_moments(sde, end, 1000), _forward_moments(sde, end, 2000)
        kernel = torch.stack([sde.alpha(as_time(end)), sde.variance(as_time(end))])
        errors.append(float((((2 * fine - coarse) / kernel) - 1).abs().max()))
    return _within(max(errors), 1e-3, "forward simulation against the kernel: relative error")


def _forward_moments(sde: GaussianSDE, end: float, steps: int) -> Tensor:
    """Mean coefficient and variance after steps x → a x + b z, exactly: Π a and Σ b_i² Π_{j>i} a_j²."""
    t, one = torch.linspace(0, end, steps + 1, dtype=torch.float64), torch.ones(steps, 1, dtype=torch.float64)
    a = euler_maruyama(sde, one, t[:-1], t[1:], 0 * one)[:, 0]
    b = euler_maruyama(sde, 0 * one, t[:-1], t[1:], one)[:, 0]
    later = torch.cat([(a**2).flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.float64)])
    return torch.stack([a.prod(), sde.variance(t[0]) * later[0] + (b**2 * later[1:]).sum()])


def _mixture() -> Mixture:
    return Mixture([1, 2], [[-2.0, 0.0], [1.0, 1.0]], [[[0.5, 0.2], [0.2, 0.3]], [[0.2, 0.0], [0.0, 0.8]]])


def _score(t: float = 0.3) -> _Result:
    """The score of a diffused mixture and of its denoiser against the gradient of its log-density."""
    mixture, sde = _mixture(), VP()
    diffused = mixture.diffused(sde, t)
    x = diffused.sample(100).requires_grad_(True)
    (gradient,) = torch.autograd.grad(diffused.log_prob(x).sum(), x)
    error = max(_max_error(diffused.score(x), gradient), _max_error(mixture.denoiser(sde).score(x, t), gradient))
    return _within(error, 1e-9, "score against autograd of log p: error")


def _check_identities(model: Model) -> _Result:
    """The velocity of the probability flow from D, α'D + σ'ε̂, against f x − ½ g² s where signal and noise are equal."""
    model, t = deepcopy(model).double(), float(model.sde.time_of(-math.log(model.sigma_data)))
    x, cond = _states(model, 4), _labels(model, 4)
    direct = model.sde.drift(x, t) - 0.5 * float(model.sde.g2(t)) * model.score(x, t, **cond)
    return _within(_max_error(model.velocity(x, t, **cond), direct), 1e-9, "velocity against f x − ½ g² score: error")


def _gradients(model: Model, h: float = 1e-5) -> _Result:
    """The derivative of the loss along a direction of the weights against (L(θ + hv) − L(θ − hv))/2h, in float64."""
    model = deepcopy(model).double().requires_grad_(True)
    x0, eps, weights = _states(model, 4), _states(model, 4, 1) / model.sigma_data, list(model.parameters())
    t = model.sde.time_of(-torch.log(model.sigma_data * torch.tensor([0.2, 0.5, 1.0, 3.0], dtype=torch.float64)))

    def loss() -> Tensor:
        return denoising_loss(model, x0, t, eps, **_labels(model, 4)).mean()

    gradients = torch.autograd.grad(loss(), weights)
    v = [normal(0, Purpose.PROBE, i, 0, 1, tuple(p.shape), torch.float64)[0] for i, p in enumerate(weights)]
    exact = sum(float((g * d).sum()) for g, d in zip(gradients, v, strict=True))
    values = [_loss_after_step(weights, v, step, loss) for step in (h, -2 * h)]
    error = abs((values[0] - values[1]) / (2 * h) / exact - 1)
    return _within(error, 1e-5, "autograd against finite differences: error")


@torch.no_grad()
def _loss_after_step(weights: list[torch.nn.Parameter], v: list[Tensor], step: float,
                     loss: Callable[[], Tensor]) -> float:
    """The loss after a step · v of all weights."""
    for p, d in zip(weights, v, strict=True):
        p.add_(d, alpha=step)
    return float(loss())


def _orders() -> _Result:
    """Errors of solvers at 16 and 32 steps on a Gaussian, whose flow only scales: x_s = x_t (var_s/var_t)^½."""
    gaussian, sde, orders = Gaussian([0.0], 0.25), VP(), {}
    x, scale = torch.ones(1, 1, dtype=torch.float64), [gaussian.diffused(sde, t).covariance[0, 0] for t in (0.9, 0.2)]
    truth = float((scale[1] / scale[0]).sqrt())
    for name in _ORDERS:
        errors = [abs(float(sample(gaussian.denoiser(sde), x_T=x, method=name, steps=n, grid="time", t_start=0.9,
                                   t_end=0.2, denoise_last=False, block=1).x) - truth) for n in (32, 64)]
        orders[name] = math.log2(errors[0] / errors[1])
    ok = all(orders[name] > order - 0.3 for name, order in _ORDERS.items())
    return ok, "measured orders " + ", ".join(f"{name} {orders[name]:.2f} of {k}" for name, k in _ORDERS.items())


def _transform(model: Model) -> _Result:
    """Round trip data units → model units → data units, column by column."""
    x = model.transform.inverse(_states(model, 8))
    back = model.transform.inverse(model.transform.forward(x))
    error = max(_max_error(a, b) for a, b in zip(back.flatten(1).mT, x.flatten(1).mT, strict=True))
    return _within(error, 1e-9, "round trip to model units: error")


def _samples(model: Model) -> _Result:
    """Sample 7 has the same bytes alone and in a batch of 10."""
    label: dict[str, Any] = {"label": 0} if model.classes else {}
    ten, alone = sample(model, 10, steps=3, **label).x, sample(model, 1, steps=3, first_index=7, **label).x
    equal = torch.equal(ten[7:8], alone)
    return equal, f"sample 7 alone and in a batch of 10: {'equal' if equal else 'different'} bytes"


def _states(model: Model, n: int, stream: int = 0) -> Tensor:
    """Random states of the size of the data, float64."""
    return model.sigma_data * normal(0, Purpose.DATA, stream, 0, n, model.shape, torch.float64)


def _labels(model: Model, n: int) -> dict[str, Any]:
    return {"label": torch.arange(n) % model.classes} if model.classes else {}
