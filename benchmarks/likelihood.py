"""Likelihoods against closed forms, and of trained models: `python -m benchmarks likelihood PART`: laws, weighting or
images RUN MNIST FASHION.

laws: a 2-D mixture of 16 modes and a 64-D one of 10 components with full covariances: error, evaluations, CPU time, and
what torchdiffeq takes (if it is installed) with one product with the Jacobian after the other.
weighting: held-out bits/dim of digits after training with the simple loss and with the likelihood weighting, paired.
images: held-out bits/dim of a run on MNIST, and what it makes of Fashion-MNIST.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from scipy import stats
from torch import Tensor

import undiffuse as ud
from benchmarks.measure.laws import digits, modes
from undiffuse.likelihood import Likelihood
from undiffuse.model import Model, Wrapper
from undiffuse.recipes import digits as digits_recipe
from undiffuse.training import load, load_data, train


class Opaque(Wrapper):
    """A model whose divergence is not known in closed form."""

    def denoise(self, x: Tensor, t: Tensor | float, **cond: object) -> Tensor:
        """The inner model's."""
        return self.inner.denoise(x, t, **cond)


def table(what: str = "laws", *arguments: str) -> Iterator[str]:
    """The lines of one part."""
    parts: dict[str, Callable[..., Iterator[str]]] = {"laws": laws, "weighting": weightings, "images": images}
    return parts[what](*arguments)


def laws() -> Iterator[str]:
    """Error, evaluations and CPU time on two mixtures."""
    yield "law     method                       mean |error|   largest   evaluations   CPU s"
    for name, law, n, tolerance in (("2-D", modes(), 256, 1e-5), ("64-D", digits(), 64, 1e-4)):
        model, x = law.denoiser(ud.VP()), law.sample(n, seed=5)
        truth = law.log_prob(x)
        yield _line(name, "exact, closed form", truth, *_timed(model, x, "exact", tolerance))
        yield _line(name, "exact, by products", truth, *_timed(Opaque(model), x, "exact", tolerance))
        if find_spec("torchdiffeq") is None:
            yield f"{name:7s} torchdiffeq is not installed; pip install torchdiffeq"
            continue
        yield _line(name, "torchdiffeq dopri5, looped", law.diffused(ud.VP(), 1e-3).log_prob(x), *_peer(model, x))
    law = digits()
    model, x = law.denoiser(ud.VP()), law.sample(1000, seed=5)
    truth = law.log_prob(x)
    for probes in (1, 8, 16):
        start = time.process_time()
        ll = ud.log_likelihood(model, x, "hutchinson", probes, 1e-4, 1e-4)
        yield _line("64-D", f"{probes} probes", truth, ll.log_prob, ll.nfe, time.process_time() - start)
        if probes > 1:
            found = stats.kstest(((ll.log_prob - truth) / ll.stderr).numpy(), stats.t(probes - 1).cdf)
            yield f"        error/stderr against Student's t: Kolmogorov-Smirnov p = {found.pvalue:.3f} (1,000 points)"


def _timed(model: Model, x: Tensor, divergence: str, tolerance: float) -> tuple[Tensor, Tensor, float]:
    start = time.process_time()
    ll = ud.log_likelihood(model, x, divergence, rtol=tolerance, atol=tolerance)
    return ll.log_prob, ll.nfe, time.process_time() - start


def _peer(model: Model, x: Tensor, tolerance: float = 1e-5) -> tuple[Tensor, Tensor, float]:
    """What the public libraries do: torchdiffeq's dopri5 from t = 1e−3 to T in t, one step for the whole batch, the
    trace by one vector-Jacobian product an entry, one after the other, and N(0, I) at T.
    """
    from torchdiffeq import odeint

    start, d, calls = time.process_time(), x.shape[1], 0

    def field(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        with torch.enable_grad():
            point = state[0].detach().requires_grad_(True)
            v = _velocity(model, point, t)
            trace = sum(torch.autograd.grad(v[:, i].sum(), point, retain_graph=True)[0][:, i] for i in range(d))
        return v.detach(), torch.as_tensor(trace)

    times = torch.tensor([1e-3, 1.0], dtype=torch.float64)
    y, trace = odeint(field, (x, x.new_zeros(len(x))), times, rtol=tolerance, atol=tolerance, method="dopri5")
    prior = -0.5 * y[-1].square().sum(1) - 0.5 * d * math.log(2 * math.pi)
    return prior + trace[-1], x.new_full((len(x),), calls), time.process_time() - start


def _velocity(model: Model, x: Tensor, t: Tensor) -> Tensor:
    """−½ β (x + s)."""
    t = t.reshape(())
    return -0.5 * model.sde.g2(t) * (x + model.score(x, t))


def _line(law: str, method: str, truth: Tensor, log_prob: Tensor, nfe: Tensor, seconds: float) -> str:
    error = (log_prob - truth).abs()
    return (f"{law:7s} {method:28s} {float(error.mean()):12.2e} {float(error.max()):9.1e} {float(nfe.median()):13.0f} "
            f"{seconds:7.2f}")


WEIGHTINGS = {"simple loss, times even in t": {"weighting": "simple", "noise_distribution": "time"},
              "likelihood, importance-sampled": {"weighting": "likelihood", "noise_distribution": "importance"}}


def weightings(seeds: str = "3", steps: str = "2000") -> Iterator[str]:
    """Bits per dimension of held-out digits after equal trainings that differ in the loss only; all VP, EDM target."""
    yield f"loss                              seed   bits/dim (upper bound) on held-out digits, {steps} updates"
    gains = []
    for seed in range(int(seeds)):
        simple, weighted = (_held_out_bits(fields, seed, int(steps)) for fields in WEIGHTINGS.values())
        for name, bits in zip(WEIGHTINGS, (simple, weighted), strict=True):
            yield f"{name:33s} {seed:4d}   {_mean(bits)}"
        gains.append(simple - weighted)
        yield f"{'gain, row by row':33s} {seed:4d}   {_mean(gains[-1])}"
    means = torch.stack(gains).mean(1)
    yield f"{'gain of a row, mean over the seeds':34s} all   {_mean(torch.stack(gains).mean(0))}"
    yield f"gain by seed: {', '.join(f'{float(mean):.4f}' for mean in means)}"


def _held_out_bits(fields: dict[str, str], seed: int, steps: int) -> Tensor:
    """Bits/dim of the held-out rows, the same for every loss and seed, after one training."""
    experiment = digits_recipe(sde="vp", prediction_type="edm", steps=steps, label_dropout=1.0, seed=seed, **fields)
    with tempfile.TemporaryDirectory() as folder:
        model = train(experiment, Path(folder) / "run", progress=False)
        held = load_data(Path(folder) / "run")[1]
    assert held is not None
    return ud.log_likelihood(model, held.x, rtol=1e-4, atol=1e-4).bits_per_dim


def images(run: str, mnist: str, fashion: str, n: str = "64", probes: str = "1", draws: str = "1") -> Iterator[str]:
    """Bits per dimension of MNIST's test images and of Fashion-MNIST's under a run, and how well they tell them apart.
    """
    yield from compared(load(run), mnist, fashion, int(n), int(probes), int(draws))


def compared(model: Model, mnist: str, fashion: str, n: int, probes: int, draws: int) -> Iterator[str]:
    """The same for a model in memory."""
    scores = []
    for source in (mnist, fashion):
        x = ud.open_data(source, size=model.shape[-1], n=n, part="test").x
        start = time.process_time()
        ll = ud.log_likelihood(model, x, "hutchinson", probes, 1e-3, 1e-3, draws=draws, block=32)
        scores.append(ll)
        yield f"{Path(source).name:14s} {_mean(ll.bits_per_dim)} bits/dim, at most; {_cost(ll, start)}"
    wins = (scores[1].bits_per_dim[:, None] > scores[0].bits_per_dim).double().mean()
    yield f"area under the curve of bits/dim as a score of what is no digit: {float(wins):.4f} ({n} of each)"


def _cost(ll: Likelihood, start: float) -> str:
    return f"{float(ll.nfe.median()):.0f} evaluations, {(time.process_time() - start) / len(ll.nfe):.1f} CPU s an image"


def _mean(values: Tensor) -> str:
    """Mean ± 1.96 standard errors over the rows."""
    return f"{float(values.mean()):.4f} ± {1.96 * float(values.std()) / math.sqrt(len(values)):.4f}"
