"""The arrays of one layer's chosen tokens: their rows alone, read when they are first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.sites import Site

_KEPT_AS = {"pre": "h", "u": "u", "x": "x", "post": "post", "up": "up"}


class LayerArrays:
    """One layer's arrays for some tokens of some codes, each read once; `site` says where the codes live."""

    def __init__(self, codes: TokenCodes, layer: int, rows: Int[np.ndarray, " T"]) -> None:
        self._codes = codes
        self._layer = layer
        self._rows = rows
        self._read: dict[str, Any] = {}
        self.site: Site = codes.site(layer)

    def __len__(self) -> int:
        """Return T, the number of tokens."""
        return len(self._rows)

    def part(self, chosen: Int[np.ndarray, " P"]) -> LayerArrays:
        """Return the arrays of some of these tokens, by their place here; rates are taken over them alone."""
        return _Part(self, chosen)

    def get(self, name: str) -> Any:
        """Return one array by its name in `registry.ARRAYS`, refusing NaN, infinity and what was not kept."""
        if name not in self._read:
            self._read[name] = self._load(name)
        return self._read[name]

    def _load(self, name: str) -> Any:
        if name == "site":
            return self.site
        if name == "packed":
            return self._codes.rows(self.site, self._rows)
        if name == "through":
            return self._through()
        if name == "bits":
            unpacked = np.unpackbits(self.get("packed"), axis=1, count=self.site.width, bitorder="little")
            return unpacked.astype(bool)
        if name == "rates":
            return self.get("bits").mean(axis=0)
        return self._activations(_KEPT_AS[name])

    def _through(self) -> np.ndarray:
        later = [index for index in getattr(self._codes, "layers", ()) if index >= self._layer]
        if len(later) < 2:
            raise PolytopeError(
                f"layer {self._layer} is the last one of these codes, so there is nothing to join; capture later layers"
            )
        joined = self._codes.joined(later)
        return np.asarray(joined.rows(joined.site(), self._rows))

    def _activations(self, kept_as: str) -> np.ndarray:
        if kept_as == "up" and self.site.premises.linearity != "gated":
            msg = f"layer {self._layer} is not gated ({self.site.premises.activation}), so it has no 'up'"
            raise PolytopeError(msg)
        if not self._codes.can_give(kept_as):
            there = ", ".join(self._codes.kept) or "none"
            raise PolytopeError(
                f"{kept_as!r} of layer {self._layer} was not kept (kept: {there}); capture again with "
                f'`keep=("u", "h")` or `--keep u,h`' + ("" if kept_as in ("u", "h") else f", and {kept_as} as well")
            )
        values = self._codes.rows(self.site, self._rows, kept_as)
        if not np.isfinite(values).all():
            row = int(self._rows[np.argwhere(~np.isfinite(values))[0, 0]])
            raise PolytopeError(
                f"{kept_as!r} of layer {self._layer} holds NaN or infinity at token {row}; capture that document again"
            )
        return values


class _Part(LayerArrays):
    """Some rows of arrays that are read once for all of their parts."""

    def __init__(self, whole: LayerArrays, chosen: Int[np.ndarray, " P"]) -> None:
        super().__init__(whole._codes, whole._layer, whole._rows[chosen])
        self._whole, self._chosen = whole, chosen

    def _load(self, name: str) -> Any:
        if name in ("site", "rates"):
            return super()._load(name)
        return self._whole.get(name)[self._chosen]
