"""Trajectories from noise to data: their times, their scale, and the animation."""

from __future__ import annotations

import io
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from report.conftest import Copier, Tiny

from undiffuse.data.dataset import fit_transform
from undiffuse.mixture import Gaussian
from undiffuse.processes import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from undiffuse.random import Purpose, normal
from undiffuse.report import trajectory
from undiffuse.report.evaluate import gather
from undiffuse.report.images import Plane, Tiles, animation
from undiffuse.sde import GaussianSDE
from undiffuse.transforms import base

FAMILIES: list[GaussianSDE] = [VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow()]


def by_name(sde: GaussianSDE) -> str:
    return sde.name


@pytest.mark.parametrize("sde", FAMILIES, ids=by_name)
def test_the_times_of_an_animation_fall_with_a_third_of_them_where_noise_equals_data(sde: GaussianSDE) -> None:
    model = Gaussian(torch.zeros(2), torch.eye(2) * 0.25).denoiser(sde)
    times = trajectory.animation_times(model, 30)
    assert times[0] == sde.T and times[-1] == pytest.approx(model.t_end()) and bool((times.diff() < 0).all())
    ratio = torch.exp(-sde.log_snr(times)) / model.sigma_data
    assert int(((ratio > 0.2) & (ratio < 5)).sum()) >= 10


@pytest.mark.parametrize("sde", FAMILIES, ids=by_name)
def test_scaled_snapshots_have_the_spread_of_the_data_at_every_time(sde: GaussianSDE) -> None:
    gaussian = Gaussian(torch.zeros(2), torch.eye(2) * 0.25)
    model, z = gaussian.denoiser(sde), gaussian.sample(4000, 0)
    snapshots = trajectory.forward(model, z, trajectory.animation_times(model, 5).tolist())
    spread = torch.stack([s.scaled.square().mean().sqrt() for s in snapshots])
    error = 0.5 / math.sqrt(2 * z.numel())
    assert bool(((spread - 0.5).abs() < 5 * error).all())


def test_the_animation_ends_in_the_samples_and_its_times_fall_to_zero(images: Tiny) -> None:
    data = gather(images.folder, 12, data=images.data)
    model = Copier(data.model, data.train.x)  # it returns digits, which twelve steps of training do not teach
    snapshots = trajectory.backward(model, model.prior_sample(12, 0, 0), 9, label=data.labels)
    view = Tiles(data.train, data.model.transform, 4)
    movie = Image.open(io.BytesIO(animation(view, snapshots)))
    times = [float(word) for word in movie.info["comment"].split()]
    assert movie.n_frames == len(times) == len(snapshots) == 11  # 9 steps, their start and the denoised end
    assert times[0] == model.sde.T and times[-1] == 0 and all(a > b for a, b in pairwise(times))
    assert movie.info["loop"] == 0
    pictures, bars, durations = [], [], []
    for k in range(movie.n_frames):
        movie.seek(k)
        frame = np.asarray(movie.convert("L"))
        pictures.append(frame[:-36])
        bars.append(int((frame[-28] > 128).sum()))
        durations.append(movie.info["duration"])
    assert bars == sorted(bars) and bars[-1] > 5 * max(bars[0], 1)
    assert durations[0] > durations[1] and durations[-1] > durations[0]
    last = np.asarray(view.frame(snapshots[-1].x).resize(pictures[-1].shape[::-1], Image.Resampling.NEAREST))
    assert np.abs(pictures[-1].astype(int) - last).max() <= 255 / 15 / 2 + 1  # sixteen shades
    assert np.abs(pictures[0].astype(int) - last).mean() > 20


def test_the_reverse_process_of_an_exact_model_ends_in_its_distribution() -> None:
    gaussian = Gaussian(torch.tensor([0.5, -0.5]), torch.eye(2) * 0.04)
    model = gaussian.denoiser(VP())
    model.transform = base.Identity()
    snapshots = trajectory.backward(model, model.prior_sample(2000, 0, 0), 30)
    end = snapshots[-1].x
    assert torch.allclose(end.mean(0), torch.tensor([0.5, -0.5]).to(end), atol=5 * 0.2 / math.sqrt(2000) + 0.01)
    assert float(end.std()) == pytest.approx(math.hypot(0.2, 0.5), rel=0.05)
    expected = trajectory.expected_data(model, snapshots)
    assert float((expected[0] - torch.tensor([0.5, -0.5]).to(end)).abs().max()) < 0.05  # under noise the mean
    assert torch.equal(expected[-1], end)


def test_a_plane_leaves_points_and_turns_tables_to_their_principal_axes(points: Tiny, table: Tiny) -> None:
    data = gather(points.folder, 4, data=points.data)
    z = data.model.transform.forward(data.train.x)
    assert np.allclose(Plane(data.train, data.model.transform).points(z), z.numpy())
    flat = gather(table.folder, 4, data=table.data)
    z = flat.model.transform.forward(flat.train.x).double()
    places = Plane(flat.train, flat.model.transform).points(z)
    variances = np.linalg.eigvalsh(np.cov(z.numpy().T))[::-1][:2]
    assert np.allclose(places.var(0, ddof=1), variances)
    assert abs(np.corrcoef(places.T)[0, 1]) < 1e-9


def test_numbers_on_a_line_have_a_plane_too() -> None:
    from undiffuse.data import from_arrays

    data = from_arrays(normal(0, Purpose.DATA, 5, 0, 50, (1,)).numpy())
    transform = fit_transform(data)
    view = Plane(data, transform)
    z = transform.forward(data.x)
    assert view.points(z).shape == (50, 2) and np.corrcoef(view.points(z)[:, 0], z[:, 0].numpy())[0, 1] > 0.999
