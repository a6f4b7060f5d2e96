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
# # Maps, geometry, training: what is a token's polytope like?
#
# Three questions about one layer of a small model with ReLUs. How few affine maps do its work? How near are boundaries, and
# does counting them say more than a slope does? And when, while a network learns, do its regions settle?

# %%
import numpy as np
import pandas as pd

import polytope_lm as plm
from polytope_lm.geometry.affine import maps
from polytope_lm.geometry.boundary import nearest_boundary
from polytope_lm.geometry.local_complexity import local_complexity
from polytope_lm.geometry.reduction import reduction

model = plm.load("tiny-relu")
found = maps(model, "The river bank was steep and the other bank was flat", layer=1)
found

# %% [markdown]
# **How few maps?** The model runs with k maps in the MLP's place, fitted on other documents; each token has the one nearest
# its own. Beside it: as many *random groups of the same sizes*, each token given one at random or the nearest, clusters made
# in other ways, one linear and one quadratic map. `own map` gives each token its own, and must lose nothing.

# %%
result = reduction(
    model,
    list(plm.documents("sample")),
    layer=1,
    ks=[1, 10, 100],
    fit_tokens=2500,
    tested=10,
    max_tokens=64,
    resamples=200,
)
result

# %%
result.to_frame().pivot(index="arm", columns="k", values="nats lost").round(4)

# %% [markdown]
# **How near is a boundary**, and how many pass near a token? Local complexity counts the neurons whose sign changes over a small
# frame around the token; its radius belongs to the number. Beside it the slope, which is smooth.

# %%
from polytope_lm.geometry.affine import inputs_of, maps_at

ids = np.array(model.tokenizer(next(iter(plm.documents("sample"))).text[:600])["input_ids"][:120])
u = inputs_of(model, [ids], 1)
geometry = model.geometry(model.site(1))


def pre(x):
    return [x @ geometry.weight.T.astype(float) + geometry.bias]


near = nearest_boundary(pre(u.numpy())[0], geometry.weight)
tokens = pd.DataFrame({"distance": near.distance / np.linalg.norm(u, axis=1), "owner": near.neuron})
for share in (0.005, 0.05):
    radius = share * np.linalg.norm(u, axis=1)
    tokens[f"complexity, r = {share} |u|"] = local_complexity(pre, u.numpy(), radius=radius)[:, 0]
tokens["norm of the Jacobian"] = np.linalg.norm(maps_at(model, 1, u).matrices(), axis=(1, 2))
tokens.head(8).round(4)

# %%
tokens.drop(columns="owner").corr("spearman").round(2)

# %% [markdown]
# **When do regions settle?** A small network learns a circle; every 60 updates its regions are counted, exactly, and the
# share of a fixed batch's bits that still change is set beside the weights' own change, and beside the bits of random planes
# that never learn: they cut each layer's input, each on for as many points as its neuron (mean of five draws).

# %%
from polytope_lm import toys
from polytope_lm.codes.hamming.hamming import unpack
from polytope_lm.representations.controls import SIMHASH_DRAWS, simhash_rate_matched
from polytope_lm.training.measures import bits_changed, relative_change

film = toys.record(toys.task("circle", 300), (8, 8, 8), frames=11, steps=600)
last = film.networks[-1]
arrays = [{str(i): w for i, w in enumerate(network.weights)} for network in film.networks]


def planes(network, draw):
    hidden = network.pre(film.goal.x)
    inputs = [film.goal.x, *(np.maximum(h, 0) for h in hidden[:-1])]
    cut = [simhash_rate_matched(u.astype(np.float32), h > 0, draw) for u, h in zip(inputs, hidden, strict=True)]
    return np.concatenate([unpack(rows.values, h.shape[1]) for rows, h in zip(cut, hidden, strict=True)], axis=1)


random = np.mean(
    [[bits_changed(planes(n, d), planes(last, d)) for n in film.networks] for d in range(SIMHASH_DRAWS)], axis=0
)
pd.DataFrame(
    {
        "update": film.steps,
        "regions": [len(film.frame(number)) for number in range(len(film))],
        "accuracy": film.accuracy,
        "bits unlike the last": [bits_changed(n.codes(film.goal.x), last.codes(film.goal.x)) for n in film.networks],
        "random planes' bits": random,
        "weights unlike the last": [relative_change(arrays[-1], each) for each in arrays],
    }
).round(3)

# %%
toys.image(film.frame(len(film) - 1))

# %% [markdown]
# **The answer.** A hundred maps do most of this layer's work (.04 nats lost of the .12 that removing it costs). As many
# random groups do harm, one at random (.72) and the nearest of them (.34), which loses more than no MLP: choosing the nearest
# is over half of what the clusters gain on random groups, the rest is theirs. But *one* quadratic a neuron loses half as much
# as the hundred maps, and clusters by code lose .06: few maps are no secret of polytopes. Near boundaries counts and distances are one
# thing (-.8), and at a radius at which counts are not nearly all 0 they follow the slope (+.7). While the network learns,
# its bits settle before its weights: at update 60 .055 of the bits are unlike the last, and .25 of the weights' norm.
# Random planes that never learn settle as early (.064), so that this is no property of the boundaries that are learned.
#
# *What to change for GPT-2:* `plm.load("gpt2")`, `layer=6`, `fit_tokens=10_000`. Its maps are tangents or secants of GELU, no longer
# functions of the code. Larger runs are in `analyses/affine_maps.py` and `analyses/training_dynamics.py`.
