# %% [markdown]
# # C9 · Images, conditions, guidance
#
# *40 minutes.* **Goal.** A model of images, labels as conditions, classifier-free guidance, and metrics for
# all of these, without a pretrained network.
#
# Theory: [P18](../docs/theory/conditioning.md) (what guidance samples).
#
# The images are the 1,797 handwritten digits of 8 × 8 pixels that come with scikit-learn. First a model without
# training: one Gaussian per class, whose score, classifier and likelihood are exact. Predict what a guidance scale of 4
# does to the variety.

# %%
import torch

import undiffuse as ud
from undiffuse import course

digits = ud.open_data("digits")
x, y = digits.x.double() / 8 - 1, digits.y
mixture = ud.Mixture.fit(x, 1, labels=y)
model, classes = mixture.denoiser(ud.VP()), torch.arange(10)
start = model.prior_sample(10, 3, 0)
rows = {f"w = {w:.0f}": ud.sample(ud.classifier_free(model, w), 10, "dpmpp_2m", 25, x_T=start, label=classes).x
        for w in (0.0, 1.0, 2.0, 4.0)}
course.images({**rows, "real": torch.cat([x[y == c][:1] for c in range(10)])},
             alt="Ten digits, one per class, from the same noise with guidance 0, 1, 2 and 4, and real ones.")

# %%
classify, nearest = ud.metrics.classifier(x, y), lambda s: float(ud.metrics.nearest_distance(s, x).median())
labels = torch.arange(300) % 10
for w in (0.0, 1.0, 2.0, 4.0):
    samples = ud.sample(ud.classifier_free(model, w), 300, "dpmpp_2m", 20, label=labels).x
    right = ud.metrics.agreement(classify(samples), labels)
    spread = torch.stack([samples[labels == c].std(0).mean() for c in range(10)]).mean()
    print(f"w = {w:.0f}: accuracy {right.value:.3f} ± {right.stderr:.3f}, spread within a class {spread:.3f}, "
          f"nearest real image {nearest(samples):.2f}")

# %% [markdown]
# **How does a condition differ from guidance?**
# <details><summary>Answer</summary>
#
# A conditional model returns $s_c$. Guidance extrapolates, $s_u+w(s_c-s_u)$: $w=0$ unconditional, $w=1$ conditional,
# above 1 more typical of the class. How much diversity is lost depends on the overlap of the classes: these ten in 64
# dimensions hardly overlap, and the printed spread hardly changes; in the example of P18 it falls from .70 to .55 (SDE)
# or .41 (ODE) at w = 4. Guidance needs both scores from one network, so a fraction of the labels is hidden in training.
#
# </details>
#
# **Does w sample** $p(c\mid x)^wp(x)$**?**
# <details><summary>Answer</summary>
#
# No. At $t=0$ the guided score is the score of that distribution; at $t>0$ it is not the score of its diffusion, and
# SDE and ODE end differently (P18, with numbers).
#
# </details>
#
# ## Now a network
#
# `ud.train` does what the loop of C5 did, with averaged weights (EMA), held-out rows and checkpoints. The recipe
# chooses settings from the data and gives its reasons.

# %%
recipe = ud.recipes.for_data("digits", steps=800, seed=1)
print(*recipe.reasons[1:4], sep="\n")
net = ud.train(recipe, progress=False)
for w in (0.0, 1.0, 2.0):
    samples = ud.sample(ud.classifier_free(net, w), 200, steps=12, label=labels[:200]).x.double() / 8 - 1
    right = ud.metrics.agreement(classify(samples), labels[:200])
    print(f"learned, w = {w:.0f}: accuracy {right.value:.3f} ± {right.stderr:.3f}, nearest {nearest(samples):.2f}")
course.images({f"learned, w = {w:.0f}": ud.sample(ud.classifier_free(net, w), 10, steps=15, label=classes).x
              for w in (1.0, 2.0)}, alt="One learned digit per class, with guidance 1 and 2.")

# %% [markdown]
# For eight by eight pixels a perceptron learns faster; images of more than 200 values get a U-Net. Its parts: blocks
# that halve and double the resolution, skip connections that pass on detail, a noise level that scales every block, and
# an output scaled by the parameterisation. Find them:

# %%
unet = ud.nets.build("unet", (1, 28, 28), 10, widths=(16, 32))
for name, part in unet.named_children():
    print(f"{name:10} {type(part).__name__:14} {sum(p.numel() for p in part.parameters()):>8,} parameters")

# %% [markdown]
# ## Exercises
#
# Hide labels: where `u < p`, use the label `null`.

# %% exercise c9.1
def hide(labels, u, p, null):
    return ...


course.check("c9.1", hide)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def hide(labels, u, p, null):
#     return torch.where(u < p, null, labels)
#
#
# course.check("c9.1", hide)
# ```
#
# </details>
#
# The guided denoiser from the unconditional and the conditional one.

# %% exercise c9.2
def guide(D_u, D_c, w):
    return ...


course.check("c9.2", guide)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def guide(D_u, D_c, w):
#     return D_u + w * (D_c - D_u)
#
#
# course.check("c9.2", guide)
# ```
#
# </details>
#
# ## Whom the data leave out
#
# Nine tenths of the sevens are removed from the data, and a user requests odd digits. Predict the fraction of sevens,
# one fifth in the original data, at $w=1$ and at $w=4$.

# %%
subset = (y != 7) | ((y == 7).cumsum(0) <= 17)
for name, rows in (("all sevens", y >= 0), ("17 sevens", subset)):
    fit = ud.Mixture.fit(x[rows], 1, labels=y[rows])
    odd = ud.Mixture(fit.weights, fit.means, fit.covariances, labels=fit.labels % 2).denoiser(ud.VP())
    predicted = {w: classify(ud.sample(ud.classifier_free(odd, w), 1000, "dpmpp_2m", 20, label=1).x)
                 for w in (1.0, 4.0)}
    print(name, {w: round(float((digit == 7).double().mean()), 3) for w, digit in predicted.items()})

# %% [markdown]
# At $w=1$ the fraction is the fraction in the data: a model reproduces its training data. At $w=4$ a rare class becomes
# rarer still, because guidance moves samples to where the condition is most certain, which is where the data are many;
# the fractions of the other classes change too. No single image looks wrong.
#
# One remedy is to weight the loss of every row, so that all classes have equal total weight and the mean weight is 1.
# Give the weights (N,) for labels (N,).

# %% exercise c9.3
def weights(labels):
    counts = torch.bincount(labels)
    return ...


course.check("c9.3", weights)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def weights(labels):
#     counts = torch.bincount(labels)
#     return len(labels) / (len(counts) * counts[labels])
#
#
# course.check("c9.3", weights)
# ```
#
# </details>
#
# This corrects the fractions, not the diversity: there are still only seventeen sevens.
#
# *To try:* train with `sde="power_ve", sde_args={"rate": 25.0}`, the variance-exploding process of many notebooks. If
# the rate is too small, the prior does not cover the data; if it is too large, many steps have no effect.
#
# **Find the bug** ([museum](../docs/museum.md), D14). The text specifies "cosine learning rate", the code
# `lr = max(0.2, 1 - epoch / n)`.
# <details><summary>Answer</summary>
#
# That is a line with a lower bound. It may train equally well, but results reported with "cosine" cannot be
# reproduced.
#
# </details>
#
# ## Explore
#
# Two overlapping classes, where guidance has an effect: its target distribution, and what it samples.

# %%
course.scene("guidance", w=4)
