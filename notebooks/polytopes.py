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
# # What is a polytope?
#
# A set of inputs that a network treats by one formula. This notebook trains a network small enough to draw all of them,
# counts them, folds it like paper, and ends at a language model, where nothing can be drawn and everything still holds.

# %%
import numpy as np
import pandas as pd

import polytope_lm as plm
from polytope_lm import toys

goal = toys.task("xor")
(trained,) = toys.fit(goal, (8, 8), seeds=[1], steps=500)
found = toys.regions(trained.network, goal.window)
print(f"{len(found)} regions; accuracy {trained.accuracy:.3f}; areas sum to {found.areas.sum():.6f} of 4")

# %% [markdown]
# From above. Each piece is one polytope; blue is where the network says 1, orange −1; the thick line is where it changes
# its mind.

# %%
toys.image(found)

# %% [markdown]
# The same network as **origami**: over each piece the output is flat, and it bends only at the creases.

# %%
toys.image(found, folded=True)

# %% [markdown]
# What makes a piece a piece is its **code**: which neurons are on. Inside it the network is `y = A x + c`.

# %%
largest = np.argsort(-found.areas)[:4]
pd.DataFrame(
    {
        "area": found.areas[largest].round(3),
        "code": ["".join("01"[int(bit)] for bit in code) for code in found.codes[largest]],
        "A": [np.round(row[0], 2).tolist() for row in found.maps.matrix[largest]],
        "c": found.maps.offset[largest, 0].round(2),
    }
)

# %% [markdown]
# **Is every code a polytope?** Two neurons have four codes. The network that computes XOR of two bits with two neurons has
# three: the fourth, first off and second on, needs `x + y <= 0` and `x + y > 1` at once. A linear program says by how
# much each code exists; below 0 it does not.

# %%
pd.Series(
    {"".join("01"[bit] for bit in code): by for code, by in toys.existing(toys.exact_xor()).items()}, name="margin"
)

# %% [markdown]
# **Move a bend.** The sliders change one neuron's weight, the place of its bend (`-b/w`), and how often the layer is
# applied. Depth folds what is already folded. (`toys.save_sliders("sliders.html")` writes them as a page.)

# %%
print(
    {depth: toys.folded(depth=depth, span=(0, 1)).pieces for depth in (1, 2, 3, 4, 5)}, "pieces of the tent, by depth"
)
toys.sliders()

# %% [markdown]
# **Can a region be closed?** A circle in a ring needs three neurons: two close nothing, on the whole plane.

# %%
circle = toys.task("circle", 300)
closed = {}
for width in (2, 3, 4):
    networks = [each.network for each in toys.fit(circle, (width,), range(10), steps=800)]
    closed[width] = sum(bool(toys.pieces(network).closed.any()) for network in networks)
pd.Series(closed, name="closed, of 10 seeds").rename_axis("neurons")

# %% [markdown]
# **In a language model** nothing can be drawn: a ReLU on each of `d` inputs alone has `2^d` regions. But a token's code is
# read as easily, and what can be counted is how many bits two tokens differ in.

# %%
print(toys.orthants(12), "regions at d = 12; the next line's layer has 512 neurons on 128 inputs")
model = plm.load("tiny-relu")
codes = plm.encode(model, ["The river bank was steep.", "The bank lent him money."], layers=[1])
codes

# %% [markdown]
# **The answer.** A polytope is the set of inputs with one code; with ReLU the network is one affine map in it, and the
# picture is a folded sheet. Whether polytopes *mean* something is another question: the notebooks on codes, boundaries and
# directions ask it.
#
# *What to change for GPT-2:* write `plm.load("gpt2")` where there is a hub. Its GELU has no flat pieces, so a code still says
# on which side of zero each neuron is, and nothing is exactly affine.
