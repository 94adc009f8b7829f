# %% [markdown]
# # C0 · Start here
#
# *5 minutes. Nothing has to be downloaded, and a laptop's processor is enough for the whole course.*
#
# Work in a copy: `undiffuse learn open c00 --out mine` writes this chapter as `.py` and as `.ipynb`, and the page to
# play with beside them. Where you see `...` in a cell named *exercise*, your answer goes; run the cell, or say
# `undiffuse learn check mine/c00_start.py`, and you are told whether it is right, and if not, what to look at.
#
# **Goal.** See noise become data once, and know the map.
#
# A diffusion model is two sentences. *Destroy data slowly with noise, so slowly that each step can be undone. Learn to
# undo one step.* What undoes a step is a vector field, the score $\nabla\log p_t(x)$, and one lemma makes it learnable:
# it is the average, over everything the noisy point may have been, of a direction that we can write down.
#
# | chapter | question |
# |---|---|
# | C1 | what is noise that adds up, and what does $dx=f\,dt+g\,dw$ mean? |
# | C2 | three ways to forget: VP, VE, sub-VP |
# | C3 | what is the score, and how does probability flow? |
# | C4 | how does one run time backwards? |
# | C5 | how is the score learned? |
# | C6 | which solver, and what does a step cost? |
# | C7 | the deterministic twin: encoding and likelihood |
# | C8 | DDPM is this, discretised |
# | C9 | pictures, conditions, guidance |
# | C10 | inverse problems: asking questions |
# | C11 | latents, text to image, and whom it affects |

# %%
import torch

import undiffuse as ud
from undiffuse import course

law = ud.Mixture([0.3, 0.7], [[-2.0], [1.5]], [0.05, 0.15])
sde = ud.VP()
model = law.denoiser(sde)
out = ud.sample(model, 400, "euler_maruyama", 300, grid="time", t_end=1e-3, trajectory=True, seed=1)
title = "Noise (right) becomes data (left)"
course.river(law, {title: sde}, {title: course.trajectories(out)},
            alt="Bright: the density of x_t. White: paths that start as noise on the right and end in the two modes.")

# %% [markdown]
# Read the picture from right to left. At $t=1$ everything is one Gaussian; the paths start there, at random. Each is
# pushed by the score and shaken by fresh noise, and at $t=0$ three tenths of them have arrived in the lower mode and
# seven tenths in the upper one. Nobody counted: the shares are in the score.
#
# The model here is *exact*, because for a mixture of Gaussians every integral can be done. The course uses such laws
# wherever it can. Then an error on a plot is an error of the method you are looking at, and nothing else.

# %%
points = ud.open_data("8gaussians").x[:2000].double()
blobs = ud.Mixture.fit(points, 8)
film = ud.sample(blobs.denoiser(sde), 1500, "ancestral", 60, trajectory=True)
course.animate_samples(film, alt="A round cloud of 1500 points breaks into eight blobs on a circle as t goes from 1 to 0.")

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
# Nothing is seeded globally here. Every random number is a function of an address (seed, purpose, step, sample), so
# sample 7 of seed 0 is the same alone, in a batch, today and tomorrow.

# %%
from undiffuse.training import pick_device

again = ud.sample(model, 1, "ancestral", 50, seed=0, first_index=7)
print("the same sample:", torch.equal(again.x[0], ud.sample(model, 20, "ancestral", 50, seed=0).x[7]))
print("device:", pick_device("auto"))

# %% [markdown]
# ## Are you ready?
#
# Three questions about Gaussians are all that the course assumes. Answer before you unfold.
#
# **1.** $X\sim N(1,4)$. What is the law of $2X-1$?
# <details><summary>Answer</summary>
#
# $N(1,16)$: the mean goes through the formula, the variance is multiplied by $2^2$.
#
# </details>
#
# **2.** $X$ and $Z$ are independent standard normals. What is $E[X\mid X+Z=2]$?
# <details><summary>Answer</summary>
#
# It is 1. Signal and noise are equally strong, so half of what is seen is signal. This little fact is the whole of
# denoising.
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
# **Find the bug** ([museum](../docs/museum.md), D13). Notes by somebody else have the reverse drift $-f+g^2s$. You put
# it into a sampler of this course, and the samples fly away.
# <details><summary>Answer</summary>
#
# Nothing is wrong with the notes: their clock runs from noise to data, with $dt>0$. Here $t$ falls and $dt<0$, and the
# drift is $f-g^2s$. Of the four signs one comes home; chapter C4 measures them all. Ask first which end is the data.
#
# </details>
#
# ## Play with it
#
# The river above, alive: move the time, change the process, click to send a point on its way. The command needs no
# network either.

# %%
course.scene("river", law="mix:0.3,-2,0.2236;0.7,1.5,0.3873", n=300, grid="time")
