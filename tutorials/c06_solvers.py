# %% [markdown]
# # C6 · Solvers and the cost of a step
#
# *30 minutes.* **Goal.** Know what a step costs, what order means, and which sampler to take.
#
# Theory: [P16](../docs/theory/reversal.md) (orders), [P15](../docs/theory/score.md) (DDIM). How-to:
# [choosing a sampler](../docs/choosing_a_sampler.md).
#
# The unit of cost is one evaluation of the network. Heun's method needs two per step, so 16 evaluations are 8 Heun
# steps. All errors below are solver errors, because the score is exact. The dashed line is the distance between two
# sets of exact samples: smaller errors are not measurable. Euler and Heun take even steps in $t$ here, the others their
# defaults. Predict: which is best at 8 evaluations, and does the corrector help?

# %%
import torch

import undiffuse as ud
from undiffuse import course

mixture = ud.Mixture([0.25, 0.5, 0.25], [[-2.2], [0.0], [2.2]], [0.09, 0.16, 0.06])
model, real = mixture.denoiser(ud.VP()), mixture.sample(40_000, 1)
costs = {"euler_maruyama": 1, "predictor_corrector": 2, "euler": 1, "heun": 2, "ddim": 1, "dpmpp_2m": 1}
budgets, lines = (8, 16, 32, 64), {}
for name, cost in costs.items():
    options = {"grid": "time"} if name in ("euler", "heun") else {}
    samples = [ud.sample(model, 6000, name, n // cost, seed=4, t_end=1e-3, denoise_last=False, block=6000, **options).x
               for n in budgets]
    lines[name] = (budgets, [ud.metrics.w1_1d(x, real) for x in samples])
    print(f"{name:20}", "  ".join(f"{w:.3f}" for w in lines[name][1]), f"  std {samples[-1].std():.3f}")
floor = ud.metrics.noise_floor(ud.metrics.w1_1d, mixture.sample(6000, 2), real, 4).value
print(f"exact std {float(mixture.covariance) ** 0.5:.3f}; floor {floor:.4f}")
course.curves(lines, "model evaluations", "W1 to the distribution", log="xy", level=floor, title="Error and cost")

# %% [markdown]
# **The corrector "improves quality". Why is it the worst here?**
# <details><summary>Answer</summary>
#
# Half of its evaluations are corrections that an exact score does not need. And its step size,
# $\varepsilon=2\alpha(r\lVert\xi\rVert/\lVert s\rVert)^2$, is designed for images: with thousands of pixels the two
# norms hardly vary; with one coordinate they do, and the chain no longer preserves $p_t$. It helps where the predictor
# or the score is inaccurate. Without $\lVert\xi\rVert$ the step is about $d$ times too small
# ([museum](../docs/museum.md), D26).
#
# </details>
#
# **Is the ODE less diverse than the SDE?**
# <details><summary>Answer</summary>
#
# Compare the printed standard deviations with the exact one. With the same score both have the same marginals
# ([museum](../docs/museum.md), D9).
#
# </details>
#
# **Where should the steps be?**
# <details><summary>Answer</summary>
#
# Where the terms that the solver holds constant change most; this depends on solver, distribution and budget. For ten
# steps of DDIM on the distribution of exercise c6.3, even steps in log-SNR are no better than even steps in $t$, and
# even steps in the angle $\arctan(\sigma/\alpha)$ halve the error.
#
# </details>
#
# The same noise at several step counts: with `noise="path"` a finer grid refines the same Brownian path.

# %%
starts, ends = model.prior_sample(300, 0, 0), {}
for n in (8, 16, 32, 64, 192):
    ends[n] = ud.sample(model, method="euler_maruyama", steps=n, grid="log_snr", x_T=starts, noise="path", seed=2,
                        denoise_last=False, block=300).x
gaps = {n: float((x - ends[192]).abs().mean()) for n, x in ends.items() if n < 192}
print("distance to 192 steps on the same path:", {n: round(g, 3) for n, g in gaps.items()})
for name in ("euler", "heun", "rk4"):
    errors = []
    for n in (10, 20, 320):
        grid = torch.linspace(0.8, 0.2, n + 1, dtype=torch.float64)
        errors.append(ud.sample(model, method=name, grid=grid, x_T=starts, denoise_last=False, block=300).x)
    ratio = float((errors[0] - errors[2]).abs().mean() / (errors[1] - errors[2]).abs().mean())
    print(f"{name:5} halving the step divides the error by {ratio:5.1f}")

# %% [markdown]
# ## Exercises
#
# One step of Heun's method for $\dot x=v(x,t)$ from time `t` to time `s` (which may be earlier). The check measures its
# order.

# %% exercise c6.1
def heun(v, x, t, s):
    return ...


course.check("c6.1", heun)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def heun(v, x, t, s):
#     first = v(x, t)
#     return x + (s - t) / 2 * (first + v(x + (s - t) * first, s))
#
#
# course.check("c6.1", heun)
# ```
#
# </details>
#
# The Langevin step size in the predictor-corrector scheme, from the norms of noise and score. `alpha` is
# $1-\beta_i$.

# %% exercise c6.2
def size(r, norm_noise, norm_score, alpha):
    return ...


course.check("c6.2", size)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def size(r, norm_noise, norm_score, alpha):
#     return 2 * alpha * (r * norm_noise / norm_score) ** 2
#
#
# course.check("c6.2", size)
# ```
#
# </details>
#
# Give DDIM a better grid for three narrow modes in the plane: 11 times from 1 down to .001, `float64`. The check
# compares the error with that of even steps in $t$. `ud.VP().log_snr(t)` and `ud.VP().time_of(log_snr)` convert times
# to noise levels and back.

# %% exercise c6.3
times = torch.linspace(1, 1e-3, 11, dtype=torch.float64)
course.check("c6.3", times)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# first, last = torch.atan(torch.exp(-ud.VP().log_snr(torch.tensor([1.0, 1e-3], dtype=torch.float64)))).tolist()
# angle = torch.linspace(first, last, 11, dtype=torch.float64)
# times = ud.VP().time_of(-torch.log(torch.tan(angle)))
# course.check("c6.3", times)
# ```
#
# </details>
#
# **Find the bug** ([museum](../docs/museum.md), D10). `ts = linspace(1, eps, N)`, `dt = ts[0] - ts[1]`, then
# `for t in ts: x = step(x, t, dt)`.
# <details><summary>Answer</summary>
#
# $N$ nodes have $N-1$ intervals, but $N$ steps are taken: the last goes from $\epsilon$ to $\epsilon-dt<0$.
#
# </details>
#
# ## Explore
#
# Error against evaluations for any solver and grid. Which one is best at 8 evaluations for another distribution?

# %%
course.scene("lab", law="mix:0.25,-2.2,0.3;0.5,0,0.4;0.25,2.2,0.245", measure="law",
            solvers=["euler_maruyama", "ddim", "heun", "dpmpp_2m"])
