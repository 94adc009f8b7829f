"""A stock UNet2DModel trained by diffusers' own recipe: distance to its fine path by stock schedulers and by ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import undiffuse as ud
from undiffuse.model import Denoiser
from undiffuse.moments import Moments
from undiffuse.random import Purpose, normal
from undiffuse.samplers.registry import ALL

STOCK: dict[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("DDIMScheduler", {}), "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}), "DEIS": ("DEISMultistepScheduler", {}),
    "DDIM trailing": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "DPM++ 2M trailing": ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}),
    "UniPC trailing": ("UniPCMultistepScheduler", {"timestep_spacing": "trailing"})}
N = 256


def table(folder: str = "benchmarks/runs/ddpm-digits", minutes: str = "2", budgets: str = "5,6,8,10,15,20",
          tuned: str = "5,8") -> Iterator[str]:
    """Distance per pixel to 100 fine steps from equal starts: root mean square, and median over samples.

    Args:
        folder: where the pipeline is saved, or was.
        minutes: time of the training, if it is not there.
        budgets: numbers of network evaluations.
        tuned: numbers of evaluations to tune for.
    """
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    if not Path(folder).is_dir():
        yield train(Path(folder), 60 * float(minutes))
    pipe = diffusers.DDPMPipeline.from_pretrained(folder)
    model = ud.from_diffusers(pipe, block=N)
    x_T = normal(9, Purpose.INIT, 0, 0, N, model.shape)
    fine = ud.sample(model, N, ALL["unipc_4_noise"], 100, x_T=x_T).z
    for budget in (int(v) for v in budgets.split(",")):
        stock = {name: sampled(pipe, name, budget, x_T) for name in STOCK}
        ours = ud.sample(model, N, "auto", budget - 1, x_T=x_T)
        name, best = min(stock.items(), key=lambda item: rms(item[1], fine).nan_to_num(torch.inf))
        yield (f"{budget:3} calls  best stock {distances(best, fine)} ({name:18}) auto {distances(ours.z, fine)} "
               f"({ours.nfe} calls, {ours.sampler})")
    yield from _tuned(model, x_T, fine, [int(v) for v in tuned.split(",")])


def _tuned(model: Denoiser, x_T: Tensor, fine: Tensor, budgets: list[int]) -> Iterator[str]:
    """The tuned samplers at the same starts."""
    model.moments, start = Moments.measure(digits()), time.process_time()
    tuning = ud.tune(model, evaluations=budgets)
    yield f"tuned in {time.process_time() - start:.0f} CPU seconds"
    for row in tuning.tuning.rows:
        yield (f"{row['evaluations']:3} calls  held-out starts: {row['before']['rmse']:.4f} before "
               f"({row['untuned']}), {row['after']['rmse']:.4f} tuned")
    for n in budgets:
        out = ud.sample(tuning, N, "tuned", n, x_T=x_T, denoise_last=False)
        yield f"{n:3} calls  tuned {distances(out.z, fine)} ({out.nfe} calls)"


@torch.no_grad()
def sampled(pipe: Any, name: str, calls: int, x: Tensor) -> Tensor:
    """The samples of a stock scheduler from x; NaN where it fails."""
    import diffusers

    kind, options = STOCK[name]
    scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config, **options)
    scheduler.set_timesteps(calls)
    try:
        for t in scheduler.timesteps:
            x = scheduler.step(pipe.unet(x, t).sample, t, x).prev_sample
    except (IndexError, ValueError):
        return torch.full_like(x, torch.nan)
    return x


def rms(a: Tensor, b: Tensor) -> Tensor:
    """The root mean square of a − b per pixel, over all samples."""
    return (a - b).square().mean().sqrt()


def distances(a: Tensor, b: Tensor) -> str:
    """The root mean square over all samples, and the median over samples of that of each."""
    each = (a - b).flatten(1).square().mean(1).sqrt()
    return f"rms {float(rms(a, b)):.4f} median {float(each.median()):.4f}"


def digits() -> Tensor:
    """The digits in [−1, 1]."""
    data = ud.open_data("digits")
    x: Tensor = data.x[:].float()
    return x * (2 / (data.levels - 1)) - 1


def train(folder: Path, seconds: float, seed: int = 1) -> str:
    """Train ε on the capped cosine chain by diffusers' own classes, and save a stock pipeline."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    x = digits()
    torch.manual_seed(seed)
    net = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(32, 48), layers_per_block=1,
                      norm_num_groups=8, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
                      add_attention=False)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    optimizer, start, updates = torch.optim.AdamW(net.parameters(), 2e-3), time.process_time(), 0
    average = [p.detach().clone() for p in net.parameters()]
    while time.process_time() - start < seconds:
        rows, eps, t = torch.randint(0, len(x), (64,)), torch.randn(64, 1, 8, 8), torch.randint(0, 1000, (64,))
        loss = (net(scheduler.add_noise(x[rows], eps, t), t).sample - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        updates += 1
        for a, p in zip(average, net.parameters(), strict=True):
            a.lerp_(p.detach(), 0.01)
    for a, p in zip(average, net.parameters(), strict=True):
        p.data.copy_(a)
    DDPMPipeline(net, scheduler).save_pretrained(folder)
    return f"trained {updates} updates in {seconds:.0f} CPU seconds; loss {float(loss.detach()):.3f}"
