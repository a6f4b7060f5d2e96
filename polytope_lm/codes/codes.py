"""Codes: packed spline codes with their sites and tokens; an array to its user, in memory or on disk."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int32, UInt8

from polytope_lm.codes import hamming
from polytope_lm.codes.code import Code
from polytope_lm.codes.hamming import Neighbours
from polytope_lm.codes.nearest import Nearest, nearest
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Site

TOKEN_COLUMNS = ("document", "position", "start", "end", "token_id", "token")
Rows = Sequence[int] | np.ndarray | Mapping[str, str]


class TokenCodes(ABC):
    """The interface that codes in memory (`Codes`) and on disk (`CodeStore`) share.

    Attributes:
        sites: the sites, in layer order.
        tokens: one row a token: `document` (index), `position` (in the document's own tokens), `start` and `end`
            (characters), `token_id`, `token` (its text), then a column a label.
        ids: the documents' identifiers.
        texts: the documents' texts.
        kept: names of the activations that were kept beside the bits.
        provenance: model, revision, dtype, rules, versions.

    """

    sites: tuple[Site, ...]
    ids: Sequence[str]
    texts: Sequence[str]
    kept: tuple[str, ...]
    provenance: Mapping[str, Any]

    @property
    @abstractmethod
    def tokens(self) -> pd.DataFrame:
        """The token table."""

    @abstractmethod
    def _packed(self, site: Site) -> UInt8[np.ndarray, "T B"]: ...

    @abstractmethod
    def _activations(self, name: str, site: Site) -> Float[np.ndarray, "T W"]: ...

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that there are codes of."""
        return tuple(dict.fromkeys(site.layer for site in self.sites))

    def site(self, layer: int | None = None, kind: str | None = None) -> Site:
        """Return the site of a layer; with one site, the layer may be left out.

        Raises:
            PolytopeError: no such layer or kind here, or several to choose from.

        """
        found = [s for s in self.sites if layer in {None, s.layer} and kind in {None, s.kind, s.hook}]
        if len(found) == 1:
            return found[0]
        what = ", ".join(s.key for s in self.sites)
        if not found:
            raise PolytopeError(f"no codes of layer {layer}{f' and kind {kind!r}' if kind else ''} here; there are {what}")
        raise PolytopeError(f"codes of several sites here ({what}): name one layer")

    def packed(self, layer: int | None = None, kind: str | None = None) -> UInt8[np.ndarray, "T B"]:
        """Return one site's packed codes, bit i of a row being `h_i > 0` (little bit order)."""
        return self._packed(self.site(layer, kind))

    def bits(self, layer: int | None = None, kind: str | None = None) -> Bool[np.ndarray, "T N"]:
        """Return one site's codes as booleans."""
        site = self.site(layer, kind)
        return hamming.unpack(self._packed(site), site.width)

    def to_numpy(self, layer: int | None = None, kind: str | None = None) -> Bool[np.ndarray, "T N"]:
        """Return one site's codes as booleans: the same as `bits`."""
        return self.bits(layer, kind)

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the token table."""
        return self.tokens.copy()

    def activations(self, name: str, layer: int | None = None) -> Float[np.ndarray, "T W"]:
        """Return activations that were kept: `h`, `u`, `x`, `up` or `post`, as float32.

        Raises:
            PolytopeError: they were not kept; it says how to keep them.

        """
        site = self.site(layer)
        if name in self.kept:
            return self._activations(name, site)
        return self._absent(name, site)

    def can_give(self, name: str) -> bool:
        """Whether `activations(name)` has something to give."""
        return name in self.kept

    def _absent(self, name: str, site: Site) -> Float[np.ndarray, "T W"]:
        kept = ", ".join(self.kept) or "none"
        raise PolytopeError(
            f"{site.key}: activations {name!r} were not kept (kept: {kept}); capture with keep={[*self.kept, name]} "
            f"(--keep {','.join([*self.kept, name])})"
        )

    def rates(self, layer: int | None = None) -> Float[np.ndarray, " N"]:
        """Return each neuron's firing rate over the tokens."""
        site = self.site(layer)
        return hamming.rates(self._packed(site), site.width)

    def context(self, row: int, chars: int = 40) -> tuple[str, str, str]:
        """Return the text left of a token, the token, and the text right of it."""
        record = self.tokens.iloc[row]
        text, start, end = self.texts[record["document"]], record["start"], record["end"]
        return text[max(0, start - chars) : start], text[start:end], text[end : end + chars]

    def __getitem__(self, key: Any) -> Any:
        """Index by prompt, token and layer: `codes[0]`, `codes[0, " bank"]`, `codes[0, " bank", 8]`.

        A token is its text (which must be unique in the prompt) or its position (negative counts from the end). Three
        keys give one `Code`; fewer give `Codes`.
        """
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > 3:
            raise PolytopeError(f"index {key!r}: at most [prompt, token, layer]")
        rows = self._document_rows(keys[0])
        if len(keys) > 1 and keys[1] != slice(None):
            rows = self._token_rows(rows, keys[1], keys[0])
        if len(keys) == 3 and isinstance(keys[2], (int, np.integer)):
            sites: tuple[Site, ...] = (self.site(int(keys[2])),)
            if len(rows) == 1:
                return self.code(int(rows[0]), int(keys[2]))
        else:
            wanted = self.layers if len(keys) < 3 or keys[2] == slice(None) else keys[2]
            sites = tuple(s for s in self.sites if s.layer in wanted)
        return self.select(rows, sites)

    def _document_rows(self, key: Any) -> np.ndarray:
        documents = self.tokens["document"].to_numpy()
        if isinstance(key, slice):
            return np.flatnonzero(np.isin(documents, np.arange(len(self.ids))[key]))
        if not isinstance(key, (int, np.integer)) or not -len(self.ids) <= key < len(self.ids):
            raise PolytopeError(f"no prompt {key!r}: there are {len(self.ids)}, from 0 to {len(self.ids) - 1}")
        return np.flatnonzero(documents == key % len(self.ids))

    def _token_rows(self, rows: np.ndarray, key: Any, prompt: Any) -> np.ndarray:
        tokens = self.tokens["token"].iloc[rows].astype(str).to_numpy()
        if isinstance(key, slice):
            return rows[key]
        if isinstance(key, (int, np.integer)):
            positions = self.tokens["position"].to_numpy()[rows]
            hit = rows[positions == key] if key >= 0 else rows[[key]] if -key <= len(rows) else rows[:0]
            if not len(hit):
                raise PolytopeError(f"no token at position {key} of prompt {prompt}; positions {positions.min(initial=0)} to {positions.max(initial=0)} are here")
            return hit
        hits = np.flatnonzero(tokens == key)
        if not len(hits):
            hits = np.flatnonzero([t.strip() == str(key).strip() for t in tokens])
        if len(hits) != 1:
            seen = " ".join(map(repr, tokens[:12]))
            what = f"{len(hits)} times (positions {hits.tolist()}): index by position" if len(hits) else f"not there; its tokens are {seen}"
            raise PolytopeError(f"token {key!r} of prompt {prompt}: {what}")
        return rows[hits]

    def code(self, row: int, layer: int | None = None) -> Code:
        """Return one token's code at one layer, with its context and kept activations."""
        site = self.site(layer)
        if not 0 <= row < len(self):
            raise PolytopeError(f"no token {row}: there are {len(self)}, from 0 to {len(self) - 1}")
        kept = {name: np.asarray(self._activations(name, site)[row], np.float32) for name in self.kept}
        return Code(np.asarray(self._packed(site)[row]), site, self.context(row), kept, (self, row))

    def select(self, rows: Any, sites: Sequence[Site] | None = None) -> Codes:
        """Return some tokens (row numbers or a mask) and sites as `Codes` in memory."""
        rows = self._rows(rows)
        sites = tuple(sites or self.sites)
        return Codes(
            sites=sites,
            table=self.tokens.iloc[rows].reset_index(drop=True),
            arrays={s.key: np.asarray(self._packed(s)[rows]) for s in sites},
            ids=self.ids,
            texts=self.texts,
            kept=self.kept,
            provenance=self.provenance,
            kept_arrays={f"{s.key}.{n}": np.asarray(self._activations(n, s)[rows]) for s in sites for n in self.kept},
        )

    def _rows(self, rows: Any) -> np.ndarray:
        """Row numbers from a mask, numbers, or labels that must hold, such as `{"upos": "NOUN"}`."""
        if isinstance(rows, Mapping):
            for label in rows:
                if label not in self.tokens:
                    raise PolytopeError(f"no label {label!r} here; there are {', '.join(self.tokens.columns)}")
            return np.flatnonzero(np.logical_and.reduce([(self.tokens[k] == v).to_numpy(bool, na_value=False) for k, v in rows.items()]))
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if len(rows) != len(self):
                raise PolytopeError(f"a mask of {len(rows)} for {len(self)} tokens")
            return np.flatnonzero(rows)
        if len(rows) and not (0 <= rows.min() and rows.max() < len(self)):
            raise PolytopeError(f"row {rows.max() if rows.max() >= len(self) else rows.min()}: there are {len(self)} tokens, from 0")
        return rows.astype(np.int64)

    def hamming(self, a: Any, b: Any, layer: int | None = None) -> Int32[np.ndarray, "A B"]:
        """Return the Hamming distances between two groups of tokens (rows, masks or label conditions)."""
        packed = self.packed(layer)
        return hamming.distances(packed[self._rows(a)], packed[self._rows(b)])

    def knn(self, k: int = 10, layer: int | None = None) -> Neighbours:
        """Return every token's k nearest tokens by Hamming distance, exactly, itself left out."""
        packed = self.packed(layer)
        return hamming.nearest(packed, packed, k, exclude_self=True)

    def nearest(self, query: Code | int, k: int = 10, layer: int | None = None) -> Nearest:
        """Return the tokens nearest to one token by code and by direction, side by side, in context.

        Args:
            query: a `Code` of the same site, from these or other codes, or a row number of these.
            k: how many of each.
            layer: the layer; a `Code` brings its own.

        """
        return nearest(self, query, k, layer)

    def separating(self, a: Rows, b: Rows, layer: int | None = None, *, alpha: float = 0.05) -> Separating:
        """Return the bits that tell two groups of tokens apart: signed log-odds, false-discovery rate, contexts.

        Args:
            a: rows, a mask, or labels that must hold, such as `{"upos": "NOUN"}`.
            b: the other group.
            layer: the layer, where there are several.
            alpha: the false-discovery rate.

        """
        site = self.site(layer)
        return separating(self, site, self._rows(a), self._rows(b), alpha=alpha)

    def __repr__(self) -> str:
        sites = ", ".join(f"{s.key} ({s.width} bits)" for s in self.sites[:4]) + (", …" if len(self.sites) > 4 else "")
        kept = f"; kept {', '.join(self.kept)}" if self.kept else ""
        return f"{type(self).__name__}: {len(self):,} tokens of {len(self.ids):,} documents; {sites}{kept}; {self.provenance.get('model', '')}"

    def _repr_html_(self) -> str:
        head = html.escape(repr(self))
        return f"<p>{head}</p>{self.tokens.head(10).to_html(escape=True, index=False)}"


@dataclass(frozen=True, eq=False, repr=False)
class Codes(TokenCodes):
    """Codes in memory, as `encode` gives them."""

    sites: tuple[Site, ...]
    table: pd.DataFrame
    arrays: Mapping[str, UInt8[np.ndarray, "T B"]]
    ids: Sequence[str]
    texts: Sequence[str]
    kept: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    kept_arrays: Mapping[str, Float[np.ndarray, "T W"]] = field(default_factory=dict)

    @property
    def tokens(self) -> pd.DataFrame:
        """The token table."""
        return self.table

    def _packed(self, site: Site) -> UInt8[np.ndarray, "T B"]:
        return self.arrays[site.key]

    def _activations(self, name: str, site: Site) -> Float[np.ndarray, "T W"]:
        return self.kept_arrays[f"{site.key}.{name}"]

    def __xor__(self, other: Codes) -> dict[str, Int32[np.ndarray, " T"]]:
        """Return, per site, how many bits differ between tokens in the same rows."""
        if len(self) != len(other):
            raise PolytopeError(f"^ needs as many tokens on both sides, got {len(self)} and {len(other)}")
        return {
            s.key: np.bitwise_count(self._packed(s) ^ other.packed(s.layer, s.kind)).sum(1, dtype=np.int32)
            for s in self.sites
        }
