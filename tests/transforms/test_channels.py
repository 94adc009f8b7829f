"""The map of an array: a separate one per channel, with its determinant."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from undiffuse.data import open_data
from undiffuse.data.dataset import fit_transform
from undiffuse.errors import InputError
from undiffuse.transforms.base import Channels, from_config
from undiffuse.transforms.columns import Power

RNG = np.random.Generator(np.random.Philox(3))
Z = RNG.normal(size=(300, 6, 4))
CHANNELS = {"normal": Z * 3 + 100, "lognormal": np.exp(2 * Z), "skewed": np.exp(0.5 * Z) - 5, "constant": 0 * Z + 7.5}
X = np.stack(list(CHANNELS.values()), -1)


def test_a_normal_channel_is_only_shifted_and_scaled_and_a_heavy_tail_is_not() -> None:
    transform = fit_transform(open_data(X, layout="NHWC"))
    assert isinstance(transform, Channels)
    normal, lognormal, _, constant = transform.columns
    assert isinstance(normal, Power) and normal.power == 1 and constant.width == 0
    assert isinstance(lognormal, Power) and (lognormal.centre, lognormal.power) == (0, 0)
    z = transform.forward(torch.tensor(X))
    assert z.shape == (300, 3, 6, 4)
    for channel in z.unbind(1):
        # Skewness and excess kurtosis of 7,200 normal values have standard errors .029 and .058; the logarithm of a
        # sum keeps a little of the skewness.
        u = (channel - channel.mean()) / channel.std()
        assert abs(float((u**3).mean())) < 0.25 and abs(float((u**4).mean()) - 3) < 0.5


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NDHW"])
def test_the_way_back_and_the_determinant(layout: str) -> None:
    x = torch.tensor({"NHWC": X, "NCHW": X.transpose(0, 3, 1, 2), "NDHW": X[..., :3]}[layout])
    transform = fit_transform(open_data(x, layout=layout))
    again = from_config(transform.config())
    back = again.inverse(transform.forward(x))
    assert torch.allclose(back, x, rtol=1e-9, atol=1e-9)
    row = x[:1].clone().requires_grad_(True)
    jacobian = torch.autograd.functional.jacobian(lambda r: transform.forward(r).flatten(), row)[:, 0].flatten(1)
    varying = jacobian[:, jacobian.abs().sum(0) > 0]
    assert torch.allclose(transform.log_det(x[:1]), torch.linalg.slogdet(varying)[1], atol=1e-8)


def test_missing_values_stay_missing_and_count_nothing() -> None:
    x = torch.tensor(X[..., 0])
    transform = fit_transform(open_data(x, layout="NHW"))
    hidden = x.clone()
    hidden[0, 0, :3] = math.nan
    z = transform.forward(hidden)
    assert torch.equal(z.isnan()[:, 0], hidden.isnan())
    assert float(transform.log_det(hidden)[0]) == pytest.approx(21 / 24 * float(transform.log_det(x)[0]))


def test_another_constant_is_impossible_and_other_channels_are_refused() -> None:
    transform = fit_transform(open_data(X, layout="NHWC"))
    other = torch.tensor(X[:2])
    other[1, 2, 2, 3] = 8
    assert transform.log_det(other)[0].isfinite() and transform.log_det(other)[1] == -math.inf
    with pytest.raises(InputError, match="of 3 channels; expected 4"):
        transform.forward(other[..., :3])
    with pytest.raises(InputError, match="expected 4 axes, NHWC"):
        transform.forward(other[0])
