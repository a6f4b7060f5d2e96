# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What lies between two prompts?
#
# A path goes from the activation of one prompt's last token to another's. Where it crosses a polytope boundary,
# a neuron turns on or off. Does the output change where the boundaries are dense? Are there stable regions with walls?
# `tiny-gpt2` comes with the package.

# %%
import polytope_lm as plm

model = plm.load("tiny-gpt2")
a, b, c = ("The break statement ends the nearest loop.", "An error may break the loop before it ends", "A list is a")
path = plm.path(model, a, b, layer=1)
path

# %% [markdown]
# Every crossing: in the path's own layer in closed form, later ones on as many places as they need. Above, how much
# the next-token distribution changes in each step; below, the likeliest next token.

# %%
crossings = path.crossings(downstream=True)
crossings.plot()

# %%
crossings

# %% [markdown]
# The same path in equal steps: is there a stable region? A sharpness of 1 is a straight line.

# %%
from polytope_lm.paths.trace import profile

steps = profile(path, lens=True)
steps, steps.argmax_changes, steps.density(per="u")

# %% [markdown]
# The plane through three prompts cuts layer 1 into polygons, found exactly. Colours: the likeliest next token.

# %%
plm.paths.slice(model, a, b, c, layer=1, grid=21).plot()

# %% [markdown]
# Are boundaries dense where the output changes? Against other pairs' peaks and against the speed at which the output
# moves anyway, beside the model as it began. A verdict needs at least 200 pairs: here are 40, so there is none.

# %%
from polytope_lm.pairs import builtin

result = plm.predictions.alignment(model, list(builtin())[:40], layers=1)
result

# %%
result.plot()

# %% [markdown]
# ## What was found
#
# About a hundred boundaries lie between the two prompts in this layer, each found in closed form: at least as many as the codes of
# the ends differ in, since in residual space a neuron can flip and flip back. On tiny-gpt2 the output changes all along the way
# (a sharpness of 1.4, where a straight line has 1), so there is no wall for boundaries to mark, and whether they are dense
# where the output changes is *not testable*: no pair of the forty has a plateau.
#
# **For GPT-2**: `plm.load("gpt2")` and `layer=4`; leave out `[:40]` and `grid=21`. The whole test with its controls is
# `polytope-lm test boundaries gpt2 builtin --layers 4,8 --out DIR`, and `python -m analyses.gpt2_all` runs every question.
# A slider over the path: `plm.widgets.along(path)`.
