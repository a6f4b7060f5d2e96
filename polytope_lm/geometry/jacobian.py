"""How steep an MLP is at a point, and how much its slope changes along a path: the smooth twins of counts.

An MLP's Jacobian is `J = W_out diag(d) W_in` with `d = act'(h)`, `[N]`; of a gated one `d = (act'(g) up, act(g))`,
`[2N]`, with `W_out` twice side by side and `W_in = [W_gate; W_up]`. Its Frobenius norm follows from `d` alone,

    ||J||_F^2 = d' M d,    M = (W_out' W_out) * (W_in W_in')    (elementwise),

and so does that of the difference of two Jacobians (`affine` has these maps, and `L` with `L L' = M`), so no `D x D`
matrix is made. Along a path through the points
`u_0, ..., u_n` the *variation* of the Jacobian is

    sum_k ||J(u_k) - J(u_{k-1})||_F,

0 where the MLP is affine. Behind ReLUs it counts crossings, each weighted by `|w_out,i| |w_i|`: what Gamba et al.
(2202.11749) ask of a measure of nonlinearity and the plain number of regions does not give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polytope_lm.geometry.affine import Weights, maps_at

if TYPE_CHECKING:
    from jaxtyping import Float

    from polytope_lm.models.model import Model


class MlpJacobian:
    """One layer's MLP as its Jacobian sees it.

    Raises (when made):
        PolytopeError: no such layer; a mixture of experts; weights that modules don't show.

    Examples:
        >>> import polytope_lm as plm, torch
        >>> from polytope_lm.geometry.jacobian import MlpJacobian
        >>> model = plm.load("tiny-relu")
        >>> jacobian = MlpJacobian(model, 1)
        >>> u = torch.as_tensor(plm.encode(model, "The river bank", layers=[1], keep=("u",)).activations("u"))
        >>> bool((jacobian.norm(jacobian.diagonal(u)) > 0).all())
        True

    """

    def __init__(self, model: Model, layer: int) -> None:
        self.model, self.layer, self.weights = model, layer, Weights.of(model, layer)

    def diagonal(self, u: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows M"]:
        """Return `d` at inputs of the MLP."""
        with torch.inference_mode(mode=False):  # readers are called inside a pass, where no derivative is taken
            flat = u.clone().reshape(-1, u.shape[-1]).to(self.weights.w_in)
            return maps_at(self.model, self.layer, flat).slope.reshape(*u.shape[:-1], -1)

    def norm(self, diagonal: Float[Tensor, "*rows M"]) -> Float[Tensor, "*rows"]:
        """Return `||W_out diag(d) W_in||_F` of diagonals, or of their differences, float64."""
        found: Tensor = torch.linalg.vector_norm((diagonal @ self.weights.root).double(), dim=-1)
        return found

    def variation(self, diagonals: Float[Tensor, "*rows nodes M"]) -> Float[Tensor, "*rows"]:
        """Return the variation of the Jacobian along paths, from the diagonals at their points."""
        return self.norm(diagonals.diff(dim=-2)).sum(-1)
