"""Networks of other libraries, each with that library's loss, average of the weights and samplers, for `training`.

Needs diffusers, azula and denoising-diffusion-pytorch. Two of these say that they need torchvision, of which what is
used here needs nothing; where it is missing, empty modules stand in for it while denoising-diffusion-pytorch is read:

    pip install diffusers requests regex importlib_metadata einops ema-pytorch
    pip install --no-deps azula denoising-diffusion-pytorch

Adam and its rate, the batch and the limit of the gradient are those of our own side, so that these decide nothing.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from undiffuse.errors import MachineError

WARM, BLOCK = 50, 250  # updates in which the rate rises; samples that are drawn together


class Rival(ABC):
    """A network in training on rows (N, C, H, W) between -1 and 1; `samplers` names its ways to draw."""

    samplers: tuple[str, ...]

    def __init__(self, rows: Tensor, args: Any, batch: int, rate: float, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.rows, self.batch, self.rate, self.step = rows, batch, rate, 0
        self.net = self.build(args)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), rate, (0.9, 0.99), weight_decay=0.0, fused=True)

    @property
    def parameters(self) -> int:
        """The number of weights that are trained."""
        return sum(p.numel() for p in self.net.parameters())

    def update(self, share: float) -> None:
        """Forward, loss, backward, optimiser and average, when a share of the time has passed."""
        rows = self.rows[torch.randint(len(self.rows), (self.batch,))]
        self.loss(rows).backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.param_groups[0]["lr"] = self.rate * min((self.step + 1) / WARM, 1 - share)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average()
        self.step += 1

    @abstractmethod
    def build(self, args: Any) -> nn.Module:
        """The network, and beside it what the loss and the average need."""

    @abstractmethod
    def loss(self, x: Tensor) -> Tensor:
        """The mean loss of a batch."""

    @abstractmethod
    def average(self) -> None:
        """One update of the average of the weights."""

    @abstractmethod
    def drawn(self, n: int, sampler: str, evaluations: int) -> Tensor:
        """n samples in one block."""

    def draw(self, n: int, sampler: str, evaluations: int) -> Tensor:
        """n samples with so many evaluations of the averaged network each."""
        return torch.cat([self.drawn(min(BLOCK, n - k), sampler, evaluations) for k in range(0, n, BLOCK)])


class Diffusers(Rival):
    """UNet2DModel, DDPMScheduler and EMAModel as in diffusers' script for unconditional generation."""

    samplers = ("DPM-Solver++ 2M", "DDIM")

    def build(self, args: Any) -> nn.Module:
        from diffusers import DDPMScheduler, UNet2DModel
        from diffusers.training_utils import EMAModel

        channels, side, levels = self.rows.shape[1], self.rows.shape[-1], len(args)
        net = UNet2DModel(side, channels, channels, layers_per_block=1, block_out_channels=args, norm_num_groups=8,
                          down_block_types=("DownBlock2D",) * levels, up_block_types=("UpBlock2D",) * levels)
        self.scheduler = DDPMScheduler(1000)
        self.ema = EMAModel(net.parameters(), use_ema_warmup=True, power=3 / 4, foreach=True)
        return net

    def loss(self, x: Tensor) -> Tensor:
        noise, t = torch.randn_like(x), torch.randint(1000, (len(x),))
        return nn.functional.mse_loss(self.net(self.scheduler.add_noise(x, noise, t), t).sample, noise)

    def average(self) -> None:
        self.ema.step(self.net.parameters())

    @torch.no_grad()
    def drawn(self, n: int, sampler: str, evaluations: int) -> Tensor:
        from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

        kind = DDIMScheduler if sampler == "DDIM" else DPMSolverMultistepScheduler
        scheduler = kind.from_config(self.scheduler.config)
        self.ema.store(self.net.parameters())
        self.ema.copy_to(self.net.parameters())
        scheduler.set_timesteps(evaluations)
        x = torch.randn(n, *self.rows.shape[1:])
        for t in scheduler.timesteps:
            x = scheduler.step(self.net(x, t).sample, t, x).prev_sample
        self.ema.restore(self.net.parameters())
        return x


class Lucidrains(Rival):
    """Unet, GaussianDiffusion and EMA as in the Trainer of denoising-diffusion-pytorch."""

    samplers = ("DDIM", "DDIM, eta 1")

    def build(self, args: Any) -> nn.Module:
        os.environ.setdefault("TQDM_DISABLE", "1")
        with _without_torchvision():
            from denoising_diffusion_pytorch import GaussianDiffusion, Unet
        from ema_pytorch import EMA

        dim, multiples = args
        net = Unet(dim, dim_mults=multiples, channels=self.rows.shape[1])
        self.diffusion = GaussianDiffusion(net, image_size=self.rows.shape[-1], auto_normalize=False)
        self.ema = EMA(self.diffusion, beta=0.995, update_every=10)
        return self.diffusion

    def loss(self, x: Tensor) -> Tensor:
        return self.diffusion(x)

    def average(self) -> None:
        self.ema.update()

    def drawn(self, n: int, sampler: str, evaluations: int) -> Tensor:
        model = self.ema.ema_model.eval()
        model.sampling_timesteps, model.ddim_sampling_eta = evaluations, float(sampler.endswith("1"))
        return model.ddim_sample((n, *self.rows.shape[1:])).clone()


class Azula(Rival):
    """UNet, KarrasDenoiser and VPSchedule with t uniform as in azula's first example; the average is PyTorch's own."""

    samplers = ("DDIM", "DDPM")

    def build(self, args: Any) -> nn.Module:
        from azula.denoise import KarrasDenoiser
        from azula.nn.layers import SineEncoding
        from azula.nn.unet import UNet
        from azula.noise import VPSchedule
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        class Backbone(nn.Module):
            """The network told of log(sigma/alpha) by waves that turn over its range of -7 to 7."""

            def __init__(self, channels: int) -> None:
                super().__init__()
                self.told = nn.Sequential(SineEncoding(64, 100.0), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64))
                self.unet = UNet(channels, channels, hid_channels=args, hid_blocks=(1,) * len(args), mod_features=64,
                                 norm="group", groups=8)

            def forward(self, x: Tensor, t: Tensor) -> Tensor:
                return self.unet(x, self.told(t))

        net = KarrasDenoiser(Backbone(self.rows.shape[1]), VPSchedule())
        self.ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.999))
        return net

    def loss(self, x: Tensor) -> Tensor:
        return self.net.loss(x, torch.rand(len(x)))

    def average(self) -> None:
        self.ema.update_parameters(self.net)

    @torch.no_grad()
    def drawn(self, n: int, sampler: str, evaluations: int) -> Tensor:
        from azula.sample import DDIMSampler, DDPMSampler

        kind = DDIMSampler if sampler == "DDIM" else DDPMSampler
        sampler_of = kind(self.ema.module.eval(), steps=evaluations, silent=True)
        return sampler_of(sampler_of.init((n, *self.rows.shape[1:])))


NEEDS = {"diffusers": "diffusers", "lucidrains": "denoising_diffusion_pytorch", "azula": "azula"}
RIVALS: dict[str, type[Rival]] = {"diffusers": Diffusers, "lucidrains": Lucidrains, "azula": Azula}


def rival(name: str, rows: Tensor, args: Any, batch: int, rate: float, seed: int = 0) -> Rival:
    """One of the three; MachineError where its library is not installed."""
    if importlib.util.find_spec(NEEDS[name]) is None:
        raise MachineError(f"{NEEDS[name]} is not installed; `benchmarks/rivals.py` says what to install")
    logging.disable(logging.WARNING)
    return RIVALS[name](rows, args, batch, rate, seed)


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Empty modules of its names where it is missing, and gone again afterwards."""
    names = ("torchvision", "torchvision.transforms", "torchvision.utils")
    if importlib.util.find_spec("torchvision") is None:
        sys.modules.update({name: ModuleType(name) for name in names})
        sys.modules[names[0]].__dict__.update(transforms=sys.modules[names[1]], utils=sys.modules[names[2]])
    try:
        yield
    finally:
        for name in names:
            if getattr(sys.modules.get(name), "__spec__", True) is None:
                del sys.modules[name]
