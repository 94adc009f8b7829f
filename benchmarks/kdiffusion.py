"""Samplers of k-diffusion on the exact laws of `benchmarks.peers`, which prints them beside those of diffusers.

Needs k-diffusion with torchsde and torchdiffeq (`pip install --no-deps k-diffusion torchsde trampoline torchdiffeq`).
Its package imports libraries of networks and pictures which its samplers do not use, so only the module of the samplers
is loaded; where torchvision is missing, an empty module stands in for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.ends import CLOCK, End, starts, steps_for
from undiffuse.errors import MachineError
from undiffuse.mixture import Mixture

LOW, HIGH = 0.01, 152.0
FLOWS = ("euler", "heun", "dpm_2", "lms", "dpmpp_2m")
CHANCE = ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde")
GRIDS: dict[str, Callable[[ModuleType, int], Tensor]] = {
    "karras": lambda k, n: k.get_sigmas_karras(n, LOW, HIGH),
    "exponential": lambda k, n: k.get_sigmas_exponential(n, LOW, HIGH),
    "vp": lambda k, n: k.get_sigmas_vp(n),
}
_TWO_CALLS = ("heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde")


@cache
def module() -> ModuleType:
    """k_diffusion.sampling without the rest of its package; raises MachineError where it is not installed."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        raise MachineError("k-diffusion is not installed; pip install --no-deps k-diffusion torchsde trampoline "
                           "torchdiffeq")
    package = sys.modules.setdefault("k_diffusion", ModuleType("k_diffusion"))
    package.__path__ = list(spec.submodule_search_locations or ())
    if importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            sys.modules[name] = ModuleType(name)
        sys.modules["torchvision.transforms"].functional = sys.modules["torchvision.transforms.functional"]  # type: ignore[attr-defined]
    return importlib.import_module("k_diffusion.sampling")


def entries(names: tuple[str, ...]) -> Iterator[tuple[str, Callable[[Mixture, int, int], End]]]:
    """Each of these samplers on each grid: its name, and what runs it on a law with so many calls of n samples."""
    for name in names:
        for grid in GRIDS:
            yield f"k-diffusion {name} {grid}", partial(run, name, grid)


def run(name: str, grid: str, law: Mixture, calls: int, n: int) -> End:
    """A sampler from n starts with at most so many calls; flows end with a denoising step, the others at `LOW`."""
    k, model, used = module(), law.denoiser(CLOCK), [0]
    steps = steps_for(calls, name in _TWO_CALLS)
    flow = name in FLOWS
    sigmas = GRIDS[grid](k, steps if flow else steps + 1).double()
    sigmas = sigmas if flow else sigmas[:-1]

    def denoise(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        used[0] += 1
        return model.denoise(x, float(sigma[0]))

    first = float(sigmas[0])
    start = first * starts(law, n)
    torch.manual_seed(0)
    z = getattr(k, f"sample_{name}")(denoise, start, sigmas, disable=True)
    return End(z, float(sigmas[-1]), start, first, used[0])
