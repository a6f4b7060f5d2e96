"""Local complexity: how many neurons' boundaries pass near a point.

Around a point `x` stands a frame of `2 P` vertices, `x + r v_p` and `x - r v_p`, with orthonormal directions `v_p`. It
is pushed through the layers; in each, the neurons are counted whose sign is not the same at all vertices. In the first
layer this is the number of hyperplanes that cut the frame's convex hull. Behind it the vertices stand for their hull,
so a boundary that enters and leaves between them is missed.

Source: Humayun, Balestriero, Baraniuk, "Deep networks always grok and here is why" (2024), who take r = 0.005 for
inputs of unit scale. On a language model that is 0 nearly everywhere, so here `r = 0.005 |x|` by default. A count needs
its radius beside it: it grows with `r`, and region density alone is known to fail as a measure of nonlinearity (Gamba
et al. 2202.11749).

In a language model a token is moved by itself: its frame stands around its stream `x`, which the layer's norm reads,
and is pushed through this MLP and further layers, whose attention reads the clean context. The smooth number beside
each count is of the same map at the same vertices, the norm of the Jacobian of `h` with respect to `x`,

    ||dh/dx||_F = sqrt(D/P sum_p |h(x + r v_p) - h(x - r v_p)|^2) / 2r,

of which P directions are a sample (of linear maps its square has the right expectation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange

from polytope_lm.errors import PolytopeError, brief

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.models.hooks import Tap
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Point, Site

RADIUS = 0.005
"""Of the point's norm."""

Pre = Callable[["Float[np.ndarray, 'n D']"], "Sequence[Float[np.ndarray, 'n N']]"]
_AT_ONCE = 100_000
"""Vertices that are pushed through the layers together."""


def frames(
    points: Float[np.ndarray, "n D"], radius: float | Float[np.ndarray, " n"], *, directions: int = 25, seed: int = 0
) -> Float[np.ndarray, "n V D"]:
    """Return each point's `2 P` vertices: first `x + r v_p` for all `p`, then `x - r v_p`.

    Args:
        points: where.
        radius: `r`, one for all points or one each.
        directions: `P`, at most D; each point has directions of its own.
        seed: of the directions.

    """
    n, width = np.shape(points)
    r = _radii(radius, n, width, directions)
    draws = np.random.default_rng(seed).standard_normal((n, width, directions))
    arms = r[:, None, None] * rearrange(np.linalg.qr(draws)[0], "n D P -> n P D")
    middle = np.asarray(points, np.float64)[:, None]
    return np.concatenate([middle + arms, middle - arms], axis=1)


def _radii(radius: float | Float[np.ndarray, " n"], n: int, width: int, directions: int) -> Float[np.ndarray, " n"]:
    """Return each point's radius; refuse those, and a number of directions, of which no frame can be made."""
    if not isinstance(directions, int | np.integer) or not 1 <= directions <= width:
        raise PolytopeError(f"directions={brief(directions)}: give 1 to {width}, the width of the points")
    given = np.asarray(radius, np.float64)
    if given.shape not in ((), (1,), (n,)):
        raise PolytopeError(f"radius has shape {given.shape} for {n} points: give one number, or [{n}]")
    r = np.broadcast_to(given, n)
    if not (np.isfinite(r).all() and (r > 0).all()):
        place = int(np.flatnonzero(~(np.isfinite(r) & (r > 0)))[0])
        raise PolytopeError(f"the radius is {r[place]} at point {place}: give numbers above 0")
    return r


def local_complexity(
    pre: Pre,
    points: np.ndarray,
    *,
    radius: float | Float[np.ndarray, " n"] | None = None,
    directions: int = 25,
    seed: int = 0,
) -> Int[np.ndarray, "n L"]:
    """Count, at each point and in each layer, the neurons whose sign changes over the point's frame.

    Args:
        pre: each layer's pre-activations at points, such as `ReluNetwork.pre`.
        points: where, `[n, D]`.
        radius: `r`, one for all points or one each; by default 0.005 times the point's norm.
        directions: `P`.
        seed: of the directions.

    Raises:
        PolytopeError: no points, points of another shape or with NaN, more directions than dimensions, radii of another
            length, a radius of 0 (the default at the origin).

    Examples:
        >>> import numpy as np
        >>> from polytope_lm.geometry.local_complexity import local_complexity
        >>> from polytope_lm.geometry.relu_network import ReluNetwork
        >>> network = ReluNetwork([np.eye(2)], [np.array([-1.0, 0.0])])
        >>> near, far = [1.0, 5.0], [3.0, 5.0]
        >>> local_complexity(network.pre, np.array([near, far]), radius=0.5, directions=2).tolist()
        [[1], [0]]

    """
    values = np.asarray(points, np.float64)
    if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
        raise PolytopeError(
            f"points have shape {values.shape} or values that are not finite: give [n, D] numbers, one point or more"
        )
    r = _radii(
        RADIUS * np.linalg.norm(values, axis=1) if radius is None else radius, len(values), values.shape[1], directions
    )
    step = max(1, _AT_ONCE // (2 * directions))
    parts = []
    for start in range(0, len(values), step):
        chosen = slice(start, start + step)
        # Each block of points has its own stream, so that a point's directions do not depend on the others' number.
        vertices = frames(values[chosen], r[chosen], directions=directions, seed=seed + start)
        counts = []
        for h in pre(rearrange(vertices, "n V D -> (n V) D")):
            on = rearrange(np.asarray(h) > 0, "(n V) N -> n V N", V=2 * directions)
            counts.append((on.any(axis=1) & ~on.all(axis=1)).sum(axis=1))
        parts.append(np.stack(counts, axis=1))
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class TokenComplexity:
    """Local complexity of some tokens of one sequence.

    Attributes:
        counts: neurons whose sign is not the same at all vertices, in this layer and those after it, `[K, L]`.
        jacobian: the norm of the Jacobian of `h` in these layers with respect to `x`, from the same vertices, `[K, L]`.
        radius: each token's `r`, `[K]`.

    """

    counts: Int[np.ndarray, "K L"]
    jacobian: Float[np.ndarray, "K L"]
    radius: Float[np.ndarray, " K"]


def token_complexity(
    model: Model,
    input_ids: Int[np.ndarray, " S"],
    positions: Int[np.ndarray, " K"],
    layer: int,
    *,
    onward: int = 1,
    kind: str | None = None,
    share: float = RADIUS,
    directions: int = 25,
    seed: int = 0,
) -> TokenComplexity:
    """Count boundaries near some tokens of a sequence, from one layer to the next.

    Args:
        model: a causal model.
        input_ids: the sequence, special tokens included.
        positions: which of its tokens.
        layer: whose `x` (`resid_mid`) the frames stand around.
        onward: layers after it that are looked at, too; fewer at the model's end.
        kind: which code of a gated MLP.
        share: `r` over `|x|`.
        directions: `P`.
        seed: of the directions.

    Raises:
        PolytopeError: a model that reads both ways; no such layer, kind or position; a mixture of experts, whose code
            is no sign; more directions than dimensions.

    Examples:
        >>> import numpy as np
        >>> import polytope_lm as plm
        >>> from polytope_lm.geometry.local_complexity import token_complexity
        >>> model = plm.load("tiny-gpt2")
        >>> ids = np.array(model.tokenizer("The river bank is wet")["input_ids"])
        >>> token_complexity(model, ids, np.array([2, 4]), 1, share=0.05).counts.shape
        (2, 2)

    """
    from polytope_lm.paths.ends import activations  # noqa: PLC0415 - it imports torch, the count itself needs none

    if not model.causal:
        raise PolytopeError(f"{model.name} reads both ways: a token can't be moved by itself; give a causal model")
    if len(positions) and not (positions.min() >= 0 and positions.max() < len(input_ids)):
        raise PolytopeError(f"positions {positions.tolist()}: not all inside the sequence of {len(input_ids)} tokens")
    sites = [model.site(each, kind) for each in range(layer, min(layer + onward + 1, model.n_layers))]
    taps = [signed_taps(model, site) for site in sites]
    x = activations(model, input_ids, layer, "resid_mid")[positions]
    radius = share * np.linalg.norm(x, axis=1)
    vertices = frames(x, radius, directions=directions, seed=seed)
    every = [tap for those in taps for tap in those]
    pushed = _pushed(model, input_ids, positions, layer, vertices.astype(np.float32), every)
    counts, norms = [], []
    for those in taps:
        h = np.concatenate([pushed[tap] for tap in those], axis=2)
        on = h > 0
        counts.append((on.any(axis=1) & ~on.all(axis=1)).sum(axis=1))
        across = np.linalg.norm(h[:, :directions] - h[:, directions:], axis=(1, 2))
        norms.append(across * np.sqrt(x.shape[1] / directions) / (2 * radius))
    return TokenComplexity(np.stack(counts, axis=1), np.stack(norms, axis=1), radius)


def signed_taps(model: Model, site: Site) -> list[Tap]:
    """Return what to read of a layer for the numbers whose sign is its code.

    Raises:
        PolytopeError: a router's code, or a declared site's.

    """
    known: dict[str, list[Point]] = {"pre": ["h"], "gate": ["h"], "up": ["up"], "gate+up": ["h", "up"]}
    if site.kind not in known:
        raise PolytopeError(
            f"{model.name}, layer {site.layer}: a code of kind {site.kind!r} is not the sign of an MLP's "
            "pre-activations; choose the layer of a dense MLP"
        )
    return [(site.layer, point) for point in known[site.kind]]


def _pushed(
    model: Model, ids: np.ndarray, positions: np.ndarray, layer: int, vertices: Float[np.ndarray, "K V D"],
    taps: Sequence[Tap],
) -> dict[Tap, Float[np.ndarray, "K V N"]]:  # fmt: skip
    """Run each token's vertices in its place, all tokens at once where the model can; read what they become."""
    import torch  # noqa: PLC0415

    from polytope_lm.models.interventions import run_patched, run_replaced  # noqa: PLC0415
    from polytope_lm.models.prefix import share_context  # noqa: PLC0415 - it imports transformers

    tokens, places = torch.as_tensor(ids), torch.as_tensor(positions)
    context = share_context(model, tokens, layer=layer, positions=places)
    if context is None:
        found = [
            run_patched(model, ids, own, layer=layer, position=int(place), taps=taps, logits=False).activations
            for own, place in zip(vertices, positions, strict=True)
        ]
        return {tap: np.stack([one[tap] for one in found]) for tap in taps}
    rows, here = rearrange(vertices, "K V D -> V K D"), context.tokens.cpu().numpy()
    ran = run_replaced(
        model, here, rows, layer=layer, positions=range(len(here)), taps=taps, logits=False, prefix=context
    ).activations
    return {tap: rearrange(value, "V (K N) -> K V N", K=len(here)) for tap, value in ran.items()}
