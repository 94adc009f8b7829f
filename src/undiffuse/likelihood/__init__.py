"""Densities with an error budget, encodings, and bounds: what a model says of given data, and how well it knows."""

from undiffuse.likelihood.codes import decode, encode, interpolate
from undiffuse.likelihood.loglik import log_likelihood
from undiffuse.likelihood.result import Likelihood

__all__ = ["Likelihood", "decode", "encode", "interpolate", "log_likelihood"]
