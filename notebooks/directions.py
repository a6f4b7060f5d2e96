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
plm.trust_radius(model, prompts, mine, layer=[1, 2], measure=True)
