"""Tokens in context, their neighbours by code and by direction, and the bits that differ, in a notebook.

The browser has all contexts and searches them itself. What it asks for, `query`, is a row of the codes or a text; the
answer is what `codes.nearest` gives, and comes by the notebook's own connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.codes.capture import encode
from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.hamming.searching import ranked
from polytope_lm.errors import PolytopeError, brief, visible
from polytope_lm.report.browser import CONTEXT, SIDES, pack
from polytope_lm.widgets.parts import anywidget, module, styles, traitlets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, UInt8

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site

MOST = 100_000
_LONGEST = 4_000  # characters of a text that is typed


class Searched:
    """Codes ready to be searched again and again: one layer's are kept at hand."""

    def __init__(self, codes: TokenCodes, *, k: int = 10, label: str | None = None, model: Model | None = None) -> None:
        if not 2 <= len(codes) <= MOST:
            raise PolytopeError(f"{len(codes):,} tokens: a widget shows 2 to {MOST:,}; codes.select(rows) takes some")
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < len(codes):
            raise PolytopeError(f"k = {brief(k)}: choose from 1 to {len(codes) - 1}, the number of other tokens")
        if label is not None and label not in codes.tokens:
            raise PolytopeError(f"no label {label!r} here; there are {', '.join(codes.tokens.columns)}")
        if model is not None:
            model.check_made("these codes were made", codes.provenance)
        self.codes, self.k, self.label, self.model = codes, k, label, model or codes.model
        self._site: Site | None = None
        self._packed: UInt8[np.ndarray, "T B"]
        self._mean: Float[np.ndarray, " N"]
        self._unit: Float[np.ndarray, "T N"] | None

    def tokens(self) -> dict[str, Any]:
        """Return all tokens in context as columns, with their label if one is shown."""
        texts, places = self.codes.texts, self.codes.tokens[["document", "start", "end"]].to_numpy().tolist()
        found: dict[str, Any] = {
            "left": [visible(texts[d][max(0, start - CONTEXT) : start]) for d, start, _ in places],
            "token": [visible(texts[d][start:end]) for d, start, end in places],
            "right": [visible(texts[d][end : end + CONTEXT]) for d, _, end in places],
        }
        if self.label is not None:
            values = ["none" if v is None or v != v else str(v) for v in self.codes.tokens[self.label]]  # noqa: PLR0124
            names = sorted(set(values))
            found |= {
                "label_name": visible(self.label),
                "label_values": [visible(name) for name in names],
                "label": pack(np.searchsorted(names, values)),
            }
        return found

    def answer(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a query asks for: a row's neighbours, or a text's.

        Raises:
            PolytopeError: no such layer, row or token, or a text that can't be read.

        """
        place, row, text, token = (query.get(name) for name in ("layer", "row", "text", "token"))
        if type(place) is not int or not 0 <= place < len(self.codes.sites):
            raise PolytopeError(f"no layer {brief(place)} here")
        if isinstance(text, str):
            return self.text(text, token if type(token) is int else None, place)
        if type(row) is not int or not 0 <= row < len(self.codes):
            raise PolytopeError(f"no token {brief(row)} here")
        return self.row(row, place)

    def row(self, row: int, place: int) -> dict[str, Any]:
        """Return a token's neighbours at the site of that place."""
        site = self.codes.sites[place]
        self._at_hand(site)
        unit = self._unit
        return self._answer(site, self._packed[row], None if unit is None else unit[row], row)

    def text(self, text: str, token: int | None, place: int) -> dict[str, Any]:
        """Read a text with the model; return its tokens and the neighbours of one of them, by default the last."""
        site = self.codes.sites[place]
        if self.model is None:
            raise PolytopeError("no model is at hand to read a text: give model=")
        if len(text) > _LONGEST:
            raise PolytopeError(f"a text of {len(text):,} characters; give at most {_LONGEST:,}")
        self._at_hand(site)
        if len(site.components) > 1:
            raise PolytopeError("joined layers take tokens of the codes only, no text")
        keep = ("h",) if self._unit is not None else ()
        read = encode(self.model, [text], layers=[site.layer], kind=site.name, keep=keep)
        chosen = len(read) - 1 if token is None else token
        if not 0 <= chosen < len(read):
            raise PolytopeError(f"no token {token} in a text of {len(read)}")
        unit = None
        if self._unit is not None:
            unit = _units(read.activations("h")[[chosen]] - self._mean)[0]
        answer = self._answer(site, read.packed()[chosen], unit, None)
        parts = read.context(chosen, CONTEXT)
        return answer | {
            "tokens": [visible(t) for t in read.tokens["token"]],
            "token": chosen,
            "context": [visible(part) for part in parts],
        }

    def _at_hand(self, site: Site) -> None:
        """Load a layer's codes, and directions of unit length, centred per coordinate, where they can be had."""
        if site is self._site:
            return
        self._packed = np.ascontiguousarray(self.codes.packed(site.layer, site.name))
        self._unit = None
        if self.codes.can_give("h"):
            h = self.codes.activations("h", site.layer, site.name)
            self._mean = h.mean(0, dtype=np.float64).astype(np.float32)
            self._unit = _units(h - self._mean)
        self._site = site

    def _answer(
        self, site: Site, code: UInt8[np.ndarray, " B"], unit: Float[np.ndarray, " N"] | None, row: int | None
    ) -> dict[str, Any]:
        measured = {"code": hamming.distances(code[None], self._packed)[0].astype(np.float64)}
        if unit is not None and self._unit is not None:
            measured["cosine"] = -(self._unit @ unit).astype(np.float64)
        width = site.width
        bits = hamming.unpack(code[None], width)[0]
        sides = []
        for key, values in measured.items():
            name, measure, unit_shown, digits = SIDES[key]  # as the report shows them
            rows = ranked(values, self.k, row)
            measured_as = values[rows] if key == "code" else -values[rows]
            theirs = hamming.unpack(self._packed[rows], width)
            differ = [np.flatnonzero(other != bits) for other in theirs]
            sides.append(
                {
                    "key": key, "name": name, "measure": measure, "unit": unit_shown, "digits": digits,
                    "rows": rows.tolist(), "shown": np.rint(measured_as / unit_shown).astype(int).tolist(),
                    "differ": [pack(neurons) for neurons in differ],
                    "on": [pack(other[neurons]) for other, neurons in zip(theirs, differ, strict=True)],
                }
            )  # fmt: skip
        missing = "" if unit is not None else "By direction: needs pre-activations; capture again with keep=['h']."
        return {"sides": sides, "width": width, "note": missing}


def _units(vectors: Float[np.ndarray, "T N"]) -> Float[np.ndarray, "T N"]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))


class NeighbourWidget(anywidget.AnyWidget):  # type: ignore[misc]
    """See `plm.widgets.neighbours`.

    Attributes:
        tokens: all contexts, as columns.
        layers: what the chooser of layers shows.
        query: what is asked for: `{"layer": place, "row": row}` or `{"layer": place, "text": text, "token": index}`.
        answer: `sides` with rows, distances and the bits that differ; of a text its `tokens` too; or an `error`.

    """

    _esm = module("core", "neighbours", "neighbour_widget")
    _css = styles()
    tokens = traitlets.Dict().tag(sync=True)
    layers = traitlets.List().tag(sync=True)
    query = traitlets.Dict().tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)
    reads = traitlets.Bool(default_value=False).tag(sync=True)

    def __init__(self, searched: Searched) -> None:
        self._searched = searched
        query = {"layer": 0, "row": 0}
        super().__init__(
            tokens=searched.tokens(),
            layers=[site.place.lower() for site in searched.codes.sites],
            query=query,
            answer=self._answered(query),
            reads=searched.model is not None,
        )
        self.observe(self._asked, "query")

    def _asked(self, change: Any) -> None:
        self.answer = self._answered(change["new"])

    def _answered(self, query: dict[str, Any]) -> dict[str, Any]:
        """Answer what the browser asks; what can't be answered is said there."""
        try:
            return {"query": query, **self._searched.answer(query)}
        except PolytopeError as error:
            return {"query": query, "error": str(error)}
