# %% [markdown]
# # C3 · The score and the flow of probability
#
# *25 minutes.* **Goal.** See $\nabla\log p$ of a mixture as a sum of pulls, compute it without underflow, and solve
# the equation of the density.
#
# Theory: [P1](../docs/theory/score.md) (posterior mean), [P6](../docs/theory/reversal.md) (Fokker-Planck),
# [P17](../docs/theory/score.md) (mixtures).
#
# Each component pulls a point towards its centre with $\Sigma_k^{-1}(\mu_k-x)$, weighted by its *responsibility*, the
# probability that the point comes from it. As noise is added, the components widen, the responsibilities blur, and the
# field becomes one pull to the centre. Predict: at which of the three times have the
# modes stopped being separate?

# %%
import torch

import undiffuse as ud
from undiffuse import course

mixture = ud.Mixture([0.5, 0.3, 0.2], [[-1.5, -0.5], [1.2, 1.0], [1.0, -1.6]], [0.08, 0.12, 0.05])
model = mixture.denoiser(ud.VP())
times = (0.02, 0.2, 0.5)
course.arrows({f"t = {t}": model for t in times}, times, behind=mixture.sample(800), reach=2.6,
             alt="Score fields at three times, the data in grey: three sinks at t = .02, blurred at .2, one at .5.")

# %%
ridge = ud.Mixture([1, 1], [[-2.0], [2.0]], 0.25)
x = torch.tensor([[0.0], [0.01], [0.2], [1.0], [2.0], [8.0]], dtype=torch.float64)
for point, s, r in zip(x[:, 0], ridge.score(x)[:, 0], ridge.responsibilities(x)[:, 1], strict=True):
    print(f"x = {point:5.2f}   score {s:7.2f}   responsibility of the right mode {r:.3f}")
line = torch.linspace(-4, 4, 400, dtype=torch.float64)[:, None]
course.curves({f"t = {t}": (line, ridge.diffused(ud.VP(), t).score(line)) for t in (1e-3, 0.1, 0.3)}, "x", "score",
             title="Zero at both modes, and on the ridge between them")

# %% [markdown]
# In the figures every sink is a mode of $p_t$ (the grey points are the data, at $t=0$): three at first, one at the
# end.
#
# **What is the score near a mode, and in the valley between two?**
# <details><summary>Answer</summary>
#
# Near a mode it tends to 0. On the ridge it *is* 0, by symmetry, and steep on either side: .60 at .01, 6.57 at .2. It
# is an unstable equilibrium. "Large in valleys" is wrong exactly at the ridge ([museum](../docs/museum.md), D11). Far
# outside it grows linearly.
#
# </details>
#
# **Does a longer score mean further from the data?**
# <details><summary>Answer</summary>
#
# No. $s=(\alpha E[x_0\mid x]-x)/\sigma^2$: its length depends on the noise level and on how much the candidates for
# $x_0$ differ.
#
# </details>
#
# **Does** $\nabla\log p(x_t\mid x_0)$ **approximate** $\nabla\log p_t(x_t)$ **near** $x_t$**?**
# <details><summary>Answer</summary>
#
# Only where a single $x_0$ explains the point, with $\sigma_t$ far below the spacing of the data. Otherwise only the
# average over the posterior does, and that is exact (P1).
#
# </details>
#
# ## Exercises
#
# The score of a mixture on a line, for points `x` (B,), weights `w` (K,), centres `mu` (K,), variance `var`. It has to
# work at $x=50$, where every density underflows ([museum](../docs/museum.md), D3 and D4).

# %% exercise c3.1
def score(x, w, mu, var):
    log_joint = w.log() - 0.5 * (x[:, None] - mu) ** 2 / var
    return ...


course.check("c3.1", score)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def score(x, w, mu, var):
#     log_joint = w.log() - 0.5 * (x[:, None] - mu) ** 2 / var
#     return (log_joint.softmax(1) * (mu - x[:, None]) / var).sum(1)
#
#
# course.check("c3.1", score)
# ```
#
# </details>
#
# The density obeys $\partial_tp=-\partial_x(fp)+\tfrac12g^2\partial_x^2p$. Make one explicit step on a grid: `p` and
# the drift `f` are given at the nodes, `g2` is a number; `torch.roll(p, 1)` is the left neighbour. The check takes 4000
# of your steps.

# %% exercise c3.2
def step(p, f, g2, dx, dt):
    slope = (torch.roll(f * p, -1) - torch.roll(f * p, 1)) / (2 * dx)
    bend = (torch.roll(p, -1) - 2 * p + torch.roll(p, 1)) / dx**2
    return ...


course.check("c3.2", step)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def step(p, f, g2, dx, dt):
#     slope = (torch.roll(f * p, -1) - torch.roll(f * p, 1)) / (2 * dx)
#     bend = (torch.roll(p, -1) - 2 * p + torch.roll(p, 1)) / dx**2
#     return p + dt * (-slope + 0.5 * g2 * bend)
#
#
# course.check("c3.2", step)
# ```
#
# </details>
#
# From samples `x0` (n,) of the data alone, estimate the score of $x_t=\alpha x_0+\sigma z$ at one point `x`:
# average the kernel scores, each weighted by the likelihood of `x` given its $x_0$. This is P1 as code.

# %% exercise c3.3
def estimate(x, x0, alpha, sigma):
    return ...


course.check("c3.3", estimate)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def estimate(x, x0, alpha, sigma):
#     weight = (-0.5 * ((x - alpha * x0) / sigma) ** 2).softmax(0)
#     return (weight * (alpha * x0 - x) / sigma**2).sum()
#
#
# course.check("c3.3", estimate)
# ```
#
# </details>
#
# The error falls like $1/\sqrt n$ in one dimension. In 64 dimensions hardly any sample is close to `x`, and the nearest
# one dominates the estimate. This is why a network is trained.
#
# **Find the bug** ([museum](../docs/museum.md), D4). `score = (p_k * pull_k).sum(1) / (p_k.sum(1) + 1e-8)`: "the small
# number prevents division by zero."
# <details><summary>Answer</summary>
#
# Far from the modes $p$ is below $10^{-8}$, and the score tends to 0 instead of growing: eight standard deviations away
# it is a millionth of the right value, and a sampler that starts there never reaches the data. Use a softmax of
# logarithms.
#
# </details>
#
# ## Explore
#
# The same distribution with its arrows. Drag the time and see the sinks merge; click a point to see how much each
# component pulls it.

# %%
course.scene("cloud", law="mix:0.5,-1.5,-0.5,0.08,0,0.08;0.3,1.2,1,0.12,0,0.12;0.2,1,-1.6,0.05,0,0.05",
            arrows="score", t=0.2, p=300)
