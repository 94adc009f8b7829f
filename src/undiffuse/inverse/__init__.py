"""Inverse problems: p(x | y) from a model of p(x), for what was seen through an operator and noise."""

from undiffuse.inverse.observe import observe
from undiffuse.inverse.operators import (
    Columns,
    Convolve,
    Downsample,
    Fourier,
    Function,
    Grey,
    Identity,
    Linear,
    Mask,
    Operator,
    box,
    gaussian_blur,
    motion_blur,
    random_mask,
)

__all__ = ["Columns", "Convolve", "Downsample", "Fourier", "Function", "Grey", "Identity", "Linear", "Mask", "Operator",
           "box", "gaussian_blur", "motion_blur", "observe", "random_mask"]
