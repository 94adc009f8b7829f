"""Densities with an error budget, encodings, and bounds: what a model says of given data, and how well it knows."""

from undiffuse.likelihood.bounds import Bound, Elbo, elbo, kl_bound
from undiffuse.likelihood.codes import decode, encode, interpolate
from undiffuse.likelihood.labels import label_posterior
from undiffuse.likelihood.loglik import log_likelihood
from undiffuse.likelihood.paths import PathEstimate, path_log_likelihood
from undiffuse.likelihood.result import Likelihood

__all__ = ["Bound", "Elbo", "Likelihood", "PathEstimate", "decode", "elbo", "encode", "interpolate", "kl_bound",
           "label_posterior", "log_likelihood", "path_log_likelihood"]
