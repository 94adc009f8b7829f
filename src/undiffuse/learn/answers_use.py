"""Checks of chapters 6 to 11: solvers, likelihood, DDPM, pictures, observations, latents."""

from __future__ import annotations

from undiffuse.learn.checking import Check

CHECKS: dict[str, Check] = {}
