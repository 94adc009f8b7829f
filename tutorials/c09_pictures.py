# %% [markdown]
# # C9 · Pictures, conditions, guidance
#
# *40 minutes.* **Goal.** A model of images, labels as conditions, classifier-free guidance, and numbers that say
# whether it works, without a network that somebody else has trained.
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
law = ud.Mixture.fit(x, 1, labels=y)
model, ask = law.denoiser(ud.VP()), torch.arange(10)
start = model.prior_sample(10, 3, 0)
rows = {f"w = {w:.0f}": ud.sample(ud.classifier_free(model, w), 10, "dpmpp_2m", 25, x_T=start, label=ask).x
        for w in (0.0, 1.0, 2.0, 4.0)}
course.images({**rows, "real": torch.cat([x[y == c][:1] for c in range(10)])},
             alt="Ten digits, one a class, from the same noise with guidance 0, 1, 2 and 4, and real ones.")

# %%
reads, nearest = ud.metrics.classifier(x, y), lambda s: float(ud.metrics.nearest_distance(s, x).median())
labels = torch.arange(300) % 10
for w in (0.0, 1.0, 2.0, 4.0):
    made = ud.sample(ud.classifier_free(model, w), 300, "dpmpp_2m", 20, label=labels).x
    right = ud.metrics.agreement(reads(made), labels)
    spread = torch.stack([made[labels == c].std(0).mean() for c in range(10)]).mean()
    print(f"w = {w:.0f}: read as asked {right.value:.3f} ± {right.stderr:.3f}, spread within a class {spread:.3f}, "
          f"nearest real image {nearest(made):.2f}")

# %% [markdown]
# **How does a condition differ from guidance?**
# <details><summary>Answer</summary>
#
# A conditional model answers with $s_c$. Guidance extrapolates, $s_u+w(s_c-s_u)$: $w=0$ unconditional, $w=1$
# conditional, beyond that more typical of the class. How much less varied depends on how far the classes overlap: these
# ten in 64 dimensions hardly do, and the printed spread hardly changes; in the example of P18 it falls from .70 to .55
# (SDE) or .41 (ODE) at w = 4. Guidance needs both answers from one network, so labels are hidden in a part of the
# training.
#
# </details>
#
# **Does w sample** $p(c\mid x)^wp(x)$**?**
# <details><summary>Answer</summary>
#
# No. At $t=0$ its score is the one of that law; on the way the fields are not those of its diffusion, and SDE and ODE
# end differently (P18, with numbers).
#
# </details>
#
# ## Now a network
#
# `ud.train` does what the loop of C5 did, with averaged weights (EMA), held-out rows and checkpoints. The recipe looks
# at the data and says why it chose what.

# %%
recipe = ud.recipes.for_data("digits", steps=800, seed=1)
print(*recipe.reasons[1:4], sep="\n")
net = ud.train(recipe, progress=False)
for w in (0.0, 1.0, 2.0):
    made = ud.sample(ud.classifier_free(net, w), 200, steps=12, label=labels[:200]).x.double() / 8 - 1
    right = ud.metrics.agreement(reads(made), labels[:200])
    print(f"learned, w = {w:.0f}: read as asked {right.value:.3f} ± {right.stderr:.3f}, nearest {nearest(made):.2f}")
course.images({f"learned, w = {w:.0f}": ud.sample(ud.classifier_free(net, w), 10, steps=15, label=ask).x
              for w in (1.0, 2.0)}, alt="One learned digit a class, with guidance 1 and 2.")

# %% [markdown]
# Eight by eight pixels are so few that a perceptron learns them faster; images beyond 200 values get a U-Net. Its
# parts: blocks that halve and double the resolution, skips that carry detail across, a noise level that scales every
# block, and an output that is scaled by the parameterisation. Find them:

# %%
unet = ud.nets.build("unet", (1, 28, 28), 10, widths=(16, 32))
for name, part in unet.named_children():
    print(f"{name:10} {type(part).__name__:14} {sum(p.numel() for p in part.parameters()):>8,} parameters")

# %% [markdown]
# ## Exercises
#
# Hide labels: where `u < p`, put the label `null`.

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
# Nine tenths of the sevens are lost, and somebody asks for odd digits. Predict their share of sevens, one fifth in the
# data as they were, at $w=1$ and at $w=4$.

# %%
kept = (y != 7) | ((y == 7).cumsum(0) <= 17)
for name, rows in (("all sevens", y >= 0), ("17 sevens", kept)):
    fit = ud.Mixture.fit(x[rows], 1, labels=y[rows])
    odd = ud.Mixture(fit.weights, fit.means, fit.covariances, labels=fit.labels % 2).denoiser(ud.VP())
    made = {w: reads(ud.sample(ud.classifier_free(odd, w), 1000, "dpmpp_2m", 20, label=1).x) for w in (1.0, 4.0)}
    print(name, {w: round(float((found == 7).double().mean()), 3) for w, found in made.items()})

# %% [markdown]
# At $w=1$ the share is that of the data: a model repeats what it was shown. At $w=4$ a rare class becomes rarer still,
# because guidance moves samples to where the condition is surest, and that is where there were many; the shares of the
# other classes move too. Nobody chose this, and no picture looks wrong.
#
# One remedy is to weigh the loss of every row, so that all classes count alike and the mean weight is 1. Give the
# weights (N,) for labels (N,).

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
# It mends the shares and not the variety: seventeen sevens stay seventeen.
#
# *To try:* train with `sde="power_ve", sde_args={"rate": 25.0}`, the exploding process of many notebooks. Too small a
# rate, and the prior does not cover the data; too large, and the steps are spent where nothing happens.
#
# **Find the bug** ([museum](../docs/museum.md), D14). The text says "cosine learning rate", the code
# `lr = max(0.2, 1 - epoch / n)`.
# <details><summary>Answer</summary>
#
# That is a line with a floor. It may train just as well; but a table of hyper-parameters that says cosine cannot be
# reproduced.
#
# </details>
#
# ## Play with it
#
# Two overlapping classes, where guidance has something to sharpen: the law that it asks for, and what it samples.

# %%
course.scene("guidance", w=4)
