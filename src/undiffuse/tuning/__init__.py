"""Tuned sampling: times and coefficients fitted to one model, in closed form, from a few dozen reference paths."""

from undiffuse.tuning.storage import NAME, attach, load, model_digest, save
from undiffuse.tuning.summary import guided_lines, lines
from undiffuse.tuning.tune import EVALUATIONS, Family, check_per_class, tune, tune_classes, tune_family, tune_guided

__all__ = ["EVALUATIONS", "NAME", "Family", "attach", "check_per_class", "guided_lines", "lines", "load",
           "model_digest", "save", "tune", "tune_classes", "tune_family", "tune_guided"]
