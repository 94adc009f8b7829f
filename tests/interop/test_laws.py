"""Pretrained networks of a known law: likelihoods, posteriors and samples against closed forms; costs of the loop."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from tiny_pipelines import diffusers, model_of, noise_of, theirs
from torch import Tensor, nn

import undiffuse as ud
from undiffuse.interop import OpenedModel
from undiffuse.interop.export import stock_times
from undiffuse.interop.schedules import Schedule
from undiffuse.model import Denoiser
from undiffuse.moments import Moments
from undiffuse.random import normal
from undiffuse.samplers.registry import ALL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SIDE = 4
D = SIDE**2
MIXTURE = ud.Mixture(torch.tensor([1.0, 2.0, 1.0]), 0.5 * normal(5, 0, 0, 0, 3, (D,), torch.float64), 0.25)
GAUSSIAN = ud.Mixture.fit(0.3 * normal(6, 0, 0, 0, 200, (D,), torch.float64).cumsum(1) / 3 + 0.1, 1)


class UNet2DModel(nn.Module):
    """The exact ε of a law at index c, with the call and the configuration of diffusers' network.

    `weight` only has the precision of the weights, and `error` is a relative error of the output.
    """

    def __init__(self, law: ud.Mixture, scheduler: Any, error: float = 0.0) -> None:
        super().__init__()
        self.config = SimpleNamespace(in_channels=1, sample_size=SIDE, num_class_embeds=None)
        self.exact = law.denoiser(Schedule.from_config(type(scheduler).__name__, dict(scheduler.config)).process)
        self.weight, self.error = nn.Parameter(torch.zeros(1)), error

    def forward(self, x: Tensor, timestep: Any, class_labels: Any = None) -> Any:
        t = (torch.as_tensor(timestep).double().reshape(-1) + 1).expand(len(x)) / 1000
        z, sde = x.double().flatten(1), self.exact.sde
        eps = (z - sde.alpha(t)[:, None] * self.exact.denoise(z, t)) / sde.sigma(t)[:, None]
        eps = eps + self.error * torch.sin(7 * z.roll(1, 1))
        return SimpleNamespace(sample=eps.reshape(x.shape).to(x.dtype))


def pretrained(law: ud.Mixture, half: bool = False, **config: Any) -> Denoiser:
    scheduler = diffusers.DDPMScheduler(**{"clip_sample": False, **config})
    net = UNet2DModel(law, scheduler)
    return ud.from_diffusers(SimpleNamespace(unet=net.half() if half else net, scheduler=scheduler), latents=True)


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
def test_the_likelihood_of_a_known_law_is_within_its_errors(half: bool) -> None:
    """The errors of few probes have long tails: of 8 probes 90 to 94 rows are within three of them, of 16 92 to 95."""
    x, model = MIXTURE.sample(100, seed=3), pretrained(MIXTURE, half)
    for options in ({"divergence": "exact"}, {"divergence": "hutchinson", "probes": 32}):
        out = ud.log_likelihood(model, x.reshape(-1, 1, SIDE, SIDE).float(), rtol=1e-4, atol=1e-4, **options)
        error = (out.log_prob - MIXTURE.log_prob(x)).abs()
        assert int((error <= 3 * out.error).sum()) >= 95 and float(error.mean()) < 0.5, options


@pytest.mark.slow
@pytest.mark.parametrize("law, half, n", [(GAUSSIAN, False, 16), (GAUSSIAN, True, 8), (MIXTURE, False, 4)])
def test_the_posterior_of_a_known_law_is_within_three_standard_errors(law: ud.Mixture, half: bool, n: int) -> None:
    """Half of the pixels with noise, for 100 observations with n draws each; particles for the mixture.

    n (m − μ)ᵀ C⁻¹ (m − μ) of a row's mean m is χ² with 16 degrees of freedom, and its sum of squares with 16 n: three
    standard errors are the quantile .9973. The default guide is exact for a Gaussian only: 82 % of the rows of the
    mixture are within three standard errors.
    """
    model, rows, noise, exact = pretrained(law, half), 100, 0.1, law is MIXTURE
    model.block = 64
    even = torch.arange(D) % 2 == 0
    A, x = torch.eye(D, dtype=torch.float64)[even], law.sample(rows, seed=8)
    y = torch.full((rows, D), torch.nan, dtype=torch.float64)
    y[:, even] = x[:, even] + noise * normal(2, 0, 0, 0, rows, (int(even.sum()),), torch.float64)
    observed = ud.observe(model, even.reshape(1, SIDE, SIDE), None, noise, exact=exact,
                          **({"particles": 32, "group": 1} if exact else {}))
    out = ud.sample(observed, rows * n, "auto" if exact else "unipc", 40 if exact else 30,
                    y=y.repeat_interleave(n, 0).reshape(-1, 1, SIDE, SIDE)).x
    mean, std = 0, 0
    for row, draws in zip(y, out.double().reshape(rows, n, D), strict=True):
        posterior = law.posterior(A, row[even], noise)
        weights, means = posterior.weights / posterior.weights.sum(), posterior.means
        centre = weights @ means
        spread = means - centre
        C = torch.einsum("k,kij->ij", weights, posterior.covariances + spread[:, :, None] * spread[:, None, :])
        away, precision = draws - centre, torch.linalg.inv(C)
        mean += float(n * away.mean(0) @ precision @ away.mean(0)) <= chi2.ppf(0.9973, D)
        std += abs(float(((away @ precision) * away).sum()) - n * D) <= 3 * (2 * n * D) ** 0.5
    assert mean >= 95 and std >= 95


@pytest.mark.slow
def test_an_inexact_network_on_a_capped_cosine_chain_is_sampled_as_well_as_by_its_pipeline() -> None:
    """ε with an error of 2 %: the Fréchet distance of the default sampler at 20 steps and of DDPM at 100."""
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    net, n = UNet2DModel(GAUSSIAN, scheduler, error=0.02), 1000
    model = ud.from_diffusers(SimpleNamespace(unet=net, scheduler=scheduler), block=n, latents=True)
    data = GAUSSIAN.sample(20_000, seed=1)
    ours = ud.sample(model, n, steps=20).x.flatten(1)
    scheduler.set_timesteps(100)
    with noise_of("scheduling_ddpm"):
        stock, _ = theirs(net, scheduler, normal(3, 0, 0, 0, n, (1, SIDE, SIDE)))
    a, b = (float(ud.metrics.frechet(z.double().flatten(1), data)) for z in (ours, stock))
    assert a < 2 * b
    for steps in (*range(1, 11), 20, 35, 50):
        assert ud.sample(model, 4, steps=steps).x.isfinite().all()


@pytest.mark.slow
def test_the_times_of_a_tuned_sampler_help_a_stock_scheduler() -> None:
    """DPM++ at the nodes that were tuned for 6 evaluations, and at its own, from equal starts."""
    model = pretrained(MIXTURE)
    model.moments = Moments.measure(MIXTURE.sample(5000).reshape(-1, 1, SIDE, SIDE))
    tuned = ud.tune(model, evaluations=[6], trajectories=16, rounds=1)
    times = stock_times(OpenedModel(tuned, {}, ud.Experiment(data="digits"), Path()), 6)["timesteps"]
    x, net = normal(4, 0, 0, 0, 64, (1, SIDE, SIDE)), model.net.net
    fine = ud.sample(model, 64, ALL["unipc_4_noise"], 200, x_T=x).z
    distances = []
    for options in ({"timesteps": times}, {"num_inference_steps": 6}):
        scheduler = diffusers.DPMSolverMultistepScheduler(timestep_spacing="leading")
        scheduler.set_timesteps(**options)
        distances.append(float((theirs(net, scheduler, x)[0] - fine).square().mean().sqrt()))
    assert distances[0] < distances[1]


class Zero(nn.Module):
    """A network of no cost."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return x


@pytest.mark.slow
def test_our_part_of_a_step_on_large_latents_is_cheap() -> None:
    shape, steps = (16, 128, 128), 20
    model = ud.foreign(Zero(), process=ud.RectifiedFlow(), predict="velocity", shape=shape)
    ud.sample(model, 1, "unipc", 2)
    start = time.process_time()
    ud.sample(model, 1, "unipc", steps)
    assert (time.process_time() - start) / steps < 0.015
    code = """if True:
        import resource, torch, undiffuse as ud
        class Zero(torch.nn.Module):
            def forward(self, x, c):
                return x
        model = ud.foreign(Zero(), process=ud.RectifiedFlow(), predict="velocity", shape=(16, 1024, 1024))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ud.sample(model, 1, "unipc", 8, x_T=torch.zeros(1, *model.shape))
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (16 * 1024 * 4))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 8  # states of 64 MiB: the start, three values of D, and what a step is computed with


def test_the_wrapped_law_is_that_law() -> None:
    model, x = pretrained(MIXTURE), 0.5 * normal(1, 0, 0, 0, 5, (1, SIDE, SIDE))
    t = torch.tensor([0.01, 0.1, 0.3, 0.6, 1.0], dtype=torch.float64)
    exact = MIXTURE.denoiser(model.sde).denoise(x.double().flatten(1), t)
    assert float((model.denoise(x, t).flatten(1) - exact).abs().max()) < 2e-3  # float32 output times σ/α = 157 at T
    assert model_of(diffusers.DDIMScheduler(), Zero(), shape=(1, 4, 4)).shape == (1, 4, 4)
