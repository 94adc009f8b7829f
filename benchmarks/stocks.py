"""Windows of a series told from real ones, and used to predict: the scores of TimeGAN on its file of stock prices.

Discriminative: a GRU of three units learns to tell real from generated windows; |accuracy − ½| on a fifth of both.
Predictive: a GRU of three units learns on generated windows to predict the last column a step ahead from the others;
mean absolute error on the real ones, in units of the range.

Reference: Yoon, Jarrett and van der Schaar (2019), section 5.1 and the code of their metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import undiffuse as ud
from undiffuse.errors import InputError
from undiffuse.nets import initialize
from undiffuse.random import Purpose, normal, permutation, uniform

WINDOW, BATCH = 24, 128
TELL, PREDICT = 2000, 5000  # updates of the two networks, as published
PUBLISHED = (("TimeGAN, published", ".102 ± .021", ".038 ± .001"), ("Diffusion-TS, published", ".067 ± .015",
                                                                     ".036 ± .000"))

Array = NDArray[np.float64]


def table(*words: str) -> Iterator[str]:
    """Lines of a Markdown table.

    words: the table, and optionally the number of repeats of the scores (3) and the minutes of training.
    """
    if not words or not Path(words[0]).is_file():
        raise InputError("got no table; expected `python -m benchmarks stocks stock_data.csv [REPEATS] [MINUTES]`")
    repeats, minutes = (int(words[1]) if len(words) > 1 else 3), (float(words[2]) if len(words) > 2 else None)
    start = time.process_time()
    data = ud.open_data(words[0], window=WINDOW)
    model = ud.train(words[0], window=WINDOW, held_out=0, progress=False, minutes=minutes)
    seconds = time.process_time() - start
    generated = ud.sample(model, len(data), "auto", 40, seed=1).x.double().numpy()
    real = data.x.double().numpy()
    low, high = real.min((0, 1)), real.max((0, 1))
    real, generated = ((x - low) / (high - low + 1e-7) for x in (real, generated))
    assert model.moments is not None
    eps = normal(2, Purpose.NOISE, 0, 0, len(data), model.shape, torch.float64)
    gauss = model.transform.inverse(model.moments.prior_sample(eps, 1.0, 0.0)).double().numpy()
    yield f"{len(data):,} windows of {WINDOW} x {real.shape[2]}, {seconds:.0f} CPU seconds of training"
    yield "| windows | discriminative score | predictive score |"
    yield "|---|---|---|"
    half = permutation(0, Purpose.DATA, 77, len(real)).numpy()
    a, b = real[half[::2]], real[half[1::2]]
    for name, truth, other in (("undiffuse", real, generated), ("the data's Gaussian", real, (gauss - low) / (
            high - low + 1e-7)), ("real against real (floor)", a, b)):
        accuracies = [tell(truth, other, seed) for seed in range(repeats)]
        predicted = [predict(truth, other, seed) for seed in range(repeats)]
        yield f"| {name} | {_spread(accuracies)} | {_spread(predicted)} |"
    for name, first, second in PUBLISHED:
        yield f"| {name} | {first} | {second} |"
    yield f"{time.process_time() - start:.0f} CPU seconds in all"


def tell(real: Array, generated: Array, seed: int) -> float:
    """The discriminative score."""
    net = initialize(Recurrent(real.shape[2], 1), seed)
    parts = [torch.from_numpy(x).float() for x in (real, generated)]
    order = [permutation(seed, Purpose.DATA, 80 + k, len(x)) for k, x in enumerate(parts)]
    train, test = zip(*((x[o[len(o) // 5:]], x[o[:len(o) // 5]]) for x, o in zip(parts, order, strict=True)),
                      strict=True)

    def loss(step: int) -> Tensor:
        a, b = (_rows(x, seed, 2 * step + k) for k, x in enumerate(train))
        return (nn.functional.softplus(-net(a)[:, -1, 0]) + nn.functional.softplus(net(b)[:, -1, 0])).mean()

    _fit(net, loss, TELL)
    with torch.no_grad():
        right = [float((net(x)[:, -1, 0] > 0).double().mean()) for x in test]
    return abs((right[0] * len(test[0]) + (1 - right[1]) * len(test[1])) / (len(test[0]) + len(test[1])) - 0.5)


def predict(real: Array, generated: Array, seed: int) -> float:
    """The predictive score."""
    net = initialize(Recurrent(real.shape[2] - 1, 1), seed)
    x, truth = torch.from_numpy(generated).float(), torch.from_numpy(real).float()

    def error(rows: Tensor) -> Tensor:
        return (torch.sigmoid(net(rows[:, :-1, :-1])[..., 0]) - rows[:, 1:, -1]).abs().mean()

    _fit(net, lambda step: error(_rows(x, seed, step)), PREDICT)
    with torch.no_grad():
        return float(error(truth))


class Recurrent(nn.Module):
    """A GRU of half as many units as columns, and a linear layer at every step."""

    def __init__(self, columns: int, outputs: int) -> None:
        super().__init__()
        width = max(2, (columns + 1) // 2)
        self.gru, self.last = nn.GRU(columns, width, batch_first=True), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (B, T, outputs)."""
        y: Tensor = self.last(self.gru(x)[0])
        return y


def _fit(net: nn.Module, loss: Callable[[int], Tensor], steps: int) -> None:
    optimizer = torch.optim.Adam(net.parameters())
    for step in range(steps):
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def _rows(x: Tensor, seed: int, step: int) -> Tensor:
    return x[(uniform(seed, Purpose.ORDER, step, 0, BATCH) * len(x)).long()]


def _spread(scores: list[float]) -> str:
    return f"{np.mean(scores):.3f} ± {np.std(scores):.3f}"
