"""What a comparison shows: which representations and controls were asked for, and which can be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.layers import BUILT_IN, Menu
from polytope_lm.predictions.learned import MAKERS, SHOWN, Controls, row_name
from polytope_lm.predictions.nulls import NULLS
from polytope_lm.representations.registry import get, registered

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.loading import Model


def chosen_menu(
    codes: TokenCodes,
    rows: Int[np.ndarray, " n"],
    layers: Sequence[int],
    extra: Sequence[str] | str,
    weights: Sequence[str] | str | None,
    model: Model | None,
    seed: int,
) -> Menu:
    """Return what to measure; with `extra="all"`, what cannot be had is left out with its reason.

    Args:
        codes: the real model's.
        rows: the compared tokens.
        layers: the compared layers.
        extra: names, or `all`.
        weights: names of controls of the weights; None: all with `extra="all"`, else none.
        model: the real model.
        seed: the user's.

    Raises:
        PolytopeError: an unknown name; controls of the weights asked for by name, and no model.

    """
    everything = extra == "all"
    if everything:
        extra = [*(each.name for each in registered()), *NULLS]
    names = dict.fromkeys((*BUILT_IN, *([extra] if isinstance(extra, str) else extra)))
    representations = tuple(get(name) for name in names if name not in NULLS)
    nulls = tuple(name for name in NULLS if name in names)
    if weights is None:
        asked = tuple(MAKERS) if everything else ()
    else:
        asked = (weights,) if isinstance(weights, str) else tuple(weights)
    try:
        return Menu(representations, nulls, Controls(codes, rows, layers, asked, model, seed), {})
    except PolytopeError as error:
        if weights is not None:
            raise
        unavailable = {row_name(name, control): str(error) for control in asked for name in SHOWN}
        return Menu(representations, nulls, Controls(codes, rows, layers, (), None, seed), unavailable)
