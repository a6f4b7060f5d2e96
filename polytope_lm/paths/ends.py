"""A path's ends: prompts as the model reads them, the token that is meant, and its activation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast, get_args

import numpy as np
import torch

from polytope_lm.codes.capture import check_text
from polytope_lm.errors import PolytopeError
from polytope_lm.models.hooks import read
from polytope_lm.models.interventions import Space
from polytope_lm.tokens import specials, tokenise

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from polytope_lm.models.hooks import Point
    from polytope_lm.models.loading import Model
    from polytope_lm.models.sites import Site

POINTS: dict[str, Point] = {"resid_mid": "x", "mlp_in": "u", "embed": "resid_pre"}


class End(NamedTuple):
    """One prompt as the model reads it, `ids` `[S]`; the chosen token's index in it, and its text."""

    ids: Int[np.ndarray, " S"]
    position: int
    token: str


def end(model: Model, prompt: str, name: str, position: int) -> End:
    """Tokenise a prompt and choose one of its tokens.

    Args:
        model: the model, with a tokenizer.
        prompt: the text.
        name: what a message calls it: A or B.
        position: which token, special tokens not counted; -1 is the last.

    Raises:
        PolytopeError: no tokenizer, a prompt that is empty, has a lone surrogate, has no token at this
            position or is longer than the model's context.

    """
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
    return End(ids, len(around.prefix) + index, prompt[text.starts[index] : text.ends[index]])


def activations(model: Model, ids: Int[np.ndarray, " S"], layer: int, at: Space) -> Float[np.ndarray, "S D"]:
    """Read what a path moves (`x`, `u`, or what block 0 reads) at all positions of the clean run.

    Raises:
        PolytopeError: NaN in an activation, or no such layer.

    """
    found: list[np.ndarray] = []

    def keep(value: torch.Tensor) -> None:
        found.append(value[0].double().cpu().numpy())

    read(model, torch.as_tensor(ids)[None], None, {(layer, POINTS[at]): keep})
    if not np.isfinite(found[0]).all():
        msg = f"{model.name}: {at} of layer {layer} has NaN or infinite values here; try dtype='float32'"
        raise PolytopeError(msg)
    return found[0]


def chosen(name: str, given: str, choices: tuple[str, ...], what: str) -> str:
    """Return an argument's value if it is one of the choices.

    Raises:
        PolytopeError: it isn't.

    """
    if given in choices:
        return given
    raise PolytopeError(f"{name}={given!r} is not {what} of a path; available: {', '.join(choices)}")


def place(model: Model, at: str, layer: int | None, kind: str | None) -> tuple[Space, Site]:
    """Return a path's space and site.

    Raises:
        PolytopeError: an unknown space, no such layer or kind, a layer above 0 or a declared site where the
            path lies elsewhere.

    """
    space = cast("Space", chosen("at", at, get_args(Space), "a space"))
    if layer is None and space != "embed":
        raise PolytopeError(f"at={at!r} needs a layer: layer=0 to layer={model.n_layers - 1}")
    if space == "embed" and layer not in {None, 0}:
        raise PolytopeError(f"layer={layer}: embeddings enter before block 0: leave the layer out")
    site = model.site(0 if layer is None else layer, kind)
    if site.kind == "custom":
        msg = f"{site.hook} is a declared site, and paths lie at MLPs: leave kind={kind!r} out"
        raise PolytopeError(msg)
    return space, site
