"""Inverse problems: samples of p(x | y) from a model of p(x), for y observed through an operator and noise.

observe: the public function. operators: y = A(x). observation: the linearized observation and its linear system.
guides: denoisers of p(x | y) for every sampler. samplers: posterior samplers with their own steps. smc: particles.
"""

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
