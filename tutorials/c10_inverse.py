# %% [markdown]
# # C10 · Inverse problems
#
# *30 minutes.* **Goal.** Bayes' rule for scores; inpainting and imputation; which of the popular approximations are
# wrong, and by how much.
#
# Theory: [P13](../docs/theory/conditioning.md) (observations).
#
# You have a model of $p(x)$ and observe $y=Ax+n$. No further training is needed:
# $\nabla\log p_t(x\mid y)=s_t(x)+\nabla\log p_t(y\mid x)$, and only the second term is new. For a mixture it is known
# exactly, so approximations can be measured. Predict: four modes, the first coordinate is observed near 0.15. Which
# modes remain, and with which weights?

# %%
import torch

import undiffuse as ud
from undiffuse import course

mixture = ud.Mixture([0.2, 0.4, 0.2, 0.2], [[-1.4, 0.0], [0.1, 1.3], [0.2, -1.2], [1.5, 0.2]], 0.04)
model, A, y, noise = mixture.denoiser(ud.VP()), [[1.0, 0.0]], [0.15], 0.1
post = mixture.posterior(A, y, noise)
samples = {"prior": mixture.sample(600), "exact": ud.sample(post.denoiser(ud.VP()), 600, "ancestral", 60, t_end=1e-2).x}
for method in ("replacement", "dps", "pigdm", "mmps"):
    samples[method] = ud.sample(ud.observe(model, A, y, noise, method), 600, steps=60, t_end=1e-2).x
for name, x in samples.items():
    weight = mixture.responsibilities(x).mean(0)
    print(f"{name:12} modes {weight[1]:.3f} / {weight[2]:.3f}   std of observed coordinate {x[:, 0].std():.3f}")
print(f"truth        modes {post.weights[1]:.3f} / {post.weights[2]:.3f}   {float(post.covariance[0, 0]) ** 0.5:.3f}")
course.clouds({k: samples[k] for k in ("prior", "exact", "replacement", "dps", "mmps")}, reach=2.2,
             alt="The four clouds of the prior, and the samples of four methods given the first coordinate.")

# %% [markdown]
# **Is** $\nabla\log p(y\mid x)$ **zero everywhere for a mask?**
# <details><summary>Answer</summary>
#
# With noise it is $A^\top(y-Ax)/\sigma_y^2$, zero only where the residual is. Without noise, $p(y\mid x)$ is
# concentrated on $\{Ax=y\}$: off that set its logarithm is $-\infty$ and has no gradient; a projection takes its place.
# And sampling needs neither: it needs $\nabla\log p_t(y\mid x_t)=\nabla\log E[p(y\mid x_0)\mid x_t]$, which
# couples observed and unobserved coordinates ([museum](../docs/museum.md), D19).
#
# </details>
#
# **Why not insert** $x_t$ **into** $p(y\mid x_0)$**?**
# <details><summary>Answer</summary>
#
# $x_t$ is not $x_0$. Inserting $E[x_0\mid x_t]$ instead (DPS) moves the expectation into the function and ignores the
# uncertainty of $x_0$; with noise as small as here its steps overshoot, see the printed standard deviation. Adding the
# uncertainty, $\sigma_y^2I+ACA^\top$, is exact for Gaussian data.
#
# </details>
#
# **Is a class an observation?**
# <details><summary>Answer</summary>
#
# Yes: $y$ is the label, and $p_t(c\mid x_t)$ is a noise-level-dependent classifier.
#
# </details>
#
# Now an image with its lower half hidden. The posterior is a mixture, so completions can be sampled *exactly*.

# %%
digits = ud.open_data("digits")
x = digits.x.double() / 8 - 1
prior = ud.Mixture.fit(x, 1, labels=digits.y)
mask = torch.zeros(1, 8, 8, dtype=torch.bool)
mask[:, :4] = True
image = x[5]
rows = torch.eye(64, dtype=torch.float64)[mask.flatten()]
post = prior.posterior(rows, image[mask], 0.1)
observed = torch.where(mask, image, -1.0)
probability = torch.stack([post.weights[post.labels == c].sum() for c in range(10)])
print("the hidden half belongs to a", int(digits.y[5]), "; exact posterior:",
      {int(c): round(float(probability[c]), 3) for c in probability.argsort(descending=True)[:3]})
filled = ud.sample(ud.observe(prior.denoiser(ud.VP()), ud.inverse.Mask(mask), image, 0.1), 8, steps=40)
course.images({"truth and observation": torch.stack([image, observed]), "exact posterior": post.sample(8),
              "mmps": filled.x}, alt="A digit, its upper half, eight exact completions and eight by a guided sampler.")

# %% [markdown]
# Ambiguity is information, not failure: if the upper half fits several digits, the samples must too.
#
# ## Exercises
#
# The posterior of $N(\mu,\Sigma)$ given $y=Ax+n$, $n\sim N(0,s^2I)$: return its mean and the diagonal of its
# covariance.

# %% exercise c10.1
def posterior(mu, cov, A, y, s):
    S = ...
    gain = cov @ A.T @ torch.linalg.inv(S)
    return mu + gain @ (y - A @ mu), (cov - gain @ A @ cov).diagonal()


course.check("c10.1", posterior)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def posterior(mu, cov, A, y, s):
#     S = A @ cov @ A.T + s**2 * torch.eye(len(y))
#     gain = cov @ A.T @ torch.linalg.inv(S)
#     return mu + gain @ (y - A @ mu), (cov - gain @ A @ cov).diagonal()
#
#
# course.check("c10.1", posterior)
# ```
#
# </details>
#
# Compute the guidance term $J^\top A^\top(s^2I+ACA^\top)^{-1}e$ from the Jacobian $J=\partial D/\partial x$, the
# residual $e=y-AD$ and $C=\operatorname{Cov}(x_0\mid x_t)$.

# %% exercise c10.2
def guide(J, A, e, s, C):
    return ...


course.check("c10.2", guide)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def guide(J, A, e, s, C):
#     return J.T @ A.T @ torch.linalg.solve(A @ C @ A.T + s**2 * torch.eye(len(e)), e)
#
#
# course.check("c10.2", guide)
# ```
#
# </details>
#
# Impute a table: the 13 standardised columns of scikit-learn's wine data, with some cells of a row hidden. `observed`
# (13,) is true where a value is known; return the mean and the standard deviation of the hidden cells given the
# observed ones, for a Gaussian with `mean` and `cov`. The check fits them on half of the wines, hides a third of the
# cells of the others, and compares with the column's mean and standard deviation.

# %% exercise c10.3
def impute(row, observed, mean, cov):
    gain = cov[~observed][:, observed] @ torch.linalg.inv(cov[observed][:, observed])
    return ..., ...


course.check("c10.3", impute)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def impute(row, observed, mean, cov):
#     gain = cov[~observed][:, observed] @ torch.linalg.inv(cov[observed][:, observed])
#     left = cov[~observed][:, ~observed] - gain @ cov[observed][:, ~observed]
#     return mean[~observed] + gain @ (row[observed] - mean[observed]), left.diagonal().sqrt()
#
#
# course.check("c10.3", impute)
# ```
#
# </details>
#
# Real tables are not Gaussian, and have categories and missing values: [tables](../docs/tables.md) has the command for
# those.
#
# **Find the bug** ([museum](../docs/museum.md), D19). An inpainting sampler sets `x[mask] = image[mask]` after every
# step, at every $t$.
# <details><summary>Answer</summary>
#
# At time $t$ the model expects an image with the noise level of time $t$, but gets one with a clean half, which is not
# a sample of $x_t$. *Replacement* inserts $\alpha_ty+\sigma_tz$, with fresh noise; each half then has the right
# distribution, but the two halves are not coupled enough, as the table above shows.
#
# </details>
#
# ## Explore
#
# Rotate and drag the observed line. When do the methods differ?

# %%
course.scene("question", y=0.15, angle=0, std=0.1, answers=["exact", "replacement", "dps", "mmps"],
            law="mix:0.2,-1.4,0,0.04,0,0.04;0.4,0.1,1.3,0.04,0,0.04;0.2,0.2,-1.2,0.04,0,0.04;0.2,1.5,0.2,0.04,0,0.04")
