"""Samplers with noise that are fitted to a model: the law is right by construction, the path by least squares."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from affine import LAW as GAUSSIAN
from affine import errors
from tiny import THREE, small

from undiffuse.bench.stochastic import Draws
from undiffuse.errors import InputError
from undiffuse.model import Denoiser, Model
from undiffuse.noise import Purpose, normal
from undiffuse.processes import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from undiffuse.sampling import sample
from undiffuse.sde import GaussianSDE
from undiffuse.steps.calibrated import VALUES
from undiffuse.steps.renoised import Noisy
from undiffuse.tuning import NAME, load, noisy_lines, noisy, save, tune
from undiffuse.tuning.likeness import Likeness, random_features
from undiffuse.tuning.noisy import Recipe, Trial, searched
