"""How linear a network is between samples: the Linear Mapping Number, and the curvature of one segment.

`L_ij` is the mean over outputs `k` of `r^2(y_k(lam), lam)`, the squared correlation of the output with `lam`
at 21 equally spaced points of the segment from sample `i` to sample `j`. It is 1 where every
output changes in proportion, so for all pairs of one linear piece; `L_ii = 1`. With the absolute eigenvalues
of `L` normalised to a distribution `p`,

    LMN = 2^S,    S = - sum p log2 p.

For a block-diagonal `L` of `c` equal blocks of ones LMN is `c`. For a function of `c` linear pieces it is
*not* `c`: a segment across a kink has an `L_ij` between 0 and 1.

Any part of a network will do: `run_of` makes the function that is asked for of a torch module, of a block's MLP, of a
model from one place on (`models.derivatives.Onward`).

Source: Liu, Zhong, Tegmark, "Grokking as simplification: a nonlinear complexity perspective" (2023).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import entr

from polytope_lm.errors import PolytopeError, brief

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

POINTS = 21
_STILL = 1e-12  # of the largest output: what rounding moves is constant

Run = Callable[["Float[np.ndarray, 'n D']"], "Float[np.ndarray, 'n K']"]


def linearity(outputs: Float[np.ndarray, "points K"]) -> float:
    """Return `L_ij` from outputs at equally spaced points, from one end to the other.

    Outputs that do not change have no correlation and are left out; if none changes, 1. Fewer than 3 points (two
    always lie on a line) are refused.
    """
    values = np.asarray(outputs, dtype=np.float64)
    if values.ndim != 2 or len(values) < 3:
        raise PolytopeError(
            f"outputs have shape {values.shape}; give [points, K] with at least 3 points ({POINTS} is usual)"
        )
    if not np.isfinite(values).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise PolytopeError(f"output {column} is {values[row, column]} at point {row}; try dtype='float32'")
    centred = values - values.mean(axis=0)
    squares = (centred**2).sum(axis=0)
    moving = np.sqrt(squares) > _STILL * max(1.0, float(np.abs(values).max()))
    if not moving.any():
        return 1.0
    along = np.linspace(-1, 1, len(values))
    covariance = along @ centred[:, moving]
    return float((covariance**2 / (squares[moving] * (along @ along))).mean())


def curvature(outputs: Float[np.ndarray, "points K"]) -> float:
    """Return `1 - L_ij`: 0 where the map is linear along the segment."""
    return 1 - linearity(outputs)


def run_of(part: Any) -> Run:
    """Return a part of a network as the function of points that `linearity_matrix` asks for.

    Args:
        part: a torch module (a `Sequential`, say); a block, `model.block(3)`, whose MLP is meant, from `u` on;
            an `Onward`, a model from one place on; or a function of `[n, D]` arrays.

    Raises:
        PolytopeError: none of these; a mixture of experts.

    Examples:
        >>> import polytope_lm as plm
        >>> from polytope_lm.geometry.linear_mapping import linear_mapping_number, linearity_matrix, run_of
        >>> model = plm.load("tiny-gpt2")
        >>> u = plm.encode(model, "The river bank is wet", layers=[1], keep=("u",)).activations("u")
        >>> mlp = run_of(model.block(1))
        >>> 1 <= linear_mapping_number(linearity_matrix(mlp, u)) <= len(u)
        True

    """
    import torch  # noqa: PLC0415 - arrays need none

    from polytope_lm.models.derivatives import Onward  # noqa: PLC0415
    from polytope_lm.models.families import Block, weight_and_bias  # noqa: PLC0415
    from polytope_lm.models.gates import activation  # noqa: PLC0415

    if isinstance(part, Onward):
        onward = part
        return lambda points: onward.run(torch.as_tensor(points)).out.double().cpu().numpy()
    if isinstance(part, Block):
        if part.routing is not None:
            raise PolytopeError("the block is a mixture of experts, which has no MLP of its own: give a dense block")
        act, maps = activation(part), {kind: _double(part.numbers(kind)) for kind in part.pre}
        down, device = _double(weight_and_bias(part.down)), weight_and_bias(part.down)[0].device

        def network(u: torch.Tensor) -> torch.Tensor:
            h = {kind: linear(u) for kind, linear in maps.items()}
            return down(act(h["gate"]) * h["up"] if "gate" in h else act(h["pre"]))

    elif isinstance(part, torch.nn.Module):  # a copy: rounding would make constant outputs move
        network = copy.deepcopy(part).double().eval()
        device = next((one.device for one in network.parameters()), torch.device("cpu"))
    elif callable(part):
        return part  # type: ignore[no-any-return]
    else:
        raise PolytopeError(
            f"part={brief(part)} is no network: give a module, a block, an Onward or a function of [n, D]"
        )

    def run(points: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n K"]:
        with torch.no_grad():
            return np.asarray(network(torch.as_tensor(points, dtype=torch.float64, device=device)).cpu().numpy())

    return run


def _double(numbers: tuple[Tensor, Tensor | None]) -> Callable[[Tensor], Tensor]:
    """Return a linear map in float64."""
    weight, bias = (None if one is None else one.double() for one in numbers)
    return lambda x: x @ weight.T if bias is None else x @ weight.T + bias  # type: ignore[union-attr]


def linearity_matrix(run: Run, samples: Float[np.ndarray, "n D"], *, points: int = POINTS) -> Float[np.ndarray, "n n"]:
    """Return `L` for all pairs of some samples, from the network and so many points on each segment."""
    if np.ndim(samples) != 2 or len(samples) < 2:
        raise PolytopeError(f"samples have shape {np.shape(samples)}; give [n, D] with n at least 2")
    share = np.linspace(0, 1, points)[:, None]
    matrix = np.eye(len(samples))
    for i in range(len(samples)):
        for j in range(i):
            line = (1 - share) * samples[i] + share * samples[j]
            matrix[i, j] = matrix[j, i] = linearity(run(line))
    return matrix


def linear_mapping_number(matrix: Float[np.ndarray, "n n"]) -> float:
    """Return `2^S` of the normalised absolute eigenvalues of a symmetric `L`: from 1 (one linear piece) to n."""
    values = np.asarray(matrix, dtype=np.float64)
    square = values.ndim == 2 and values.shape[0] == values.shape[1] and len(values) > 0
    if not square or not np.isfinite(values).all() or not np.allclose(values, values.T, atol=1e-9):
        raise PolytopeError(
            f"L has shape {values.shape}; it must be square, symmetric and finite (see linearity_matrix)"
        )
    sizes = np.abs(np.linalg.eigvalsh(values))
    return float(2 ** (entr(sizes / sizes.sum()).sum() / np.log(2)))
