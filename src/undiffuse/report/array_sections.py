"""Pictures and scores of arrays: series as curves, fields and volumes as grey slices, spectra, values of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from torch import Tensor

from undiffuse.data import Dataset
from undiffuse.report import figures
from undiffuse.report.blocks import Block, ReportFigure
from undiffuse.report.figures import GENERATED, REAL, canvas, chart, logarithmic
from undiffuse.report.formats import short
from undiffuse.report.images import BatchView, Picture, png, tiled
from undiffuse.transforms.array_schema import ArraySchema, first_slice
from undiffuse.transforms.base import Transform

Array = NDArray[np.float64]
_BINS = 24  # wavenumbers of a spectrum
_VALUES = 20_000  # of a channel, whose distributions are compared
_LOW, _HIGH = 0.005, 0.995  # quantiles that are black and white
_CHANNELS = 8  # that are shown
_HEIGHT, _WIDTH = 64, 96  # of a curve in pixels
_SHOWN = 16
_BOTH = (("real", "real"), ("generated", "generated"))


class FieldTiles(BatchView):
    """Fields in a grid: the first channel in grey, the middle slice of volumes, and the curve of series."""

    def __init__(self, data: Dataset, transform: Transform, columns: int) -> None:
        assert data.array is not None
        self.transform, self.columns, self.schema = transform, columns, data.array
        values = self._slices(data.x[:256]).double().flatten()
        low, high = (float(torch.quantile(values, q)) for q in (_LOW, _HIGH))
        self.low, self.range = low, max(high - low, 1e-30)

    def bytes(self, x: Tensor) -> NDArray[np.uint8]:
        """Samples in data units as grey pictures (n, H, W, 1)."""
        level = ((self._slices(x).double() - self.low) / self.range).clamp(0, 1).nan_to_num(0.5)
        if level.ndim == 2:
            level = _curves(level)
        return (255 * level).round().to(torch.uint8)[..., None].numpy()

    def picture(self, z: Tensor, alt: str, role: str = "generated") -> Picture:
        """The tiles as a PNG.

        Args:
            z: samples (n, *event) in model units.
            alt: alternative text.
            role: without effect.
        """
        return png(self.frame(z), alt)

    def frame(self, z: Tensor) -> Image.Image:
        """The tiles."""
        return tiled(self.bytes(self.transform.inverse(z)), self.columns)

    def _slices(self, x: Tensor) -> Tensor:
        """See `first_slice`."""
        return first_slice(self.schema.channels_first(x))


def _curves(level: Tensor) -> Tensor:
    """Curves (n, T) with values in [0, 1] as pictures (n, H, W), light on dark."""
    wide = torch.nn.functional.interpolate(level[:, None], max(level.shape[1], _WIDTH), mode="linear",
                                           align_corners=True)[:, 0]
    height, before = (_HEIGHT - 1) * wide, (_HEIGHT - 1) * torch.cat([wide[:, :1], wide[:, :-1]], 1)
    low, high = torch.minimum(height, before)[:, None], torch.maximum(height, before)[:, None]
    rows = torch.arange(_HEIGHT - 1, -1, -1)[:, None]
    return (-torch.maximum(low - rows, rows - high).clamp_min(0) / 0.6).exp()


def power_spectrum(x: Tensor) -> tuple[Array, Array]:
    """The mean power (C, K) of samples at K wavenumbers, in cycles per sample length, isotropic, with a Hann window.

    Args:
        x: samples (n, C, *space).
    """
    space = x.shape[2:]
    window = torch.ones(space, dtype=torch.float64)
    for axis, n in enumerate(space):
        shape = [1] * len(space)
        shape[axis] = n
        window = window * torch.hann_window(n + 2, periodic=False, dtype=torch.float64)[1:-1].reshape(shape)
    centred = (x.double() - x.double().mean(0)) * window
    power = torch.fft.fftn(centred, dim=tuple(range(2, x.ndim))).abs().square().mean(0) / window.square().sum()
    grids = torch.meshgrid(*[torch.fft.fftfreq(n, 1 / min(space)) for n in space], indexing="ij")
    radius = torch.stack(list(grids)).square().sum(0).sqrt().flatten()
    edges = torch.linspace(0.5, min(space) / 2 + 0.5, min(_BINS, max(1, min(space) // 2)) + 1)
    number = torch.bucketize(radius.contiguous(), edges) - 1
    inside = (number >= 0) & (number < len(edges) - 1)
    flat = power.flatten(1)[:, inside]
    counts = torch.bincount(number[inside], minlength=len(edges) - 1).clamp_min(1)
    sums = torch.zeros(len(flat), len(edges) - 1, dtype=torch.float64).index_add_(1, number[inside], flat)
    return ((edges[1:] + edges[:-1]) / 2).double().numpy(), (sums / counts).numpy()


def array_scores(schema: ArraySchema, real: Tensor, generated: Tensor, train: Tensor) -> dict[str, Any]:
    """Kolmogorov-Smirnov distance per channel, and the largest factor between generated and real spectra.

    Args:
        schema: channels and axes.
        real: held-out samples in data units.
        generated: generated samples.
        train: as many training samples, for the factor between two sets of real samples.
    """
    parts = [schema.channels_first(x) for x in (real, generated, train)]
    ks = {name: float(stats.ks_2samp(*(_some(x[:, j]) for x in parts[:2])).statistic)
          for j, name in enumerate(schema.channels[:_CHANNELS])}
    spectra = [power_spectrum(x)[1] for x in parts]
    factors = [float(np.exp(np.abs(np.log(np.maximum(s, 1e-300) / np.maximum(spectra[0], 1e-300))).max()))
               for s in spectra[1:]]
    return {"ks": ks, "ks_critical": None, "spectrum_factor": factors[0], "spectrum_factor_real": factors[1]}


def array_blocks(train: Dataset, transform: Transform, real: Tensor, generated: Tensor, numbers: dict[str, Any]
                 ) -> tuple[Block, ...]:
    """Real and generated samples, their spectra, and the values of the channels.

    Args:
        train: training samples.
        transform: transform to model units.
        real: real samples to compare with, in data units.
        generated: generated samples.
        numbers: metrics of the run.
    """
    schema = train.array
    assert schema is not None
    view = FieldTiles(train, transform, 4)
    what = {1: "curves of the first channel", 2: "the first channel",
            3: "the middle slice of the first channel"}[len(schema.space)]
    ends = ("the lower edge", "the upper edge") if len(schema.space) == 1 else ("black", "white")
    tiles = tuple(ReportFigure(png(tiled(view.bytes(x[:_SHOWN]), 4), f"{name} samples, {what}"),
                               f"{name} samples, {what}; {ends[1]} is {short(view.low + view.range)}, {ends[0]} "
                               f"{short(view.low)}.", ((name.lower(),) * 2,))
                  for name, x in (("Real", real), ("Generated", generated)))
    real, generated = (schema.channels_first(x) for x in (real[: len(generated)], generated))
    wavenumber, power = power_spectrum(real)
    spectra = [spectrum(f"Spectra of channel {name}, real and generated", wavenumber, power[j],
                        power_spectrum(generated)[1][j], name)
               for j, name in enumerate(schema.channels[:_CHANNELS])]
    values = [figures.column(f"Histograms of channel {name}, real and generated", _some(real[:, j]),
                             _some(generated[:, j]), name) for j, name in enumerate(schema.channels[:_CHANNELS])]
    factor = numbers.get("spectrum_factor")
    caption = "Power against wavenumber, in cycles per sample length" + ("." if factor is None else (
        f"; the spectra differ at most by a factor of {short(factor)}, those of two sets of real samples by "
        f"{short(numbers['spectrum_factor_real'])}."))
    lags = [lagged(f"Autocorrelation of channel {name}, real and generated", autocorrelation(real[:, j]),
                   autocorrelation(generated[:, j]), name)
            for j, name in enumerate(schema.channels[:_CHANNELS])] if len(schema.space) == 1 else []
    caption_of_lags = "Correlation of values against their distance in steps."
    return (tiles, ReportFigure(spectra, caption, _BOTH, "columns"),
            *([ReportFigure(lags, caption_of_lags, _BOTH, "columns")] if lags else []),
            ReportFigure(values, "Values of the channels.", _BOTH, "columns"))


def _some(x: Tensor) -> Array:
    """At most 20,000 of the values that are not missing."""
    values = x.flatten().double()
    values = values[~values.isnan()]
    return np.asarray(values[torch.linspace(0, len(values) - 1, min(len(values), _VALUES)).round().long()].numpy())


def autocorrelation(x: Tensor) -> Array:
    """The correlation of values of series at 0 ... T/2 steps from each other, over all series; gaps are left out.

    Args:
        x: series (n, T), NaN where missing.
    """
    centred = x.double() - x.double().nanmean()
    covariances = torch.stack([(centred[:, : x.shape[1] - lag] * centred[:, lag:]).nanmean()
                               for lag in range(x.shape[1] // 2 + 1)])
    return np.asarray((covariances / covariances[0].clamp_min(1e-300)).numpy())


@chart
def lagged(real: Array, generated: Array, title: str) -> Figure:
    """Autocorrelation of real and generated series against the lag.

    Args:
        real: correlations of real series (L,).
        generated: correlations of generated series (L,).
        title: name of the channel.
    """
    figure, ax = canvas(170, width=230)
    for values, colour, width in ((real, REAL, 3.0), (generated, GENERATED, 1.4)):
        ax.plot(values, color=colour, linewidth=width)
    ax.set_title(figures.shorten(title, 30))
    return figure


@chart
def spectrum(wavenumber: Array, real: Array, generated: Array, title: str) -> Figure:
    """Power of real and generated samples against the wavenumber.

    Args:
        wavenumber: wavenumbers (K,).
        real: power of real samples (K,).
        generated: power of generated samples (K,).
        title: name of the channel.
    """
    figure, ax = canvas(170, width=230)
    for power, colour, width in ((real, REAL, 3.0), (generated, GENERATED, 1.4)):
        ax.plot(wavenumber, power, color=colour, linewidth=width)
    logarithmic(ax.yaxis, "y")
    logarithmic(ax.xaxis, "x")
    ax.set_title(figures.shorten(title, 30))
    return figure
