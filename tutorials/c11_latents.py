# %% [markdown]
# # C11 · Coda: latents, text to image, and whom it affects
#
# *30 minutes.* **Goal.** See that a text-to-image system is an autoencoder, a text encoder and a diffusion model; and
# measure what it copies.
#
# An image is compressed to a latent, a diffusion model learns latents given a prompt, a decoder computes pixels. Here
# is the complete system on one screen. The autoencoder is a principal component analysis to 16 numbers. A prompt is
# three words, "thick slanted seven"; the captions were measured from the pixels. Each word has an embedding, and the
# network *attends* to the words: the latent gives eight queries, each query averages the words by how well they match
# it, and the averages are inputs of the network. Compare the rows: what does each word change?

# %%
import torch

import undiffuse as ud
from undiffuse import course
from undiffuse.course.pipeline_anatomy import show_parts, tiny_pipeline

digits = ud.open_data("digits")
x = digits.x.double().flatten(1) / 8 - 1
mean, basis = x.mean(0), torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:16].T
prompt, words, names = course.captions(digits.x, digits.y)  # a prompt is a row of `words`; the last row is empty


class TextToLatent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.word, self.query = torch.nn.Embedding(15, 32), torch.nn.Linear(17, 8 * 32)
        self.attend = torch.nn.MultiheadAttention(32, 4, batch_first=True)
        self.mlp = ud.nets.build("mlp", (16 + 256,), width=128, depth=2)

    def forward(self, z, c, label):
        text, queries = self.word(words[label]), self.query(torch.cat([z, c[:, None]], 1)).view(-1, 8, 32)
        context = self.attend(queries, text, text, need_weights=False)[0].flatten(1)
        return self.mlp(torch.cat([z, context], 1), c)[:, :16]


model, losses = course.fit(TextToLatent(), (x - mean) @ basis, 600, prompt, classes=40)
prompts = ("thin upright one", "thick slanted one", "thin upright seven", "thick slanted seven", "thin upright eight")
samples = {text: ud.sample(ud.classifier_free(model, 2.0), 10, steps=15, label=names.index(text)).x for text in prompts}
course.images({f'"{text}"': (z.double() @ basis.T + mean).reshape(-1, 1, 8, 8) for text, z in samples.items()},
             alt="Ten images each for five prompts, such as thick slanted seven, decoded from sixteen numbers.")

# %% [markdown]
# The text encoder of a large system processes sentences, so its word vectors depend on each other; the attention is the
# same. Write it for one query `q` (d,), the keys `k` (n, d) of $n$ words and their values `v`
# (n, d): every word has the weight $\operatorname{softmax}(k\cdot q/\sqrt d)$, and the result is the weighted
# average of the values.

# %% exercise c11.1
def attend(q, k, v):
    return ...


course.check("c11.1", attend)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def attend(q, k, v):
#     return (k @ q / len(q) ** 0.5).softmax(0) @ v
#
#
# course.check("c11.1", attend)
# ```
#
# </details>
#
# ## The same system at full scale
#
# If `diffusers` is installed, the next cell builds a Stable Diffusion pipeline from its real classes, tiny and with
# random weights. It shows the components, what they compute, and what the configuration says of the noise. Then the
# pipeline is one of our models: `ud.sample` draws latents under guidance and decodes them, and the sampler is ours. Its
# images are noise, because it is not trained. `undiffuse learn run c11 --model FOLDER` shows the pipeline in a folder.
# Nothing is ever downloaded.

# %%
pipe = tiny_pipeline()
print("components:" if pipe else "diffusers is not installed; `pip install 'undiffuse[diffusers]'` adds it")
if pipe:
    sd = show_parts(pipe, "a red house", "a cat")
    out = ud.sample(ud.classifier_free(sd, 7.5), 2, prompt=["a red house", "a cat"], steps=4)
    print(f"latents {tuple(out.z.shape)}, images {tuple(out.x.shape)}; {out.nfe} evaluations by {out.method}")

# %% exercise c11.2
roles = {"score model": ..., "solver": ..., "map to pixels": ..., "prompt": ...}  # unet, vae, scheduler, text_encoder
course.check("c11.2", roles)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# roles = {"score model": "unet", "solver": "scheduler", "map to pixels": "vae", "prompt": "text_encoder"}
# course.check("c11.2", roles)
# ```
#
# </details>
#
# *To try, with diffusers:* `pipe.scheduler = ud.scheduler(pipe, "dpmpp_2m")` swaps the solver and touches nothing else;
# of higher order, it needs fewer steps, for the reasons of C6. `undiffuse compare FOLDER --prompt "a cat"` shows our
# samplers and theirs on one page.
#
# **Find the bug** ([museum](../docs/museum.md), D18).
# `pipe = StableDiffusionPipeline.from_pretrained("somebody/their-model")` in a lesson that ran last year stops with
# "repository not found".
# <details><summary>Answer</summary>
#
# A lesson must not depend on a name in an external repository: the model of many courses was withdrawn in November
# 2025. Take the path from the user, pass `local_files_only=True`, and teach with the contents of the package, as the
# cell above does.
#
# </details>
#
# ## The photocopier
#
# What does the *perfect* minimiser of the training loss sample? Predict, then run.

# %%
train, new = ((x - mean) @ basis)[:500], ((x - mean) @ basis)[1000:1060]
perfect = ud.Mixture(torch.ones(500), train, 0.0)  # a point mass on every training latent
copies = ud.sample(perfect.denoiser(ud.VP()), 60, "ancestral", 40, t_end=1e-3).x
far, real = ud.metrics.nearest_distance(copies, train), ud.metrics.nearest_distance(new, train)
print(f"distance to the nearest training latent: perfect model {far.median():.3f}, new real images {real.median():.2f}")
print("different training images among 60 samples:", torch.cdist(copies, train).argmin(1).unique().numel())
repeated = ud.Mixture(torch.cat([torch.full((1,), 200.0), torch.ones(499)]), train, 0.0)  # one image 200 times
samples = ud.sample(repeated.denoiser(ud.VP()), 200, "ancestral", 25, t_end=1e-2).x
fraction = float((torch.cdist(samples, train).argmin(1) == 0).double().mean())
print(f"200 of 699 images: {fraction:.2f} ± {(fraction * (1 - fraction) / 200) ** 0.5:.2f} of all samples are copies")

# %% [markdown]
# **Why does the perfect minimiser memorise?**
# <details><summary>Answer</summary>
#
# The data set is a finite distribution, and its exact score leads to its points. New samples of a network come from
# what it *cannot* fit. Duplicates in the data raise the chance of copies in proportion (200 of 699 are .29): removing
# them is the first remedy; stopping early, more data and smaller networks are others (Carlini et al. 2023,
# arXiv:2301.13188, extracted over a thousand training examples from models of that time).
#
# </details>
#
# A common test: the distance to the nearest training image over the distance to the second nearest. Write it for
# samples `x` and training rows `train`.

# %% exercise c11.3
def ratio(x, train):
    d = torch.cdist(x, train).sort(1).values
    return ...


course.check("c11.3", ratio)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def ratio(x, train):
#     d = torch.cdist(x, train).sort(1).values
#     return d[:, 0] / d[:, 1]
#
#
# course.check("c11.3", ratio)
# ```
#
# </details>
#
# ## A treatment in a latent space
#
# The method is not limited to images. Simulated gene expression of 60 genes, half of the cells treated; the treatment
# raises the first six genes by 1.5. The model learns eight latents given the treatment. `z[1]` and `z[0]` are latents
# sampled for treated and untreated cells: what is the effect on each of the 60 genes?

# %% exercise c11.4
treated = torch.arange(600) % 2
programme = course.randn(3, 60, seed=1)
expression = course.randn(600, 3, seed=2) @ programme + 0.3 * course.randn(600, 60, seed=3)
expression[:, :6] += 1.5 * treated[:, None]
centre, axes = expression.mean(0), torch.linalg.svd(expression - expression.mean(0), full_matrices=False).Vh[:8].T
cells = ud.Mixture.fit((expression - centre) @ axes, 1, labels=treated).denoiser(ud.VP())
z = [ud.sample(cells, 400, steps=12, label=k).x for k in (0, 1)]
effect = ...
course.check("c11.4", effect)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# treated = torch.arange(600) % 2
# programme = course.randn(3, 60, seed=1)
# expression = course.randn(600, 3, seed=2) @ programme + 0.3 * course.randn(600, 60, seed=3)
# expression[:, :6] += 1.5 * treated[:, None]
# centre, axes = expression.mean(0), torch.linalg.svd(expression - expression.mean(0), full_matrices=False).Vh[:8].T
# cells = ud.Mixture.fit((expression - centre) @ axes, 1, labels=treated).denoiser(ud.VP())
# z = [ud.sample(cells, 400, steps=12, label=k).x for k in (0, 1)]
# effect = (z[1].mean(0) - z[0].mean(0)) @ axes.T
# course.check("c11.4", effect)
# ```
#
# </details>
#
# ## Who owns the picture?
#
# *What public sources said when this was last checked, on 22 November 2026; they reach to June 2026, so look for what
# came later. Not legal advice; the answer depends on the date and on the place.*
#
# **United States, the output.** The Copyright Office's report of 29 January 2025 (Copyright and Artificial
# Intelligence, part 2) holds that human authorship is required and that a prompt alone does not control the output
# enough; selection, arrangement and changes by a person can be protected. *Thaler v. Perlmutter* (D.C. Circuit, 18
# March 2025): no registration for a work whose only author is a machine; the Supreme Court declined to hear the case on
# 2 March 2026 (No. 25-449), which leaves that decision standing and decides nothing beyond it. Whether hundreds of
# prompts make an author was pending in *Allen v. Perlmutter* (D. Colorado, 1:24-cv-02665; cross-motions of January
# 2026).
#
# **United States, the training.** No appellate decision was found. District courts differ by the facts: *Kadrey v.
# Meta* (N.D. California, 25 June 2025) found fair use on its record and said that another record may lead elsewhere;
# *Thomson Reuters v. Ross* (D. Delaware, 11 February 2025) found no fair use, and was argued before the Third Circuit
# on 11 June 2026. *Andersen v. Stability AI* (N.D. California, 3:23-cv-00201), about image generators, was set for
# trial late in 2026.
#
# **United Kingdom.** *Getty Images v Stability AI* [2025] EWHC 2863 (Ch), 4 November 2025: model weights that store no
# copy are not an "infringing copy"; the claim about training was dropped for want of training in the UK, so that
# question was not decided. Getty was given leave to appeal on the meaning of "infringing copy" on 16 December 2025
# ([2025] EWHC 3343 (Ch)). The government's report of 18 March 2026 proposed no exception for training for the time
# being.
#
# **European Union.** *GEMA v OpenAI* (Regional Court Munich I, 42 O 14139/24, 11 November 2025; first instance): song
# texts that a model reproduces on request are reproduced in its weights. The first reference about generative models to
# the Court of Justice (C-250/25, *Like Company v Google*) was heard on 10 March 2026. Two courts thus looked at the
# question that you measured above, whether a model contains its data, and answered differently on different evidence.
# Style as such is generally not protected; close reproduction can infringe. *Reported in:* Law360, 20 January 2026
# (*Allen*); Mondaq, 11 March 2026 (*Thaler*); LawSnap's tracker, June 2026 (*Ross*); Taylor Wessing, 11 November 2025
# (*GEMA*) and January 2026 (*Getty*); European Audiovisual Observatory, IRIS 2026-5:1/8 (United Kingdom).
#
# Discuss a case: a company trains on images from the web, an artist finds her pictures' style in the
# output, a user writes the prompt. Who has a claim?
# <details><summary>What a good answer contains (there is no verdict here)</summary>
#
# It names everyone affected: artists, those depicted, users, the company, the public. It keeps law and ethics
# apart. It asks for evidence of copying and says how to measure it (above). It weighs consent, payment and attribution:
# opt-out, licences, provenance marks. It thinks of misuse, impersonation and deception, and of what can be done. It
# asks whom the data leave out (C9). It says in which country, and when.
#
# </details>
#
# **A card to fill in** for a model that you would publish: source of the data; licence; did the people consent; what is
# missing in the data; what was measured about copying; what it must not be used for.
#
# ## Explore
#
# The photocopier in the plane: a distribution of training points. Increase their width: when is a sample new?

# %%
course.scene("cloud", law="points:0.02", p=800, t=0)
