# %% [markdown]
# # C4 · Running time backwards
#
# *30 minutes.* **Goal.** The reverse SDE, why the score appears in it, and what its Wiener process is. Sample with an
# exact score.
#
# Theory: [P7](../docs/theory/reversal.md) (time reversal, parts A to D), [P4](../docs/theory/score.md) (Tweedie).
#
# Take one small forward step from $p_{t-\Delta}$ and keep its noise $\Delta w$. Forward in time the noise is
# independent of the state it is added to. But conditionally on the *end* of the step, does the noise still have mean 0?

# %%
import itertools

import torch

import undiffuse as ud
from undiffuse import course

mixture, sde, t, dt = ud.Mixture([0.4, 0.6], [[-1.0], [1.2]], [0.1, 0.2]), ud.VP(), 0.3, 1e-3
model, n = mixture.denoiser(sde), 200_000
before, g = mixture.diffused(sde, t - dt).sample(n), float(sde.g2(t - dt) ** 0.5)
dw = dt**0.5 * course.randn(n, 1)
s = model.score(before + sde.drift(before, t - dt) * dt + g * dw, t)
slope, error = float((dw * s).mean() / s.square().mean()), (dt / n / float(s.square().mean())) ** 0.5
print(f"slope of dw against the score: {slope:.5f} ± {error:.5f};  -g dt = {-g * dt:.5f}")
figure, axes = course.panels(2, 3.2, sharey=True)
for ax, noise, title in zip(axes, (dw, dw + g * s * dt), ("dw, given the end of the step", "dw + g s dt"), strict=True):
    mean = [float(noise[(s - c).abs() < 0.25].mean()) for c in range(-3, 4)]
    ax.bar(range(-3, 4), mean, width=0.9)
    ax.plot([-3.5, 3.5], [3.5 * g * dt, -3.5 * g * dt] if noise is dw else [0, 0], color="black", lw=1)
    ax.set(title=title, xlabel="score at the end of the step", ylabel="mean of the noise", ylim=(-0.01, 0.01))
course.plot_image(figure, "Left: the mean of dw falls along the line -g s dt. Right: after adding g s dt it is zero.")

# %% [markdown]
# *Past noise is correlated with the state it led to, and the score is exactly that correlation.* This is Tweedie's
# formula for one step. Subtract the mean given the present state, and centred noise is left:
#
# $$d\bar w=dw+g\,s\,dt,\qquad dx=f\,dt+g\,dw=[f-g^2s]\,dt+g\,d\bar w .$$
#
# **Is** $d\bar w$ **just** $-dw$**?**
# <details><summary>Answer</summary>
#
# No. $-dw$ alone has the right distribution, but given $x_t$ its mean is $+g\,s\,dt$. The same holds for $W_T-W_{T-s}$,
# which is a Brownian motion but not independent of $x_T$. Fresh noise of either sign with the forward drift does
# not reverse the process.
#
# </details>
#
# Now run it. The last printed line is for exact samples: its W1 is the sampling error of 2000 points. What do you
# sample if you stop at $t=.3$?

# %%
out = ud.sample(model, 2000, "euler_maruyama", 300, grid="time", t_end=1e-3, trajectory=True)
ode = ud.sample(model, 2000, "heun", 60, grid="time", t_end=1e-3)
for name, x in (("SDE", out.x), ("ODE", ode.x), ("exact", mixture.sample(2000, 1))):
    print(f"{name}: mean {x.mean():.3f}, std {x.std():.3f}, W1 {ud.metrics.w1_1d(x, mixture.sample(20_000, 2)):.4f}")
course.river(mixture, {"Backward from t = 1": sde}, {"Backward from t = 1": course.trajectories(out)}, lines=30,
            alt="Trajectories from noise at t = 1 along the bright density to its two modes at t = 0.")

# %% [markdown]
# **We stop at t = .3.**
# <details><summary>Answer</summary>
#
# $p_{.3}$: the trajectory passes through every marginal, and each state is an exact sample of its marginal.
#
# </details>
#
# **Why add noise while removing noise? Can one leave it out?**
# <details><summary>Answer</summary>
#
# Not alone. With all of $g^2s$ and no noise everything contracts into the modes. Without noise only half of the score
# must remain, which gives the probability-flow ODE (C7). In between there is a family: noise $\eta g$, score
# ½(1+η²)g².
#
# </details>
#
# **Sign lab.** Of four sign combinations one is right. The cell runs $dx=[\pm f\pm g^2s]\,dt+g\,dw$ backwards and
# measures the distance to the data.

# %%
truth, times = mixture.sample(1000, 3), torch.linspace(1, 1e-3, 201, dtype=torch.float64)
for a, b in itertools.product((1, -1), repeat=2):
    x = course.randn(1000, 1, seed=5)
    for k, (now, then) in enumerate(itertools.pairwise(times)):
        drift = a * sde.drift(x, now) + b * sde.g2(now) * model.score(x, now)
        x = x + drift * (then - now) + (sde.g2(now) * (now - then)) ** 0.5 * course.randn(1000, 1, seed=9 + k)
    print(f"sign of f {a:+d}, sign of g²s {b:+d}:  W1 to the data = {ud.metrics.w1_1d(x, truth):.3g}")

# %% exercise c4.1
signs = (..., ...)
course.check("c4.1", signs)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# signs = (1, -1)
# course.check("c4.1", signs)
# ```
#
# </details>
#
# Write the reverse drift for $dt<0$, from the values of $f(x,t)$, $g$ and $s$.

# %% exercise c4.2
def reverse_drift(f, g, s):
    return ...


course.check("c4.2", reverse_drift)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def reverse_drift(f, g, s):
#     return f - g**2 * s
#
#
# course.check("c4.2", reverse_drift)
# ```
#
# </details>
#
# And the family with noise $\eta g$ that has the same marginals for every $\eta\ge0$.

# %% exercise c4.3
def family(f, g, s, eta):
    return ...


course.check("c4.3", family)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def family(f, g, s, eta):
#     return f - 0.5 * (1 + eta**2) * g**2 * s
#
#
# course.check("c4.3", family)
# ```
#
# </details>
#
# **Find the bug** ([museum](../docs/museum.md), D8). A sampler stores its start, then appends `x` after step `i` of 500
# when `i % 50 == 0`, and labels frame $k$ of $K$ with $1-k/K$.
# <details><summary>Answer</summary>
#
# The last frame is that of step 450; the final sample is never stored. Frame 1 is from $t=.998$ and is labelled
# .909. Store pairs $(t,x)$, as `trajectory=True` does.
#
# </details>
#
# ## Explore
#
# Three dynamics with the same random numbers: the ODE, the SDE, and an SDE of twice the noise. What agrees at every
# time, and what differs?

# %%
course.scene("compare", law="mix:0.4,-1,0.3162;0.6,1.2,0.4472", n=256, grid="time",
            panes="vp~euler_maruyama~0|vp~euler_maruyama~1|vp~euler_maruyama~2")
