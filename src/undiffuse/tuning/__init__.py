"""Tuned sampling: times and coefficients fitted to one model, in closed form, from a few dozen reference paths."""

from undiffuse.tuning.files import NAME, attach, digest, load, save
from undiffuse.tuning.guided import Family, tune_family
from undiffuse.tuning.table import lines
from undiffuse.tuning.tune import EVALUATIONS, tune

__all__ = ["EVALUATIONS", "NAME", "Family", "attach", "digest", "lines", "load", "save", "tune", "tune_family"]
