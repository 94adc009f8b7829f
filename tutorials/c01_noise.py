# %% [markdown]
# # C1 · Brownian motion
#
# *25 minutes.* **Goal.** Know what Brownian motion is, what $dx=f\,dt+g\,dw$ means, and how to simulate it.
#
# Theory: [P12](../docs/theory/reversal.md) (the integral form), [P16](../docs/theory/reversal.md) (orders).
#
# Brownian motion $w(t)$ is defined by four properties: it starts at 0; increments over disjoint intervals are
# independent; the increment over an interval $\Delta t$ is $N(0,\Delta t)$; and its paths are continuous (but nowhere
# differentiable). Before you run the next cell: how does $\sum|\Delta w|$ change when the same path is sampled on a
# grid twice as fine? And $\sum(\Delta w)^2$?

# %%
import torch

import undiffuse as ud
from undiffuse import course

for k in (0, 2, 4, 6):
    t, w = ud.brownian(2000, 8, refine=k, seed=0)
    dw = w.diff(dim=1)
    print(f"{8 * 2**k:4d} steps: sum of squares {dw.square().sum(1).mean():.3f}, length {dw.abs().sum(1).mean():6.2f}, "
          f"steepest slope {(dw / t.diff()).abs().max():6.0f}")
zoom = {f"{8 * 2**k} steps": ud.brownian(1, 8, refine=k) for k in (0, 3, 7)}
course.curves({name: (t, w[0]) for name, (t, w) in zoom.items()}, "t", "w", title="One path, refined",
             alt="The same Brownian path at 8, 64 and 1024 steps; finer ones pass through the points of coarser ones.")

# %% [markdown]
# The squares add up to $T$ however fine the grid: that is the *quadratic variation*, and this is why noise has a rate,
# $g^2$. The length grows like $\sqrt N$ and the slopes like $1/\sqrt{\Delta t}$: there is no $dw/dt$.
#
# **Why √Δt, and not Δt?**
# <details><summary>Answer</summary>
#
# Independent increments add their variances. $N$ increments of variance $\Delta t$ make $T$ for every $N$. With
# standard deviation $\Delta t$ the sum would have variance $T\Delta t\to0$, with 1 it would explode.
#
# </details>
#
# **Can we integrate both sides of the SDE to get** $x_t=x_s+\int f\,dt+\int g\,dw$**?**
# <details><summary>Answer</summary>
#
# There is nothing to integrate: the differential form is only notation. The SDE *is* that integral equation,
# with $\int g\,dw$ the limit of $\sum g(t_i)(w_{i+1}-w_i)$, which is $N(0,\int g^2dt)$. An increment of length $ds$ is
# $N(0,ds)$; notes that write $N(0,ds)\,ds$ have one $ds$ too many ([museum](../docs/museum.md), D17).
#
# </details>
#
# **With ten paths the variance at t = 1 came out as 0.6. A bug?** Predict the spread of such estimates, then check.

# %%
ends = ud.brownian(20_000, 1, seed=1).w[:, -1]
ten = ends.reshape(2000, 10).var(1)
print(f"variance from ten paths: 90 % of the estimates lie in {ten.quantile(0.05):.2f} ... {ten.quantile(0.95):.2f}")
print(f"from 20,000: {ends.var():.3f} ± {(2 / 20_000) ** 0.5:.3f}")
increments = {f"t = {s}": ud.brownian(20_000, 4, seed=2).w[:, round(4 * s)] for s in (0.25, 0.5, 1.0)}
course.histograms(increments, alt="Histograms of w at t = .25, .5 and 1: Gaussians with a width of the root of t.")

# %% [markdown]
# ## Euler-Maruyama
#
# Euler and Maruyama freeze drift and diffusion over a step. The increment $dw\sim N(0,\Delta t)$ is given to you.

# %% exercise c1.1
def step(x, f, g, t, dt, dw):
    return ...


course.check("c1.1", step)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def step(x, f, g, t, dt, dw):
#     return x + f(x, t) * dt + g(t) * dw
#
#
# course.check("c1.1", step)
# ```
#
# </details>
#
# Two effects: the drift pulls to zero, the noise spreads. Under an Ornstein-Uhlenbeck process every initial
# distribution converges to the same Gaussian, of variance $g^2/2\theta$. The next chapter is about three such
# processes.

# %%
ou, start = ud.OU(theta=1.0, scale=1.0, T=4.0), ud.Mixture([1, 1], [[-2.0], [2.0]], 0.01)
x = ud.simulate(ou, start.sample(4000), 400, seed=3, trajectory=True)[:, :, 0]
print(f"variance at T: {x[-1].var():.3f} ± {0.5 * (2 / 4000) ** 0.5:.3f}; the formula says "
      f"{float(start.diffused(ou, 4.0).covariance):.3f}")
course.river(start, {"Ornstein-Uhlenbeck": ou}, {"Ornstein-Uhlenbeck": (torch.linspace(0, 4, 401), x)}, lines=24,
            alt="Trajectories from narrow modes at -2 and 2; by t = 4 they form one Gaussian around zero.")

# %% [markdown]
# ## From steps to rates
#
# DDPM adds noise in steps, $x_i=\sqrt{1-\beta_i}\,x_{i-1}+\sqrt{\beta_i}\,z$. If a step takes the time $\Delta t$,
# which $f/x$ and $g$ give the same step to first order? Write the two numbers as a function of $\beta_i$ and
# $\Delta t$.

# %% exercise c1.2
def rates(beta_i, dt):
    return ..., ...


course.check("c1.2", rates)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def rates(beta_i, dt):
#     return -0.5 * beta_i / dt, (beta_i / dt) ** 0.5
#
#
# course.check("c1.2", rates)
# ```
#
# </details>
#
# **Find the bug** ([museum](../docs/museum.md), D7). `t = cat([0, linspace(0, T, N)])` goes with
# `w = cat([0, cumsum(sqrt(T/N) * z)])`.
# <details><summary>Answer</summary>
#
# The grid has two zeros, and $w_1$, of variance $T/N$, is drawn at time 0. There have to be $N+1$ nodes for $N$
# increments.
#
# </details>
#
# ## Explore
#
# One Brownian path at 8, 32, 128 and 512 steps, and the solver driven by it. Change the number of steps (`[`, `]`) and
# look at the endpoint: how does its error change?

# %%
course.scene("lab", solvers=["euler_maruyama"], method="euler_maruyama", path=True, measure="path", grid="time")
