"""The network of a recipe: its kind, its size, and what it predicts, with one sentence of explanation.

Sizes are those that did best in trials on two CPU cores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from undiffuse import simulation_recipe
from undiffuse.data import Dataset, Transform
from undiffuse.data.dataset import WITH_MISSING
from undiffuse.moments import best_kind, measurable
from undiffuse.predictions import LINEAR, WIENER
from undiffuse.training.model_config import model_shape

_FLAT = 200  # values of an image or field up to which a multilayer perceptron learns faster than a U-Net
_SHORT = 400  # values of a series up to which it learns as fast as a transformer
BATCH = {"unet": 32, "dit": 64}
"""Rows per update of networks for images and arrays."""
_MEDIUM, _LARGE = 2000, 20_000  # rows from which the network for a table is larger


@dataclass(frozen=True)
class Choice:
    """Some fields of an experiment and the sentence that explains them, mainly the first."""

    fields: dict[str, Any]
    why: str


@dataclass(frozen=True)
class Problem:
    """The training rows, their standard deviation and largest distance in model units, the network, and whether the
    training ends by the held-out path loss."""

    train: Dataset
    held_out: int
    transform: Transform
    data_std: float
    reach: float
    net: str
    prediction_type: str = WIENER
    stops: bool = False

    @property
    def table(self) -> bool:
        """Whether the rows are trained as those of tables are: also arrays by an MLP."""
        return self.train.kind in WITH_MISSING and self.net not in BATCH

    @property
    def image(self) -> bool:
        """Whether the rows are trained as pictures are: also arrays by a U-Net or transformer."""
        return self.train.kind == "image" or (self.train.kind == "array" and self.net in BATCH)

    @cached_property
    def space(self) -> list[int]:
        """The lengths of the axes of space, of images and arrays."""
        return model_shape(self.train, self.transform)[1:]

    @property
    def corrects(self) -> bool:
        """Whether an MLP corrects the best linear denoiser in every direction."""
        suits = self.net == "mlp" and self.train.kind != "points" and measurable(tuple(model_shape(self.train,
                                                                                                   self.transform)))
        return suits and self.prediction_type == WIENER

    @property
    def smooths(self) -> bool:
        """Whether a network for images or arrays corrects the best linear denoiser by one scale: of arrays, and where
        that is a filter in cosines. Many small grey images, whose principal directions are known, are learned as fast
        without."""
        if self.train.kind == "array":
            return self.net in BATCH
        return self.net in BATCH and self.image and best_kind(self.train.shape, len(self.train)) == "dct"


def default_net(data: Dataset, shape: Sequence[int]) -> str:
    """The name of the network that learns most in minutes on a CPU: of long series a transformer, of images, fields and
    volumes a U-Net, of all others a multilayer perceptron.

    Args:
        data: the data.
        shape: shape of a sample in model units.
    """
    if data.kind == "array" and len(shape) == 2:
        return "dit" if math.prod(shape) > _SHORT else "mlp"
    return "unet" if data.kind in ("image", "array") and math.prod(shape) > _FLAT else "mlp"


def network(case: Problem) -> Choice:
    """The network, with a size by the number of rows."""
    if case.corrects and simulation_recipe.is_simulation(case.train):
        return Choice(*simulation_recipe.network(case.train))
    if case.table and case.net == "mlp":
        return _correction(case)
    if case.net == "unet":
        args = unet_args(case)
        why = (f"A U-Net of widths {', '.join(map(str, args['widths']))} that takes blocks of {args['stem']} pixels a "
               "side as one: the fastest to train for data of this size.")
        return Choice(*_start({"net": "unet", "net_args": args, "eval_batch_size": 64}, why, case))
    if case.net == "dit":
        args = {"patch": max(2, -(-max(case.space) // 8)), "width": 96, "depth": 4, "heads": 4}
        why = (f"A transformer of {args['depth']} x {args['width']} on patches of {args['patch']} pixels a side; "
               + ("the fastest to train for long series." if len(case.space) == 1 else
                  "in minutes on a CPU a U-Net or, for small images, an MLP learns more."))
        return Choice(*_start({"net_args": args, "net": "dit", "eval_batch_size": 64}, why, case))
    large = case.image or case.train.x[0].numel() > 16
    args = {"width": 256, "depth": 4, "condition": 128} if large else {"width": 128, "depth": 3, "condition": 64}
    fields = {"net": case.net, "net_args": args if case.net == "mlp" else {}, "eval_batch_size": 256}
    why = (f"A residual MLP of {args['depth']} x {args['width']}: the fastest to train for "
           f"{case.train.x[0].numel()} values per row, best with one thread.")
    if case.corrects:
        fields["prediction_type"] = WIENER
        why += " It corrects the best linear denoiser, which halves the time."
    return Choice(fields, why)


def _start(fields: dict[str, Any], why: str, case: Problem) -> tuple[dict[str, Any], str]:
    """The fields of a network for images and their reason, with the denoiser that it starts from."""
    if not case.smooths:
        return fields, why
    return ({**fields, "prediction_type": LINEAR},
            f"{why} It corrects the best linear denoiser, so that no noise is left from the first update on.")


def _correction(case: Problem) -> Choice:
    """For tables: a network that corrects the best linear denoiser, larger for more rows; with early stopping, few rows
    are no reason for a small one, which learns words at half the speed."""
    wide = case.stops and case.train.x[0].numel() > 3
    width = 64 if len(case.train) < _MEDIUM and not wide else 128 if len(case.train) < _LARGE else 256
    args = {"width": width, "depth": 2 if width == 64 else 3, "condition": width // 2}
    why = (f"A residual MLP of {args['depth']} x {width} that corrects the best linear denoiser, whose mean and "
           "covariance are measured, best with one thread.")
    fields = {"net": "mlp", "net_args": args, "eval_batch_size": 256}
    return Choice({**fields, "prediction_type": WIENER} if case.corrects else fields, why)


def unet_args(case: Problem) -> dict[str, Any]:
    """A stem that leaves 8 to 32 pixels, resolutions down to at most 8 pixels, and attention on the coarsest."""
    side = max(case.space)
    if side <= 16:
        return {"stem": 1, "widths": [32, 64, 64], "blocks": 1, "attention": [2]}
    stem = 2 if side <= 64 else 4
    depth = max(2, 1 + math.ceil(math.log2(side / stem / 8)))
    widths = [48, 96, 144][:depth] + [192] * (depth - 3)
    return {"stem": stem, "widths": widths, "blocks": 1, "attention": [depth - 1]}
