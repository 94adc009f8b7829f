"""Mean and covariance of the data.

    linear_part      moments in a basis of principal directions or waves, and the best linear denoiser
    conditional      the best linear prediction of the data from conditions
    measuring        the kind of moments, and shrinkage
    missing_values   EM, and samples of missing values
"""

from undiffuse.moments.linear_part import MOMENT_ROWS, SPECTRAL, Moments, best_kind, measurable
from undiffuse.moments.measuring import interpolated, kind_for, measure_moments, moments_with_missing, shrunk
from undiffuse.moments.missing_values import (
    GaussianParams,
    conditional_mean,
    covariance,
    fill_missing,
    fit_em,
    pairwise_covariance,
    regress,
    regression_gain,
)

__all__ = ["MOMENT_ROWS", "SPECTRAL", "GaussianParams", "Moments", "best_kind", "conditional_mean", "covariance",
           "fill_missing", "fit_em", "interpolated", "kind_for", "measurable", "measure_moments",
           "moments_with_missing", "pairwise_covariance", "regress", "regression_gain", "shrunk"]
