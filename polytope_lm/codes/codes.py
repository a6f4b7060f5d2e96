"""Codes: packed spline codes with their sites and tokens; an array to its user, in memory or on disk."""

from __future__ import annotations

import html
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.codes.code import Code, Differences, Nearest, as_array, cosines, visible_frame
from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.hamming.searching import StoredRows, ranked
from polytope_lm.codes.store.layout import KEEPABLE, array_names
from polytope_lm.errors import PolytopeError, visible
from polytope_lm.files import expand
from polytope_lm.models.sites import join, width_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import datasets
    import pandas as pd
    from jaxtyping import Bool, Float, Int32, Int64, UInt8

    from polytope_lm.codes.hamming.searching import Neighbours, Packed
    from polytope_lm.codes.neighbourhoods import Neighbourhoods
    from polytope_lm.codes.neuron_contexts import NeuronContexts
    from polytope_lm.codes.selective import Selective
    from polytope_lm.codes.separating import Separating
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site

DESCRIBED = "polytope_lm codes"
"""What a data set's description begins with, as a key of JSON."""
_SHOWN = 12
EXACT_TOKENS = 1_000_000
"""From so many tokens on, half an hour of two cores if exact, every token's neighbours are approximate."""


class TokenCodes(ABC):
    """The interface that codes in memory (`Codes`) and on disk (`CodeStore`) share.

    Attributes:
        sites: the sites, in layer order.
        tokens: one row a token: `document` (index), `position` (in the document's own tokens), `start` and
            `end` (characters), `token_id`, `token` (its text), then a column a label.
        ids: the documents' identifiers.
        texts: the documents' texts.
        kept: names of the activations that were kept beside the bits.
        provenance: model, revision, dtype, rules, versions.
        model: the model that made them, while it is at hand; None after a store was opened again.

    """

    sites: tuple[Site, ...]
    ids: Sequence[str]
    texts: Sequence[str]
    kept: tuple[str, ...]
    provenance: Mapping[str, Any]
    model: Model | None = None

    @property
    @abstractmethod
    def tokens(self) -> pd.DataFrame:
        """The token table."""

    @abstractmethod
    def blocks(self, site: Site, name: str | None = None) -> Iterator[np.ndarray]:
        """Yield one array block by block, by rows: packed codes, or the activations of that name.

        A store's blocks are its mapped shards, so that a pass over them needs little memory.
        """

    def _whole(self, site: Site, name: str | None = None) -> np.ndarray:
        """Return one array in one piece; a single block is not copied."""
        total, first, out = self.counts()[0], 0, None
        for block in self.blocks(site, name):
            if len(block) == total:
                return block
            if out is None:
                out = np.empty((total, block.shape[1]), block.dtype)
            out[first : first + len(block)] = block  # and let go: each map holds a file open
            first += len(block)
        empty = np.empty((0, width_of(site, name)), np.uint8 if name is None else np.float32)
        return empty if out is None else out

    def rows(self, site: Site, rows: Int64[np.ndarray, " R"], name: str | None = None) -> np.ndarray:
        """Return some rows of one array, reading no others: packed codes, or the activations of that name."""
        out = np.empty((len(rows), width_of(site, name)), np.uint8 if name is None else np.float32)
        first = 0
        for block in self.blocks(site, name):
            if not first and block.shape[1] != out.shape[1]:  # codes made by hand, wider than their site says
                out = np.empty((len(rows), block.shape[1]), out.dtype)
            here = (rows >= first) & (rows < first + len(block))
            out[here] = block[rows[here] - first]
            first += len(block)
        return out

    def searchable(self, site: Site) -> Packed:
        """Return one site's packed codes to be searched: rows that are read when a search asks for them.

        A single block is given as it is.
        """
        block = next(iter(self.blocks(site)), None)
        total = self.counts()[0]
        if block is None or len(block) == total:
            return self._whole(site) if block is None else block
        return StoredRows(partial(self.rows, site), (total, block.shape[1]))

    def __len__(self) -> int:
        return len(self.tokens)

    def __iter__(self) -> Iterator[Codes]:
        """Yield each prompt's codes: `codes[0]`, `codes[1]`, ... (`len` counts tokens)."""
        return (self[prompt] for prompt in range(len(self.ids)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the only site's codes as booleans, for `np.asarray`.

        Raises:
            PolytopeError: there are several sites.
            ValueError: `copy=False`: packed bits can't be given as booleans without a copy.

        """
        return as_array(self.bits, dtype, copy)

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
            raise PolytopeError(
                f"no codes of layer {layer}{f' and kind {kind!r}' if kind else ''} here; there are {what}"
            )
        raise PolytopeError(f"codes of several sites here ({what}): name one layer")

    def packed(self, layer: int | None = None, kind: str | None = None) -> UInt8[np.ndarray, "T B"]:
        """Return one site's packed codes, bit i of a row being `h_i > 0` (little bit order)."""
        return self._whole(self.site(layer, kind))

    def bits(self, layer: int | None = None, kind: str | None = None) -> Bool[np.ndarray, "T N"]:
        """Return one site's codes as booleans."""
        site = self.site(layer, kind)
        return hamming.unpack(self._whole(site), site.width)

    def to_numpy(self, layer: int | None = None, kind: str | None = None) -> Bool[np.ndarray, "T N"]:
        """Return one site's codes as booleans: the same as `bits`."""
        return self.bits(layer, kind)

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the token table."""
        return self.tokens.copy()

    def activations(self, name: str, layer: int | None = None, kind: str | None = None) -> Float[np.ndarray, "T W"]:
        """Return activations that were kept: `h`, `u`, `x`, `up` or `post`, as float32.

        Raises:
            PolytopeError: they were not kept; it says how to keep them.

        """
        site = self.site(layer, kind)
        if not self.can_give(name):
            raise self._not_kept(name, site)
        return np.asarray(self._whole(site, name).astype(np.float32, copy=False))

    def can_give(self, name: str) -> bool:
        """Whether `activations(name)` has something to give."""
        return name in self.kept

    def _not_kept(self, name: str, site: Site) -> PolytopeError:
        if name not in KEEPABLE:
            return PolytopeError(f"no activations {name!r}; choose among {', '.join(KEEPABLE)}")
        keep = [*self.kept, name]
        return PolytopeError(
            f"{site.key}: activations {name!r} were not kept (kept: {', '.join(self.kept) or 'none'}); capture again "
            f"with keep={keep} (--keep {','.join(keep)})"
        )

    def rates(self, layer: int | None = None, kind: str | None = None) -> Float[np.ndarray, " N"]:
        """Return each neuron's firing rate over the tokens."""
        site = self.site(layer, kind)
        return hamming.rates(self._whole(site), site.width)

    def context(self, row: int, chars: int = 40) -> tuple[str, str, str]:
        """Return the text left of a token, the token, and the text right of it."""
        return self.contexts([row], chars)[0]

    def contexts(self, rows: Sequence[int] | np.ndarray, chars: int = 40) -> list[tuple[str, str, str]]:
        """Return `context` of several tokens, each document's text being fetched once."""
        places = self.tokens[["document", "start", "end"]].iloc[np.asarray(rows)].to_numpy()
        texts = {number: self.texts[number] for number in dict.fromkeys(places[:, 0].tolist())}
        return [
            (texts[d][max(0, start - chars) : start], texts[d][start:end], texts[d][end : end + chars])
            for d, start, end in places.tolist()
        ]

    def __getitem__(self, key: Any) -> Any:
        """Index by prompt, token and layer: `codes[0]`, `codes[0, " bank"]`, `codes[0, " bank", 8]`.

        A prompt is a number or a slice. A token is its text (which must be unique in the prompt; with or
        without its space, or a whole word, of which the last token is meant), its position (negative counts
        from the last stored token), a slice or a list. A layer is a number, a list
        or a slice of the layers that there are. One token at one layer gives a `Code`; anything else gives
        `Codes`.

        Raises:
            PolytopeError: no such prompt, token or layer, or an ambiguous one; it says what is there.

        """
        keys = key if isinstance(key, tuple) else (key,)
        if not 1 <= len(keys) <= 3:
            raise PolytopeError(f"index {key!r}: at most [prompt, token, layer]")
        rows = _prompt_rows(self.tokens, len(self.ids), keys[0])
        if len(keys) > 1:
            rows = _token_rows(self.tokens, rows, keys[1], keys[0], self.texts)
        if len(keys) < 3:
            return self.select(rows)
        if _is_integer(keys[2]):
            site = self.site(int(keys[2]))
            one = isinstance(keys[1], str) or _is_integer(keys[1])
            return self.code(int(rows[0]), site.layer, site.name) if one else self.select(rows, (site,))
        return self.select(rows, _chosen_sites(self.sites, self.layers, keys[2]))

    def code(self, row: int, layer: int | None = None, kind: str | None = None) -> Code:
        """Return one token's code at one layer, with its context and kept activations."""
        site = self.site(layer, kind)
        rows = _chosen_rows(self.tokens, [row])
        kept = {name: self.rows(site, rows, name)[0] for name in self.kept}
        return Code(self.rows(site, rows)[0], site, self.context(int(row)), kept, (self, int(row)))

    def select(self, rows: Any, sites: Sequence[Site] | None = None) -> Codes:
        """Return some tokens and sites as `Codes` in memory.

        Args:
            rows: row numbers, a mask, or labels that must hold, such as `{"upos": "NOUN"}`.
            sites: some of the sites; by default all.

        """
        rows = _chosen_rows(self.tokens, rows)
        sites = self.sites if sites is None else tuple(sites)
        return Codes(
            sites=sites,
            table=self.tokens.iloc[rows].reset_index(drop=True),
            arrays={s.key: self.rows(s, rows) for s in sites},
            ids=self.ids,
            texts=self.texts,
            kept=self.kept,
            provenance=self.provenance,
            kept_arrays={f"{s.key}.{n}": self.rows(s, rows, n) for s in sites for n in self.kept},
            model=self.model,
        )

    def save(self, path: str | Path) -> None:
        """Write a store that `open_store` opens to these codes: bits, tokens, labels, texts, activations.

        Args:
            path: the store's directory, new or empty.

        Raises:
            PolytopeError: there is something at the path, or the codes' provenance is no plain data.

        """
        from polytope_lm.codes.store.writer import write_whole  # noqa: PLC0415 - memory: few codes are saved

        manifest = {
            **self.provenance,
            "sites": [site.to_dict() for site in self.sites],
            "keep": list(self.kept),
            "keep_dtype": "float32",
        }
        arrays = {site.key: self._whole(site) for site in self.sites}
        for site in self.sites:
            for name in self.kept:
                arrays[f"{site.key}.{name}"] = self._whole(site, name).astype(np.float32, copy=False)
        write_whole(expand(path), manifest, arrays, self.tokens, list(self.ids), list(self.texts))

    def to_dataset(self) -> datasets.Dataset:
        """Return a `datasets.Dataset`: the token table, and a column of packed bytes a site.

        Kept activations are columns too (`L02.pre.h`); sites, texts and provenance travel as JSON in its description.
        `plm.from_dataset` is the inverse, also after rows were selected or sorted.
        """
        import pyarrow as pa  # noqa: PLC0415 - memory: few codes are sent on
        from datasets import Dataset, DatasetInfo, Features  # noqa: PLC0415 - slow to import

        table = pa.Table.from_pandas(self.tokens, preserve_index=False).replace_schema_metadata(None)
        for name, (site, kept) in array_names(self.sites, self.kept).items():
            array = self._whole(site, kept)
            flat = pa.array(np.ascontiguousarray(array).reshape(-1))
            table = table.append_column(name, pa.FixedSizeListArray.from_arrays(flat, array.shape[1]))
        note = {
            "sites": [site.to_dict() for site in self.sites],
            "kept": list(self.kept),
            "ids": list(self.ids),
            "texts": list(self.texts),
            "provenance": dict(self.provenance),
        }
        description = json.dumps({DESCRIBED: note})
        return Dataset(table, DatasetInfo(description=description, features=Features.from_arrow_schema(table.schema)))

    def joined(self, layers: Sequence[int] | None = None, kind: str | None = None) -> TokenCodes:
        """Return multi-layer codes: one site with the codes of several layers side by side.

        Activations are side by side too, so that whatever takes a layer's codes takes them; see
        `JoinedCodes` for how controls treat them.

        Args:
            layers: which layers, by default all; the order is theirs in the network.
            kind: which code of each, where a layer has several.

        Raises:
            PolytopeError: no layer, one twice, one that is not there, or sites of different kinds or norms.

        """
        wanted = self.layers if layers is None else tuple(layers)
        if not wanted:
            raise PolytopeError("no layers to join; give two or more, such as joined([4, 8])")
        return JoinedCodes(self, [self.site(layer, kind) for layer in wanted])

    def hamming(self, a: Any, b: Any, layer: int | None = None) -> Int32[np.ndarray, "A B"]:
        """Return the Hamming distances between two groups of tokens (rows, masks or label conditions)."""
        site = self.site(layer)
        rows_a, rows_b = _chosen_rows(self.tokens, a), _chosen_rows(self.tokens, b)
        return hamming.distances(self.rows(site, rows_a), self.rows(site, rows_b))

    def knn(
        self, k: int = 10, layer: int | None = None, *, device: str | None = None, engine: str = "here", seed: int = 0
    ) -> Neighbours:
        """Return every token's k nearest tokens by Hamming distance, itself left out.

        Exact for fewer than 10^6 tokens, and for any number on a `device` such as `cuda` or with `engine="ray"`, where
        some thousand rows are a task. From 10^6 on, `ApproximateNeighbours`, whose recall is said on stderr.
        A store's shards are read part by part. `seed` draws the order that breaks ties, the same in each of these ways.

        Raises:
            PolytopeError: k out of range, several layers to choose from, an unknown engine or device.

        """
        if engine not in {"here", "ray"}:
            raise PolytopeError(f"engine {engine!r}: here or ray")
        if engine == "ray":
            from polytope_lm.codes.distributed import graph  # noqa: PLC0415 - an extra's

            return graph(partial(self.searchable, self.site(layer)), self.counts()[0], k, seed)
        packed = self.searchable(self.site(layer))
        if device is not None or len(packed) < EXACT_TOKENS:
            return hamming.nearest(packed, packed, k, exclude_self=True, device=device, seed=seed)
        from polytope_lm.codes.hamming.approximate import approximate_neighbours  # noqa: PLC0415 - seldom needed

        found = approximate_neighbours(packed, k, seed=seed)
        print(f"neighbours of {len(packed):,} tokens are approximate: {found.recall}", file=sys.stderr)
        return found

    def nearest(self, query: Code | int, k: int = 10, layer: int | None = None, *, seed: int = 0) -> Nearest:
        """Return the tokens nearest to one token by code and by direction, side by side, in context.

        Args:
            query: a `Code` of the same site, from these or other codes, or a row number of these.
            k: how many of each.
            layer: the layer; a `Code` brings its own.
            seed: of the order that breaks ties.

        Directions are centred per coordinate by the searched tokens' mean: without it, the layer's common
        direction makes every token similar to every other.

        Raises:
            PolytopeError: k out of range, a code of another site, or no tokens.

        """
        if not isinstance(query, Code):
            query = self.code(query, layer)
        row = query.origin[1] if query.origin is not None and query.origin[0] is self else None
        site = self.site(query.site.layer, query.site.name)
        if site.width != query.site.width:
            raise PolytopeError(
                f"a code of {query.site.width} bits can't be searched among the {site.width} of {site.key}"
            )
        if not _is_integer(k):
            raise PolytopeError(f"k = {k!r}: give a whole number")
        others = len(self) - (row is not None)
        if not 1 <= k <= others:
            raise PolytopeError(f"k = {k}: choose from 1 to {others}, the number of other tokens")
        one = query.packed[None]
        parts = [hamming.distances(one, np.ascontiguousarray(block))[0] for block in self.blocks(site)]
        near = np.concatenate(parts)
        frame = self._ranked(ranked(near, k, row, seed), "hamming", near)
        note = "by direction: cosine of pre-activations h, centred per coordinate"
        if not self.can_give("h"):
            note = "by direction: needs the pre-activations of these tokens; capture again with keep=['h'] (--keep h)"
            return Nearest(query, frame, None, note)
        if row is None and "h" not in query.activations:
            note = "by direction: needs the query's pre-activations; encode it with keep=('h',)"
            return Nearest(query, frame, None, note)
        h = query.activations["h"] if "h" in query.activations else self.rows(site, np.array([row]), "h")[0]
        cosine = cosines(h, lambda: self.blocks(site, "h"))
        by_direction = self._ranked(ranked(-cosine, k, row, seed), "cosine", cosine.round(4))
        return Nearest(query, frame, by_direction, note)

    def neighbourhoods(
        self, k: int = 10, layer: int | None = None, *, device: str | None = None, engine: str = "here", seed: int = 0
    ) -> Neighbourhoods:
        """Return every token's k nearest by code and by direction, how many they share, and their labels.

        Activations are read block by block, and `.frames()` gives the frame in parts: for stores of any size that
        `knn` takes. By direction as in `nearest`: cosine of centred pre-activations, which need `keep=['h']`. `seed`
        draws the order that breaks ties, one for both; `device` and `engine` are `knn`'s, for neighbours by code.

        Raises:
            PolytopeError: k out of range, or several layers to choose from.

        Examples:
            >>> import polytope_lm as plm
            >>> codes = plm.encode(plm.load("tiny-gpt2"), ["The loop ends", "The loop stops"], layers=1)
            >>> codes.neighbourhoods(k=2).to_frame()[["token", "tokens_by_code", "overlap"]].shape
            (11, 3)

        """
        from polytope_lm.codes.neighbourhoods import neighbourhoods  # noqa: PLC0415 - memory: a capture needs no table

        return neighbourhoods(self, k, layer, device=device, engine=engine, seed=seed)

    def neuron(self, layer: int | None, neuron: int, k: int = 10, *, around: int = 12) -> NeuronContexts:
        """Return a neuron's strongest contexts, every token shaded by its activation, its boundary marked.

        Args:
            layer: the layer; None where there is one.
            neuron: its index.
            k: how many contexts; no two share a token.
            around: tokens shown on each side, of those that are stored.

        Raises:
            PolytopeError: no such layer or neuron, or pre-activations that were not kept.

        Examples:
            >>> import polytope_lm as plm
            >>> codes = plm.encode(plm.load("tiny-gpt2"), ["The loop ends", "The loop stops"], layers=1)
            >>> bool(codes.neuron(1, 5, k=1).contexts[0].h == codes.activations("h")[:, 5].max())
            True

        """
        from polytope_lm.codes.neuron_contexts import neuron_contexts  # noqa: PLC0415 - memory, as above

        return neuron_contexts(self, layer, neuron, k, around)

    def _ranked(self, rows: np.ndarray, name: str, values: np.ndarray) -> pd.DataFrame:
        import pandas as pd  # noqa: PLC0415 - memory: a capture needs no table

        contexts = pd.DataFrame(self.contexts(rows), columns=["left", "token", "right"])
        return pd.concat([pd.DataFrame({name: values[rows], "row": rows}), contexts], axis=1)

    def separating(
        self, a: Any, b: Any, layer: int | None = None, *, alpha: float = 0.05, by_document: bool = True
    ) -> Separating:
        """Return the bits that tell two groups of tokens apart: log-odds, false-discovery rate, contexts.

        Args:
            a: rows, a mask, or labels that must hold, such as `{"upos": "NOUN"}`.
            b: the other group.
            layer: the layer, where there are several.
            alpha: the false-discovery rate.
            by_document: take documents as the test's units. Tokens of one document are not independent: taken
                as units (False), they make far too many bits significant.

        Raises:
            PolytopeError: an empty group, groups that overlap, or an alpha outside (0, 1).

        """
        from polytope_lm.codes.separating import separating  # noqa: PLC0415 - scipy.stats is large

        site = self.site(layer)
        rows_a, rows_b = _chosen_rows(self.tokens, a), _chosen_rows(self.tokens, b)
        documents = self.tokens["document"].to_numpy() if by_document else None
        found = separating(self._whole(site), site.width, rows_a, rows_b, alpha=alpha, documents=documents)
        return found.with_contexts(self.context)

    def selective(  # noqa: PLR0913 - settings, by name
        self, by: str, layer: int | None = None, *, alpha: float = 0.05, least: int = 4, ablate: bool = False,
        model: Model | None = None, most: int = 50, draws: int = 5, seed: int = 0, resamples: int = 1000,
    ) -> Selective:  # fmt: skip
        """Return the neurons that fire for one value of a label: LAPE's entropy, log-odds, false discoveries.

        Args:
            by: a label, or another column of the tokens.
            layer: the layer, where there are several.
            alpha: the false-discovery rate over all neurons and values, documents being the units.
            least: fewest documents of a value that is tested.
            ablate: also mean-ablate each value's neurons, and as many random ones of the same firing rates, and take
                the loss of the next token on each value's tokens.
            model: what captured a store, where it is not at hand (for `ablate`).
            most: neurons of a value that are ablated together, at most: the most telling.
            draws: of random neurons.
            seed: of every random choice.
            resamples: bootstrap resamples of the documents behind a change of loss.

        Raises:
            PolytopeError: no such label, fewer than two values in `least` documents; with `ablate` no model at hand,
                one without logits, or a site that is no MLP's gate.

        Examples:
            >>> import polytope_lm as plm
            >>> codes = plm.encode(plm.load("tiny-gpt2"), list(plm.documents("sample"))[:24], layers=1, keep=())
            >>> found = codes.selective("class")
            >>> [value.value for value in found.values]
            ['code', 'literal', 'prose']

        """
        from polytope_lm.codes.selecting import selective  # noqa: PLC0415 - scipy.stats is large

        options: dict[str, Any] = {
            "alpha": alpha, "least": least, "ablate": ablate, "most": most, "draws": draws, "seed": seed,
            "resamples": resamples,
        }  # fmt: skip
        found = selective(self, by, layer, model=model, **options)
        usual = {"alpha": 0.05, "least": 4, "ablate": False, "most": 50, "draws": 5, "seed": 0, "resamples": 1000}
        given = "".join(f", {name}={value!r}" for name, value in options.items() if value != usual[name])
        made = str(getattr(self, "command", "")) or "codes"
        return replace(found, command=f"{made}.selective({by!r}, {found.site.layer}{given})")

    def counts(self) -> tuple[int, int]:
        """Return the numbers of tokens and documents."""
        return len(self), len(self.ids)

    def __repr__(self) -> str:
        sites = ", ".join(f"{visible(s.key)} ({s.width} bits)" for s in self.sites[:4]) + (
            ", …" if len(self.sites) > 4 else ""
        )
        kept = f"; kept {', '.join(self.kept)}" if self.kept else ""
        tokens, documents = self.counts()
        return (
            f"{type(self).__name__}: {tokens:,} tokens of {documents:,} documents; {sites}{kept}; "
            f"{visible(self.provenance.get('model', ''))}"
        )

    def _repr_html_(self) -> str:
        head = html.escape(repr(self))
        return f"<p>{head}</p>{visible_frame(self.tokens.head(10)).to_html(escape=True, index=False)}"


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
    model: Model | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model behind: codes are sent to other processes without its weights."""
        return {**self.__dict__, "model": None}

    @property
    def tokens(self) -> pd.DataFrame:
        """The token table."""
        return self.table

    def blocks(self, site: Site, name: str | None = None) -> Iterator[np.ndarray]:
        """Yield the one block that there is."""
        yield self.arrays[site.key] if name is None else self.kept_arrays[f"{site.key}.{name}"]

    def __xor__(self, other: object) -> Differences:
        """Compare row by row with other codes of the same sites.

        Raises:
            PolytopeError: other numbers of tokens, or other sites.

        """
        if not isinstance(other, Codes):
            return NotImplemented
        if len(self) != len(other):
            raise PolytopeError(f"^ compares row by row, and there are {len(self)} and {len(other)} tokens")
        if [(s.key, s.width) for s in self.sites] != [(s.key, s.width) for s in other.sites]:
            keys = [", ".join(s.key for s in codes.sites) for codes in (self, other)]
            raise PolytopeError(f"codes of different sites can't be compared: {keys[0]} and {keys[1]}")
        pairs = {s.key: self._whole(s) ^ other._whole(s) for s in self.sites}
        return Differences(
            {key: np.bitwise_count(bits).sum(1, dtype=np.int32) for key, bits in pairs.items()}, self.sites
        )


class JoinedCodes(TokenCodes):
    """Codes whose only site is several layers' side by side; nothing is copied before it is read.

    Two tokens have the same joined code if they lie in the same polytope of *every* layer; the Hamming
    distance is the sum of the layers' distances. Activations `h`, `u`, `x`, `up` and `post` are concatenated
    alike, so every representation and control takes joined codes as it takes a layer's.

    What is fair between layers: random controls keep the network's own structure. Each layer's hyperplanes
    (or rotation) act on that layer's `u` (or `h`) alone and match that layer's firing rates: hyperplanes
    across layers would see what no neuron sees. The cosines are of the joined vector that was binarised, in
    which a layer with longer `h` counts more, while its bits do not; compare with the layers on their own
    before a joined lead is read as one of codes.

    Attributes:
        source: the codes that they are made of.

    """

    def __init__(self, source: TokenCodes, sites: Sequence[Site]) -> None:
        self.source = source
        self.sites = (join(sites),)
        self.kept = source.kept
        self.model = source.model

    @property
    def tokens(self) -> pd.DataFrame:
        """The token table."""
        return self.source.tokens

    @cached_property
    def ids(self) -> Sequence[str]:  # type: ignore[override]
        """The documents' identifiers."""
        return self.source.ids

    @cached_property
    def texts(self) -> Sequence[str]:  # type: ignore[override]
        """The documents' texts, by the document's index."""
        return self.source.texts

    @cached_property
    def provenance(self) -> Mapping[str, Any]:  # type: ignore[override]
        """Model, revision, dtype, rules, versions."""
        return self.source.provenance

    def counts(self) -> tuple[int, int]:
        """Return the numbers of tokens and documents."""
        return self.source.counts()

    def can_give(self, name: str) -> bool:
        """Whether `activations(name)` has something to give."""
        return self.source.can_give(name)

    def blocks(self, site: Site, name: str | None = None) -> Iterator[np.ndarray]:
        """Yield one array block by block, the layers side by side."""
        parts = site.components
        for blocks in zip(*(self.source.blocks(part, name) for part in parts), strict=True):
            yield _beside(blocks, parts, name)

    def rows(self, site: Site, rows: Int64[np.ndarray, " R"], name: str | None = None) -> np.ndarray:
        """Return some rows of one array, reading no others."""
        parts = site.components
        return _beside([self.source.rows(part, rows, name) for part in parts], parts, name)


def _beside(arrays: Sequence[np.ndarray], parts: Sequence[Site], name: str | None) -> np.ndarray:
    if name is None:
        return hamming.beside(arrays, [part.width for part in parts])
    return np.concatenate(arrays, axis=1)


def _is_integer(key: Any) -> bool:
    """Whether a key is a whole number, and not a truth value."""
    return isinstance(key, (int, np.integer)) and not isinstance(key, bool)


def _prompt_rows(tokens: pd.DataFrame, n_prompts: int, key: Any) -> Int64[np.ndarray, " R"]:
    """Return the rows of one prompt (negative counts from the end) or of a slice of prompts."""
    documents = tokens["document"].to_numpy()
    if isinstance(key, slice):
        return np.flatnonzero(np.isin(documents, np.arange(n_prompts)[key]))
    if not _is_integer(key) or not -n_prompts <= key < n_prompts:
        raise PolytopeError(f"no prompt {key!r}: there are {n_prompts}, from 0 to {n_prompts - 1}")
    return np.flatnonzero(documents == key % n_prompts)


def _token_rows(
    tokens: pd.DataFrame, rows: Int64[np.ndarray, " R"], key: Any, prompt: Any, texts: Sequence[str]
) -> Int64[np.ndarray, " K"]:
    """Return the rows, among one prompt's, that a token key names."""
    if isinstance(key, slice):
        return rows[key]
    if isinstance(key, (list, np.ndarray)):
        return np.concatenate([rows[:0], *(_token_rows(tokens, rows, k, prompt, texts) for k in key)])
    if _is_integer(key):
        return _at_position(tokens["position"].to_numpy()[rows], rows, int(key), prompt)
    there = tokens["token"].iloc[rows].tolist()
    hits = [i for i, text in enumerate(there) if text == key]
    if not hits:
        hits = [i for i, text in enumerate(there) if text.strip() == str(key).strip()]
    if not hits:  # a word of several tokens: its last one, at which the model has read all of it
        word = re.compile(rf"(?<!\w){re.escape(str(key).strip() or ' ')}(?!\w)")
        places = tokens[["document", "end"]].iloc[rows].to_numpy()
        ends = {(d, m.end()) for d in np.unique(places[:, 0]) for m in word.finditer(texts[d])}
        hits = [i for i, place in enumerate(places) if tuple(place) in ends]
    if len(hits) == 1:
        return rows[hits]
    if hits:
        where = ", ".join(map(str, tokens["position"].to_numpy()[rows][hits]))
        raise PolytopeError(
            f"token {key!r} is {len(hits)} times in prompt {prompt}, at positions {where}: index by position"
        )
    shown = " ".join(map(repr, there[:_SHOWN])) + (f" … ({len(there)} in all)" if len(there) > _SHOWN else "")
    raise PolytopeError(f"no token {key!r} in prompt {prompt}; its stored tokens are {shown}")


def _at_position(
    positions: Int64[np.ndarray, " R"], rows: Int64[np.ndarray, " R"], key: int, prompt: Any
) -> Int64[np.ndarray, " K"]:
    hit = rows[positions == key] if key >= 0 else rows[[key]] if -key <= len(rows) else rows[:0]
    if len(hit):
        return hit
    there = f"stored are {len(rows)}, from {positions.min()} to {positions.max()}" if len(rows) else "none is stored"
    raise PolytopeError(f"no token at position {key} of prompt {prompt}; {there}")


def _chosen_sites(sites: Sequence[Site], layers: Sequence[int], key: Any) -> tuple[Site, ...]:
    """Return the sites that a layer key names: one layer, a list, or a slice of those that there are."""
    wanted = list(layers)[key] if isinstance(key, slice) else key
    if isinstance(wanted, str) or not isinstance(wanted, (Sequence, np.ndarray)):
        raise PolytopeError(f"no layer {wanted!r} here; there are {', '.join(map(str, layers))}")
    for layer in wanted:
        if layer not in layers:
            raise PolytopeError(f"no codes of layer {layer!r} here; there are {', '.join(map(str, layers))}")
    return tuple(site for site in sites if site.layer in wanted)


def _chosen_rows(tokens: pd.DataFrame, rows: Any) -> Int64[np.ndarray, " R"]:
    """Return row numbers from numbers, a mask, or labels that must hold, such as `{"upos": "NOUN"}`."""
    n = len(tokens)
    if isinstance(rows, Mapping):
        for label in rows:
            if label not in tokens:
                raise PolytopeError(f"no label {label!r} here; there are {', '.join(tokens.columns)}")
        matches = [(tokens[label] == value).to_numpy(dtype=bool, na_value=False) for label, value in rows.items()]
        return np.flatnonzero(np.logical_and.reduce([np.ones(n, bool), *matches]))
    numbers = np.atleast_1d(np.asarray(rows))
    if numbers.dtype == bool:
        if numbers.shape != (n,):
            raise PolytopeError(f"a mask of {numbers.size} for {n} tokens")
        return np.flatnonzero(numbers)
    if not numbers.size:
        return np.empty(0, np.int64)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise PolytopeError(f"rows of type {numbers.dtype} and shape {numbers.shape}: give row numbers or a mask")
    outside = numbers[(numbers < 0) | (numbers >= n)]
    if len(outside):
        raise PolytopeError(f"no token {outside[0]}: there are {n}, from 0 to {n - 1}")
    return numbers.astype(np.int64)
