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
# # How far can I trust this direction?
#
# Gradients, patches and steering vectors take the model for linear near one activation. This notebook says up to
# which step that holds, for directions of your own. `tiny-gpt2` comes with the package; write `"gpt2"` where there
# is a hub.

# %%
import polytope_lm as plm

model = plm.load("tiny-gpt2")
prompt = "The break statement ends the nearest"
model

# %% [markdown]
# From this prompt's activation towards another prompt's: true change, first order, and corrected by curvature. Ticks
# are boundaries of this layer's polytopes. In the band first order is right to 10 %.

# %%
towards = plm.trust_radius(model, prompt, "An error may break the", layer=2, measure=True)
towards.plot()

# %% [markdown]
# The whole way to the other prompt is much longer than the radius. Which estimate of the whole change is worth
# believing?

# %%
plm.change(model, prompt, "An error may break the", layer=[1, 2])

# %% [markdown]
# How far may a vector be pushed before a continuation goes off? Predicted from derivatives, and measured on 48 tokens.

# %%
vector = plm.changes.contrast(model, ["This is good", "It was right"], ["This is bad", "It was wrong"], 2)
plm.changes.steer(model, prompt, vector, 2)

# %% [markdown]
# **Your own direction.** Put a vector, a prompt, or a neuron's number here, and your prompts. The table says how far
# each can be trusted: as a step, as a share of the activation's norm, and as a coefficient of the vector.

# %%
mine = {"contrast": vector, "neuron 7": 7, "to another prompt": "A list is a"}
prompts = [prompt, "The loop stops when the"]
found = plm.trust_radius(model, prompts, mine, layer=[1, 2], measure=True)
found

# %% [markdown]
# The answer in one table. A direction is as good as its worst prompt: the largest coefficient that is safe at every one of
# them, the step that this is, and whether the nearest boundary of the layer's polytopes comes before it.

# %%
each = found.to_frame()
each["boundary first"] = each["first boundary"] < each["predicted"]
table = each.groupby(["direction", "layer"]).agg(
    prompts=("prompt", "nunique"), coefficient=("coefficient", "min"), step=("predicted", "min"),
    share_of_norm=("predicted / norm", "min"), measured=("measured", "min"), boundary_first=("boundary first", "mean"),
)  # fmt: skip
table.round(4)

# %% [markdown]
# ## What was found
#
# No direction here can be trusted for more than 4.1 % of the activation's norm at both prompts, most for less than 1 %: a coefficient
# of .008 for the contrast in layer 2, where it was pushed to 1 nat above, at a coefficient of about 1. The radius that derivatives
# predict is the measured one (a median factor of 1.00). A boundary of the layer's own polytopes comes before it in 7 of 12 cases:
# crossing one does not end a direction's validity, and staying inside the polytope does not guarantee it. The whole change towards
# another prompt is a hundred percent of the norm: integrated gradients give it, first order does not.
#
# **For GPT-2**: `plm.load("gpt2")` and `layer=[4, 8]`; put your vector (a probe's weight, an SAE's decoder row, a difference of means)
# into `mine`, and ten prompts or more into `prompts`. `measure=True` runs the model along each direction; the prediction needs
# only derivatives. The whole test with its controls is `polytope-lm test directions gpt2 sample --layers 4,8 --out DIR`, and
# `python -m analyses.gpt2_all` runs every question.
