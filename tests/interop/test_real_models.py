"""A real pretrained model, in the folder that UNDIFFUSE_PRETRAINED names, and the parts that need a GPU.

    UNDIFFUSE_PRETRAINED=FOLDER python -m pytest tests/interop/test_real_models.py
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
import torch
from tiny_pipelines import LATENT, diffusers, error, stable_diffusion, start
from torch import Tensor, nn

import undiffuse as ud
from undiffuse.interop import check_reading
from undiffuse.interop.comparison import compare, their_samples, their_schedulers
from undiffuse.interop.schedules import Schedule, dynamic_shift, times_of
from undiffuse.random import Purpose, normal
from undiffuse.samplers.driver import conditions_of
from undiffuse.samplers.registry import ALL
from undiffuse.transforms.codec import Codec

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
FOLDER = os.environ.get("UNDIFFUSE_PRETRAINED", "")
real = pytest.mark.skipif(not FOLDER, reason="UNDIFFUSE_PRETRAINED does not name the folder of a pretrained pipeline")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
PROMPTS = ["a red house by the sea", "a photograph of a cat"]


@pytest.fixture(scope="module")
def model() -> Any:
    return ud.load(FOLDER)


@pytest.fixture(scope="module")
def cond(model: Any) -> dict[str, Any]:
    """Conditions for two samples."""
    prompts = {"prompt": PROMPTS} if "prompt" in model.condition_names else {}
    return {**prompts, **({"label": [0, 1]} if model.classes else {})}


# ------------------------------------------------------------------------------------------- real weights


@real
def test_the_configuration_says_what_the_network_was_trained_on(model: Any, cond: dict[str, Any]) -> None:
    """With own samples, which are what the network believes in; the error falls with the noise for a true reading."""
    lines = check_reading(model, n=2, **cond)
    assert not [line for line in lines if line.startswith("warning")], lines


@real
def test_their_first_order_sampler_is_ours(model: Any, cond: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """DDIM, or Euler on a flow or EDM's process, without limits of D, which DDIM applies to D and not to ε."""
    monkeypatch.setattr(model, "clip", None)
    schedulers = their_schedulers(model)
    kind, config = next((schedulers[k] for k in ("DDIM", "Euler") if k in schedulers), next(iter(schedulers.values())))
    config = {**config, "clip_sample": False, "thresholding": False}
    eps, rows = start(2, model.shape), conditions_of(model, cond, 2)
    theirs, calls = their_samples(model, kind, config, 10, eps, rows)
    scheduler = getattr(diffusers, kind).from_config(config)
    shift = dynamic_shift(config, model.shape) if kind.startswith("FlowMatch") else None
    scheduler.set_timesteps(10, **({} if shift is None else {"mu": shift}))
    times, to_zero = times_of(Schedule(model.sde, model.reading, ""), scheduler)
    x_T = eps * float(model.sde.sigma(times[0])) if isinstance(model.sde, ud.EDM) else eps
    ours = ud.sample(model, 2, ALL["ddim"], grid=times, x_T=x_T, denoise_last=to_zero, **cond)
    assert ours.nfe == calls and error(ours.z, theirs) < 1e-3


@real
def test_a_sample_of_a_real_model_has_the_same_bytes_in_any_batch(model: Any, cond: dict[str, Any]) -> None:
    both = ud.sample(model, 2, steps=4, block=1, **cond).z
    alone = ud.sample(model, 1, steps=4, block=1, first_index=1, **{k: v[1:] for k, v in cond.items()}).z
    assert torch.equal(both[1:], alone) and both.isfinite().all()


@real
def test_the_default_sampler_is_as_near_to_the_fine_path_as_theirs(model: Any, cond: dict[str, Any]) -> None:
    _, rows = compare(model, [8, 15], 2, fine=60, **cond)
    for budget in (8, 15):
        means = {(row.ours, row.label): row.mean for row in rows if row.steps == budget}
        best = min(v for (ours, _), v in means.items() if not ours and v == v)
        assert means[True, "auto"] <= 1.05 * best, means


@real
def test_guidance_of_a_real_text_model_is_one_call_and_close_to_two(model: Any, cond: dict[str, Any]) -> None:
    if "prompt" not in cond:
        pytest.skip("it takes no text")
    guided = ud.classifier_free(model, 5.0, negative={"prompt": "blurry"})
    joined = ud.sample(guided, 2, steps=3, **cond).z
    try:
        model.joins_conditions = False
        apart = ud.sample(guided, 2, steps=3, **cond).z
    finally:
        model.joins_conditions = True
    assert error(joined, apart) < 2e-2  # half precision; 1e-4 in float32


@real
def test_the_likelihood_of_real_weights_has_an_error_that_covers_other_probes(model: Any, cond: dict[str, Any]) -> None:
    x = ud.sample(model, 2, steps=20, **cond).x
    if isinstance(model.transform, Codec):
        pytest.skip("a model of latents")
    a, b = (ud.log_likelihood(model, x, "hutchinson", 8, 1e-3, 1e-3, seed, dequantise="none", **cond)
            for seed in (0, 1))
    assert ((a.log_prob - b.log_prob).abs() <= 4 * (a.error**2 + b.error**2).sqrt()).all()


# ------------------------------------------------------------------------------------------- a GPU


@gpu
@pytest.mark.parametrize("method", ["ddim", "dpmpp_2m_sde"])
def test_a_gpu_gives_the_samples_of_the_cpu_and_equal_bytes_in_any_batch(method: str) -> None:
    pipe = stable_diffusion()
    expected = ud.sample(ud.from_diffusers(pipe, latents=True, block=1), 3, method, 5, seed=2, prompt="a cat").x
    model = ud.from_diffusers(pipe.to("cuda"), latents=True, block=1)
    whole = ud.sample(model, 3, method, 5, seed=2, prompt="a cat").x
    assert whole.device.type == "cpu" and error(whole, expected) < 1e-3
    assert torch.equal(ud.sample(model, 1, method, 5, seed=2, first_index=2, prompt="a cat").x, whole[2:])


@gpu
def test_one_call_for_guidance_is_not_slower_than_two() -> None:
    model = ud.from_diffusers(stable_diffusion().to("cuda"), latents=True, block=1)
    guided, seconds = ud.classifier_free(model, 5.0), dict[bool, float]()
    for joined in (True, False, True, False):
        model.joins_conditions = joined
        torch.cuda.synchronize()
        began = time.perf_counter()
        ud.sample(guided, 1, "ddim", 20, prompt="a cat")
        seconds[joined] = time.perf_counter() - began
    assert seconds[True] < 1.05 * seconds[False]


@gpu
def test_bfloat16_weights_on_a_gpu_keep_float32_states() -> None:
    pipe = stable_diffusion()
    single = ud.sample(ud.from_diffusers(pipe.to("cuda"), latents=True), 1, "ddim", 4, prompt="a").x
    half = ud.sample(ud.from_diffusers(pipe.to(torch.bfloat16), latents=True), 1, "ddim", 4, prompt="a").x
    assert half.dtype == torch.float32 and error(half, single) < 5e-2


class Still(nn.Module):
    """A network of no cost."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return x


@gpu
def test_our_part_of_a_step_on_a_gpu_is_cheap() -> None:
    shape, steps = (16, 128, 128), 20
    model = ud.foreign(Still().cuda(), process=ud.RectifiedFlow(), predict="velocity", shape=shape, block=1)
    ud.sample(model, 1, "unipc", 2)
    torch.cuda.reset_peak_memory_stats()
    before, began = torch.cuda.memory_allocated(), time.perf_counter()
    ud.sample(model, 1, "unipc", steps)
    torch.cuda.synchronize()
    assert (time.perf_counter() - began) / steps < 0.015
    assert torch.cuda.max_memory_allocated() - before < 8 * 4 * 16 * 128 * 128


@gpu
def test_tuning_large_states_on_a_gpu_needs_little_memory() -> None:
    model = ud.foreign(Still().cuda(), process=ud.VP(), predict="noise", shape=(4, 128, 128), clock=lambda t: 999 * t,
                       block=8)
    torch.cuda.reset_peak_memory_stats()
    ud.tune(model, evaluations=[4], trajectories=8, rounds=1)
    assert torch.cuda.max_memory_allocated() < 1.5 * 2**30


@gpu
def test_the_scheduler_in_a_pipeline_on_a_gpu_is_sample() -> None:
    pipe = stable_diffusion().to("cuda")
    model, z = ud.from_diffusers(pipe, latents=True, block=1), normal(3, Purpose.INIT, 0, 0, 1, LATENT)
    pipe.scheduler = ud.scheduler(pipe, "dpmpp_2m", seed=5)
    theirs = pipe("a cat", num_inference_steps=8, guidance_scale=1.0, latents=z.cuda(), output_type="latent").images
    grid = torch.stack([node.t for node in pipe.scheduler.nodes])
    assert error(ud.sample(model, 1, "dpmpp_2m", grid=grid, x_T=z, prompt="a cat").x, theirs.cpu()) < 1e-3
