"""Tuned sampling: times and coefficients fitted to one model, in closed form, from a few dozen reference trajectories.

    tune         `tune` (and per class, and for guidance): which fits are tried, chosen, validated and kept; its tables
    reference    exact trajectories of the model, and the errors of finished samplers
    fit          coefficients on fixed nodes, by robust ridge regression; grid_search moves the nodes
    tuning_file  the file next to the model

The fitted sampler itself, and the wrapper `Tuned` that `tune` returns, are in `undiffuse.samplers.tuned`.
"""

from undiffuse.samplers.tuned import Tuned, tuning_of
from undiffuse.tuning.tune import (
    EVALUATIONS,
    Family,
    check_per_class,
    guided_lines,
    lines,
    tune,
    tune_classes,
    tune_family,
    tune_guided,
)
from undiffuse.tuning.tuning_file import NAME, attach, load, model_digest, save

__all__ = ["EVALUATIONS", "NAME", "Family", "Tuned", "attach", "check_per_class", "guided_lines", "lines", "load",
           "model_digest", "save", "tune", "tune_classes", "tune_family", "tune_guided", "tuning_of"]
