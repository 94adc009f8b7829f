"""Estimators with scikit-learn's interface: densities, anomalies, missing values and synthetic tables.

Density: a model of rows, `fit`, `score_samples`, `sample`. Detector: anomalies, without training a network. Imputer:
missing values. Synthesizer: a DataFrame in, a DataFrame out.
"""

from undiffuse.estimators.detector import Detector
from undiffuse.estimators.imputer import Imputer
from undiffuse.estimators.trained import Density, Synthesizer

__all__ = ["Density", "Detector", "Imputer", "Synthesizer"]
