# %% [markdown]
# # C8 · DDPM as a discretisation
#
# *25 minutes.* **Goal.** The chain as a process, four predictions of one network, the evidence bound as a weighted
# score matching loss, ancestral and DDIM sampling.
#
# Theory: [P11](../docs/theory/likelihood.md) (chain, bound, limit), [P15](../docs/theory/score.md) (conversions).
#
# A denoising diffusion probabilistic model has a forward Markov chain $x_i=\sqrt{1-\beta_i}\,x_{i-1}+\sqrt{\beta_i}\,z$
# that is not learned, a network that predicts the noise, and a sampler that reverses the chain. All of it is a
# discretisation of the previous chapters. `ud.DDPM(betas)` is the chain as a process.

# %%
import torch

import undiffuse as ud
from undiffuse import course

vp, t = ud.VP(), torch.linspace(1e-3, 1, 400, dtype=torch.float64)
chains = {f"{n} steps": ud.DDPM(ud.linear_betas(n)) for n in (25, 100, 1000)}
for name, chain in chains.items():
    print(f"{name:10} error of alpha-bar against VP {float((chain.alpha(t) ** 2 - vp.alpha(t) ** 2).abs().max()):.4f}")
naive = ud.DDPM(tuple(torch.linspace(1e-4, 0.02, 100).tolist()))
print(f"100 steps with the betas of 1000: alpha-bar at the end = {float(naive.alpha(t[-1]) ** 2):.3f}")
chains["100 steps, betas of 1000"] = naive
course.curves({name: (t, c.alpha(t) ** 2) for name, c in chains.items()},
             "t = i/N", "alpha-bar", title="Chains converge to VP; one of them never reaches noise")

# %% [markdown]
# **Noise prediction is the score "up to a constant". Which constant?**
# <details><summary>Answer</summary>
#
# $s=-\hat z/\sqrt{1-\bar\alpha_t}$: it depends on $t$, from $-100$ to $-1$ along the chain.
#
# </details>
#
# **T = 100 with β up to .02: what goes wrong?**
# <details><summary>Answer</summary>
#
# $\bar\alpha_T=.364$: a third of the signal power is left, but sampling starts from pure noise, which the chain never
# reaches. Scale β by $1000/N$ ([museum](../docs/museum.md), D28).
#
# </details>
#
# Sampling. The ancestral step is Euler-Maruyama of the reverse SDE to first order, DDIM an exponential step of the
# ODE.

# %%
mixture = ud.Mixture([1, 2], [[-1.5], [1.0]], [0.05, 0.1])
model = mixture.denoiser(chains["1000 steps"])
runs = {"ancestral, 1000": ("ancestral", 1000), "Euler-Maruyama, 1000": ("euler_maruyama", 1000),
        "ancestral, 20": ("ancestral", 20), "DDIM, 20": ("ddim", 20)}
samples = {name: ud.sample(model, 4000, method, steps, grid="time", t_end=1e-3, block=4000).x
           for name, (method, steps) in runs.items()}
print({name: round(ud.metrics.w1_1d(x, mixture.sample(20_000, 1)), 3) for name, x in samples.items()})
course.histograms(samples, mixture, 3.0)

# %% [markdown]
# ## Does the network need to know t?
#
# Train the same small network twice; one of the two receives a constant instead of the noise level.

# %%
class NoTime(torch.nn.Sequential):
    def forward(self, x, c, label=None):
        return self[0](x, 0 * c, label)


modes = ud.Mixture([1, 1, 1], [[-1.2, 0.0], [0.9, 1.0], [0.8, -1.1]], 0.03)
for name, wrap in (("with t", lambda net: net), ("without t", NoTime)):
    net = wrap(ud.nets.initialize(ud.nets.build("mlp", (2,), width=48, depth=2), 0))
    model, adam = ud.Denoiser(net, vp, "noise", shape=(2,), sigma_data=1.0), torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for k in range(700):
        t0 = ud.random.uniform(0, ud.random.Purpose.TIME, k, 0, 256) * 0.98 + 0.02
        x0 = modes.sample(256, 0, 256 * k).float()
        loss = ud.loss.denoising_loss(model, x0, t0, course.randn(256, 2, seed=k).float(), "simple").mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    print(f"{name}: loss {sum(losses[-200:]) / 200:.3f}")

# %% [markdown]
# In two dimensions a point contains little information about its noise level, and the network without $t$ has a higher
# loss. A large image almost determines its noise level, so there the mistake goes unnoticed until sampling
# ([museum](../docs/museum.md), D27).
#
# ## Exercises
#
# From $\bar\alpha_i$ at $i=1\ldots N$ back to $\beta(t_i)$ of the process: differences of $\log\bar\alpha$, with
# $\bar\alpha_0=1$ in front. (Notes with the factor $-2$ took it from $\log\sqrt{\bar\alpha}$:
# [museum](../docs/museum.md), D20.)

# %% exercise c8.1
def beta_of(alpha_bar):
    log = torch.cat([torch.zeros(1, dtype=torch.float64), alpha_bar.log()])
    return ...


course.check("c8.1", beta_of)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def beta_of(alpha_bar):
#     log = torch.cat([torch.zeros(1, dtype=torch.float64), alpha_bar.log()])
#     return -len(alpha_bar) * log.diff()
#
#
# course.check("c8.1", beta_of)
# ```
#
# </details>
#
# **Find the bug** ([museum](../docs/museum.md), D28). Correct this chain of 100 steps: choose β so that it ends
# in noise like the chain of 1000 steps.

# %% exercise c8.2
betas = torch.linspace(1e-4, 0.02, 100)
course.check("c8.2", betas)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# betas = 10 * torch.linspace(1e-4, 0.02, 100)
# course.check("c8.2", betas)
# ```
#
# </details>
#
# Compute the score from a noise prediction.

# %% exercise c8.3
def score(eps, alpha_bar):
    return ...


course.check("c8.3", score)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def score(eps, alpha_bar):
#     return -eps / (1 - alpha_bar) ** 0.5
#
#
# course.check("c8.3", score)
# ```
#
# </details>
#
# In the evidence bound a term is $w_iE\lVert\nabla\log q(x_i\mid x_0)-s_\theta\rVert^2$. Give $w_i$ for
# $\varsigma_i^2=\beta_i$; verify that it tends to $\tfrac12g^2\Delta t$.

# %% exercise c8.4
def weight(beta_i):
    return ...


course.check("c8.4", weight)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def weight(beta_i):
#     return beta_i**2 / (2 * beta_i * (1 - beta_i))
#
#
# course.check("c8.4", weight)
# ```
#
# </details>
#
# ## Explore
#
# The ancestral sampler and DDIM with 20 steps each. How many steps does the ancestral sampler need for the same error?

# %%
course.scene("compare", law="mix:0.333,-1.5,0.2236;0.667,1,0.3162", n=20, panes="vp~ancestral|vp~ddim")
