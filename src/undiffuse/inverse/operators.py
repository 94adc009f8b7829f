"""Operators A of observations y = A(x) + n.

An operator is a function from a batch (B, *event) to (B, *out). The products with its derivative and with the transpose
of that come by automatic differentiation, so any function that torch can differentiate is an operator, linear or not.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.random import Purpose, uniform
from undiffuse.tensors import as_tensor
from undiffuse.transforms.array_schema import channels_first


class Operator(ABC):
    """A function of a batch, sample by sample.

    `channels_first` says that x has to be (B, C, *space), whatever the layout of the data.
    """

    channels_first: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A(x), (B, *out), for x (B, *event)."""

    def mask_unobserved(self, y: Tensor) -> Tensor:
        """y with NaN, which always means "not observed", in the entries that this operator does not observe."""
        return y


@dataclass(frozen=True, eq=False)
class Identity(Operator):
    """All entries, y = x + n; those where y is NaN are missing, like cells of a table or hidden pixels."""

    def __call__(self, x: Tensor) -> Tensor:
        """x."""
        return x


@dataclass(frozen=True, eq=False)
class Mask(Operator):
    """Some entries of an event (inpainting); y has the shape of an event, and its other entries are ignored.

    Args:
        mask: boolean, broadcastable to the event, True where observed.

    Raises:
        InputError: for a mask that does not broadcast to the event.
    """

    mask: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", as_tensor(self.mask, "a mask") != 0)

    def __call__(self, x: Tensor) -> Tensor:
        """x with 0 where the mask is False."""
        mask, event = self.mask.shape, x.shape[1:]
        if len(mask) > len(event) or any(a not in (1, b) for a, b in zip(mask[::-1], event[::-1], strict=False)):
            raise InputError(f"got a mask {tuple(mask)} for events {tuple(event)}; expected that shape")
        return torch.where(self.mask.to(x.device), x, 0.0)

    def mask_unobserved(self, y: Tensor) -> Tensor:
        """y with NaN where the mask is False."""
        return torch.where(self.mask.to(y.device), y, torch.nan)


@dataclass(frozen=True, eq=False)
class Columns(Operator):
    """Some columns of a table's rows (B, D).

    Args:
        columns: their indices.

    Raises:
        InputError: for events that are not rows with these columns.
    """

    columns: Sequence[int]

    def __call__(self, x: Tensor) -> Tensor:
        """(B, len(columns))."""
        if x.ndim != 2 or not all(0 <= j < x.shape[1] for j in self.columns):
            raise InputError(f"got columns {list(self.columns)[:8]} of events {tuple(x.shape[1:])}; expected rows that "
                             "have these")
        return x[:, list(self.columns)]


@dataclass(frozen=True, eq=False)
class Linear(Operator):
    """A x for the flattened event x.

    Args:
        matrix: A (m, d).

    Raises:
        InputError: for events whose number of entries is not d.
    """

    matrix: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """A x, (B, m)."""
        if x[0].numel() != self.matrix.shape[1]:
            raise InputError(f"got a matrix {tuple(self.matrix.shape)} for events of {x[0].numel()} numbers; expected "
                             "as many columns")
        return x.flatten(1) @ self.matrix.to(x).mT


@dataclass(frozen=True, eq=False)
class Convolve(Operator):
    """Convolution of every channel with one kernel, with reflected edges.

    Args:
        kernel: (h, w), or one size per axis of space, all odd.

    Raises:
        InputError: for events that have other axes, or are shorter than half the kernel.
    """

    kernel: Tensor
    channels_first = True

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, *space)."""
        sizes, axes = self.kernel.shape, self.kernel.ndim
        _check_space(x, axes, least=max(sizes) // 2 + 1)
        padded = torch.nn.functional.pad(x, [n // 2 for n in reversed(sizes) for _ in range(2)], mode="reflect")
        weight = self.kernel.flip(*range(axes)).to(x).expand(x.shape[1], 1, *sizes)
        convolve = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[axes]
        return convolve(padded, weight, groups=x.shape[1])


@dataclass(frozen=True, eq=False)
class Downsample(Operator):
    """Means of blocks of `factor` pixels a side (super-resolution).

    Args:
        factor: a divisor of all sides.

    Raises:
        InputError: for events that are not images, series or volumes of such sizes.
    """

    factor: int
    channels_first = True

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, *space), each side divided by the factor."""
        _check_space(x)
        if self.factor < 1 or any(side % self.factor for side in x.shape[2:]):
            raise InputError(f"got factor {self.factor} for images of {'x'.join(map(str, reversed(x.shape[2:])))}; "
                             "expected a divisor of all sides")
        functional = torch.nn.functional
        pool = {3: functional.avg_pool1d, 4: functional.avg_pool2d, 5: functional.avg_pool3d}[x.ndim]
        pooled: Tensor = pool(x, self.factor)
        return pooled


@dataclass(frozen=True, eq=False)
class Fourier(Operator):
    """Some coefficients of every channel's orthonormal Fourier transform, real and imaginary parts (MRI).

    Args:
        mask: (H, W // 2 + 1), True at the measured frequencies of the half-plane that a real image has; of series and
            volumes likewise (*space[:-1], space[-1] // 2 + 1).

    Raises:
        InputError: for events that are not of this size.
    """

    mask: Tensor
    channels_first = True

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, number of frequencies, 2)."""
        _check_space(x)
        expected = (*x.shape[2:-1], x.shape[-1] // 2 + 1)
        if tuple(self.mask.shape) != expected:
            raise InputError(f"got a mask {tuple(self.mask.shape)} of frequencies for images of {tuple(x.shape[2:])}; "
                             f"expected {expected}")
        waves = torch.fft.rfftn(x, dim=tuple(range(2, x.ndim)), norm="ortho")
        return torch.view_as_real(waves[..., self.mask.to(x.device)])


@dataclass(frozen=True, eq=False)
class Grey(Operator):
    """The luminance .299 R + .587 G + .114 B of colour images (colourisation).

    Raises:
        InputError: for events that are not colour images.
    """

    channels_first = True

    def __call__(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) of (B, 3, H, W)."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise InputError(f"got x of shape {tuple(x.shape)}; expected colour images (B, 3, H, W)")
        return torch.einsum("c,bchw->bhw", torch.tensor([0.299, 0.587, 0.114]).to(x), x)[:, None]


@dataclass(frozen=True, eq=False)
class ChannelsFirst(Operator):
    """An operator on samples with their channels first, for data in another layout.

    Args:
        operator: the operator on (B, C, *space).
        layout: axes of the data.
    """

    operator: Operator
    layout: str

    def __call__(self, x: Tensor) -> Tensor:
        """The operator's value."""
        return self.operator(channels_first(x, self.layout))

    def mask_unobserved(self, y: Tensor) -> Tensor:
        """That of the operator."""
        return self.operator.mask_unobserved(y)


@dataclass(frozen=True, eq=False)
class Function(Operator):
    """A custom function, linear or not.

    Args:
        function: from batches (B, *event) to (B, *out), differentiable by torch.
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """The function's value."""
        return self.function(x)


def gaussian_blur(std: float, size: int | None = None, axes: int = 2) -> Convolve:
    """Gaussian blur.

    Args:
        std: standard deviation in pixels.
        size: width of the kernel in pixels; None: 6 std, odd.
        axes: number of axes of space, 2 for images.

    Returns:
        The convolution.

    Raises:
        InputError: for std ≤ 0.
    """
    if std <= 0:
        raise InputError(f"got a blur of {std} pixels; expected a number > 0")
    radius = math.ceil(3 * std) if size is None else size // 2
    i = torch.arange(-radius, radius + 1, dtype=torch.float64)
    row = torch.exp(-0.5 * (i / std) ** 2)
    kernel = row / row.sum()
    for _ in range(axes - 1):
        kernel = kernel[..., None] * row / row.sum()
    return Convolve(kernel)


def motion_blur(length: int, angle: float = 0.0) -> Convolve:
    """Motion blur along a line.

    Args:
        length: length of the line in pixels.
        angle: degrees from the horizontal, counter-clockwise.

    Returns:
        The convolution.

    Raises:
        InputError: for a length below 1.
    """
    if length < 1:
        raise InputError(f"got a motion of {length} pixels; expected at least 1")
    radius, radians = length // 2, math.radians(angle)
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    for u in ((torch.arange(8 * length) + 0.5) / 8 - length / 2).tolist():
        kernel[radius - round(u * math.sin(radians)), radius + round(u * math.cos(radians))] += 1
    return Convolve(kernel / kernel.sum())


def box(shape: Sequence[int], top: int, left: int, height: int, width: int) -> Mask:
    """A mask that hides a box of an image.

    Args:
        shape: shape of an event, whose last two axes are height and width.
        top: first row of the box.
        left: first column of the box.
        height: number of rows.
        width: number of columns.

    Returns:
        The mask.
    """
    mask = torch.ones(tuple(shape), dtype=torch.bool)
    mask[..., top : top + height, left : left + width] = False
    return Mask(mask)


def random_mask(shape: Sequence[int], hidden: float, seed: int = 0) -> Mask:
    """A mask that hides random entries, or pixels of images with all their channels.

    Args:
        shape: shape of an event.
        hidden: expected fraction of hidden entries, in [0, 1).
        seed: seed of the choice.

    Returns:
        The mask.

    Raises:
        InputError: for a fraction outside of [0, 1).
    """
    if not 0 <= hidden < 1:
        raise InputError(f"got a fraction of {hidden} to hide; expected a number from 0 to below 1")
    size = tuple(shape)[-2:]
    return Mask((uniform(seed, Purpose.DATA, 20, 0, 1, size)[0] >= hidden).expand(tuple(shape)))


def as_operator(operator: Any) -> Operator:
    """An operator unchanged, a matrix (m, d) as `Linear`, a boolean tensor as `Mask`, a function as `Function`."""
    if isinstance(operator, Operator):
        return operator
    if callable(operator):
        return Function(operator)
    if (mask := _boolean(operator)) is not None:
        return Mask(mask)
    matrix = as_tensor(operator, "an operator")
    if matrix.ndim != 2:
        raise InputError(f"got an operator of shape {tuple(matrix.shape)}; expected a matrix (m, d), a boolean mask, "
                         "or a function")
    return Linear(matrix)


def _boolean(operator: Any) -> Tensor | None:
    """A boolean array as a tensor; None for anything else."""
    try:
        mask = torch.as_tensor(operator)
    except (TypeError, ValueError, RuntimeError):
        return None
    return mask if mask.dtype == torch.bool else None


def _check_space(x: Tensor, axes: int | None = None, least: int = 1) -> None:
    """Raise InputError for anything but a batch of images, series or volumes with sides of at least `least` pixels."""
    if not 3 <= x.ndim <= 5 or x.ndim - 2 != (axes or x.ndim - 2) or min(x.shape[2:]) < least:
        wanted = "images (B, C, H, W)" if axes in (None, 2) else f"(B, C, *space) with {axes} axes of space"
        raise InputError(f"got x of shape {tuple(x.shape)}; expected {wanted} of at least {least} pixels a side")
