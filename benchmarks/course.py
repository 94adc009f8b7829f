"""The tables of the course and of the theory pages, with standard errors: `python -m benchmarks course [NAME ...]`."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import undiffuse as ud
from undiffuse.course import randn
from undiffuse.ode import EULER, HEUN, rk_step
from undiffuse.samplers.registry import as_method
from undiffuse.sde import euler_maruyama

SEEDS = range(4)
VP = ud.VP()
THREE = ud.Mixture([0.25, 0.5, 0.25], [[-2.2], [0.0], [2.2]], [0.09, 0.16, 0.06])


def table(*names: str) -> Iterator[str]:
    """The tables of those names, by default all."""
    for name in names or TABLES:
        yield f"\n{name}: {(TABLES[name].__doc__ or '').splitlines()[0]}"
        yield from TABLES[name]()


def over_seeds(value: Callable[[int], float]) -> str:
    """Mean and standard error of a value over the seeds."""
    found = [value(seed) for seed in SEEDS]
    return f"{statistics.fmean(found):9.5f} ± {statistics.stdev(found) / math.sqrt(len(found)):.5f}"


def reverse_noise() -> Iterator[str]:
    """C4: the slope of a step's noise against the score where it ended, beside −g dt."""
    law, t, dt, n = ud.Mixture([0.4, 0.6], [[-1.0], [1.2]], [0.1, 0.2]), 0.3, 1e-3, 200_000
    g = float(VP.g2(t - dt)) ** 0.5

    def slope(seed: int) -> float:
        x, w = law.diffused(VP, t - dt).sample(n, seed), math.sqrt(dt) * randn(n, 1, seed=seed)
        s = law.diffused(VP, t).score(x + VP.drift(x, t - dt) * dt + g * w)
        return float((w * s).mean() / (s * s).mean())

    yield f"slope {over_seeds(slope)}    −g dt = {-g * dt:.5f}"


def floor() -> Iterator[str]:
    """C5: loss − floor and the error of the score, computed apart, for scores that are off by a factor."""
    law = ud.Mixture([0.4, 0.3, 0.3], [[-1.3, 0.0], [0.9, 1.0], [0.8, -1.1]], [0.05, 0.1, 0.05])
    t = 0.35
    alpha, sigma, model = float(VP.alpha(torch.tensor(t))), float(VP.sigma(t)), law.denoiser(VP)

    def pair(seed: int, c: float) -> tuple[float, float]:
        x0, z = law.sample(20_000, seed), randn(20_000, 2, seed=seed)
        s = model.score(alpha * x0 + sigma * z, t)
        best = float((sigma * s + z).square().sum(1).mean())
        loss = float((sigma * c * s + z).square().sum(1).mean())
        return loss - best, float((sigma * (c - 1) * s).square().sum(1).mean())

    for c in (0.7, 0.9, 1.2):
        loss, esm = (over_seeds(lambda seed, k=k, c=c: pair(seed, c)[k]) for k in (0, 1))
        yield f"{c:.1f} × exact score: loss − floor {loss}    error of the score {esm}"


def embeddings() -> Iterator[str]:
    """C5, D5: the excess of the loss over its floor with features of t ∈ [0, 1], of 1000 t, and of log σ̂."""
    law = ud.Mixture([0.4, 0.3, 0.3], [[-1.3, 0.0], [0.9, 1.0], [0.8, -1.1]], [0.05, 0.1, 0.05])
    levels = ud.loss.NoiseLevelDistribution("time", sigma_data=1.0, low=0.02)
    q = levels.quantile(VP, (torch.arange(200) + 0.5) / 200)
    least = float(ud.loss.loss_floor(law, VP, q, "simple").value.mean())
    scales: dict[str, Callable[[Tensor], Tensor] | None] = {
        "t": lambda t: t, "1000 t": lambda t: 1000 * t, "log σ̂": None}
    for name, scale in scales.items():
        yield f"{name:7} {over_seeds(lambda seed, scale=scale: _trained(law, levels, scale, seed) - least)}"


class _Heard(torch.nn.Module):
    """A network whose noise level arrives through sinusoids of a function of t (DDPM's frequencies)."""

    def __init__(self, inner: torch.nn.Module, scale: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.scale = inner, scale
        self.mix = torch.nn.Linear(32, 1)

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        t = VP.time_of(-(4 * c.double() + math.log(2)))
        angle = self.scale(t)[:, None] * 10_000 ** -torch.linspace(0, 1, 16, dtype=torch.float64)
        out: Tensor = self.inner(x, self.mix(torch.cat([angle.sin(), angle.cos()], 1).float())[:, 0])
        return out


def _trained(law: ud.Mixture, levels: ud.loss.NoiseLevelDistribution, scale: Callable[[Tensor], Tensor] | None,
             seed: int) -> float:
    """The mean loss on fresh draws after 500 updates."""
    net = ud.nets.build("mlp", (2,), width=48, depth=2)
    net = ud.nets.initialize(net if scale is None else _Heard(net, scale), seed)
    model = ud.Denoiser(net, VP, shape=(2,), sigma_data=1.0)
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    for k in range(500):
        t = levels.times(VP, seed, k, 0, 256, 256)
        loss = ud.loss.denoising_loss(model, law.sample(256, seed, 256 * k).float(), t,
                                      randn(256, 2, seed=1000 * seed + k).float(), "simple").mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        t = levels.times(VP, 99, 0, 0, 40_000, 40_000)
        return float(ud.loss.denoising_loss(model, law.sample(40_000, 99).float(), t,
                                            randn(40_000, 2, seed=99).float(), "simple").mean())


def solvers() -> Iterator[str]:
    """C6: W1 to the law against evaluations of an exact score (three modes on a line, 20,000 draws)."""
    model, n, real = THREE.denoiser(VP), 20_000, THREE.sample(100_000, 99)
    cost = {"euler_maruyama": 1, "predictor_corrector": 2, "euler": 1, "heun": 2, "ddim": 1, "dpmpp_2m": 1}
    yield f"noise floor {over_seeds(lambda seed: ud.metrics.w1_1d(THREE.sample(n, seed), real))}"
    for name, each in cost.items():
        for budget in (16, 32, 64):
            found = over_seeds(lambda seed, name=name, steps=budget // each: ud.metrics.w1_1d(
                _draw(model, n, name, steps, seed), real))
            yield f"{name:20} {budget:4} {found}"


def _draw(model: ud.Model, n: int, name: str, steps: int, seed: int) -> Tensor:
    return ud.sample(model, n, name, steps, grid="time" if name in ("euler", "heun") else None, seed=seed, t_end=1e-3,
                     denoise_last=False, block=n).x


def diversity() -> Iterator[str]:
    """C6, D9: deviation and weight of the middle mode, of the law, the ODE and the SDE with an exact score."""
    model, n = THREE.denoiser(VP), 20_000
    ways = {"ODE, 100 steps of Heun": ("heun", 100), "SDE, 500 steps": ("euler_maruyama", 500)}
    yield f"law: deviation {float(THREE.covariance) ** 0.5:.4f}, middle mode {float(THREE.weights[1]):.4f}"
    for name, (method, steps) in ways.items():
        draws = {seed: _draw(model, n, method, steps, seed) for seed in SEEDS}
        deviation = over_seeds(lambda seed, draws=draws: float(draws[seed].std()))
        middle = over_seeds(lambda seed, draws=draws: float(THREE.responsibilities(draws[seed])[:, 1].mean()))
        yield f"{name}: deviation {deviation}, middle mode {middle}"


def round_trip() -> Iterator[str]:
    """C7, D24: root mean square error of there and back by steps even in t, from t = .01 to 1."""
    law = ud.Mixture([1, 2], [[-1.5], [1.0]], 0.16)
    model, x = law.denoiser(VP), law.sample(200)
    for name, tableau in (("Euler", EULER), ("Heun", HEUN)):
        found = []
        for n in (50, 200, 1000):
            there, state = torch.linspace(0.01, 1, n + 1, dtype=torch.float64), x
            for grid in (there, there.flip(0)):
                for t, s in itertools.pairwise(grid):
                    state = rk_step(tableau, model.velocity, state, t, s)
            found.append(float((state - x).square().mean().sqrt()))
        yield f"{name:5} 50, 200, 1000 steps: " + ", ".join(f"{e:.2g}" for e in found)


def kl() -> Iterator[str]:
    """P10: data N(0, ¼), VP, prior N(0, 1): the divergences and the bound; no chance is involved."""
    exact = ud.Gaussian([0.0], 0.25).denoiser(VP)
    other = ud.Gaussian([0.0], 0.36).denoiser(VP)
    scores: dict[str, Callable[[Tensor, ud.sde.Time], Tensor]] = {
        "exact": exact.score, "1.1 × exact": lambda x, t: 1.1 * exact.score(x, t),
        "0.8 × exact": lambda x, t: 0.8 * exact.score(x, t), "of N(0, .36)": other.score}
    for name, score in scores.items():
        model = ud.ScoreModel(score, VP, shape=(1,))
        sde, ode = (_divergence(0.25, _variance(model, eta)) for eta in (1.0, 0.0))
        t = torch.linspace(1e-6, 1, 20_001, dtype=torch.float64)
        v, one = 0.25 * VP.alpha(t) ** 2 + VP.variance(t), torch.ones(len(t), 1, dtype=torch.float64)
        gap = (exact.score(one, t) - score(one, t))[:, 0] ** 2 * v
        bound = _divergence(float(v[-1]), 1.0) + 0.5 * float(torch.trapezoid(VP.g2(t) * gap, t))
        yield f"{name:13} SDE {sde:.5f}   bound {bound:.5f}   gap {bound - sde:.5f}   ODE {ode:.5f}"


def _variance(model: ud.ScoreModel, eta: float) -> float:
    """The variance of a linear reverse process at the end, exactly: a step multiplies and adds."""
    u = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    times, n = 1 + (1e-6 - 1) * u * (2 - u), 20_000
    one, zero = torch.ones(n, 1, dtype=torch.float64), torch.zeros(n, 1, dtype=torch.float64)
    process = ud.reverse(model, eta)
    a = euler_maruyama(process, one, times[:-1], times[1:], zero)[:, 0]
    b = euler_maruyama(process, zero, times[:-1], times[1:], one)[:, 0]
    later = (2 * a.abs().log()).flip(0).cumsum(0).flip(0)
    return float(later[0].exp() + (b[:-1] ** 2 * later[1:].exp()).sum() + b[-1] ** 2)


def _divergence(var: float, of: float) -> float:
    return 0.5 * (var / of - 1 - math.log(var / of))


def guidance() -> Iterator[str]:
    """P18: mean and deviation with guidance, classes N(±1, .7²); 8,000 draws a seed."""
    law = ud.Mixture([1, 1], [[-1.0], [1.0]], 0.49, labels=[0, 1])
    x = torch.linspace(-8, 8, 160_001, dtype=torch.float64)[:, None]
    for w in (2.0, 4.0):
        p = (w * law.given(1).log_prob(x) + (1 - w) * law.log_prob(x)).softmax(0)
        mean = float(p @ x[:, 0])
        yield f"w = {w:.0f}: asked {mean:.4f}, {math.sqrt(float(p @ x[:, 0] ** 2) - mean**2):.4f}"
        model = ud.classifier_free(law.denoiser(VP), w)
        for name, method, steps in (("SDE", as_method("dpmpp_2m_sde_heun"), 200), ("ODE", "rk4_log_snr", 30)):
            draws = {seed: ud.sample(model, 8000, method, steps, seed=seed, t_end=1e-3, label=1, block=8000).x
                     for seed in SEEDS}
            first = over_seeds(lambda seed, draws=draws: float(draws[seed].mean()))
            second = over_seeds(lambda seed, draws=draws: float(draws[seed].std()))
            yield f"       {name} {first}, {second}"


def observations() -> Iterator[str]:
    """C10: four modes, the first coordinate seen at .15 ± .1: weight of the second mode, deviation of what was seen."""
    law = ud.Mixture([0.2, 0.4, 0.2, 0.2], [[-1.4, 0.0], [0.1, 1.3], [0.2, -1.2], [1.5, 0.2]], 0.04)
    model, post = law.denoiser(VP), law.posterior([[1.0, 0.0]], [0.15], 0.1)
    yield f"truth        {float(post.weights[1]):8.4f}            {float(post.covariance[0, 0]) ** 0.5:8.4f}"
    for method in ("replacement", "dps", "pigdm", "mmps", "twisted"):
        observed = ud.observe(model, [[1.0, 0.0]], [0.15], 0.1, method)
        draws = {seed: ud.sample(observed, 1024, steps=60, seed=seed, t_end=1e-2).x for seed in SEEDS}
        share = over_seeds(lambda seed, draws=draws: float(law.responsibilities(draws[seed])[:, 1].mean()))
        seen = over_seeds(lambda seed, draws=draws: float(draws[seed][:, 0].std()))
        yield f"{method:12} {share}   {seen}"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "reverse_noise": reverse_noise, "floor": floor, "embeddings": embeddings, "solvers": solvers,
    "diversity": diversity, "round_trip": round_trip, "kl": kl, "guidance": guidance, "observations": observations}
