"""All methods of `observe`: samples independent of the request, y and labels as conditions, and invalid arguments."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_moments, correlated_gaussian, f64, random_mixture

from undiffuse.errors import InputError
from undiffuse.inverse import (
    Columns,
    Convolve,
    Downsample,
    Fourier,
    Grey,
    Identity,
    Linear,
    Mask,
    Operator,
    box,
    gaussian_blur,
    motion_blur,
    observe,
    random_mask,
)
from undiffuse.inverse.observe import METHODS
from undiffuse.mixture import Gaussian
from undiffuse.model import Model
from undiffuse.processes import VP
from undiffuse.samplers.driver import sample

A, Y = f64(1.0, 0.5, 0.0, 0.0, -1.0, 2.0).reshape(2, 3), f64(0.3, -1.0)
SMALL = {"twisted": {"particles": 8, "group": 4}, "repaint": {"times": 2}, "gibbs": {"inner": 1, "repeats": 2},
         "daps": {"inner": 2}}
IMAGES: dict[str, Operator] = {
    "identity": Identity(), "mask": Mask(torch.ones(4, 4, dtype=torch.bool)), "box": box((1, 4, 4), 0, 0, 2, 2),
    "random": random_mask((1, 4, 4), 0.5), "blur": gaussian_blur(0.5), "motion": motion_blur(3),
    "convolve": Convolve(torch.ones(1, 3)), "downsample": Downsample(2), "fourier": Fourier(torch.ones(4, 3).bool()),
    "linear": Linear(torch.ones(2, 16)),
}


@pytest.mark.parametrize("method", METHODS)
def test_sample_i_is_the_same_bytes_in_every_request(method: str) -> None:
    inner = random_mixture().denoiser(VP())
    inner.block = 4
    model = observe(inner, f64(1, 0.5)[None], [0.3], 0.1, method, **SMALL.get(method, {}))
    whole = sample(model, 12, steps=3)
    part = sample(model, 5, steps=3, first_index=6)
    assert torch.equal(part.x, whole.x[6:11])
    if whole.log_evidence is not None and part.log_evidence is not None:
        assert torch.equal(part.log_evidence, whole.log_evidence[6:11])
        assert torch.equal(whole.log_evidence[:4], whole.log_evidence[:1].expand(4))


@pytest.mark.parametrize("method", METHODS)
def test_every_sample_may_have_its_own_y(method: str) -> None:
    inner = random_mixture(3, 3).denoiser(VP())
    inner.block = 4
    options = SMALL.get(method, {})
    rows = torch.stack([f64(0.2, torch.nan, 1.0), f64(torch.nan, 0.4, torch.nan)]).repeat_interleave(4, 0)
    both = sample(observe(inner, Identity(), None, 0.1, method, **options), 8, steps=3, y=rows).x
    for k in range(2):
        alone = observe(inner, Identity(), rows[4 * k], 0.1, method, **options)
        assert torch.allclose(sample(alone, 4, steps=3, first_index=4 * k).x, both[4 * k : 4 * k + 4], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sde", ["edm", "rectified_flow"])
def test_every_method_is_drawn_towards_y_from_every_process(method: str, sde: str) -> None:
    from oracles import PROCESSES

    law = correlated_gaussian()
    out = sample(observe(law.denoiser(PROCESSES[sde]), A, Y, 0.05, method), 64, steps=30).x
    free = law.sample(64)
    assert (out @ A.mT - Y).norm(dim=1).median() < 0.5 * (free @ A.mT - Y).norm(dim=1).median()


@pytest.mark.slow
def test_a_function_that_is_not_linear_is_observed() -> None:
    law = random_mixture(1, 2)
    for method in ("mmps", "twisted", "diffpir", "gibbs"):
        observed = observe(law.denoiser(VP()), lambda x: x.norm(dim=1, keepdim=True), [3.0], 0.05, method)
        assert (sample(observed, 64, steps=40).x.norm(dim=1) - 3).abs().median() < 0.15


@pytest.mark.slow
def test_labels_are_conditions_still() -> None:
    law = random_mixture(4, 2, labels=True)
    inner: Model = law.denoiser(VP())
    for method in ("mmps", "twisted"):
        observed = observe(inner, f64(1, 0)[None], [0.3], 0.2, method)
        x = sample(observed, 512, steps=30, label=1).x
        assert torch.equal(x, sample(observed.given(label=1), 512, steps=30).x)
        assert torch.allclose(x, sample(observe(inner.given(label=1), f64(1, 0)[None], [0.3], 0.2, method), 512,
                                        steps=30).x, atol=1e-6)
        if method == "twisted":
            truth = law.given(1).posterior(f64(1, 0)[None], [0.3], 0.2)
            assert_moments(x, truth, slack=0.1)


@pytest.mark.parametrize("wrong", [
    lambda m: observe(m, A, Y, 0.1, "best"), lambda m: observe(m, A, Y, -0.1), lambda m: observe(m, A, Y[:1], 0.1),
    lambda m: observe(m, A[:, :2], Y, 0.1), lambda m: observe(m, A, Y, 0.1, "dps", eta=2),
    lambda m: observe(m, A, Y, 0.1, iteration=2), lambda m: observe(m, A[0], Y, 0.1),
    lambda m: observe(m, A, Y, 0.1, units="grey"), lambda m: sample(observe(m, A, Y, 0.1, "dps"), 1, "ddim"),
    lambda m: sample(observe(m, A, None, 0.1), 1), lambda m: sample(observe(m, A, Y, 0.1, "dps"), 1, steps=0),
    lambda m: sample(observe(m, A, Y, 0.1, "twisted", particles=100), 1),
    lambda m: observe(m, lambda x: x.detach(), Y, 0.1).denoise(torch.zeros(1, 3), 0.5),
    lambda m: sample(observe(m, A, None, 0.1), 2, y=torch.zeros(2, 5)),
    lambda m: sample(observe(m, A, None, 0.1, exact=True), 2, y=torch.stack([Y, Y + 1])),
    lambda m: observe(m, A, "two", 0.1), lambda m: observe(m, A, [[1.0], [1.0, 2.0]], 0.1),
    lambda m: observe(m, A, Y, torch.ones(5)), lambda m: observe(m, A, Y, "loud"),
    lambda m: observe(m, lambda x: x.flatten(1) @ torch.ones(4, 1).double(), Y, 0.1),
    lambda m: observe(m, lambda x: x.sum(), Y, 0.1), lambda m: observe(m, Columns([0, 7]), Y, 0.1),
    lambda m: observe(m, Mask(torch.ones(2, dtype=torch.bool)), torch.zeros(3), 0.1),
    lambda m: observe(m, Grey(), Y, 0),
])
def test_nonsense_gets_a_sentence(wrong: object) -> None:
    with pytest.raises(InputError, match=r"got .*"):
        wrong(correlated_gaussian().denoiser(VP()))  # type: ignore[operator]


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 4), (16,), (2, 4, 4), (1, 5, 5), (1, 1, 4, 4), (1, 4, 4, 1)])
def test_a_y_of_another_shape_is_refused_in_one_sentence(name: str, shape: tuple[int, ...]) -> None:
    operator, model = IMAGES[name], Gaussian(torch.zeros(1, 4, 4), 1.0).denoiser(VP())
    right = tuple(operator(torch.zeros(1, 1, 4, 4)).shape[1:])
    assert shape != right
    posterior = observe(model, operator, torch.zeros(right), 0.1)
    assert posterior.denoise(torch.zeros(1, 1, 4, 4).double(), 0.5).isfinite().all()
    for wrong in (lambda: observe(model, operator, torch.zeros(shape), 0.1),
                  lambda: sample(observe(model, operator, None, 0.1), 2, steps=1, y=torch.zeros(2, *shape))):
        with pytest.raises(InputError, match=r"got y of shape .* for an operator that gives .*; expected") as caught:
            wrong()
        assert "\n" not in str(caught.value)
