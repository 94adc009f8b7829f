# %% [markdown]
# # C3 · The score and the flow of probability
#
# *25 minutes.* **Goal.** See $\nabla\log p$ of a mixture as a sum of pulls, compute it without underflow, and watch a
# density obey its equation.
#
# Theory: [P1](../docs/theory/score.md) (posterior mean), [P6](../docs/theory/reversal.md) (Fokker-Planck),
# [P17](../docs/theory/score.md) (mixtures).
#
# Each component pulls a point towards its centre with $\Sigma_k^{-1}(\mu_k-x)$, and is listened to in proportion to its
# *responsibility*, the probability that the point is its own. As noise is added, the components widen, the
# responsibilities blur, and the field becomes one pull to the centre. Predict: at which of the three times have the
# modes stopped being separate?

# %%
import torch

import undiffuse as ud
from undiffuse import course

law = ud.Mixture([0.5, 0.3, 0.2], [[-1.5, -0.5], [1.2, 1.0], [1.0, -1.6]], [0.08, 0.12, 0.05])
model = law.denoiser(ud.VP())
times = (0.02, 0.2, 0.5)
course.arrows({f"t = {t}": model for t in times}, times, behind=law.sample(800), reach=2.6,
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
# In the pictures every sink is a mode of $p_t$ (the grey points are the data, at $t=0$): three at first, one in the
# end.
#
# **What is the score near a mode, and in the valley between two?**
# <details><summary>Answer</summary>
#
# Near a mode it tends to 0. On the ridge it *is* 0, by symmetry, and steep on either side: .60 at .01, 6.57 at .2. It
# is an equilibrium, and an unstable one. "Large in valleys" is wrong at the one place where it matters
# ([museum](../docs/museum.md), D11). Far outside it grows linearly.
#
# </details>
#
# **Does a longer score mean further from the data?**
# <details><summary>Answer</summary>
#
# No. $s=(\alpha E[x_0\mid x]-x)/\sigma^2$: its length depends on the noise level and on how far the candidates for
# $x_0$ disagree.
#
# </details>
#
# **Does** $\nabla\log p(x_t\mid x_0)$ **approximate** $\nabla\log p_t(x_t)$ **near** $x_t$**?**
# <details><summary>Answer</summary>
#
# Only where a single origin explains the point, $\sigma_t$ far below the spacing of the data. Otherwise only its
# average over the posterior does, and then exactly (P1).
#
# </details>
#
# ## Exercises
#
# The score of a mixture on a line, for points `x` (B,), weights `w` (K,), centres `mu` (K,), variance `var`. It has to
# survive $x=50$, where every density underflows ([museum](../docs/museum.md), D3 and D4).

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
# With nothing but samples `x0` (n,) of the data, estimate the score of $x_t=\alpha x_0+\sigma z$ at one point `x`:
# average the kernels' scores, each weighted by how likely its $x_0$ makes `x`. This is P1 as a program.

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
# The error falls like $1/\sqrt n$ in one dimension. In 64 dimensions hardly any sample is ever close to `x`, and the
# estimate is that of the nearest one. That is why a network has to be trained.
#
# **Find the bug** ([museum](../docs/museum.md), D4). `score = (p_k * pull_k).sum(1) / (p_k.sum(1) + 1e-8)`: "the small
# number keeps it from dividing by zero."
# <details><summary>Answer</summary>
#
# Far out the whole of $p$ is below $10^{-8}$, and the score tends to 0 instead of growing: eight deviations away it is
# a millionth of what it should be, and a sampler that starts there never comes home. Divide logarithms, with a softmax.
#
# </details>
#
# ## Play with it
#
# The same law with its arrows. Drag the time and watch the sinks merge; click a point to see which component pulls it
# how much.

# %%
course.scene("cloud", law="mix:0.5,-1.5,-0.5,0.08,0,0.08;0.3,1.2,1,0.12,0,0.12;0.2,1,-1.6,0.05,0,0.05",
            arrows="score", t=0.2, p=300)
