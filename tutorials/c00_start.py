# %% [markdown]
# # C0 · Start here
#
# *5 minutes. Nothing has to be downloaded, and one CPU is enough for the whole course.*
#
# Work in a copy: `undiffuse learn open c00 --out mine` writes this chapter as `.py` and as `.ipynb`, together with the
# explorer page. In a cell named *exercise*, replace `...` by your answer; then run the cell, or run
# `undiffuse learn check mine/c00_start.py`. The check prints whether the answer is right, and a hint if it is not.
#
# **Goal.** See noise become data once, and get an overview of the course.
#
# A diffusion model is two sentences. *Destroy data slowly with noise, so slowly that each step can be undone. Learn to
# undo one step.* What undoes a step is a vector field, the score $\nabla\log p_t(x)$, and one lemma makes it learnable:
# it is the average, over all clean points that the noisy point may come from, of a direction with a closed form.
#
# | chapter | question |
# |---|---|
# | C1 | what is Brownian motion, and what does $dx=f\,dt+g\,dw$ mean? |
# | C2 | three noising processes: VP, VE, sub-VP |
# | C3 | what is the score, and how does probability flow? |
# | C4 | how does one run time backwards? |
# | C5 | how is the score learned? |
# | C6 | which solver, and what does a step cost? |
# | C7 | the probability-flow ODE: encoding and likelihood |
# | C8 | how is DDPM a discretisation of these equations? |
# | C9 | images, conditions, guidance |
# | C10 | inverse problems |
# | C11 | latents, text to image, and whom it affects |

# %%
import torch

import undiffuse as ud
from undiffuse import course

mixture = ud.Mixture([0.3, 0.7], [[-2.0], [1.5]], [0.05, 0.15])
sde = ud.VP()
model = mixture.denoiser(sde)
out = ud.sample(model, 400, "euler_maruyama", 300, grid="time", t_end=1e-3, trajectory=True, seed=1)
title = "Noise (right) becomes data (left)"
course.river(mixture, {title: sde}, {title: course.trajectories(out)},
            alt="Bright: the density of x_t. White: trajectories from noise on the right to the two modes.")

# %% [markdown]
# Read the figure from right to left. At $t=1$ the distribution is one Gaussian; the trajectories start there, at
# random. Each moves with the score and with fresh noise, and at $t=0$ three tenths of them are in the lower mode and
# seven tenths in the upper one. Nothing enforces these fractions: they are contained in the score.
#
# The model here is *exact*, because for a mixture of Gaussians every integral has a closed form. The course uses such
# distributions wherever it can, so that every error on a plot is an error of the method.

# %%
points = ud.open_data("8gaussians").x[:2000].double()
blobs = ud.Mixture.fit(points, 8)
out = ud.sample(blobs.denoiser(sde), 1500, "ancestral", 60, trajectory=True)
course.animate_samples(out, alt="A round cloud of 1500 points splits into eight clusters as t goes from 1 to 0.")

# %% [markdown]
# ## Notation
#
# $N(m,v)$ is the Gaussian of mean $m$ and variance $v$. $t=0$ is the data, $t=T$ is noise. The kernel is
# $x_t=\alpha_tx_0+\sigma_tz$ with $z$ standard normal; $f=\alpha'/\alpha$ and $g^2=(\sigma^2)'-2f\sigma^2$ follow.
# $p_t$ is the density of $x_t$, $s_t=\nabla\log p_t$ its score, $D_t(x)=E[x_0\mid x_t=x]$ the denoiser,
# $\lambda=\log(\alpha/\sigma)$ the log-SNR. Samplers run with decreasing $t$, so $dt<0$. In code `x` is (B, ...), `t`
# is a number or (B,).
#
# ## One page to keep
#
# | | |
# |---|---|
# | forward | $dx=f\,dt+g\,dw$ |
# | backward | $dx=[f-g^2s]\,dt+g\,d\bar w$ (SDE), $dx=[f-\tfrac12g^2s]\,dt$ (ODE), the same marginals |
# | learn | minimise $E\lVert\sigma s_\theta(x_t,t)+z\rVert^2$: the floor is not 0 |
# | convert | $\hat z=-\sigma s$, $D=(x+\sigma^2s)/\alpha$ |
# | likelihood | $\log p_0(x_0)=\log p_T(x_T)+\int\nabla\cdot v\,dt$ |
# | condition | $\nabla\log p_t(x\mid y)=s_t(x)+\nabla\log p_t(y\mid x)$ |
#
# ## Seeds and devices
#
# There is no global seed. Every random number is a function of an address (seed, purpose, step, sample), so
# sample 7 of seed 0 is the same alone, in a batch, today and tomorrow.

# %%
from undiffuse.training import pick_device

single = ud.sample(model, 1, "ancestral", 50, seed=0, first_index=7)
print("the same sample:", torch.equal(single.x[0], ud.sample(model, 20, "ancestral", 50, seed=0).x[7]))
print("device:", pick_device("auto"))

# %% [markdown]
# ## Are you ready?
#
# The course assumes only what these three questions about Gaussians test. Answer before you unfold.
#
# **1.** $X\sim N(1,4)$. What is the distribution of $2X-1$?
# <details><summary>Answer</summary>
#
# $N(1,16)$: the formula applies to the mean, and the variance is multiplied by $2^2$.
#
# </details>
#
# **2.** $X$ and $Z$ are independent standard normals. What is $E[X\mid X+Z=2]$?
# <details><summary>Answer</summary>
#
# It is 1. Signal and noise have equal variance, so on average half of the observation is signal. Denoising is this
# computation.
#
# </details>
#
# **3.** $X$ has variance 2, $Z$ has variance 1, they are independent. What is the variance of $0.6X+0.8Z$? Write it
# down; the exercise checks it.

# %% exercise c0.1
variance = ...
course.check("c0.1", variance)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# variance = 0.6**2 * 2 + 0.8**2 * 1
# course.check("c0.1", variance)
# ```
#
# </details>
#
# **Find the bug** ([museum](../docs/museum.md), D13). Some lecture notes give the reverse drift $-f+g^2s$. You use it
# in a sampler of this course, and the samples diverge.
# <details><summary>Answer</summary>
#
# The notes are right: their time runs from noise to data, with $dt>0$. Here $t$ decreases and $dt<0$, and the drift is
# $f-g^2s$. Of the four sign combinations one is right; chapter C4 measures them all. Check first which end is the data.
#
# </details>
#
# ## Explore
#
# An interactive version of the first figure: move the time, change the process, click to start a trajectory from a
# point. The command works offline too.

# %%
course.scene("river", law="mix:0.3,-2,0.2236;0.7,1.5,0.3873", n=300, grid="time")
