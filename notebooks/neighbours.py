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
# # Do codes and directions name the same neighbours?
#
# A token's *code* says which neurons of a layer are on: one bit a neuron. Its *direction* is the vector of
# pre-activations. Both have nearest tokens. Are they the same ones, and does it matter which you ask?
#
# `tiny-gpt2` comes with the package and answers in seconds.

# %%
import numpy as np

import polytope_lm as plm
from polytope_lm.statistics.estimate import Estimate, resampled

model = plm.load("tiny-gpt2")
layer = 2
codes = plm.encode(model, list(plm.documents("sample", max_documents=12)), layers=[layer], max_length=128)
codes

# %% [markdown]
# One token: its nearest by code (Hamming distance) beside its nearest by direction (cosine, centred per coordinate).

# %%
token = codes[3, 40, layer]
near = codes.nearest(token, k=8)
near

# %% [markdown]
# Which neurons differ from the nearest one? The list is short, and can be read.

# %%
difference = token ^ codes.code(int(near.by_code["row"][0]))
difference, difference.neurons, difference.turned_on

# %% [markdown]
# **For all tokens.** How many of the ten nearest do the two lists share? And is a neighbour of the same class (prose, code,
# literal), or the very same token? Intervals are over documents.

# %%
rng = np.random.default_rng(0)
rows = rng.choice(len(codes), 200, replace=False)
token_id, kind = codes.tokens["token_id"].to_numpy(), codes.tokens["class"].to_numpy()
told = []
for row in rows:
    found = codes.nearest(int(row), k=10)
    sides = [frame["row"].to_numpy() for frame in (found.by_code, found.by_direction)]
    told.append(
        [len(np.intersect1d(*sides)) / 10]
        + [np.mean(values[side] == values[row]) for values in (kind, token_id) for side in sides]
    )
told, document = np.array(told), codes.tokens["document"].to_numpy()[rows]
share, same_class_code, same_class_direction, same_token_code, same_token_direction = told.mean(axis=0)
times = resampled(document, 500, seed=0)  # documents drawn with replacement


def by_direction_less_by_code(less):
    drawn = times @ less / times.sum(axis=1)
    return Estimate.around(less.mean(), drawn.std(ddof=1), len(np.unique(document)) - 1)


print(f"the lists share {share:.0%} of their tokens")
print(f"same class: {same_class_code:.0%} by code, {same_class_direction:.0%} by direction")
print("direction's less code's:", by_direction_less_by_code(told[:, 2] - told[:, 1]))
print(f"same token: {same_token_code:.0%} by code, {same_token_direction:.0%} by direction")
print("direction's less code's:", by_direction_less_by_code(told[:, 4] - told[:, 3]))

# %% [markdown]
# Most neighbours are the very same word: a lexical cluster is not a semantic one. Which bits tell code from prose? Intervals
# and false-discovery rate are over documents.

# %%
codes.separating({"class": "code"}, {"class": "prose"}, layer)

# %% [markdown]
# To browse them, with a text of your own, there is a widget (`pip install 'polytope-lm[widgets]'`):
#
# ```python
# plm.widgets.neighbours(codes, label="class")
# ```
#
# ## What was found
#
# On tiny-gpt2 the two lists share most of their tokens. Neither is seen to be the better guide to the class (direction's less
# code's: .005 [-.001, .010]), and direction finds the very same token a little more often (.033 [.008, .058]; 12 documents): what
# a code adds is not better neighbours. It is neighbours that fit into 64 bytes a token (of 2,048 for the vector), and a
# difference that is a list of neurons.
#
# **For GPT-2** write `plm.load("gpt2")`, `layer = 8`, and give longer documents:
# `plm.encode(model, texts, layers=[8], tokens="every:6,skip:100")`. Beyond some 10^5 tokens take `plm.capture`, which writes to
# disk. `notebooks/gpt2.py` has all of it.
