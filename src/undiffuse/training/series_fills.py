"""Series in training: moments and fills of windows with missing values, and the imputer that a run keeps."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from undiffuse.data import Dataset
from undiffuse.inverse.series_imputer import NAME, SeriesImputer, pieces_of
from undiffuse.inverse.window_law import MAX_ENTRIES, WindowLaw, fill, fit_law
from undiffuse.model import Denoiser
from undiffuse.moments import Moments, covariance
from undiffuse.progress import say

_RIDGE = 1e-4
_SEED = 0  # of the fills, which are part of the data


def has_law(data: Dataset) -> bool:
    """Whether data are windows of series that are small enough for a law of windows."""
    return data.starts is not None and data.x[0].numel() <= MAX_ENTRIES


def series_moments(data: Dataset, model: Denoiser) -> Moments:
    """The moments of windows with missing values, in model units, measured on the series with these drawn."""
    assert data.starts is not None
    z = model.transform.forward(data.x).double()
    pieces = pieces_of(z, data.starts)
    _, filled = fit_law(pieces.series, pieces.starts, z.shape[2], 0, _RIDGE, _SEED)
    windows = [piece.unfold(1, z.shape[2], 1).transpose(0, 1) for piece in filled]
    return Moments.measure(torch.cat(windows), model.moments.kind if model.moments else "auto")


def series_fills(data: Dataset, z: Tensor, model: Denoiser, n: int) -> list[Tensor]:
    """n draws of the missing values of windows, from the Gaussian law with the model's moments.

    Args:
        data: the windows.
        z: the same in model units (N, C, T), NaN where missing.
        model: model with moments.
        n: number of draws.
    """
    assert data.starts is not None and model.moments is not None
    d = len(model.moments.mean)
    cov = covariance(model.moments) + _RIDGE * torch.eye(d, dtype=torch.float64)
    law = WindowLaw.gaussian(model.moments.mean, cov, (z.shape[1], z.shape[2]))
    pieces, T = pieces_of(z, data.starts), z.shape[2]
    drawn = [fill(law, series, start, n, _SEED, k << 20).to(z) for k, (series, start) in enumerate(
        zip(pieces.series, pieces.starts, strict=True))]
    windows = [drawn[k][:, :, at:at + T] for k, at in pieces.places.tolist()]
    return list(torch.stack(windows, 1))


def keep_imputer(folder: Path, model: Denoiser, data: Dataset, held_out: Dataset | None) -> None:
    """Fits the imputer of a run of a series and writes it into the folder, unless it is there."""
    if not has_law(data) or (folder / NAME).exists() or data.array is None or data.array.windows is None:
        if data.starts is not None and not has_law(data):
            say(f"windows of more than {MAX_ENTRIES:,} values are sampled, and not imputed or forecast; choose fewer "
                f"columns or a shorter window for that")
        return
    period = int(data.array.windows["period"])
    assert data.starts is not None
    test, begins = (None, None) if held_out is None else (model.transform.forward(held_out.x), held_out.starts)
    imputer = SeriesImputer.fit(model.transform.forward(data.x), data.starts, test, begins, period)
    imputer.save(folder / NAME)
    say(imputer.describe())
