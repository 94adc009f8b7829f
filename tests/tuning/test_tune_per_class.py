"""Samplers of every class's own: nearer to the paths, the same bytes in any batch, and as good as before on a disk."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny import small
from torch import Tensor

from undiffuse.cli import main
from undiffuse.errors import InputError
from undiffuse.mixture import Mixture
from undiffuse.moments import moments_with_missing as likely
from undiffuse.processes import VP
from undiffuse.samplers.driver import sample
from undiffuse.samplers.registry import as_method
from undiffuse.samplers.tuned import ClassCoefficients, TunedSampler
from undiffuse.sde import GaussianSDE
from undiffuse.tuning import NAME, Tuned, load, save, tune, tune_classes

TURN = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
FLAT, TALL = (torch.diag(torch.tensor(s2, dtype=torch.float64)) for s2 in ([0.3, 0.01], [0.2, 0.02]))
SHAPES = (FLAT, TURN @ TALL @ TURN.T)
GAUSSIANS = Mixture([1, 2], [[-1.0, 0.4], [0.8, 0.9]], torch.stack(SHAPES), labels=[0, 1])
"""Two classes, each a Gaussian of its own: the flow of a class is linear in its own coordinates, only there."""
BENT = Mixture([1, 1, 2, 1], [[-1.0, 0.4], [-0.2, -1.0], [0.8, 0.9], [0.9, -0.4]], [0.02, 0.05, 0.01, 0.03],
               labels=[0, 0, 1, 1])
LABELS = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1])


@cache
def common() -> Tuned:
    return tune(BENT.denoiser(VP()), [3, 4], rounds=0, trajectories=16)


@cache
def own() -> Tuned:
    x, y = BENT.sample(4000, 3, labels=True)
    return tune_classes(common(), data=x, labels=y, rounds=2, trajectories=16)


@pytest.mark.parametrize("first_step_free", [False, True])
def test_with_its_own_moments_the_flow_of_a_gaussian_class_is_exact_in_two_steps(first_step_free: bool) -> None:
    """x_s = α_s μ + U Ψ_s/Ψ_T Uᵀ (x_T − α_T μ) with Ψ² = α² s² + σ²; with the moments of both classes it is not."""
    sde, times = VP(), torch.tensor([1.0, 0.6, 0.3, 1e-3][not first_step_free:], dtype=torch.float64)
    times[0], theta = 1.0, torch.zeros(2, 5, dtype=torch.float64)
    model = GAUSSIANS.denoiser(sde)
    moments = {c: GAUSSIANS.given(c).denoiser(sde).moments for c in (0, 1)}
    alike = TunedSampler(times, theta, first_step_free)
    own_moments = {c: ClassCoefficients(theta, frame) for c, frame in moments.items()}
    one = TunedSampler(times, theta, first_step_free, own_moments)
    x_T = model.prior_sample(len(LABELS), 0, 0, 1.0)
    expected = torch.stack([flowed(x, SHAPES[c], GAUSSIANS.means[c], sde) for x, c in zip(x_T, LABELS, strict=True)])
    for method, exact in ((one.method(model.moments), True), (alike.method(model.moments), False)):
        x = sample(model, len(LABELS), method, 2 + first_step_free, grid=times, denoise_last=False, label=LABELS).x
        assert bool((x - expected).abs().max() < 1e-10) is exact


def flowed(x: Tensor, covariance: Tensor, mean: Tensor, sde: GaussianSDE) -> Tensor:
    s2, U = torch.linalg.eigh(covariance)
    t = torch.tensor([1.0, 1e-3], dtype=torch.float64)
    alpha, spread = sde.alpha(t), (sde.alpha(t)[:, None] ** 2 * s2 + sde.sigma(t)[:, None] ** 2).sqrt()
    return alpha[1] * mean + U @ (spread[1] / spread[0] * (U.T @ (x.double() - alpha[0] * mean)))


@pytest.mark.slow
def test_a_class_is_nearer_to_its_paths_than_with_what_all_have() -> None:
    """On starts that nothing was fitted to: the median over 400, at the same nodes."""
    for steps in (3, 4):
        sampler = own().tuning.table["label"][steps]
        assert sampler.per_class
        assert torch.equal(sampler.times, common().tuning.table["label"][steps].times)
        label = torch.arange(400) % 2
        exact = sample(common(), 400, as_method("unipc_4_noise"), 200, grid="log_snr", denoise_last=False,
                       label=label).x
        away = [(sample(model, 400, steps=steps, denoise_last=False, label=label).x - exact).norm(dim=1)
                for model in (own(), common())]
        for c in sampler.per_class:
            ours, theirs = (float(each[label == c].median()) for each in away)
            assert ours < 0.8 * theirs


@pytest.mark.slow
def test_a_class_without_anything_of_its_own_is_sampled_as_before() -> None:
    table = {n: replace(c, per_class={1: c.per_class[1]}) for n, c in own().tuning.table["label"].items()}
    tuned = Tuned(own().inner, replace(own().tuning, table={**own().tuning.table, "label": table}))
    x, before, after = (sample(model, 9, steps=4, label=LABELS).x for model in (tuned, common(), own()))
    assert torch.equal(x[LABELS == 0], before[LABELS == 0]) and torch.equal(x[LABELS == 1], after[LABELS == 1])
    no_class = torch.full((9,), 2)
    for label in (no_class, None):
        assert torch.equal(*(sample(model, 9, steps=4, label=label).x for model in (own(), common())))


@pytest.mark.slow
def test_a_sample_is_the_same_bytes_in_any_batch_and_costs_one_call_a_step() -> None:
    whole = sample(own(), 9, steps=4, label=LABELS, denoise_last=False)
    part = sample(own(), 3, steps=4, first_index=4, label=LABELS[4:7], denoise_last=False)
    alone = sample(own(), 1, steps=4, first_index=4, label=int(LABELS[4]), denoise_last=False)
    assert torch.equal(whole.x[4:7], part.x) and torch.equal(whole.x[4:5], alone.x)
    assert whole.nfe == 4 and whole.tuned_for == "4 evaluations, class by class"


def test_without_a_label_nothing_changes() -> None:
    assert torch.equal(*(sample(model, 9, steps=4).x for model in (own(), common())))


def test_what_is_loaded_samples_the_same(tmp_path: Path) -> None:
    again = load(BENT.denoiser(VP()), save(own(), tmp_path / NAME))
    assert torch.equal(*(sample(model, 9, steps=4, label=LABELS).x for model in (again, own())))
    assert again.tuning.rows == own().tuning.rows
    kinds = [{c: found.moments is None for c, found in model.tuning.table["label"][4].per_class.items()}
             for model in (again, own())]
    assert kinds[0] == kinds[1]


def test_without_rows_the_moments_are_those_of_samples() -> None:
    """512 samples of a Gaussian class: each entry of mean and covariance within four standard errors."""
    found = tune_classes(tune(GAUSSIANS.denoiser(VP()), [3], rounds=0, trajectories=8), rounds=0, trajectories=8)
    frames = {c: own.moments for c, own in found.tuning.table["label"][3].per_class.items() if own.moments is not None}
    assert frames
    for c, frame in frames.items():
        covariance = frame.basis @ torch.diag(frame.variances) @ frame.basis.T
        s = SHAPES[c]
        error = ((s.diagonal()[:, None] * s.diagonal() + s**2) / 512).sqrt()
        assert ((covariance - s).abs() < 4 * error).all()
        assert ((frame.mean - GAUSSIANS.means[c]).abs() < 4 * (s.diagonal() / 512).sqrt()).all()


def test_rows_with_missing_cells_give_the_moments_that_are_most_likely() -> None:
    x, y = GAUSSIANS.sample(400, 3, labels=True)
    x[::5, 0] = torch.nan
    found = tune_classes(tune(GAUSSIANS.denoiser(VP()), [3], rounds=0, trajectories=8), rounds=0, trajectories=8,
                         data=x, labels=y).tuning.table["label"][3].per_class
    frames = {c: own.moments for c, own in found.items() if own.moments is not None}
    assert frames
    for c, frame in frames.items():
        assert torch.equal(frame.mean, likely(x[y == c]).mean) and torch.equal(frame.basis, likely(x[y == c]).basis)


def test_where_all_classes_have_nothing_no_class_has() -> None:
    bare = Tuned(common().inner, replace(common().tuning, table={**common().tuning.table, "label": {}}))
    found = tune_classes(bare).tuning
    assert found.table == bare.tuning.table and found.rows == bare.tuning.rows


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(InputError, match="without labels"):
        tune_classes(tune(small(), [4], rounds=0, trajectories=8))
    with pytest.raises(InputError, match="tune it first"):
        tune_classes(BENT.denoiser(VP()))


def test_two_kinds_at_once_are_refused_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "nowhere", "--guidance-scale", "1,2", "--per-class"]) == 2
    assert "got --per-class and --guidance-scale; use one" in capsys.readouterr().err
