"""Least-squares maps between the local maps of two layers, or of two networks, at the same tokens.

A layer's map at a token is `(d, e)` (`geometry.affine`). Is one layer's map a linear function of another's? The answer
is `(d', e') = (d, e) A + c`, fitted by ridge regression, its penalty chosen on tokens that were held out. Without a
penalty the fit is the same under any metric of the target, that of `(J, a)` included.

A matching says little by itself: the mean map needs no source, and shuffled tokens give the mean map. Put both beside
it. Share explained, on tokens that it was not fitted on, under the Frobenius norm of `(J, a)`: `1 - sum_t |matched_t -
own_t|^2 / sum_t |mean - own_t|^2`, the mean that of the fitting tokens; `analyses/affine_maps.py` computes it.

Source: Sattelberg et al. (2023), who map networks onto each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from polytope_lm.errors import PolytopeError, public
from polytope_lm.statistics.ridge import HELD_OUT, ridge

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from polytope_lm.geometry.affine import Maps


@dataclass(frozen=True, eq=False, repr=False)
class Matching:
    """A linear map between maps.

    Attributes:
        weight: `A`.
        bias: `c`.
        penalty: of the ridge regression.
        target: a map of the target's layer, whose shared weights a matched map has.

    """

    weight: Float[Tensor, "F G"]
    bias: Float[Tensor, " G"]
    penalty: float
    target: Maps

    def __repr__(self) -> str:
        return f"Matching: {len(self.weight):,} numbers of a map to {len(self.bias):,}, penalty {self.penalty:g}"

    def __call__(self, source: Maps) -> Maps:
        """Return the target's maps as the source's tell them."""
        numbers = _numbers(source) @ self.weight + self.bias
        width = self.target.slope.shape[1]
        return replace(self.target, slope=numbers[:, :width], shift=numbers[:, width:])


@public
def match(source: Maps, target: Maps) -> Matching:
    """Fit the target's maps as a linear function of the source's, token by token.

    Args:
        source: of one layer.
        target: of another layer, or of another network's, at the same tokens.

    Raises:
        PolytopeError: not the same number of tokens, or fewer than 10.

    Examples:
        >>> import polytope_lm as plm
        >>> from polytope_lm.geometry.affine import maps
        >>> from polytope_lm.geometry.matching import match
        >>> model, text = plm.load("tiny-relu"), "The river bank was steep and the other bank was flat, the water cold"
        >>> match(maps(model, text, 0), maps(model, text, 1))(maps(model, text, 0)).layer
        1

    """
    if len(source) != len(target):
        raise PolytopeError(f"{len(source)} maps of the source, {len(target)} of the target: give the same tokens")
    if len(source) < 2 * HELD_OUT:
        raise PolytopeError(f"{len(source)} tokens: give at least {2 * HELD_OUT}, one in {HELD_OUT} is held out")
    held = np.arange(len(source)) % HELD_OUT == 0
    X, Y = _numbers(source).cpu().numpy(), _numbers(target).cpu().numpy()
    # Behind ReLUs no map has a shift of its own, nor has a secant a gate's slope: what is constant needs no equation.
    told, tells = ((each != each[:1]).any(0) for each in (Y, X))
    weight, bias = np.zeros((X.shape[1], Y.shape[1]), X.dtype), Y[0].copy()
    weight[np.ix_(tells, told)], bias[told], penalty = ridge(X[:, tells], Y[:, told], held)
    at = target.slope
    return Matching(torch.from_numpy(weight).to(at), torch.from_numpy(bias).to(at), penalty, target[:1])


def _numbers(found: Maps) -> Float[Tensor, "n F"]:
    return torch.cat([found.slope, found.shift], dim=1)
