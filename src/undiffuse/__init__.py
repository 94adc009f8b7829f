"""undiffuse: learn p(x) once; then sample it, measure it, condition it, invert it.

`import undiffuse as ud`. Names are imported on first use, so that `import undiffuse` itself needs no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "errors": ("InputError", "MachineError", "UndiffuseError"),
    "noise": ("brownian",),
    "sde": ("SDE", "GaussianSDE", "NonlinearSDE", "simulate"),
    "processes": (
        "VP", "SubVP", "VE", "PowerVE", "EDM", "Cosine", "RectifiedFlow", "OU", "DDPM", "Linear",
        "chain_of", "linear_betas", "make_sde",
    ),
    "model": ("Model", "Denoiser", "ScoreModel", "reverse"),
    "exact": ("Gaussian", "Mixture"),
    "sampling": ("sample",),
    "tuning": ("tune",),
    "likelihood": ("log_likelihood", "encode", "decode", "interpolate", "elbo", "kl_bound",
                   "label_posterior", "path_log_likelihood"),
    "guide": ("autoguidance", "classifier_free", "classifier_guidance"),
    "inverse": ("observe",),
    "data": ("open_data",),
    "experiment": ("Experiment",),
    "training": ("train", "load"),
}
_OWNER = {name: module for module, names in _HOME.items() for name in names}
_MODULES = ("data", "explorer", "learn", "inverse", "loss", "metrics", "nets", "noise", "recipes", "report", "steps",
            "tuning")

__all__ = ["__version__", *sorted(_OWNER), *_MODULES]


def __getattr__(name: str) -> Any:
    """The public name, imported from the module that owns it."""
    if name in _OWNER:
        return getattr(importlib.import_module(f"undiffuse.{_OWNER[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"undiffuse.{name}")
    raise AttributeError(f"module 'undiffuse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
