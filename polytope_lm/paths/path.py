"""A path between two prompts: where it lies, and what it crosses."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import torch

from polytope_lm.codes.capture import check_text
from polytope_lm.errors import PolytopeError
from polytope_lm.models.hooks import read
from polytope_lm.models.interventions import Space
from polytope_lm.paths.adaptive import EVALUATIONS
from polytope_lm.paths.crossings import Crossings, LayerMethod, shortened
from polytope_lm.paths.downstream import Part, Runs
from polytope_lm.paths.line import in_layer_crossings
from polytope_lm.tokens import specials, tokenise

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.models.hooks import Point
    from polytope_lm.models.loading import Model
    from polytope_lm.models.sites import Site


@dataclass(frozen=True, eq=False, repr=False)
class Path:
    """A straight line between two activations of one site; downstream, in the context of prompt A.

    Attributes:
        model: the model.
        site: the site that the path belongs to.
        at: its space, `resid_mid` (what the MLP's norm reads) or `mlp_in` (what the MLP reads).
        shape: `line`.
        prompts: the two texts.
        tokens: the tokens at the two ends.
        input_ids: prompt A as the model reads it, `[S]`.
        position: index of A's token in `input_ids`.
        a: the path at t = 0, `[D]`.
        b: the path at t = 1, `[D]`.

    """

    model: Model
    site: Site
    at: Space
    shape: Literal["line"]
    prompts: tuple[str, str]
    tokens: tuple[str, str]
    input_ids: Int[np.ndarray, " S"]
    position: int
    a: Float[np.ndarray, " D"]
    b: Float[np.ndarray, " D"]

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
        return "stream" if self.at == "resid_mid" else "mlp"

    @property
    def length(self) -> float:
        """Euclidean distance between the ends."""
        return float(np.linalg.norm(self.b - self.a))

    def points(self, t: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n D"]:
        """Return the path at each t; its ends exactly."""
        share: np.ndarray = np.asarray(t, dtype=np.float64)[:, None]
        points: np.ndarray = (1 - share) * self.a + share * self.b
        return points

    def crossings(
        self, *, downstream: bool = False, steps: int | None = None, evaluations: int = EVALUATIONS
    ) -> Crossings:
        """Find the boundaries that the path crosses.

        Args:
            downstream: look at the later layers too, and at the change of the next-token distribution.
                Attention reads the clean context of prompt A; only the path's position moves.
            steps: look at the later layers in so many equal steps, the baseline, which doesn't know what it
                misses; by default places are added until the crossings are known (see `paths.adaptive`).
            evaluations: forward evaluations at most, where `steps` is not given.

        Raises:
            PolytopeError: `downstream` in a model that reads both ways, no step or too many, too few
                evaluations or too many, NaN along the path.

        """
        found = in_layer_crossings(self.model.geometry(self.site), self.a, self.b, at=self.at)
        layers = [LayerMethod(self.site, "closed form", 0, int(found.hamming[0]))]
        own = np.full(len(found.t), self.site.layer)
        parts = [Part(found.t, own, found.neuron, found.on)]
        change = None
        if downstream:
            runs = Runs(self)
            later = runs.grid(steps) if steps is not None else runs.adaptive(evaluations)
            layers += later.methods
            parts += later.parts
            change = later.change
        t, layer, neuron, on = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Crossings(
            prompts=self.prompts, tokens=self.tokens, site=self.site, at=self.at, space=self.space,
            scope=self.scope, shape=self.shape, length=self.length, t=t, layer=layer.astype(np.int16),
            neuron=neuron.astype(np.int32), on=on, layers=tuple(layers), output_change=change,
            provenance=_provenance(self.model),
        )  # fmt: skip


def path(
    model: Model,
    prompt_a: str,
    prompt_b: str,
    *,
    at: str = "resid_mid",
    layer: int,
    kind: str | None = None,
    shape: str = "line",
    position: int = -1,
) -> Path:
    """Draw a straight line between one token's activation in each of two prompts.

    Args:
        model: the model.
        prompt_a: the text at t = 0, whose context is kept downstream.
        prompt_b: the text at t = 1.
        at: the space: `resid_mid`, what the MLP's norm reads (a parallel block's own input), or `mlp_in`.
        layer: the block.
        kind: which code of a gated MLP: `gate` (the default), `up` or `gate+up`.
        shape: `line`.
        position: which token of each prompt, special tokens not counted; -1 is the last.

    Raises:
        PolytopeError: an unknown space or shape, no such layer or kind, a prompt that is empty, has a lone
            surrogate, has no token at this position or is longer than the model's context, or NaN in an
            activation.

    """
    if at not in get_args(Space):
        msg = f"at={at!r} is not a space of a path; available: {', '.join(get_args(Space))}"
        raise PolytopeError(msg)
    if shape != "line":
        msg = f"shape={shape!r} is not a shape of a path; available: line"
        raise PolytopeError(msg)
    space = cast("Space", at)
    site = model.site(layer, kind)
    if site.kind == "custom":
        msg = f"{site.hook} is a declared site, and paths lie at MLPs: leave kind={kind!r} out"
        raise PolytopeError(msg)
    ends = [_end(model, prompt, name, position) for prompt, name in ((prompt_a, "A"), (prompt_b, "B"))]
    a, b = (_activation(model, ids, where, layer, space) for ids, where, _ in ends)
    tokens = (ends[0][2], ends[1][2])
    return Path(model, site, space, "line", (prompt_a, prompt_b), tokens, ends[0][0], ends[0][1], a, b)


def _end(model: Model, prompt: str, name: str, position: int) -> tuple[np.ndarray, int, str]:
    """Return a prompt's ids, the index of the chosen token in them, and the token's text."""
    if model.tokenizer is None:
        msg = f"{model.name} has no tokenizer to read a prompt with: plm.wrap(model, tokenizer)"
        raise PolytopeError(msg)
    check_text(f"prompt {name}", prompt)
    around = specials(model.tokenizer)
    text = tokenise([prompt], model.tokenizer)[0]
    count = len(text.ids)
    if count == 0:
        msg = f"prompt {name} ({prompt!r}) has no token: give at least one word"
        raise PolytopeError(msg)
    if not -count <= position < count:
        msg = f"position={position} is outside prompt {name} of {count} tokens: from {-count} to {count - 1}"
        raise PolytopeError(msg)
    ids = np.array([*around.prefix, *text.ids, *around.suffix], dtype=np.int64)
    if len(ids) > model.context_length:
        msg = f"prompt {name} has {len(ids)} tokens, the context {model.context_length}: shorten it"
        raise PolytopeError(msg)
    index = position % count
    return ids, len(around.prefix) + index, prompt[text.starts[index] : text.ends[index]]


def _activation(model: Model, ids: np.ndarray, where: int, layer: int, at: Space) -> np.ndarray:
    """Read `x` or `u` at one position of the clean run."""
    found: list[np.ndarray] = []
    point: Point = "x" if at == "resid_mid" else "u"

    def keep(value: torch.Tensor) -> None:
        found.append(value[0, where].double().cpu().numpy())

    read(model, torch.as_tensor(ids)[None], None, {(layer, point): keep})
    if not np.isfinite(found[0]).all():
        msg = f"{model.name}: {at} of layer {layer} has NaN or infinite values here; try dtype='float32'"
        raise PolytopeError(msg)
    return found[0]


def _provenance(model: Model) -> dict[str, Any]:
    return {
        "model": model.name,
        "revision": model.revision,
        "family": model.family,
        "dtype": str(model.dtype)[6:],
        "attention": model.attention,
        "version": importlib.metadata.version("polytope-lm"),
    }
