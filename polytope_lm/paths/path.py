"""A path between two activations: where it lies, and what it crosses."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np

from polytope_lm.errors import PolytopeError, public
from polytope_lm.paths.crossings import Crossings, LayerMethod, shortened
from polytope_lm.paths.ends import activations, chosen, end, place
from polytope_lm.paths.solve import curves
from polytope_lm.paths.solve.arc import arc_crossings
from polytope_lm.paths.solve.chebyshev import EVALUATIONS
from polytope_lm.paths.solve.curves import Shape
from polytope_lm.paths.solve.line import in_layer_crossings
from polytope_lm.paths.trace import Part, Runs

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.models.interventions import Space
    from polytope_lm.models.loading import Model
    from polytope_lm.models.sites import Site


@dataclass(frozen=True, eq=False, repr=False)
class Path:
    """A line or an arc between two activations; downstream, in the context of prompt A or in both.

    Attributes:
        model: the model.
        site: the site that the path belongs to; layer 0's where the path lies between embeddings.
        at: its space, `resid_mid` (what the MLP's norm reads), `mlp_in` (what the MLP reads) or `embed` (what
            block 0 reads).
        shape: `line` or `arc`.
        prompts: the two texts; what stands at the end of a path that has no second prompt is in brackets.
        tokens: the tokens at the two ends.
        input_ids: prompt A as the model reads it, `[S]`.
        position: index of A's token in `input_ids`.
        a: the path at t = 0, `[D]`.
        b: the path at t = 1, `[D]`.
        sequences: the activations of A and B at all positions, `[2, S, D]`, where all of them move; None
            where A's context is kept.
        everywhere: crossings are counted at all positions, not only at `position`.

    """

    model: Model
    site: Site
    at: Space
    shape: Shape
    prompts: tuple[str, str]
    tokens: tuple[str, str]
    input_ids: Int[np.ndarray, " S"]
    position: int
    a: Float[np.ndarray, " D"]
    b: Float[np.ndarray, " D"]
    sequences: Float[np.ndarray, "2 S D"] | None = None
    everywhere: bool = False

    def __repr__(self) -> str:
        ends = " -> ".join(shortened(prompt) for prompt in self.prompts)
        where = f"{self.shape} in {self.space} of layer {self.site.layer}, length {self.length:.4g}"
        return f"Path: {ends}; {where}; {shortened(self.model.name)}"

    @property
    def space(self) -> str:
        """The space's name in this block: the norm of a parallel block reads `resid_pre`."""
        return "resid_pre" if self.at == "resid_mid" and self.site.parallel else self.at

    @property
    def scope(self) -> Literal["stream", "mlp"]:
        """What follows the path downstream: the residual stream, or only what this MLP reads."""
        return "mlp" if self.at == "mlp_in" else "stream"

    @property
    def context(self) -> Literal["a", "both"]:
        """Which context later layers read: A's, or one that moves with the path from A's to B's."""
        return "a" if self.sequences is None else "both"

    @property
    def centred(self) -> bool:
        """Whether an arc is that of `C x`, as a LayerNorm sees it, the mean going from A's to B's."""
        return self.at == "resid_mid" and self.site.premises.norm == "LayerNorm"

    @property
    def counted(self) -> tuple[int, ...]:
        """Indices into `input_ids` of the tokens whose crossings are counted."""
        return tuple(range(len(self.input_ids))) if self.everywhere else (self.position,)

    @cached_property
    def length(self) -> float:
        """Euclidean length of the path; with all positions counted, in the space of all of them."""
        return curves.length(self.shape, *self._ends(), centred=self.centred)

    def _ends(self) -> tuple[Float[np.ndarray, "P D"], Float[np.ndarray, "P D"]]:
        """Return both ends of the paths of all tokens that are counted."""
        if self.sequences is None or not self.everywhere:
            return self.a[None], self.b[None]
        return self.sequences[0], self.sequences[1]

    def points(self, t: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n D"]:
        """Return the path at each t; its ends exactly."""
        return curves.points(self.shape, self.a[None], self.b[None], t, centred=self.centred)[:, 0]

    def versions(self, t: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n S D"]:
        """Return the paths of all positions at each t.

        Raises:
            PolytopeError: A's context is kept, and only one position moves.

        """
        if self.sequences is None:
            raise PolytopeError("context='a': only one position moves; .points(t) gives it")
        starts, ends = self.sequences
        return curves.points(self.shape, starts, ends, t, centred=self.centred)

    def crossings(
        self, *, downstream: bool = False, steps: int | None = None, evaluations: int = EVALUATIONS
    ) -> Crossings:
        """Find the boundaries that the path crosses.

        Between embeddings no layer has a closed form: layer 0 is then followed as later layers are.

        Args:
            downstream: look at the later layers too, and at the change of the next-token distribution.
                Attention reads the clean context of prompt A and only the path's position moves, unless the
                path has `context="both"`.
            steps: look at the later layers in so many equal steps, the baseline, which doesn't know what it
                misses; by default places are added until the crossings are known (see `paths.adaptive`).
            evaluations: forward evaluations at most, where `steps` is not given.

        Raises:
            PolytopeError: `downstream` in a model that reads both ways while A's context is kept, no step or
                too many, too few evaluations or too many, NaN along the path.

        """
        layers, parts = self._in_layer() if self.at != "embed" else ([], [])
        change = None
        if downstream or self.at == "embed":
            runs = Runs(self, only=None if downstream else 0)
            later = runs.grid(steps) if steps is not None else runs.adaptive(evaluations)
            layers += later.methods
            parts += later.parts
            change = later.change
        t, layer, neuron, on, token = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Crossings(
            prompts=self.prompts, tokens=self.tokens, site=self.site, at=self.at, space=self.space,
            scope=self.scope, shape=self.shape, length=self.length, t=t, layer=layer.astype(np.int16),
            neuron=neuron.astype(np.int32), on=on, layers=tuple(layers), output_change=change,
            provenance={**self.model.provenance, "version": importlib.metadata.version("polytope-lm")},
            context=self.context, position=token.astype(np.int32) if self.everywhere else None,
        )  # fmt: skip

    def _in_layer(self) -> tuple[list[LayerMethod], list[Part]]:
        """Find the crossings of the path's own layer."""
        geometry, (a, b) = self.model.geometry(self.site), self._ends()
        if self.shape == "line":
            found = in_layer_crossings(geometry, a, b, at=self.at)
        else:
            found = arc_crossings(geometry, a, b, at=self.at)
        order = np.argsort(found.t, kind="stable")
        token = np.array(self.counted)[found.pair][order]
        own = np.full(len(order), self.site.layer)
        part = Part(found.t[order], own, found.neuron[order], found.on[order], token)
        return [LayerMethod(self.site, "closed form", 0, int(found.hamming.sum()))], [part]


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

    """
    space, site = place(model, at, layer, kind)
    form = cast("Shape", chosen("shape", shape, get_args(Shape), "a shape"))
    if space == "embed" and form == "arc":
        raise PolytopeError("shape='arc' with at='embed': between embeddings paths are lines")
    moved = chosen("context", context, ("a", "both"), "a context") == "both"
    everywhere = positions is not None and bool(chosen("positions", positions, ("all",), "a choice"))
    ends = [end(model, prompt, name, position) for prompt, name in ((prompt_a, "A"), (prompt_b, "B"))]
    if moved or everywhere:
        _check_equal(ends[0].ids, ends[1].ids, "positions='all'" if everywhere else "context='both'")
    found = [activations(model, e.ids, site.layer, space) for e in ends]
    a, b = (rows[e.position] for rows, e in zip(found, ends, strict=True))
    drawn = Path(
        model=model, site=site, at=space, shape=form, prompts=(prompt_a, prompt_b),
        tokens=(ends[0].token, ends[1].token), input_ids=ends[0].ids, position=ends[0].position, a=a, b=b,
        sequences=np.stack(found) if moved or everywhere else None, everywhere=everywhere,
    )  # fmt: skip
    middle = np.array([0.5])
    _ = drawn.points(middle) if drawn.sequences is None else drawn.versions(middle)  # refuses what is no arc
    return drawn


def _check_equal(a: np.ndarray, b: np.ndarray, what: str) -> None:
    if len(a) != len(b):
        msg = f"{what} needs prompts of equal length, but A has {len(a)} tokens and B has {len(b)}"
        raise PolytopeError(msg)
