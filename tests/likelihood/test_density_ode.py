"""The ODE for log p: the two ways to integrate the trace, and the errors that they report."""

from __future__ import annotations

import pytest
import torch
from oracles import Opaque, absolute_error, random_mixture

from undiffuse.likelihood import density_ode, log_likelihood
from undiffuse.processes import VP

PLANE = random_mixture(3, 2)


@pytest.mark.slow
@pytest.mark.parametrize("many", [-1, density_ode.JOINT_MAX_PRODUCTS])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-5])
def test_the_solvers_error_is_the_one_it_claims(tolerance: float, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_ode, "JOINT_MAX_PRODUCTS", many)
    x = PLANE.sample(200, seed=3)
    ll = log_likelihood(PLANE.denoiser(VP()), x, rtol=tolerance, atol=tolerance)
    ratio = absolute_error(ll, PLANE.log_prob(x)) / (ll.solver + ll.truncation_error)
    assert 0.1 < float(ratio.median()) < 3 and float(ratio.quantile(0.9)) < 8


@pytest.mark.parametrize("divergence, probes", [("exact", 1), ("hutchinson", 3)])
def test_both_integrals_of_the_trace_agree_within_their_errors(
        divergence: str, probes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same probes on the same paths, so that only the integration differs."""
    model, x = Opaque(PLANE.denoiser(VP())), PLANE.sample(20, seed=1)
    joint = log_likelihood(model, x, divergence, probes)
    monkeypatch.setattr(density_ode, "JOINT_MAX_PRODUCTS", 0)
    apart = log_likelihood(model, x, divergence, probes)
    gap = (joint.log_prob - apart.log_prob).abs()
    assert 0 < float(gap.mean()) < 1e-3 and bool((gap < 4 * (joint.solver + apart.solver)).all())
    assert bool((apart.nfe != joint.nfe).any())


def test_lobattos_rule_and_what_it_claims_to_miss() -> None:
    """Degree 5 is exact; of c₀ Σ ρⁿ P_n with the first six coefficients of 1 at most, the claim is 0.44 c₀ ρ⁶."""
    x = 2 * torch.tensor(density_ode._NODES, dtype=torch.float64) - 1
    for power in range(6):
        integral = density_ode._weighted(density_ode._WEIGHTS, tuple(x**power))
        assert float(integral) == pytest.approx(0 if power % 2 else 1 / (power + 1), abs=1e-12)
    sixth = (231 * x**6 - 315 * x**4 + 105 * x**2 - 5) / 16
    assert float(density_ode._weighted(density_ode._WEIGHTS, tuple(sixth))) == pytest.approx(density_ode._RULE_ERROR)
    third = (5 * x**3 - 3 * x) / 2
    for other in (torch.ones_like(x), x, (3 * x**2 - 1) / 2):
        rates = tuple((other + 0.01 * third)[:, None])
        size = float((other + 0.01 * third).abs().max())
        assert float(density_ode._quadrature_error(rates)) == pytest.approx(density_ode._RULE_ERROR * 1e-4 / size)


def test_products_with_the_jacobian_give_the_closed_form() -> None:
    model, x = PLANE.denoiser(VP()), PLANE.sample(10, seed=1)
    closed_form, by_products = log_likelihood(model, x), log_likelihood(Opaque(model), x)
    assert float((closed_form.log_prob - by_products.log_prob).abs().max()) < 1e-9
