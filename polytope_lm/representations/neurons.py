"""The neuron lens as the paper drew it: a token is what its most active neuron says.

`n_t = argmax_i |post_ti|`; two tokens are alike (distance 0) if that neuron is the same, else not (distance
1). In absolute value, because a gated MLP's activations have both signs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.representations.registry import Rows, representation

if TYPE_CHECKING:
    from jaxtyping import Float

NAME = "top neuron"


@representation(NAME, isolates="the neuron lens: the most active neuron of each token")
def top_neuron(post: Float[np.ndarray, "T N"]) -> Rows:
    """Return each token's top neuron as a one-hot row (columns: neurons that are somebody's top)."""
    _, which = np.unique(np.abs(post).argmax(axis=1), return_inverse=True)
    return Rows(np.eye(which.max() + 1, dtype=np.float32)[which])
