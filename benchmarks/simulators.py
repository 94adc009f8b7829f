"""Posteriors of public simulators beside their reference posteriors: `python -m benchmarks simulators [TASKS] [N] ...`.

The eight simulators of sbibm with reference posteriors (10,000 draws for each of ten observations), which are read from
the folder of the installed package (`pip install --no-deps sbibm==1.1.0`; it is not imported). The score is sbibm's
classifier two-sample test: the accuracy of a network that tells draws from reference draws, ½ for equal laws. PUBLISHED
names the table of published scores that is printed beside ours.

Reference: Lueckmann et al. (2021), "Benchmarking simulation-based inference". arXiv:2101.04653
"""

from __future__ import annotations

import csv
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import distributions

import undiffuse as ud
from undiffuse.errors import InputError

Array = NDArray[np.float64]
Generator = np.random.Generator
Prior = distributions.Distribution


@dataclass(frozen=True)
class Task:
    """A simulator: its prior, a function that draws parameters, and one that simulates them."""

    prior: Prior
    draw: Callable[[Generator, int], Array]
    simulate: Callable[[Generator, Array], Array]


def _uniform(high: float, d: int) -> tuple[Prior, Callable[[Generator, int], Array]]:
    prior = distributions.Independent(distributions.Uniform(torch.full((d,), -high), torch.full((d,), high)), 1)
    return prior, lambda rng, n: rng.uniform(-high, high, (n, d))


def _log_normal(loc: list[float], scale: list[float]) -> tuple[Prior, Callable[[Generator, int], Array]]:
    prior = distributions.Independent(distributions.LogNormal(torch.tensor(loc), torch.tensor(scale)), 1)
    return prior, lambda rng, n: np.exp(rng.normal(loc, scale, (n, len(loc))))


def _two_moons(rng: Generator, theta: Array) -> Array:
    angle, radius = rng.uniform(-math.pi / 2, math.pi / 2, len(theta)), rng.normal(0.1, 0.01, len(theta))
    crescent = np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], 1)
    turned = np.stack([-np.abs(theta.sum(1)), theta[:, 1] - theta[:, 0]], 1) / math.sqrt(2)
    return crescent + turned


def _slcp(rng: Generator, theta: Array) -> Array:
    first, second, rho = theta[:, 2] ** 2, theta[:, 3] ** 2, np.tanh(theta[:, 4])
    e = rng.normal(size=(len(theta), 4, 2))
    x = theta[:, None, 0] + first[:, None] * e[..., 0]
    y = theta[:, None, 1] + second[:, None] * (rho[:, None] * e[..., 0] + np.sqrt(1 - rho[:, None] ** 2) * e[..., 1])
    return np.stack([x, y], 2).reshape(len(theta), 8)


def _mixture(rng: Generator, theta: Array) -> Array:
    scale = np.where(rng.uniform(size=(len(theta), 1)) < 0.5, 1.0, 0.1)
    return theta + scale * rng.normal(size=theta.shape)


def _linear(rng: Generator, theta: Array) -> Array:
    return theta + math.sqrt(0.1) * rng.normal(size=theta.shape)


def _epidemic(rng: Generator, theta: Array) -> Array:
    """Infected persons of 1,000 tested at ten times, of an SIR epidemic among a million."""
    people, times = 1e6, np.arange(0, 161, 17.0)
    rows = np.empty((len(theta), len(times)))
    for row, (beta, gamma) in zip(rows, theta, strict=True):
        def rates(_: float, u: Array, beta: float = beta, gamma: float = gamma) -> list[float]:
            new = beta * u[0] * u[1] / people
            return [-new, new - gamma * u[1]]

        row[:] = solve_ivp(rates, (0, 160), [people - 1, 1.0], t_eval=times, rtol=1e-6, atol=1e-6).y[1]
    return rng.binomial(1000, np.clip(rows / people, 0, 1)).astype(float)


def _predators(rng: Generator, theta: Array) -> Array:
    """Prey and predators of Lotka and Volterra at ten times each, with a tenth of multiplicative noise."""
    times = np.arange(0, 20.05, 2.1)
    rows = np.empty((len(theta), 2, len(times)))
    for row, (a, b, c, d) in zip(rows, theta, strict=True):
        def rates(_: float, v: Array, a: float = a, b: float = b, c: float = c, d: float = d) -> list[float]:
            prey, hunters = np.exp(np.clip(v, -700, 30))
            return [a - b * hunters, d * prey - c]

        row[:] = np.exp(solve_ivp(rates, (0, 20), np.log([30.0, 1.0]), "LSODA", times, rtol=1e-6, atol=1e-8).y)
    return np.exp(np.log(np.clip(rows, 1e-10, 1e4)) + 0.1 * rng.normal(size=rows.shape)).reshape(len(theta), 20)


def _neuron(files: Path) -> Task:
    """Spikes and spike-triggered averages of a generalised linear model with ten parameters."""
    current, design = (_tensor(files / f"{name}.pt") for name in ("stimulus_I", "design_matrix"))
    m = 9
    D = np.eye(m) - np.eye(m, k=-1)
    F = D @ D + np.diag(np.sqrt(np.arange(m) / m))
    precision = np.zeros((10, 10))
    precision[0, 0], precision[1:, 1:] = 0.5, F.T @ F
    root = np.linalg.cholesky(np.linalg.inv(precision))

    def simulate(rng: Generator, theta: Array) -> Array:
        y = (rng.uniform(size=(len(theta), len(design))) < 1 / (1 + np.exp(-theta @ design.T))).astype(float)
        sums = [np.correlate(np.pad(row, 8), current, "valid")[-9:] for row in y]  # spike-triggered sums of the current
        return np.concatenate([y.sum(1, keepdims=True), np.array(sums)], 1)

    prior = distributions.MultivariateNormal(torch.zeros(10), precision_matrix=torch.tensor(precision).float())
    return Task(prior, lambda rng, n: rng.normal(size=(n, 10)) @ root.T, simulate)


def _tensor(path: Path) -> Array:
    values: Array = torch.load(path, weights_only=True).double().numpy()
    return values


def tasks(files: Callable[[str], Path]) -> dict[str, Callable[[], Task]]:
    """The simulators by name."""
    normal = distributions.Independent(distributions.Normal(torch.zeros(10), math.sqrt(0.1) * torch.ones(10)), 1)
    return {
        "two_moons": lambda: Task(*_uniform(1.0, 2), _two_moons),
        "slcp": lambda: Task(*_uniform(3.0, 5), _slcp),
        "gaussian_linear": lambda: Task(normal, lambda rng, n: math.sqrt(0.1) * rng.normal(size=(n, 10)), _linear),
        "gaussian_linear_uniform": lambda: Task(*_uniform(1.0, 10), _linear),
        "gaussian_mixture": lambda: Task(*_uniform(10.0, 2), _mixture),
        "bernoulli_glm": lambda: _neuron(files("bernoulli_glm")),
        "sir": lambda: Task(*_log_normal([math.log(0.4), math.log(0.125)], [0.5, 0.2]), _epidemic),
        "lotka_volterra": lambda: Task(*_log_normal([-0.125, -3.0, -0.125, -3.0], [0.5] * 4), _predators),
    }


def two_sample_test(x: Array, y: Array, seed: int = 1) -> float:
    """The accuracy of five cross-validated networks of two layers of 10 d units that tell x from y (n, d)."""
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    mean, std, d = x.mean(0), x.std(0), x.shape[1]
    rows = np.concatenate([(x - mean) / std, (y - mean) / std])
    labels = np.repeat([0, 1], [len(x), len(y)])
    network = MLPClassifier((10 * d, 10 * d), max_iter=10_000, random_state=seed)
    return float(cross_val_score(network, rows, labels, cv=KFold(5, shuffle=True, random_state=seed)).mean())


def _files(package: Path) -> Callable[[str], Path]:
    return lambda task: package / "tasks" / task / "files"


def _package() -> Path:
    spec = importlib.util.find_spec("sbibm")
    if spec is None or spec.origin is None:
        raise InputError("got no sbibm, which holds the reference posteriors; pip install --no-deps sbibm==1.1.0")
    return Path(spec.origin).parent


def _rows(path: Path) -> Array:
    return np.atleast_2d(np.genfromtxt(path, delimiter=",", skip_header=1))


def _published(path: str) -> dict[tuple[str, str, int], float]:
    if not path:
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {(r["task"], r["algorithm"], int(r["simulations"])): float(r["mean_c2st"]) for r in csv.DictReader(file)}


def table(names: str = "", simulations: str = "1000,10000", published: str = "", observations: str = "",
          draws: str = "10000", seed: str = "0") -> Iterator[str]:
    """A line per task and number of simulations.

    Args:
        names: Tasks, separated by commas; all by default.
        simulations: Numbers of simulations.
        published: The file of published scores; none by default.
        observations: Numbers of the observations, all ten by default.
        draws: Draws per observation; as many reference draws are taken.
        seed: Seed of the simulations and the training.
    """
    files, peers = _files(_package()), _published(published)
    every = tasks(files)
    chosen = observations.split(",") if observations else [str(k) for k in range(1, 11)]
    yield f"{'task':24}{'n':>7}{'ours':>7}{'range':>13}" + "".join(f"{a:>7}" for a in PEERS) + "  CPU s: train, draw"
    for name in names.split(",") if names else every:
        for n in map(int, simulations.split(",")):
            scores, train, draw = run(every[name](), files(name), n, chosen, int(draws), int(seed))
            others = "".join(f"{peers.get((name, a, n), math.nan):7.3f}" for a in PEERS)
            yield (f"{name:24}{n:7d}{np.mean(scores):7.3f}{min(scores):7.3f}-{max(scores):.3f}{others}"
                   f"  {train:.0f}, {draw / len(chosen):.1f}")


PEERS = ("NPE", "SNPE", "NLE", "SNLE")


def run(task: Task, files: Path, n: int, observations: list[str], draws: int, seed: int,
        **fields: Any) -> tuple[list[float], float, float]:
    """The scores of the observations, and the CPU seconds of training and of all draws."""
    rng = np.random.default_rng(seed)
    theta = task.draw(rng, n)
    start = time.process_time()
    posterior = ud.infer(theta, task.simulate(rng, theta), prior=task.prior, progress=False, seed=seed, **fields)
    trained, scores, spent = time.process_time() - start, [], 0.0
    for k in observations:
        folder = files / f"num_observation_{k}"
        start = time.process_time()
        ours = posterior.sample(draws, x=_rows(folder / "observation.csv")[0], seed=seed)
        spent += time.process_time() - start
        scores.append(two_sample_test(_rows(folder / "reference_posterior_samples.csv.bz2")[:draws], ours))
    return scores, trained, spent
