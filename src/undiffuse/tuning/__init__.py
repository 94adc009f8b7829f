"""Tuned sampling: times and coefficients fitted to one model, in closed form, from a few dozen reference paths."""

from undiffuse.tuning.classes import tune_classes
from undiffuse.tuning.files import NAME, attach, load, save
from undiffuse.tuning.guided import Family, tune_family, tune_guided
from undiffuse.tuning.identity import digest
from undiffuse.tuning.table import guided_lines, lines
from undiffuse.tuning.tune import EVALUATIONS, tune

__all__ = ["EVALUATIONS", "NAME", "Family", "attach", "digest", "guided_lines", "lines", "load", "save", "tune",
           "tune_classes", "tune_family", "tune_guided"]
