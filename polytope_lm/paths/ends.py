"""Where a path lies: its ends, which are prompts as the model reads them, and the curve between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch

from polytope_lm.codes.capture import check_text
from polytope_lm.errors import PolytopeError, brief
from polytope_lm.models.hooks import read
from polytope_lm.models.interventions import Space
from polytope_lm.paths.solve import curves
from polytope_lm.tokens.tokenising import specials, tokenise

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Point, Site
    from polytope_lm.paths.solve.curves import Shape

POINTS: dict[str, Point] = {"resid_mid": "x", "mlp_in": "u", "embed": "resid_pre"}


class End(NamedTuple):
    """One prompt as the model reads it, `ids` `[S]`; the chosen token's index in it, and its text."""

    ids: Int[np.ndarray, " S"]
    position: int
    token: str


def end(model: Model, prompt: str, name: str, position: int) -> End:
    """Tokenise prompt A or B and choose one of its tokens, special tokens not counted."""
    if model.tokenizer is None:
        raise PolytopeError(f"{model.name} has no tokenizer to read a prompt with: plm.wrap(model, tokenizer)")
    check_text(f"prompt {name}", prompt)
    check_numbers(Integral, position=position)
    around = specials(model.tokenizer, model.bos)
    text = tokenise([prompt], model.tokenizer)[0]
    count = len(text.ids)
    if count == 0:
        raise PolytopeError(f"prompt {name} ({prompt!r}) has no token: give at least one word")
    if not -count <= position < count:
        raise PolytopeError(
            f"position={position} is outside prompt {name} of {count} tokens: from {-count} to {count - 1}"
        )
    ids = np.array([*around.prefix, *text.ids, *around.suffix], dtype=np.int64)
    if len(ids) > model.context_length:
        raise PolytopeError(f"prompt {name} has {len(ids)} tokens, the context {model.context_length}: shorten it")
    index = int(position) % count
    return End(ids, len(around.prefix) + index, prompt[text.starts[index] : text.ends[index]])


def activations(model: Model, ids: Int[np.ndarray, " S"], layer: int, at: Space) -> Float[np.ndarray, "S D"]:
    """Read what a path moves (`x`, `u`, or what block 0 reads) at all positions of the clean run."""
    found: list[torch.Tensor] = []
    read(model, torch.as_tensor(ids)[None], None, {(layer, POINTS[at]): found.append})
    values: np.ndarray = found[0][0].double().cpu().numpy()
    if not np.isfinite(values).all():
        raise PolytopeError(f"{model.name}: {at} of layer {layer} has NaN or infinite values here; try dtype='float32'")
    return values


def chosen(name: str, given: str, choices: tuple[str, ...], what: str) -> str:
    """Return an argument's value if it is one of the choices."""
    if given in choices:
        return given
    raise PolytopeError(f"{name}={given!r} is not {what} of a path; available: {', '.join(choices)}")


def check_numbers(kind: type, **given: object) -> None:
    """Refuse arguments that are no number of a kind (`numbers.Integral` or `numbers.Real`); None passes."""
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            what = "whole number" if kind is Integral else "number"
            raise PolytopeError(f"{name}={brief(value)} is no {what}")


def vectors(name: str, given: Any, wanted: str = "numbers, one a coordinate") -> Float[np.ndarray, ...]:
    """Return an argument's numbers, float64; of a tensor also where it is on a card, bfloat16, or has a gradient."""
    try:
        if isinstance(given, torch.Tensor) and not given.is_complex():
            given = given.detach().cpu().double()
        if not np.iscomplexobj(given):  # NumPy would drop the imaginary part
            return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        pass
    raise PolytopeError(f"{name} = {brief(given)} is no array of real numbers: give {wanted}")


def place(model: Model, at: str, layer: int | None, kind: str | None) -> tuple[Space, Site]:
    """Return a path's space and site."""
    space = cast("Space", chosen("at", at, get_args(Space), "a space"))
    if layer is None and space != "embed":
        raise PolytopeError(f"at={at!r} needs a layer: layer=0 to layer={model.n_layers - 1}")
    if space == "embed" and layer not in {None, 0}:
        raise PolytopeError(f"layer={layer}: embeddings enter before block 0: leave the layer out")
    site = model.site(0 if layer is None else layer, kind)
    if site.kind == "custom":
        raise PolytopeError(f"{site.hook} is a declared site, and paths lie at MLPs: leave kind={kind!r} out")
    if site.kind == "router":
        raise PolytopeError(
            f"{model.name}, layer {site.layer}: a router's region ends where another expert overtakes, not where a "
            f"logit is 0, so crossings are not counted there; choose the layer of a dense MLP"
        )
    return space, site


@dataclass(frozen=True, eq=False, repr=False)
class Curve:
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
        return curves.length(self.shape, *self.ends(), centred=self.centred)

    def ends(self) -> tuple[Float[np.ndarray, "P D"], Float[np.ndarray, "P D"]]:
        """Return both ends of the paths of all tokens that are counted."""
        if self.sequences is None or not self.everywhere:
            return self.a[None], self.b[None]
        return self.sequences[0], self.sequences[1]

    @cached_property
    def still(self) -> bool:
        """Whether both ends are the same, so that nothing changes on the way."""
        moving = self.sequences if self.sequences is not None else (self.a, self.b)
        return np.array_equal(moving[0], moving[1])

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
