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
# # Nearest tokens by code and by direction
#
# `tiny-gpt2` comes with the package and needs no hub. Where there is one, write `"gpt2"`, or wrap a model that you have:
# `plm.wrap(my_bridge)`, `plm.wrap(my_hf_model, tokenizer)`.

# %%
import polytope_lm as plm

model = plm.load("tiny-gpt2")
model.sites

# %% [markdown]
# Codes of every token of two prompts, in memory. Two codes of the same word differ in so many bits:

# %%
texts = ["The break statement ends the nearest loop.", "An error may break the loop before it ends."]
codes = plm.encode(model, texts, layers=[1, 3])
difference = codes[0, -1, 3] ^ codes[1, -1, 3]
difference, difference.neurons[:10]

# %% [markdown]
# The tokens nearest to one of them, by Hamming distance of the codes and by cosine of the centred pre-activations:

# %%
sample = plm.encode(model, list(plm.documents("sample", max_documents=20)), layers=[3], max_length=128)
sample.nearest(codes[0, -1, 3], k=8)

# %% [markdown]
# Which bits tell code from prose? Each row is a neuron; log-odds above zero: on more often in code.

# %%
sample.separating({"class": "code"}, {"class": "prose"})

# %% [markdown]
# Every boundary of layer 2 on the straight line between two prompts' last tokens, in closed form;
# later layers adaptively.

# %%
crossings = plm.path(model, texts[0], texts[1], layer=2).crossings(downstream=True)
crossings.plot()
