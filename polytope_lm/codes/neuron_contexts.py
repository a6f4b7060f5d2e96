"""A neuron's strongest contexts: every token shaded by its activation, the boundary marked where it turns on or off.

After figure 2 of Black et al., "Interpreting Neural Networks through the Polytope Lens" (2022): between a token on
which the neuron is on (`h > 0`) and one on which it is off lies its hyperplane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polytope_lm.errors import PolytopeError, brief, visible
from polytope_lm.models.sites import Site
from polytope_lm.result import Result

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

    from polytope_lm.codes.readable import Readable

BOUNDARY = "│"
_ON, _OFF = "0, 114, 178", "196, 86, 10"


@dataclass(frozen=True)
class Piece:
    """A stretch of text: a token with its pre-activation, or what lies between tokens (None)."""

    text: str
    h: float | None


@dataclass(frozen=True)
class NeuronContext:
    """One context.

    Attributes:
        document: its identifier.
        row: the token on which the neuron is strongest there.
        h: its pre-activation.
        pieces: the text around it.
        peak: which piece it is.

    """

    document: str
    row: int
    h: float
    pieces: tuple[Piece, ...]
    peak: int

    def marked(self) -> list[tuple[Piece, bool]]:
        """Return the pieces, and whether the boundary lies before each: between tokens that differ in the bit."""
        out, before = [], None
        for piece in self.pieces:
            crossed = piece.h is not None and before is not None and (piece.h > 0) != (before > 0)
            out.append((piece, crossed))
            before = before if piece.h is None else piece.h
        return out

    def text(self) -> str:
        """Return it as plain text: the peak in brackets, boundaries as `│`."""
        parts = []
        for number, (piece, crossed) in enumerate(self.marked()):
            parts.append((BOUNDARY if crossed else "") + (f"[{piece.text}]" if number == self.peak else piece.text))
        return visible("".join(parts))


@dataclass(frozen=True, repr=False)
class NeuronContexts(Result):
    """The contexts in which a neuron is strongest.

    Attributes:
        site: where it is.
        neuron: its index.
        tokens: tokens looked at.
        rate: share of them on which it is on.
        largest: the largest `|h|`, at which shading is full.
        contexts: strongest first; no two show the same token.
        provenance: of the codes.
        command: what reproduces it.

    """

    site: Site
    neuron: int
    tokens: int
    rate: float
    largest: float
    contexts: tuple[NeuronContext, ...]
    provenance: Mapping[str, Any]
    command: str

    kind = "contexts"
    file = "neuron-contexts.json"
    tab = "Neurons"
    several = True

    @property
    def headline(self) -> str:
        """What is shown."""
        return (
            f"Neuron {self.neuron} of layer {self.site.layer} is on in {self.rate:.1%} of {self.tokens:,} tokens; its "
            f"{len(self.contexts)} strongest contexts, {BOUNDARY} where it turns on or off."
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row a token shown: `context`, `document`, `text`, `h`, `on`, `peak`, `boundary` (before it)."""
        rows = [
            (number, one.document, piece.text, piece.h, piece.h > 0, place == one.peak, crossed)
            for number, one in enumerate(self.contexts)
            for place, (piece, crossed) in enumerate(one.marked())
            if piece.h is not None
        ]
        return pd.DataFrame(rows, columns=["context", "document", "text", "h", "on", "peak", "boundary"])

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row a context."""
        heads: tuple[str, ...] = ("h", "document", f"in context ([strongest], {BOUNDARY} boundary)")
        return [heads, *((f"{one.h:.3f}", one.document, one.text()) for one in self.contexts)]

    def figures(self) -> dict[str, Any]:
        """Return none: the shaded texts are the picture."""
        return {}

    def html(self) -> str:
        """Return the contexts as HTML, every token shaded: blue where it is on, underlined, orange where it is off."""
        lines = []
        for one in self.contexts:
            spans = [
                self._span(piece, crossed, number == one.peak) for number, (piece, crossed) in enumerate(one.marked())
            ]
            lines.append(
                f'<p style="line-height:1.9;overflow-wrap:anywhere"><small>{one.h:.2f}</small> {"".join(spans)}</p>'
            )
        key = "Blue, underlined: on. Orange: off. Darker: larger |h|. Bold: strongest."
        return f"{''.join(lines)}<p><small>{escape(key)}</small></p>"

    def _span(self, piece: Piece, crossed: bool, peak: bool) -> str:
        text = escape(visible(piece.text))
        if piece.h is None:
            return text
        on = piece.h > 0
        strength = 0.85 * min(1.0, abs(piece.h) / self.largest) if self.largest else 0.0
        style = f"background:rgba({_ON if on else _OFF}, {strength:.2f})"
        style += ";border-bottom:2px solid" if on else ""
        style += ";font-weight:bold" if peak else ""
        wall = f'<span title="boundary" style="font-weight:bold">{BOUNDARY}</span>' if crossed else ""
        return f'{wall}<span style="{style}" title="h = {piece.h:.3f}, {"on" if on else "off"}">{text}</span>'

    def _repr_html_(self) -> str:
        return f"<p><strong>{escape(visible(self.headline))}</strong></p>{self.html()}"

    def __repr__(self) -> str:
        return f"<NeuronContexts: {self.headline}>"


def neuron_contexts(codes: Readable, layer: int | None, neuron: int, k: int, around: int) -> NeuronContexts:
    """Find a neuron's strongest contexts: see `TokenCodes.neuron`."""
    site = codes.site(layer)
    if site.kind == "router":
        raise PolytopeError(
            f"{site.key}: a router's bits are no neurons with activations; choose another layer or kind"
        )
    whole = isinstance(neuron, (int, np.integer)) and not isinstance(neuron, bool)
    if not whole or not 0 <= neuron < site.width:
        raise PolytopeError(f"neuron {brief(neuron)} is not in {site.key}, whose neurons are 0 to {site.width - 1}")
    for name, value in (("k", k), ("around", around)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise PolytopeError(f"{name} = {brief(value)}: give a whole number from 1")
    if not codes.can_give("h"):
        codes.activations("h", site.layer, site.name)  # says how to keep them
    h = np.concatenate([np.asarray(block[:, neuron], np.float32) for block in codes.blocks(site, "h")])
    contexts = tuple(_context(codes, h, row, rows) for row, rows in _strongest(codes, h, k, around))
    shown = [abs(piece.h) for one in contexts for piece in one.pieces if piece.h is not None]
    made = str(getattr(codes, "command", "")) or "codes"
    return NeuronContexts(
        site, int(neuron), len(h), float((h > 0).mean()), max(shown, default=0.0), contexts, dict(codes.provenance),
        f"{made}.neuron({site.layer}, {int(neuron)}, k={k}, around={around})",
    )  # fmt: skip


def _strongest(
    codes: Readable, h: Float[np.ndarray, " T"], k: int, around: int
) -> list[tuple[int, Int64[np.ndarray, " w"]]]:
    """Return the rows with the largest h and the rows around each, those apart that share no token."""
    document = codes.tokens["document"].to_numpy()
    order = np.lexsort((codes.tokens["position"].to_numpy(), document))  # reading order
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    taken = np.zeros(len(h), bool)
    found: list[tuple[int, np.ndarray]] = []
    for row in np.argsort(-h, kind="stable"):
        if len(found) == k:
            break
        at = int(place[row])
        near = order[max(0, at - around) : at + around + 1]
        near = near[document[near] == document[row]]
        if not taken[near].any():
            taken[near] = True
            found.append((int(row), near))
    return found


def _context(codes: Readable, h: Float[np.ndarray, " T"], row: int, rows: Int64[np.ndarray, " w"]) -> NeuronContext:
    """Cut the text around a token into stored tokens and what lies between them."""
    tokens = codes.tokens
    number = int(tokens["document"].iloc[row])
    text = codes.texts[number]
    starts, ends = tokens["start"].to_numpy()[rows], tokens["end"].to_numpy()[rows]
    pieces: list[Piece] = []
    peak = 0
    for index, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if index and start > ends[index - 1]:
            pieces.append(Piece(text[int(ends[index - 1]) : start], None))
        if rows[index] == row:
            peak = len(pieces)
        pieces.append(Piece(text[start:end], float(h[rows[index]])))
    return NeuronContext(str(codes.ids[number]), row, float(h[row]), tuple(pieces), peak)
