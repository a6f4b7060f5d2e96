"""What learning adds to architecture: the same comparison in the model with permuted weights, or untrained.

The controls are read at the compared tokens, with the capture's own settings. Their activations are held for
as many layers at a time as fit `BYTES_AT_ONCE`, so the model is read once for each such block of layers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.codes import Codes
from polytope_lm.controls import simhash, weights
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.seeds import WEIGHTS, derived
from polytope_lm.representations import code, cosine
from polytope_lm.representations.arrays import LayerArrays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.loading import Model

MAKERS: dict[str, tuple[Callable[..., Model], str, str]] = {
    "permuted": (
        weights.permuted,
        "weights permuted",
        "learning: every matrix keeps its entries, in another order",
    ),
    "untrained": (
        weights.untrained,
        "untrained",
        "learning (weakly): the configuration, initialised anew",
    ),
}
"""How to make each control of the weights, what its rows are called, what it isolates."""

SHOWN = (code.NAME, *cosine.COSINES, simhash.NAME)
"""What is measured in each."""

BYTES_AT_ONCE = 2**29
KEEP = ("u", "h")


def row_name(representation: str, control: str) -> str:
    """Return what a result calls one representation of a control, such as `code, weights permuted`."""
    return f"{representation}, {MAKERS[control][1]}"


class Controls:
    """The model with other weights, read at the compared tokens when a layer is first asked for.

    Args:
        codes: the real model's.
        rows: the compared tokens.
        layers: layers that will be asked for, in that order.
        names: of `MAKERS`.
        model: the real model; by default the one that the codes know.
        seed: the user's.

    Raises:
        PolytopeError: an unknown name; no model at hand, or another one than that of the codes.

    """

    def __init__(
        self,
        codes: TokenCodes,
        rows: Int[np.ndarray, " n"],
        layers: Sequence[int],
        names: Sequence[str],
        model: Model | None,
        seed: int,
    ) -> None:
        for name in names:
            if name not in MAKERS:
                msg = f"no control of the weights {name!r}; there are {', '.join(map(repr, MAKERS))}"
                raise PolytopeError(msg)
        self.names = tuple(names)
        self._model = _model(codes, model) if names else None
        self._codes, self._rows, self._layers, self._seed = codes, rows, tuple(layers), seed
        self._read: dict[str, Codes] = {}

    def arrays(self, name: str, layer: int) -> LayerArrays:
        """Return one control's arrays of one layer at the compared tokens.

        Raises:
            PolytopeError: the model can not be made into that control, or reads other tokens.

        """
        if name not in self._read or layer not in self._read[name].layers:
            self._read.pop(name, None)  # the block before, so that two are never held
            self._read[name] = self._captured(name, self._block(layer))
        read = self._read[name]
        return LayerArrays(read, layer, np.arange(len(read)))

    def _block(self, layer: int) -> tuple[int, ...]:
        """Return the layers to read at once: this one and as many of those after it as fit."""
        start, used = self._layers.index(layer), 0
        for end in range(start, len(self._layers)):
            site = self._codes.site(self._layers[end])
            used += len(self._rows) * 4 * (site.width + site.d_model)
            if end > start and used > BYTES_AT_ONCE:
                return self._layers[start:end]
        return self._layers[start:]

    def _captured(self, name: str, layers: Sequence[int]) -> Codes:
        if self._model is None:
            raise PolytopeError(f"{name!r} was not asked for; name it in weights=")
        codes = self._codes
        wanted = Codes(
            sites=tuple(codes.site(layer) for layer in layers),
            table=codes.tokens.iloc[self._rows].reset_index(drop=True),
            arrays={},
            ids=codes.ids,
            texts=codes.texts,
            kept=KEEP,
            provenance=codes.provenance,
        )
        made = MAKERS[name][0](self._model, derived(self._seed, WEIGHTS, list(MAKERS).index(name)))
        return replace(weights.recaptured(wanted, made), model=None)  # its weights may go


def _model(codes: TokenCodes, model: Model | None) -> Model:
    """Return the real model: the one given, or the one that the codes still know."""
    found = model if model is not None else codes.model
    if found is None:
        msg = (
            "permuted and untrained weights need the model, which these codes do not have at hand; give "
            "model=plm.load(...), or on the command line --model NAME"
        )
        raise PolytopeError(msg)
    was = codes.provenance.get("revision")
    if was is not None and found.revision != was:
        msg = (
            f"these codes are of {codes.provenance['model']}, revision {was}; {found.name} is revision "
            f"{found.revision}: give the same model"
        )
        raise PolytopeError(msg)
    return found
