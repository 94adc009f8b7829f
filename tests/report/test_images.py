"""The way from noise to data: its times, its scale, and the film that shows it."""

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
from undiffuse.report.images import Plane, Tiles, film
from undiffuse.sde import GaussianSDE
from undiffuse.transforms import base

FAMILIES: list[GaussianSDE] = [VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow()]


def by_name(sde: GaussianSDE) -> str:
    return sde.name


@pytest.mark.parametrize("sde", FAMILIES, ids=by_name)
def test_the_times_of_a_film_fall_and_spend_a_third_of_the_frames_where_noise_and_data_meet(sde: GaussianSDE) -> None:
    model = Gaussian(torch.zeros(2), torch.eye(2) * 0.25).denoiser(sde)
    times = trajectory.times(model, 30)
    assert times[0] == sde.T and times[-1] == pytest.approx(model.t_end()) and bool((times.diff() < 0).all())
    ratio = torch.exp(-sde.log_snr(times)) / model.sigma_data
    assert int(((ratio > 0.2) & (ratio < 5)).sum()) >= 10


@pytest.mark.parametrize("sde", FAMILIES, ids=by_name)
def test_what_is_shown_has_the_spread_of_the_data_at_every_time(sde: GaussianSDE) -> None:
    law = Gaussian(torch.zeros(2), torch.eye(2) * 0.25)
    model, z = law.denoiser(sde), law.sample(4000, 0)
    moments = trajectory.forward(model, z, trajectory.times(model, 5).tolist())
    spread = torch.stack([m.shown.square().mean().sqrt() for m in moments])
    error = 0.5 / math.sqrt(2 * z.numel())
    assert bool(((spread - 0.5).abs() < 5 * error).all())


def test_the_film_ends_in_the_samples_and_its_times_fall_to_zero(images: Tiny) -> None:
    seen = gather(images.folder, 12, data=images.data)
    model = Copier(seen.model, seen.train.x)  # it knows digits, which twelve steps of training do not teach
    moments = trajectory.backward(model, model.prior_sample(12, 0, 0), 9, label=seen.labels)
    view = Tiles(seen.train, seen.model.transform, 4)
    movie = Image.open(io.BytesIO(film(view, moments)))
    times = [float(word) for word in movie.info["comment"].split()]
    assert movie.n_frames == len(times) == len(moments) == 11  # 9 steps, their start and the denoised end
    assert times[0] == model.sde.T and times[-1] == 0 and all(a > b for a, b in pairwise(times))
    assert movie.info["loop"] == 0
    shown, bars, durations = [], [], []
    for k in range(movie.n_frames):
        movie.seek(k)
        frame = np.asarray(movie.convert("L"))
        shown.append(frame[:-36])
        bars.append(int((frame[-28] > 128).sum()))
        durations.append(movie.info["duration"])
    assert bars == sorted(bars) and bars[-1] > 5 * max(bars[0], 1)
    assert durations[0] > durations[1] and durations[-1] > durations[0]
    wanted = np.asarray(view.frame(moments[-1].x).resize(shown[-1].shape[::-1], Image.Resampling.NEAREST))
    assert np.abs(shown[-1].astype(int) - wanted).max() <= 255 / 15 / 2 + 1  # sixteen shades
    assert np.abs(shown[0].astype(int) - wanted).mean() > 20


def test_the_reverse_way_of_an_exact_model_arrives_at_its_law() -> None:
    law = Gaussian(torch.tensor([0.5, -0.5]), torch.eye(2) * 0.04)
    model = law.denoiser(VP())
    model.transform = base.Identity()
    moments = trajectory.backward(model, model.prior_sample(2000, 0, 0), 30)
    end = moments[-1].x
    assert torch.allclose(end.mean(0), torch.tensor([0.5, -0.5]).to(end), atol=5 * 0.2 / math.sqrt(2000) + 0.01)
    assert float(end.std()) == pytest.approx(math.hypot(0.2, 0.5), rel=0.05)
    guess = trajectory.expected_data(model, moments)
    assert float((guess[0] - torch.tensor([0.5, -0.5]).to(end)).abs().max()) < 0.05  # nothing but the mean under noise
    assert torch.equal(guess[-1], end)


def test_a_plane_keeps_points_and_turns_tables_to_their_principal_axes(points: Tiny, table: Tiny) -> None:
    seen = gather(points.folder, 4, data=points.data)
    z = seen.model.transform.forward(seen.train.x)
    assert np.allclose(Plane(seen.train, seen.model.transform).points(z), z.numpy())
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
