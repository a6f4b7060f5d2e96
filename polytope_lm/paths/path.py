"""A path between two activations, along a direction or to a random end: where it lies, and what it crosses.

Random controls have the data's mean and covariance, so that they leave a prompt's activation as another
prompt would, and yet towards no meaning. Source: Lee & Heimersheim, "Investigating Sensitive Directions in
GPT-2" (2024), whose baselines are `mixture`, along the difference of two draws, which knows nothing of the
prompt ("cov-random mixture"), and `difference`, towards one draw ("cov-random difference").
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from polytope_lm.errors import PolytopeError, public
from polytope_lm.paths.crossings import Crossings, shortened
from polytope_lm.paths.ends import Curve, activations, check_numbers, chosen, end, place, vectors
from polytope_lm.paths.solve.curves import Shape
from polytope_lm.paths.trace import Trace, in_layer

if TYPE_CHECKING:
    from jaxtyping import Float

    from polytope_lm.codes.codes import Codes
    from polytope_lm.models.interventions import Space
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site

Control = Literal["mixture", "difference"]


@dataclass(frozen=True, eq=False, repr=False)
class Path(Curve):
    """A line or an arc between two activations, and the boundaries that it crosses; see `Curve`."""

    def __repr__(self) -> str:
        ends = " -> ".join(shortened(prompt) for prompt in self.prompts)
        where = f"{self.shape} in {self.space} of layer {self.site.layer}, length {self.length:.4g}"
        return f"Path: {ends}; {where}; {shortened(self.model.name)}"

    @public
    def crossings(
        self, *, downstream: bool = False, steps: int | None = None, evaluations: int | None = None
    ) -> Crossings:
        """Find the boundaries that the path crosses.

        Between embeddings no layer has a closed form: layer 0 is then followed as later layers are.

        Args:
            downstream: look at the later layers too, and at the change of the next-token distribution.
                Attention reads the clean context of prompt A and only the path's position moves, unless the
                path has `context="both"`.
            steps: look at the later layers in so many equal steps, the baseline, which doesn't know what it
                misses; by default points are added until the crossings are known (`paths.solve.chebyshev`).
            evaluations: forward evaluations at most, where `steps` is not given; 40, behind ReLUs 160.

        Raises:
            PolytopeError: `downstream` in a model that reads both ways while A's context is kept, no step or
                too many, too few evaluations or too many, NaN along the path.

        """
        check_numbers(Integral, steps=steps, evaluations=evaluations)
        found, change = in_layer([self])[0] if self.at != "embed" else [], None
        if downstream or self.at == "embed":
            trace = Trace(self, only=None if downstream else self.site, logits=downstream)
            later, change = trace.grid(steps) if steps is not None else trace.adaptive(evaluations)
            found = [*found, *later]
        t, neuron, on, token = (
            np.concatenate([getattr(one, name) for one in found]) for name in ("t", "neuron", "on", "token")
        )
        layer = np.repeat([one.site.layer for one in found], [len(one.t) for one in found])
        return Crossings(
            prompts=self.prompts, tokens=self.tokens, site=self.site, at=self.at, space=self.space,
            scope=self.scope, shape=self.shape, length=self.length, t=t, layer=layer.astype(np.int64),
            neuron=neuron.astype(np.int64), on=on, layers=tuple(one.method for one in found),
            output_change=change, provenance={
                **self.model.provenance, "version": importlib.metadata.version("polytope-lm"),
            },
            context=self.context, position=token.astype(np.int64) if self.everywhere else None,
        )  # fmt: skip


@public
def path(  # noqa: PLR0913
    model: Model,
    prompt_a: str,
    prompt_b: str,
    *,
    at: str = "resid_mid",
    layer: int | None = None,
    kind: str | None = None,
    shape: str = "line",
    position: int = -1,
    positions: str | None = None,
    context: str = "a",
) -> Path:
    """Draw a line or an arc between the activations of two prompts, at one token or at all.

    Args:
        model: the model.
        prompt_a: the text at t = 0, whose context is kept downstream.
        prompt_b: the text at t = 1.
        at: the space: `resid_mid`, what the MLP's norm reads (a parallel block's own input), `mlp_in`, what
            the MLP reads, or `embed`, what block 0 reads: embeddings.
        layer: the block; left out with `embed`.
        kind: which code of a gated MLP: `gate` (the default), `up` or `gate+up`.
        shape: `line`; or `arc`, which turns from one direction to the other while the norm (and the mean, if
            the stream is centred) goes evenly.
        position: which token of each prompt, special tokens not counted; -1 is the last.
        positions: `all` moves every position of two equally long prompts and counts the crossings of all.
        context: what later layers read beside the token: `a`, prompt A's context, or `both`: the context
            moves too, from A's to B's, for which prompts must be equally long.

    Raises:
        PolytopeError: an unknown space, shape, context or `positions`, an arc between embeddings, no such
            layer or kind, a prompt that is empty, has a lone surrogate, has no token at this position or is
            longer than the model's context, prompts of different lengths where equal ones are needed, ends
            of an arc that are opposite, or NaN in an activation.

    Examples:
        >>> import polytope_lm as plm
        >>> plm.path(plm.load("tiny-gpt2"), "The loop ends", "The loop stops", layer=2).crossings()
        Crossings: 'The loop ends' -> 'The loop stops'; line in resid_mid of layer 2; 60 in layer 2, missed, estimate: 0

    """
    space, site, form = _asked(model, at, layer, kind, shape)
    moved = chosen("context", context, ("a", "both"), "a context") == "both"
    everywhere = positions is not None and bool(chosen("positions", positions, ("all",), "a choice"))
    ends = [end(model, prompt, name, position) for prompt, name in ((prompt_a, "A"), (prompt_b, "B"))]
    lengths = [len(one.ids) for one in ends]
    if (moved or everywhere) and lengths[0] != lengths[1]:
        what = "positions='all'" if everywhere else "context='both'"
        raise PolytopeError(
            f"{what} needs prompts of equal length, but A has {lengths[0]} tokens and B has {lengths[1]}"
        )
    found = [activations(model, ends[0].ids, site.layer, space)]
    # Equal prompts are read once: a second run may round otherwise.
    same = np.array_equal(ends[0].ids, ends[1].ids)
    found.append(found[0] if same else activations(model, ends[1].ids, site.layer, space))
    a, b = (rows[e.position] for rows, e in zip(found, ends, strict=True))
    drawn = Path(
        model=model, site=site, at=space, shape=form, prompts=(prompt_a, prompt_b),
        tokens=(ends[0].token, ends[1].token), input_ids=ends[0].ids, position=ends[0].position, a=a, b=b,
        sequences=np.stack(found) if moved or everywhere else None, everywhere=everywhere,
    )  # fmt: skip
    middle = np.array([0.5])
    _ = drawn.points(middle) if drawn.sequences is None else drawn.versions(middle)  # refuses what is no arc
    return drawn


@public
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
    space, site, form = _asked(model, at, layer, kind, "line")
    check_numbers(Real, length=length)
    vector = vectors("direction", direction)
    if vector.shape != (model.d_model,):
        raise PolytopeError(f"direction has shape {vector.shape}, but {space} of {model.name} is [{model.d_model}]")
    norm = float(np.linalg.norm(vector))
    if not 0 < norm < np.inf:
        raise PolytopeError(f"direction has the length {norm}: give one that points somewhere")
    if not np.isfinite(length):
        raise PolytopeError(f"length={length}: give a number")
    step = vector / norm * length
    name = "[along a direction]"
    return _from(model, prompt, lambda x: x + step, name, form, space=space, site=site, position=position)


@public
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
    space, site, form = _asked(model, at, layer, kind, shape)
    which = chosen("control", control, get_args(Control), "a random control")
    check_numbers(Real, length=length)
    check_numbers(Integral, seed=seed)
    if length is not None and not 0 < length < np.inf:
        raise PolytopeError(f"length={length}: give a positive number, or leave it out")
    rows = sampled_rows(sample, space, site.layer, model)
    rng = np.random.default_rng(seed)

    def other(x: np.ndarray) -> np.ndarray:
        step = draw(rows, rng)
        step -= draw(rows, rng) if which == "mixture" else x
        return x + step * (1.0 if length is None else length / float(np.linalg.norm(step)))

    name = f"[random {which}, seed {seed}]"
    return _from(model, prompt, other, name, form, space=space, site=site, position=position)


def _asked(model: Model, at: str, layer: int | None, kind: str | None, shape: str) -> tuple[Space, Site, Shape]:
    """Return a path's space, site and shape."""
    space, site = place(model, at, layer, kind)
    form = cast("Shape", chosen("shape", shape, get_args(Shape), "a shape"))
    if space == "embed" and form == "arc":
        raise PolytopeError("shape='arc' with at='embed': between embeddings paths are lines")
    return space, site, form


def draw(rows: np.ndarray, rng: np.random.Generator) -> Float[np.ndarray, " D"]:
    """Draw from the normal distribution with the rows' mean and covariance (ddof 1)."""
    mean = rows.mean(axis=0)
    return np.asarray(mean + rng.standard_normal(len(rows)) / np.sqrt(len(rows) - 1) @ (rows - mean))


def sampled_rows(sample: Codes | np.ndarray, at: str, layer: int, model: Model) -> Float[np.ndarray, "n D"]:
    """Return a sample's activations in a space; refuse what is no sample of it."""
    if hasattr(sample, "activations"):
        name = {"resid_mid": "x", "mlp_in": "u"}.get(at)
        if name is None:
            raise PolytopeError(f"sample: codes keep no embeddings; give an array [n, {model.d_model}]")
        sample = sample.activations(name, layer)
    rows = vectors("sample", sample)
    if rows.ndim != 2 or rows.shape[1] != model.d_model or len(rows) < 2:
        raise PolytopeError(f"sample has shape {rows.shape}, expected [n, {model.d_model}], n at least 2")
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise PolytopeError(f"sample[{row}] has NaN or infinite values: leave this row out")
    return rows


def _from(
    model: Model, prompt: str, other: Any, name: str, shape: Shape, *, space: Space, site: Site, position: int
) -> Path:
    """Draw a path from a prompt's activation to what `other` makes of it."""
    begin = end(model, prompt, "A", position)
    x = activations(model, begin.ids, site.layer, space)[begin.position]
    drawn = Path(
        model=model, site=site, at=space, shape=shape, prompts=(prompt, name), tokens=(begin.token, name),
        input_ids=begin.ids, position=begin.position, a=x, b=other(x),
    )  # fmt: skip
    drawn.points(np.array([0.5]))  # an arc that can't be drawn is refused here
    return drawn
