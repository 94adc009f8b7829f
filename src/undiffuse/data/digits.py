"""The handwritten digits that come with scikit-learn: 1,797 real images of 8x8 in 17 grey levels."""

from __future__ import annotations

import numpy as np
import torch

from undiffuse.data import build
from undiffuse.data.dataset import Dataset


def digits(size: int | None = None) -> Dataset:
    """The whole set, classes "0" to "9".

    Reference: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI (its test part).
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images.astype(np.uint8))[:, None]
    return build.images(x, name="digits", levels=17, marks=[str(y) for y in bunch.target.tolist()], size=size)
