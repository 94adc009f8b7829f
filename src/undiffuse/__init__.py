"""undiffuse: learn p(x) once; then sample it, measure it, condition it, invert it.

`import undiffuse as ud`. Names are imported on first use, so that `import undiffuse` itself needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what an editor and mypy see; at run time every name is imported on first use
    from undiffuse import course as course
    from undiffuse import data as data
    from undiffuse import estimators as estimators
    from undiffuse import explorer as explorer
    from undiffuse import inverse as inverse
    from undiffuse import loss as loss
    from undiffuse import metrics as metrics
    from undiffuse import nets as nets
    from undiffuse import random as random
    from undiffuse import recipes as recipes
    from undiffuse import report as report
    from undiffuse import samplers as samplers
    from undiffuse import tuning as tuning
    from undiffuse.chains import DDPM as DDPM
    from undiffuse.chains import Chain as Chain
    from undiffuse.chains import chain_of as chain_of
    from undiffuse.chains import linear_betas as linear_betas
    from undiffuse.data import open_data as open_data
    from undiffuse.errors import InputError as InputError
    from undiffuse.errors import MachineError as MachineError
    from undiffuse.errors import UndiffuseError as UndiffuseError
    from undiffuse.experiment import Experiment as Experiment
    from undiffuse.guidance import autoguidance as autoguidance
    from undiffuse.guidance import classifier_free as classifier_free
    from undiffuse.guidance import classifier_guidance as classifier_guidance
    from undiffuse.interop.imported import load as load
    from undiffuse.interop.pretrained import foreign as foreign
    from undiffuse.interop.pretrained import from_diffusers as from_diffusers
    from undiffuse.interop.readers import from_checkpoint as from_checkpoint
    from undiffuse.interop.scheduler import scheduler as scheduler
    from undiffuse.inverse.observe import observe as observe
    from undiffuse.likelihood import decode as decode
    from undiffuse.likelihood import elbo as elbo
    from undiffuse.likelihood import encode as encode
    from undiffuse.likelihood import interpolate as interpolate
    from undiffuse.likelihood import kl_bound as kl_bound
    from undiffuse.likelihood import label_posterior as label_posterior
    from undiffuse.likelihood import log_likelihood as log_likelihood
    from undiffuse.likelihood import path_log_likelihood as path_log_likelihood
    from undiffuse.mixture import Gaussian as Gaussian
    from undiffuse.mixture import Mixture as Mixture
    from undiffuse.model import Denoiser as Denoiser
    from undiffuse.model import Model as Model
    from undiffuse.pipelines.impute import impute as impute
    from undiffuse.pipelines.series import forecast as forecast
    from undiffuse.pipelines.series import impute_frames as impute_frames
    from undiffuse.processes import EDM as EDM
    from undiffuse.processes import OU as OU
    from undiffuse.processes import VE as VE
    from undiffuse.processes import VP as VP
    from undiffuse.processes import Cosine as Cosine
    from undiffuse.processes import Linear as Linear
    from undiffuse.processes import PowerVE as PowerVE
    from undiffuse.processes import RectifiedFlow as RectifiedFlow
    from undiffuse.processes import SubVP as SubVP
    from undiffuse.processes import make_sde as make_sde
    from undiffuse.random import brownian as brownian
    from undiffuse.recipes import train as train
    from undiffuse.samplers import sample as sample
    from undiffuse.score_model import ScoreModel as ScoreModel
    from undiffuse.score_model import reverse as reverse
    from undiffuse.sde import SDE as SDE
    from undiffuse.sde import GaussianSDE as GaussianSDE
    from undiffuse.sde import NonlinearSDE as NonlinearSDE
    from undiffuse.sde import simulate as simulate
    from undiffuse.simulators import infer as infer
    from undiffuse.tuning import tune as tune

__version__ = "0.2.0"

_HOME = {
    "errors": ("InputError", "MachineError", "UndiffuseError"),
    "random": ("brownian",),
    "sde": ("SDE", "GaussianSDE", "NonlinearSDE", "simulate"),
    "chains": ("Chain", "DDPM", "chain_of", "linear_betas"),
    "processes": (
        "VP", "SubVP", "VE", "PowerVE", "EDM", "Cosine", "RectifiedFlow", "OU", "Linear", "make_sde",
    ),
    "model": ("Model", "Denoiser"), "score_model": ("ScoreModel", "reverse"),
    "mixture": ("Gaussian", "Mixture"),
    "samplers": ("sample",),
    "tuning": ("tune",),
    "likelihood": ("log_likelihood", "encode", "decode", "interpolate", "elbo", "kl_bound",
                   "label_posterior", "path_log_likelihood"),
    "guidance": ("autoguidance", "classifier_free", "classifier_guidance"),
    "interop.imported": ("load",),
    "interop.pretrained": ("foreign", "from_diffusers"), "interop.scheduler": ("scheduler",),
    "interop.readers": ("from_checkpoint",),
    "inverse.observe": ("observe",),
    "data": ("open_data",),
    "experiment": ("Experiment",),
    "pipelines.impute": ("impute",),
    "pipelines.series": ("forecast", "impute_frames"),
    "recipes": ("train",), "simulators": ("infer",),
}
_OWNER = {name: module for module, names in _HOME.items() for name in names}
_MODULES = (
    "data",
    "estimators",
    "explorer",
    "course",
    "inverse",
    "loss",
    "metrics",
    "nets",
    "random",
    "recipes",
    "report",
    "samplers",
    "tuning",
)

__all__ = ["__version__", *sorted(_OWNER), *_MODULES]


if not TYPE_CHECKING:  # hidden from type checkers, for which every name would exist

    def __getattr__(name: str) -> Any:
        """The public name, imported from the module that owns it."""
        if name in _OWNER:
            return getattr(importlib.import_module(f"undiffuse.{_OWNER[name]}"), name)
        if name in _MODULES:
            return importlib.import_module(f"undiffuse.{name}")
        raise AttributeError(f"module 'undiffuse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
