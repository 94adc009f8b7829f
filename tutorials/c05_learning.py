# %% [markdown]
# # C5 · Learning the score by denoising
#
# *35 minutes.* **Goal.** From the lemma to a loss, its weight, the output of the network, and the lower bound (floor)
# of the loss.
#
# Theory: [P1 to P3](../docs/theory/score.md) (the equivalence), [P14](../docs/theory/score.md) (weights).
#
# One noisy point can come from many clean points. Each gives a different direction, $-z/\sigma$. The minimiser of a
# squared error is their mean, and this mean *is* the score.

# %%
import torch

import undiffuse as ud
from undiffuse import course

mixture, sde = ud.Mixture([0.4, 0.3, 0.3], [[-1.3, 0.0], [0.9, 1.0], [0.8, -1.1]], [0.05, 0.1, 0.05]), ud.VP()
exact, t = mixture.denoiser(sde), torch.tensor(0.35, dtype=torch.float64)
alpha, sigma = sde.alpha(t), sde.sigma(t)
point = torch.tensor([[-0.5, 0.45]], dtype=torch.float64)
x0 = mixture.posterior(torch.eye(2), point[0] / alpha, sigma / alpha).sample(40)
figure, (ax,) = course.panels(1, 4.2, 4.6)
ax.scatter(*mixture.sample(1500).T, s=3, color="#ced4da")
pull = 0.9 * (alpha * x0 - point) / sigma**2
ax.quiver(*point.expand(40, 2).T, *pull.T, angles="xy", scale_units="xy", scale=1, width=0.003, color="#e8590c")
ax.quiver(*point.T, *(0.9 * exact.score(point, t)).T, angles="xy", scale_units="xy", scale=1, width=0.012,
          headlength=3, headaxislength=3, color="black")
ax.set(title="40 targets of one noisy point, and their mean", aspect="equal", xlim=(-2, 2), ylim=(-2, 2))
course.plot_image(figure, "Thin arrows from a noisy point to clean points; the thick one is their mean, the score.")

# %% [markdown]
# Training is a short loop: draw data, times and noise; add the noise; compute the loss; update. `levels.times` spreads
# the 256 times of a batch evenly (its arguments are seed, step, first row, rows, rows of the batch). `ud.train` adds
# averaged weights, checkpoints and a log.

# %%
net = ud.nets.initialize(ud.nets.build("mlp", (2,), width=64, depth=2), seed=0)
model, losses = ud.Denoiser(net, sde, shape=(2,), sigma_data=1.0), []
adam, levels = torch.optim.Adam(net.parameters(), lr=3e-3), ud.loss.NoiseLevelDistribution("time", sigma_data=1.0,
                                                                                           low=0.02)
for k in range(1200):
    clean, z = mixture.sample(256, first_index=256 * k).float(), course.randn(256, 2, seed=k).float()
    loss = ud.loss.denoising_loss(model, clean, levels.times(sde, 0, k, 0, 256, 256), z, "simple").mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
    losses.append(float(loss.detach()))
q = levels.quantile(sde, (torch.arange(200) + 0.5) / 200)
floor = float(ud.loss.loss_floor(mixture, sde, q, "simple").value.mean())
smooth = torch.tensor(losses).unfold(0, 100, 20).mean(1)
print(f"loss {smooth[-1]:.4f}, floor {floor:.4f}, so the score error is {smooth[-1] - floor:.4f}")
course.curves({"loss": (range(100, 1201, 20), smooth)}, "updates", "loss", level=floor, title="Loss and floor (dashed)")

# %% [markdown]
# The loss is the mean of the last 100 batches, so the difference contains their noise too.
#
# **Can the loss reach 0?**
# <details><summary>Answer</summary>
#
# No. Two clean points can give the same noisy one, and then the noise is not determined. The floor is
# $E\lVert z-E[z\mid x_t]\rVert^2$. The network can only reduce the difference: loss − floor = the error of the
# score (P3). The floor is 0 for a data set of one point, which makes a good unit test.
#
# </details>
#
# **Why multiply by** $\sigma_t$**? And which weight?**
# <details><summary>Answer</summary>
#
# $\sigma s$ has a target of unit size, $-z$, at every level, which suits a network output. The weight is a separate
# choice: $\lambda=\sigma^2$ gives all levels equal weight, because $E\lVert\nabla\log k\rVert^2=d/\sigma^2$ (P14);
# $\lambda=g^2$ bounds the likelihood (P10).
#
# </details>
#
# **Why average the weights (EMA) for sampling?**
# <details><summary>Answer</summary>
#
# At a fixed learning rate the weights fluctuate around the optimum because of batch noise; an average fluctuates less.
#
# </details>

# %%
samples = ud.sample(model, 1500, steps=20)
course.clouds({"learned score": samples.x, "exact score": ud.sample(exact, 1500, steps=20).x,
              "data": mixture.sample(1500)}, reach=2.2,
             alt="Samples of the learned score, of the exact score, and data: the same three clusters.")

# %% [markdown]
# Look at the cluster on the left: the learned one is too narrow in the middle. A few thousandths of loss are visible.
#
# ## Exercises
#
# Write the loss of one batch, per sample: `score` is a function of $x$, the noisy point is $\alpha x_0+\sigma z$, the
# weight $\sigma^2$.

# %% exercise c5.1
def dsm_loss(score, x0, z, alpha, sigma):
    return ...


course.check("c5.1", dsm_loss)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def dsm_loss(score, x0, z, alpha, sigma):
#     return (sigma * score(alpha * x0 + sigma * z) + z).square().sum(1)
#
#
# course.check("c5.1", dsm_loss)
# ```
#
# </details>
#
# Split $E\lVert Z-a\rVert^2$ for samples `Z` (n, d): return the squared bias $\lVert EZ-a\rVert^2$ and the variance
# $E\lVert Z-EZ\rVert^2$.

# %% exercise c5.2
def split(Z, a):
    return ..., ...


course.check("c5.2", split)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def split(Z, a):
#     return (Z.mean(0) - a).square().sum(), (Z - Z.mean(0)).square().sum(1).mean()
#
#
# course.check("c5.2", split)
# ```
#
# </details>
#
# **Find the bug** ([museum](../docs/museum.md), D5). These features are made for $t=0\ldots1000$ but receive
# $t\in[0,1]$: they hardly change. Correct them.

# %% exercise c5.3
def features(t):
    angle = t[:, None] * 10_000 ** -torch.linspace(0, 1, 16)
    return torch.cat([angle.sin(), angle.cos()], 1)


course.check("c5.3", features)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def features(t):
#     angle = 1000 * t[:, None] * 10_000 ** -torch.linspace(0, 1, 16)
#     return torch.cat([angle.sin(), angle.cos()], 1)
#
#
# course.check("c5.3", features)
# ```
#
# </details>
#
# *For the curious:* one update of Adam with `lr=0.1`, `b=(0.9, 0.999)`, `eps=1e-8`; `k` counts from 1. Return the new
# `p, m, v`.

# %% exercise c5.4
def adam_step(p, g, m, v, k):
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    return ..., m, v


course.check("c5.4", adam_step)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def adam_step(p, g, m, v, k):
#     m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
#     return p - 0.1 * (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt() + 1e-8), m, v
#
#
# course.check("c5.4", adam_step)
# ```
#
# </details>
#
# ## Explore
#
# The distribution of this chapter at $t=.35$. Click between the clusters: the component arrows are the different
# targets, the black arrow is the score.

# %%
course.scene("cloud", law="mix:0.4,-1.3,0,0.05,0,0.05;0.3,0.9,1,0.1,0,0.1;0.3,0.8,-1.1,0.05,0,0.05",
            arrows="score", t=0.35, p=300)
