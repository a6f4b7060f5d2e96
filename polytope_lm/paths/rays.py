"""Paths that begin at a prompt and end at no other: along a direction, and random controls.

Random controls have the data's mean and covariance, so that they leave a prompt's activation as another
prompt would, and yet towards no meaning. Source: Lee & Heimersheim, "Investigating Sensitive Directions in
GPT-2" (2024), whose baselines are `mixture`, along the difference of two draws, which knows nothing of the
prompt ("cov-random mixture"), and `difference`, towards one draw ("cov-random difference").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.paths.ends import activations, chosen, end, place
from polytope_lm.paths.path import Path
from polytope_lm.paths.solve.curves import Shape

if TYPE_CHECKING:
    from jaxtyping import Float

    from polytope_lm.codes.codes import Codes
    from polytope_lm.models.loading import Model

Control = Literal["mixture", "difference"]


def direction_path(
    model: Model,
    prompt: str,
    direction: Float[np.ndarray, " D"],
    *,
    length: float,
    at: str = "resid_mid",
    layer: int | None = None,
    kind: str | None = None,
    position: int = -1,
) -> Path:
    """Draw a straight line from a prompt's activation along a direction: `x(t) = x + t length v / |v|`.

    Args:
        model: the model.
        prompt: the text at t = 0, whose context is kept downstream.
        direction: v, `[D]`; its length doesn't matter.
        length: how far to go, Euclidean, in the path's space; negative goes the other way.
        at: the space, as for `path`.
        layer: the block; left out with `at="embed"`.
        kind: which code of a gated MLP.
        position: which token, special tokens not counted; -1 is the last.

    Raises:
        PolytopeError: a direction of another width, without length or with NaN, a length that is no number;
            and whatever `path` refuses of a space, a layer, a kind and a prompt.

    """
    space, _ = place(model, at, layer, kind)
    vector = np.asarray(direction, dtype=np.float64)
    if vector.shape != (model.d_model,):
        msg = f"direction has shape {vector.shape}, but {space} of {model.name} is [{model.d_model}]"
        raise PolytopeError(msg)
    norm = float(np.linalg.norm(vector))
    if not 0 < norm < np.inf:
        raise PolytopeError(f"direction has the length {norm}: give one that points somewhere")
    if not np.isfinite(length):
        raise PolytopeError(f"length={length}: give a number")
    step = vector / norm * length
    return _from(
        model, prompt, lambda x: x + step, "[along a direction]", "line", at=at, layer=layer, kind=kind,
        position=position,
    )  # fmt: skip


def random_path(  # noqa: PLR0913
    model: Model,
    prompt: str,
    sample: Codes | Float[np.ndarray, "n D"],
    *,
    control: str = "mixture",
    length: float | None = None,
    seed: int = 0,
    at: str = "resid_mid",
    layer: int | None = None,
    kind: str | None = None,
    shape: str = "line",
    position: int = -1,
) -> Path:
    """Draw a path from a prompt's activation that has the data's covariance but no meaning.

    With `r, r'` drawn from the normal distribution of the sample's mean and covariance (sums of the sample's
    rows with normal weights, so that no D x D matrix is made), the path ends at

    - `mixture`: `x + (r - r')`;
    - `difference`: `r`.

    Args:
        model: the model.
        prompt: the text at t = 0, whose context is kept downstream.
        sample: activations of many tokens in the path's space, `[n, D]`; or codes of the path's layer that
            keep them: `plm.encode(..., keep=["x"])` for `resid_mid`, `keep=["u"]` for `mlp_in`.
        control: `mixture` or `difference`.
        length: Euclidean length of the straight line to the end; by default what was drawn.
        seed: chooses the draws.
        at: the space, as for `path`.
        layer: the block; left out with `at="embed"`.
        kind: which code of a gated MLP.
        shape: `line` or `arc`.
        position: which token, special tokens not counted; -1 is the last.

    Raises:
        PolytopeError: fewer than two rows, rows of another width or with NaN, codes without what is needed,
            an unknown control, a length that is not positive; and whatever `path` refuses.

    """
    space, site = place(model, at, layer, kind)
    form = cast("Shape", chosen("shape", shape, get_args(Shape), "a shape"))
    which = chosen("control", control, get_args(Control), "a random control")
    if length is not None and not 0 < length < np.inf:
        raise PolytopeError(f"length={length}: give a positive number, or leave it out")
    rows = _rows(sample, space, site.layer, model)
    rng = np.random.default_rng(seed)

    def other(x: np.ndarray) -> np.ndarray:
        step = _draw(rows, rng)
        step -= _draw(rows, rng) if which == "mixture" else x
        return x + step * (1.0 if length is None else length / float(np.linalg.norm(step)))

    return _from(
        model, prompt, other, f"[random {which}, seed {seed}]", form, at=at, layer=layer, kind=kind,
        position=position,
    )  # fmt: skip


def _draw(rows: np.ndarray, rng: np.random.Generator) -> Float[np.ndarray, " D"]:
    """Draw from the normal distribution with the rows' mean and covariance (ddof 1)."""
    mean = rows.mean(axis=0)
    weights = rng.standard_normal(len(rows)) / np.sqrt(len(rows) - 1)
    drawn: np.ndarray = mean + weights @ (rows - mean)
    return drawn


def _rows(sample: Codes | np.ndarray, at: str, layer: int, model: Model) -> Float[np.ndarray, "n D"]:
    if not isinstance(sample, np.ndarray):
        name = {"resid_mid": "x", "mlp_in": "u"}.get(at)
        if name is None:
            raise PolytopeError(f"sample: codes keep no embeddings; give an array [n, {model.d_model}]")
        sample = sample.activations(name, layer)
    rows = np.asarray(sample, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != model.d_model or len(rows) < 2:
        msg = f"sample has shape {rows.shape}, expected [n, {model.d_model}], n at least 2"
        raise PolytopeError(msg)
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise PolytopeError(f"sample[{row}] has NaN or infinite values: leave this row out")
    return rows


def _from(
    model: Model, prompt: str, other: Any, name: str, shape: Shape, *, at: str, layer: int | None,
    kind: str | None, position: int,
) -> Path:  # fmt: skip
    """Draw a path from a prompt's activation to what `other` makes of it."""
    space, site = place(model, at, layer, kind)
    if space == "embed" and shape == "arc":
        raise PolytopeError("shape='arc' with at='embed': between embeddings paths are lines")
    begin = end(model, prompt, "A", position)
    x = activations(model, begin.ids, site.layer, space)[begin.position]
    drawn = Path(
        model=model, site=site, at=space, shape=shape, prompts=(prompt, name), tokens=(begin.token, name),
        input_ids=begin.ids, position=begin.position, a=x, b=other(x),
    )  # fmt: skip
    drawn.points(np.array([0.5]))  # an arc that can't be drawn is refused here
    return drawn
