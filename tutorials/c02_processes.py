# %% [markdown]
# # C2 · Three noising processes
#
# *25 minutes.* **Goal.** Know VP, VE and sub-VP by their kernels, compare them fairly, and see that they are one
# process up to scale and time.
#
# Theory: [P5](../docs/theory/score.md) (kernels), [P15](../docs/theory/score.md) (one path, several time scales).
#
# All three are linear: $dx=f(t)x\,dt+g(t)\,dw$, so that $x_t=\alpha_tx_0+\sigma_tz$ in one step; training needs no
# simulation. Before you run the cell: which of the three processes ends at the same width for any data?

# %%
import torch

import undiffuse as ud
from undiffuse import course

mixture = ud.Mixture([1, 1], [[-2.0], [2.0]], 0.04)
x0, origin = mixture.sample(4000, labels=True)
three = {"VP": ud.VP(), "VE": ud.VE(0.02, 6.0, from_data=True), "sub-VP": ud.SubVP()}
runs = {name: ud.simulate(sde, x0, 400, seed=1, trajectory=True)[:, :, 0] for name, sde in three.items()}
t = torch.linspace(0, 1, 401)
course.river(mixture, three, {name: (t, x) for name, x in runs.items()}, colours=dict.fromkeys(three, origin),
            alt="VP, VE and sub-VP from two modes, with the same noise; trajectories coloured by initial mode.")

# %%
more = {**three, "g = 25^t": ud.PowerVE(25.0), "g = e^t": ud.PowerVE(2.718282)}
for name, sde in more.items():
    a, s = float(sde.alpha(torch.tensor(1.0))), float(sde.sigma(1.0))
    print(f"{name:9} alpha(1) = {a:.4f}   sigma(1) = {s:8.4f}   std of x_1 = {(a**2 * 4.04 + s**2) ** 0.5:8.4f}")
print({name: [round(float(x[k].std()), 2) for k in (0, 100, 200, 400)] for name, x in runs.items()})
course.curves({name: (t, sde.alpha(t) ** 2 / (sde.alpha(t) ** 2 + sde.variance(t))) for name, sde in more.items()},
             "t", "signal fraction", title="Signal fraction of each process for data of variance 1")

# %% [markdown]
# **Does VP preserve the variance?**
# <details><summary>Answer</summary>
#
# Only a variance of 1: $\operatorname{Var}x_t=\alpha^2\operatorname{Var}x_0+1-\alpha^2$. Here the data have variance
# 4.04, and the standard deviations of the 4000 simulated paths fall from 2.01 to about 1.
#
# </details>
#
# **Does** $p_T$ **depend on** $p_0$**?**
# <details><summary>Answer</summary>
#
# A little, always. VP(0.1, 20) ends with $\alpha=e^{-5.025}=.0066$: six thousandths of the data are left. VE does not
# shrink the data; its prior $N(0,\sigma_T^2)$ ignores mean and variance of the data, an error of relative size
# $|x_0|/\sigma_T$.
#
# </details>
#
# **Why should VE's noise grow, and what if it grows too little or too much?**
# <details><summary>Answer</summary>
#
# It must exceed the diameter of the data, so that the modes merge and one prior serves all of them. If it grows too
# little, the reverse process starts at points that noised data never reach. If it grows too much, the same number of
# steps has to cover more octaves of noise ([museum](../docs/museum.md), D12). $g=\lambda^t$ spends equal time on every
# octave; at $\lambda=1$ it is Brownian motion, and the formula $(\lambda^{2t}-1)/2\log\lambda$ becomes $0/0$ with limit
# $t$.
#
# </details>
#
# ## The same process three times
#
# Divide $x_t$ by $\alpha_t$ and use $\sigma/\alpha$ as time: then all three are Brownian motion on different
# time scales. If that is true, equal noise must give equal samples.

# %%
lam = torch.linspace(-1.5, 4.0, 30, dtype=torch.float64)
z = 4.5 * course.randn(500, 1)  # 4.5 = sigma/alpha at the first level, e^1.5
ends = {}
for name, sde in three.items():
    times = sde.time_of(lam)
    ends[name] = ud.sample(mixture.denoiser(sde), method="ddim", grid=times, x_T=sde.alpha(times[0]) * z).x
print("largest difference:", max(float((x - ends["VP"]).abs().max()) for x in ends.values()))
roll = ud.open_data("swiss_roll").x[:1500].double()
shots = {f"t = {s}": ud.VP().perturb(roll, s, course.randn(1500, 2)) for s in (0.0, 0.05, 0.15, 0.3, 0.5, 1.0)}
course.clouds(shots, reach=3.2, alt="A swiss roll under VP at six times: the arms blur into a round cloud.")

# %% [markdown]
# **When is the last cloud not round?**
# <details><summary>Answer</summary>
#
# When $\alpha_T$ is not small relative to the spread of the data: the covariance is $\alpha_T^2C+\sigma_T^2I$.
#
# </details>
#
# ## Exercises
#
# Compute and return $\alpha(t)$ and $\sigma^2(t)$ for any $f(t)$, $g^2(t)$ by quadrature: $\log\alpha=\int f$, and
# noise added at $s$ has shrunk by $\alpha(t)/\alpha(s)$ at $t$.

# %% exercise c2.1
def kernel(f, g2, t, n=4000):
    s = torch.linspace(0, t, n + 1, dtype=torch.float64)
    log_alpha = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(f(s), s)])
    return ..., ...


course.check("c2.1", kernel)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def kernel(f, g2, t, n=4000):
#     s = torch.linspace(0, t, n + 1, dtype=torch.float64)
#     log_alpha = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(f(s), s)])
#     return log_alpha[-1].exp(), torch.trapezoid(g2(s) * torch.exp(2 * (log_alpha[-1] - log_alpha)), s)
#
#
# course.check("c2.1", kernel)
# ```
#
# </details>
#
# **Find the bug** ([museum](../docs/museum.md), D1). Simulating VP up to $t=.3$ gives mean .630 and standard
# deviation .777. This function returns .793 and .609.

# %% exercise c2.2
def vp(t):
    B = 0.1 * t + 9.95 * t**2
    alpha_bar = torch.exp(-0.5 * B)
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


course.check("c2.2", vp)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def vp(t):
#     B = 0.1 * t + 9.95 * t**2
#     alpha = torch.exp(-0.5 * B)
#     return alpha, (1 - alpha**2).sqrt()
#
#
# course.check("c2.2", vp)
# ```
#
# </details>
#
# Sub-VP has $g^2=\beta(1-e^{-2B})$. Solve $V'=-\beta V+g^2$ for its standard deviation as a function of $B$
# ([museum](../docs/museum.md), D22).

# %% exercise c2.3
def sub_vp(B):
    return ...


course.check("c2.3", sub_vp)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def sub_vp(B):
#     return 1 - torch.exp(-B)
#
#
# course.check("c2.3", sub_vp)
# ```
#
# </details>
#
# Design a variance-preserving $\alpha(t)$ on $[0,1]$ whose log-SNR decreases at a constant rate, with $\alpha(0)>.99$
# and $\alpha(1)<.01$.

# %% exercise c2.4
def alpha(t):
    return ...


course.check("c2.4", alpha)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def alpha(t):
#     return torch.sigmoid(2 * (5 - 10 * t)).sqrt()
#
#
# course.check("c2.4", alpha)
# ```
#
# </details>
#
# ## Explore
#
# The three processes, each divided by the standard deviation of its $x_t$. Switch the axis to log-SNR: what remains of
# the difference?

# %%
course.scene("compare", law="mix:0.5,-2,0.2;0.5,2,0.2", panes="vp|ve:0.02,6|subvp", scale="unit")
