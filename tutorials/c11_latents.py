# %% [markdown]
# # C11 · Coda: latents, text to image, and whom it affects
#
# *30 minutes.* **Goal.** See that a text-to-image system is an autoencoder, a text encoder and this course; and
# measure what it copies.
#
# <!-- seeds: S0.46 S0.48 S1.36-38 -->
#
# A picture is compressed to a latent, a diffusion model learns latents given a prompt, a decoder makes pixels. Here
# is the whole
# diagram in one screen: the autoencoder is a principal component analysis to 16 numbers, the prompt one of ten words.

# %%
import os
import tempfile

import torch

import undiffuse as ud
from undiffuse import learn

digits, words = ud.open_data("digits"), "zero one two three four five six seven eight nine".split()
x = digits.x.double().flatten(1) / 8 - 1
mean, basis = x.mean(0), torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:16].T
latents = ud.data.from_arrays(((x - mean) @ basis).float().numpy(), [words[k] for k in digits.y], name="latents")
experiment = ud.Experiment(data="latents", net="mlp", net_args={"width": 128}, steps=900, lr=2e-3)
model = ud.train(experiment, tempfile.mkdtemp(), data=latents, progress=False)
prompts = {word: ud.sample(ud.classifier_free(model, 2.0), 8, steps=12, label=latents.classes.index(word)).x
           for word in ("three", "seven", "eight")}
learn.images({f'"{word}"': (z.double() @ basis.T + mean).reshape(-1, 1, 8, 8) for word, z in prompts.items()},
             alt="Eight pictures each for the prompts three, seven and eight, decoded from sixteen numbers.")

# %% [markdown]
# ## The same diagram, full size
#
# If `diffusers` is installed, the next cell builds a Stable Diffusion pipeline from its real classes, tiny and with
# random weights. It
# shows the anatomy; what it draws is noise, and no amount of prompting would help. Set `UNDIFFUSE_SD` to a folder
# with a pipeline
# of your own, and the same cell walks that one. Nothing is ever downloaded.

# %%
from undiffuse.learn.anatomy import recursive_print, tiny_pipeline

pipe = tiny_pipeline(os.environ.get("UNDIFFUSE_SD"))
if pipe is None:
    print("diffusers is not installed; `pip install 'undiffuse[diffusers]'` adds it")
for part in ("text_encoder", "unet", "vae") if pipe else ():
    recursive_print(getattr(pipe, part), part, deepest=1)

# %% exercise c11.1
roles = {"score model": ..., "solver": ..., "map to pixels": ..., "prompt": ...}  # unet, vae, scheduler, text_encoder
learn.check("c11.1", roles)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# roles = {"score model": "unet", "solver": "scheduler", "map to pixels": "vae", "prompt": "text_encoder"}
# learn.check("c11.1", roles)
# ```
#
# </details>
#
# *To try, with diffusers:* `pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)` swaps the
# solver and touches nothing else; of higher order, it needs fewer steps, for the reasons of C6.
#
# ## The photocopier
#
# What does the *perfect* minimiser of the training loss draw? Predict, then run.

# %%
train, new = ((x - mean) @ basis)[:500], ((x - mean) @ basis)[1000:1060]
perfect = ud.Mixture(torch.ones(500), train, 0.0)  # a point mass on every training latent
copies = ud.sample(perfect.denoiser(ud.VP()), 60, "ancestral", 40, t_end=1e-3).x
far, real = ud.metrics.nearest_distance(copies, train), ud.metrics.nearest_distance(new, train)
print(f"distance to the nearest training latent: perfect model {far.median():.3f}, new real images {real.median():.2f}")
print("different training images among 60 samples:", torch.cdist(copies, train).argmin(1).unique().numel())
often = ud.Mixture(torch.cat([torch.full((1,), 200.0), torch.ones(499)]), train, 0.0)  # one image 200 times in the data
drawn = ud.sample(often.denoiser(ud.VP()), 200, "ancestral", 25, t_end=1e-2).x
share = float((torch.cdist(drawn, train).argmin(1) == 0).double().mean())
print(f"an image that occurs 200 times among 699: {share:.2f} of the samples are copies (expected {200 / 699:.2f})")

# %% [markdown]
# **Why does the perfect minimiser memorise?** <details><summary>Answer</summary>
#
# The data set is a finite law, and its exact score leads to its points. What a network draws that is new comes from
# what it *cannot*
# fit. Duplicates in the data raise the chance of copies in proportion: removing them is the first remedy; stopping
# early, more data and
# smaller networks are others (Carlini et al. 2023, arXiv:2301.13188, extracted over a thousand images from deployed
# models).
#
# </details>
#
# A usual test: the distance to the nearest training image over the distance to the second nearest. Write it for
# samples `x` and training
# rows `train`.

# %% exercise c11.2
def ratio(x, train):
    d = torch.cdist(x, train).sort(1).values
    return ...


learn.check("c11.2", ratio)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def ratio(x, train):
#     d = torch.cdist(x, train).sort(1).values
#     return d[:, 0] / d[:, 1]
#
#
# learn.check("c11.2", ratio)
# ```
#
# </details>
#
# ## A treatment in a latent space
#
# The recipe is not about pictures. Simulated gene expression of 60 genes, half of the cells treated; the treatment
# raises six genes.

# %%
treated = torch.arange(600) % 2
programme = learn.normals(3, 60, seed=1)
expression = learn.normals(600, 3, seed=2) @ programme + 0.3 * learn.normals(600, 60, seed=3)
expression[:, :6] += 1.5 * treated[:, None]
centre, axes = expression.mean(0), torch.linalg.svd(expression - expression.mean(0), full_matrices=False).Vh[:8].T
cells = ud.Mixture.fit((expression - centre) @ axes, 1, labels=treated)
answer = {k: ud.sample(cells.denoiser(ud.VP()), 400, steps=12, label=k).x @ axes.T + centre for k in (0, 1)}
effect = answer[1].mean(0) - answer[0].mean(0)
print(f"effect on the six genes: {effect[:6].mean():.2f} (1.5 was put in); others: {effect[6:].abs().mean():.2f}")

# %% [markdown]
# ## Who owns the picture?
#
# *Facts as known in November 2025; not legal advice; check the date and the place.* United States: the Copyright
# Office's report of 29 January 2025
# (Copyright and Artificial Intelligence, part 2) holds that human authorship is required and that a prompt alone
# does not control the output
# enough; selection, arrangement and changes by a person can be protected. *Thaler v. Perlmutter* (D.C. Circuit,
# March 2025): no
# registration for a work without a human author. United Kingdom: *Getty Images v Stability AI* [2025] EWHC 2863
# (Ch), 4 November
# 2025: model weights are not an "infringing copy"; the claim about training was dropped for want of training in the
# UK, so that question was
# not decided. Style as such is generally not protected; close reproduction can infringe.
#
# Discuss a case of your own: a company trains on images from the web, an artist finds her pictures' style in the
# output, a user writes
# the prompt. Who has a claim? <details><summary>What a good answer contains (there is no verdict here)</summary>
#
# It names all that are affected: artists, those depicted, users, the company, the public. It keeps law and ethics
# apart. It asks for
# evidence of copying and says how to measure it (above). It weighs consent, payment and attribution: opt-out,
# licences, provenance
# marks. It thinks of misuse, impersonation and deception, and of what can be done. It says in which country, and
# when.
#
# </details>
#
# **A card to fill in** for a model that you would publish: source of the data; licence; did the people consent; what
# is missing in the data;
# what was measured about copying; what it must not be used for.
