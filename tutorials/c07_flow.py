# %% [markdown]
# # C7 · The probability-flow ODE
#
# *30 minutes.* **Goal.** The probability-flow ODE: encode and decode, compute likelihoods, and know what a KL bound
# guarantees.
#
# Theory: [P8](../docs/theory/reversal.md) (flow), [P9](../docs/theory/likelihood.md) (likelihood),
# [P10](../docs/theory/likelihood.md) (KL bound).
#
# Three dynamics share one family of densities. Predict what differs between the panels before you run the cell: which
# trajectories may cross each other?

# %%
import torch

import undiffuse as ud
from undiffuse import course

mixture, sde = ud.Mixture([0.4, 0.6], [[-1.5], [1.0]], [0.06, 0.1]), ud.VP()
model = mixture.denoiser(sde)
options = {"grid": "time", "t_end": 1e-3, "denoise_last": False, "trajectory": True}
backward = ud.sample(model, 200, "euler_maruyama", 300, **options)
even = torch.linspace(-2.5, 2.5, 24, dtype=torch.float64)[:, None]
flow = ud.sample(model, method="heun", steps=100, x_T=even, **options)
forward = ud.simulate(sde, mixture.sample(200), 300, trajectory=True)[:, :, 0]
course.river(mixture, {"forward SDE": sde, "reverse SDE": sde, "flow ODE": sde}, {
    "forward SDE": (torch.linspace(0, 1, 301), forward), "reverse SDE": course.trajectories(backward),
    "flow ODE": course.trajectories(flow)}, lines=24,
    alt="Three panels over one density: rough forward and backward trajectories, smooth ones that never cross.")

# %% [markdown]
# Trajectories of an ODE cannot cross, so in one dimension they keep their order: the flow maps the tenth percentile of
# the data to the tenth percentile of the noise. It *is* the quantile map.
#
# **Where does the ½ come from?**
# <details><summary>Answer</summary>
#
# $\tfrac12g^2\Delta p=\nabla\cdot(\tfrac12g^2p\nabla\log p)$: diffusion is rewritten as transport by the score, and
# the diffusion term has the factor ½ g².
#
# </details>

# %%
x = mixture.sample(200, 5)
for tol in (1e-2, 1e-4, 1e-6):
    code = ud.encode(model, x, rtol=tol, atol=tol)
    back = ud.decode(model, code, rtol=tol, atol=tol)
    print(f"tolerance {tol:.0e}: round-trip error {float((back - x).square().mean().sqrt()):.1e}")
result = ud.log_likelihood(model, x)
error = (result.log_prob - mixture.log_prob(x)).abs()
print(f"log p: largest error {error.max():.1e} nats, reported {result.error.max():.1e}, nfe {int(result.nfe.median())}")
line = torch.linspace(-3, 2.6, 120, dtype=torch.float64)[:, None]
curve = ud.log_likelihood(model, line).log_prob.exp()
course.curves({"from the ODE": (line, curve), "exact": (line, mixture.log_prob(line).exp())}, "x", "p(x)",
             title="Density from a score and an ODE")

# %% [markdown]
# **Is encoding perfectly invertible?**
# <details><summary>Answer</summary>
#
# The exact flow is. A solver is as invertible as it is accurate; Euler's method has an error of several percent with
# 50 steps ([museum](../docs/museum.md), D24).
#
# </details>
#
# **"Exact likelihood", while DDPM has only a bound. Exact in which sense?**
# <details><summary>Answer</summary>
#
# It is the density of the distribution of the *ODE*, up to errors of the solver, of the divergence probes and of the
# small end time; `log_likelihood` reports all of these. The SDE with the same score has another distribution, and a
# bound (P10). Images have discrete grey levels, not densities: add noise within a level, or use a discrete bound.
#
# </details>
#
# **What does the KL bound guarantee?** A score that is 10 % too long, data $N(0,\tfrac14)$:

# %%
narrow = ud.Gaussian([0.0], 0.25)
exact = narrow.denoiser(sde)
wrong = ud.ScoreModel(lambda x, t: 1.1 * exact.score(x, t), sde, shape=(1,))
wrong.register_buffer("template", torch.zeros(1, dtype=torch.float64))  # sample in float64
for name, method, steps in (("SDE", "euler_maruyama", 1000), ("ODE", "heun", 400)):
    grid = 1e-4 + (1 - 1e-4) * torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** 2
    v = float(ud.sample(wrong, 20_000, method, grid=grid, block=20_000).x.var())
    kl = 0.5 * (0.25 / v - 1 - torch.log(torch.tensor(0.25 / v)))
    print(f"{name}: variance {v:.4f}, KL to the data {kl:.3f}")
print("bound for the SDE: 0.0572; none for the ODE")

# %% [markdown]
# ## Exercises
#
# In one dimension, encode `x` through quantiles: `cdf0` is the distribution function of the data, the noise is standard
# normal. `torch.special.ndtri` is the inverse of the normal distribution function.

# %% exercise c7.1
def quantile_code(x, cdf0):
    return ...


course.check("c7.1", quantile_code)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def quantile_code(x, cdf0):
#     return torch.special.ndtri(cdf0(x))
#
#
# course.check("c7.1", quantile_code)
# ```
#
# </details>
#
# Compute the bound from times `t`, `g2` and the mean squared error `err2` of the score at these times, and KL(p_T‖π)
# ([museum](../docs/museum.md), D16).

# %% exercise c7.2
def bound(t, g2, err2, kl_prior):
    return ...


course.check("c7.2", bound)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def bound(t, g2, err2, kl_prior):
#     return kl_prior + 0.5 * torch.trapezoid(g2 * err2, t)
#
#
# course.check("c7.2", bound)
# ```
#
# </details>
#
# **Find the bug** ([museum](../docs/museum.md), D25). "`log_p0 = log_prior(x_T) - divergence_integral`". Write it
# correctly; the integral runs from 0 to $T$.

# %% exercise c7.3
def log_p0(log_prior_at_x_T, divergence_integral):
    return ...


course.check("c7.3", log_p0)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def log_p0(log_prior_at_x_T, divergence_integral):
#     return log_prior_at_x_T + divergence_integral
#
#
# course.check("c7.3", log_p0)
# ```
#
# </details>
#
# ## Explore
#
# Trajectories of the flow are quantiles. Click anywhere: the point goes to noise and back by the ODE, and once by the
# SDE.

# %%
course.scene("river", law="mix:0.4,-1.5,0.245;0.6,1,0.3162", show="lines", drop="0.5,0.2")
