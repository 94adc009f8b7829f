# %% [markdown]
# # C10 · Asking questions: inverse problems
#
# *30 minutes.* **Goal.** Bayes' rule for scores; inpainting and imputation; which of the popular approximations are
# wrong, and by how much.
#
# Theory: [P13](../docs/theory/conditioning.md) (observations).
#
# You have a model of $p(x)$ and see $y=Ax+n$. Nothing has to be trained again:
# $\nabla\log p_t(x\mid y)=s_t(x)+\nabla\log p_t(y\mid x)$, and only the second term is new. For a mixture it is known
# exactly, so approximations can be measured. Predict: four modes, the first coordinate is seen to be near 0.15. Which
# modes remain, and with which shares?

# %%
import torch

import undiffuse as ud
from undiffuse import course

law = ud.Mixture([0.2, 0.4, 0.2, 0.2], [[-1.4, 0.0], [0.1, 1.3], [0.2, -1.2], [1.5, 0.2]], 0.04)
model, A, y, noise = law.denoiser(ud.VP()), [[1.0, 0.0]], [0.15], 0.1
post = law.posterior(A, y, noise)
made = {"prior": law.sample(600), "exact": ud.sample(post.denoiser(ud.VP()), 600, "ancestral", 60, t_end=1e-2).x}
for method in ("replacement", "dps", "pigdm", "mmps"):
    made[method] = ud.sample(ud.observe(model, A, y, noise, method), 600, steps=60, t_end=1e-2).x
for name, x in made.items():
    share = law.responsibilities(x).mean(0)
    print(f"{name:12} modes {share[1]:.3f} / {share[2]:.3f}   deviation of what was seen {x[:, 0].std():.3f}")
print(f"truth        modes {post.weights[1]:.3f} / {post.weights[2]:.3f}   {float(post.covariance[0, 0]) ** 0.5:.3f}")
course.clouds({k: made[k] for k in ("prior", "exact", "replacement", "dps", "mmps")}, reach=2.2,
             alt="The prior's four clouds, and what five methods leave of them after the first coordinate was seen.")

# %% [markdown]
# **Is** $\nabla\log p(y\mid x)$ **zero everywhere for a mask?**
# <details><summary>Answer</summary>
#
# With noise it is $A^\top(y-Ax)/\sigma_y^2$, zero only where the residual is. Without noise, $p(y\mid x)$ is
# concentrated on $\{Ax=y\}$: off that set its logarithm is $-\infty$ and has no gradient; a projection takes its place.
# And what sampling needs is neither: it is $\nabla\log p_t(y\mid x_t)=\nabla\log E[p(y\mid x_0)\mid x_t]$, which
# couples what was seen with what was not ([museum](../docs/museum.md), D19).
#
# </details>
#
# **Why not put** $x_t$ **into** $p(y\mid x_0)$**?**
# <details><summary>Answer</summary>
#
# $x_t$ is not $x_0$. Putting $E[x_0\mid x_t]$ there instead (DPS) moves the expectation into the function and loses the
# uncertainty of $x_0$; with noise as small as here its steps overshoot, see the printed deviation. Adding the
# uncertainty, $\sigma_y^2I+ACA^\top$, is exact for Gaussian data.
#
# </details>
#
# **Is a class an observation?**
# <details><summary>Answer</summary>
#
# Yes: $y$ is the label, and $p_t(c\mid x_t)$ is a classifier that knows the noise level.
#
# </details>
#
# Now a picture with its lower half hidden. The posterior is a mixture, so we can draw completions from the *exact* one.

# %%
digits = ud.open_data("digits")
x = digits.x.double() / 8 - 1
prior = ud.Mixture.fit(x, 1, labels=digits.y)
seen = torch.zeros(1, 8, 8, dtype=torch.bool)
seen[:, :4] = True
picture = x[5]
rows = torch.eye(64, dtype=torch.float64)[seen.flatten()]
belief = prior.posterior(rows, picture[seen], 0.1)
shown = torch.where(seen, picture, -1.0)
chance = torch.stack([belief.weights[belief.labels == c].sum() for c in range(10)])
print("the hidden half belongs to a", int(digits.y[5]), "; the exact posterior says",
      {int(c): round(float(chance[c]), 3) for c in chance.argsort(descending=True)[:3]})
filled = ud.sample(ud.observe(prior.denoiser(ud.VP()), ud.inverse.Mask(seen), picture, 0.1), 8, steps=40)
course.images({"truth, and seen": torch.stack([picture, shown]), "exact posterior": belief.sample(8), "mmps": filled.x},
             alt="A digit, its upper half, eight exact completions and eight by a guided sampler.")

# %% [markdown]
# Ambiguity is information, not failure: if the upper half fits several digits, so must the answers.
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
# The guide $J^\top A^\top(s^2I+ACA^\top)^{-1}e$ from the Jacobian $J=\partial D/\partial x$, the residual $e=y-AD$ and
# $C=\operatorname{Cov}(x_0\mid x_t)$.

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
# The same for a table: the 13 columns of scikit-learn's wine data, standardised, with some cells of a row hidden.
# `seen` (13,) is true where a cell is known; return the mean and the deviation of the hidden cells given the seen ones,
# for a Gaussian of that `mean` and `cov`. The check fits them on half of the wines, hides a third of the cells of the
# others, and compares with the column's mean and deviation.

# %% exercise c10.3
def impute(row, seen, mean, cov):
    gain = cov[~seen][:, seen] @ torch.linalg.inv(cov[seen][:, seen])
    return ..., ...


course.check("c10.3", impute)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def impute(row, seen, mean, cov):
#     gain = cov[~seen][:, seen] @ torch.linalg.inv(cov[seen][:, seen])
#     left = cov[~seen][:, ~seen] - gain @ cov[seen][:, ~seen]
#     return mean[~seen] + gain @ (row[seen] - mean[seen]), left.diagonal().sqrt()
#
#
# course.check("c10.3", impute)
# ```
#
# </details>
#
# Real tables are not Gaussian, and have words and empty cells: [tables](../docs/tables.md) has the command for those.
#
# **Find the bug** ([museum](../docs/museum.md), D19). An inpainter sets `x[seen] = picture[seen]` after every step, at
# every $t$.
# <details><summary>Answer</summary>
#
# At time $t$ the model expects a picture with the noise of time $t$, and gets one that is clean in one half: a pair
# that no $x_t$ ever is. *Replacement* puts $\alpha_ty+\sigma_tz$ there, with fresh noise; that fits in each half, and
# still the two halves know too little of each other, as the table above shows.
#
# </details>
#
# ## Play with it
#
# Turn and drag the line that is seen. When do the answers part?

# %%
course.scene("question", y=0.15, angle=0, std=0.1, answers=["exact", "replacement", "dps", "mmps"],
            law="mix:0.2,-1.4,0,0.04,0,0.04;0.4,0.1,1.3,0.04,0,0.04;0.2,0.2,-1.2,0.04,0,0.04;0.2,1.5,0.2,0.04,0,0.04")
