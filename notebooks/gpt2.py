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
# # The polytope lens on GPT-2
#
# From a model to its codes, neighbours, boundaries and verdicts, with one variable. Where there is a hub, or a directory
# with GPT-2's weights, put it here; `tiny-gpt2` comes with the package and stands in for no other model.

# %%
import os

import numpy as np

import polytope_lm as plm

MODEL = os.environ.get("POLYTOPE_LM_NOTEBOOK_MODEL", "tiny-gpt2")  # "gpt2", or a directory such as "./gpt2"
model = plm.load(MODEL)
layer = 2 * model.n_layers // 3
model

# %% [markdown]
# GPT-2 small has 12 layers of 3,072 neurons: 384 bytes a token and layer. Its activation is smooth (GELU), so a code is a reading
# of signs, not a region on which the network is affine: each verdict says so.

# %%
model.sites

# %% [markdown]
# ## Codes of a corpus, in the manner of the paper's sample rule
#
# Six tokens of each long document, evenly spaced, the first 100 left out: `every:6,skip:100`. That wants thousands of documents;
# here are two dozen of Python's documentation topics, which are always there, so forty of each are taken. Give your own
# with `plm.documents("corpus.jsonl")`.

# %%
documents = [d for d in plm.documents("sample") if len(d.text) > 2500][:24]
codes = plm.encode(model, documents, layers=[layer], keep=("u", "h", "post"), tokens="every:40,skip:100")
codes

# %% [markdown]
# GPT-2 reads no BOS: its first position is its own. What fires always, never, or at the first position only?

# %%
plm.predictions.overview(codes)

# %% [markdown]
# ## One token's neighbours

# %%
codes.nearest(len(codes) // 2, k=8)

# %% [markdown]
# ## Are regions monosemantic?

# %%
result = plm.predictions.clusters(codes, layer, "class", tokens=600, resamples=20, per_document=None)
result

# %%
result.plot()

# %% [markdown]
# ## The boundaries between two prompts

# %%
path = plm.path(model, "We sat on the bank of the river", "We owe the bank money", layer=layer - 1)
crossings = path.crossings(downstream=True)
crossings.plot()

# %% [markdown]
# ## How far does a direction hold?

# %%
plm.trust_radius(model, "The break statement ends the nearest", "An error may break the", layer=layer, measure=True)

# %% [markdown]
# ## What does the code of this layer fix?

# %%
plm.predictions.determination(codes, layer, documents=6, max_tokens=48, fit_tokens=600, resamples=50, together=False)

# %% [markdown]
# ## What was found
#
# The cell below says which model this was. With `tiny-gpt2` it says nothing about GPT-2: the numbers are a trial of the pipeline.
# With `gpt2`, `python -m analyses.gpt2_all --out DIR` runs every question at full size and writes the tables.

# %%
print(f"{MODEL}: {len(codes):,} tokens of {len(documents)} documents, layer {layer}: {result.verdict}")
print(f"{len(crossings):,} boundaries on the path, {np.unique(crossings.layer).size} layers")
