"""Labels reach tokens by character offset."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Int64

    from polytope_lm.documents import Document, Span
    from polytope_lm.tokens.tokenising import Tokenised

_WORD = re.compile(r"\S+")


def align(
    starts: Int64[np.ndarray, " n"],
    ends: Int64[np.ndarray, " n"],
    span_starts: Int64[np.ndarray, " S"],
    span_ends: Int64[np.ndarray, " S"],
) -> Int64[np.ndarray, " n"]:
    """Find the span that shares most characters with each token, ties to the first; -1 where none shares any.

    Spans are sorted and do not overlap, so a token meets a run of them: from the first that ends after its start to the
    last that starts before its end. Cost: two binary searches a token, and one pass for each span of the longest run.
    """
    first = np.searchsorted(span_ends, starts, side="right")
    last = np.searchsorted(span_starts, ends, side="left") - 1
    owner = np.full(len(starts), -1, dtype=np.int64)
    most = np.zeros(len(starts), dtype=np.int64)
    for step in range(int((last - first).max(initial=-1)) + 1):
        rows = np.flatnonzero(first + step <= last)
        span = first[rows] + step
        shared = np.minimum(ends[rows], span_ends[span]) - np.maximum(starts[rows], span_starts[span])
        better = shared > most[rows]
        owner[rows[better]] = span[better]
        most[rows[better]] = shared[better]
    return owner


def last_of_each(owner: Int64[np.ndarray, " n"], n_spans: int) -> Bool[np.ndarray, " n"]:
    """Whether a token is the last of those that belong to its span."""
    last = np.full(n_spans, -1, dtype=np.int64)
    rows = np.flatnonzero(owner >= 0)
    last[owner[rows]] = rows  # of repeated indices numpy keeps the last
    final = np.zeros(len(owner), dtype=np.bool_)
    final[last[last >= 0]] = True
    return final


@dataclass(frozen=True, eq=False)
class Marks:
    """Whose tokens a document's tokens are."""

    words: tuple[Span, ...]
    regions: tuple[Span, ...]
    word_of: Int64[np.ndarray, " n"]
    region_of: Int64[np.ndarray, " n"]
    final: Bool[np.ndarray, " n"]

    @classmethod
    def of(cls, document: Document, tokens: Tokenised, *, words: bool) -> Marks:
        """Align; `words`: fall back on what white space divides where the document has no word spans."""
        nobody = np.full(len(tokens.ids), -1, dtype=np.int64)
        word_spans, region_spans = document.words, document.regions
        if not (word_spans or region_spans or words):
            return cls((), (), nobody, nobody, nobody >= 0)
        found = chain.from_iterable(match.span() for match in _WORD.finditer(document.text))
        bounds = np.fromiter(found, dtype=np.int64).reshape(-1, 2)
        starts = _past_leading_space(tokens, bounds)
        word_of, n_words = nobody, len(word_spans)
        if word_spans:
            word_of = align(starts, tokens.ends, *_bounds(word_spans))
        elif words:
            word_of, n_words = align(starts, tokens.ends, bounds[:, 0], bounds[:, 1]), len(bounds)
        region_of = align(starts, tokens.ends, *_bounds(region_spans)) if region_spans else nobody
        return cls(word_spans, region_spans, word_of, region_of, last_of_each(word_of, n_words))

    def labels(
        self, rows: Int64[np.ndarray, " K"], names: tuple[str, ...] | None, *, all_pieces: bool
    ) -> dict[str, list[str | None]]:
        """Look up each label for some tokens; where a word and its region both have it, the word's counts."""
        if names is None:
            names = tuple(dict.fromkeys(name for span in (*self.words, *self.regions) for name in span.labels))
        word_rows = self.word_of[rows] if all_pieces else np.where(self.final[rows], self.word_of[rows], -1)
        if not self.words:  # white-space words have no labels
            word_rows = np.full(len(rows), -1, dtype=np.int64)
        none: dict[str, str] = {}
        of_word = [self.words[i].labels if i >= 0 else none for i in word_rows.tolist()]
        of_region = [self.regions[i].labels if i >= 0 else none for i in self.region_of[rows].tolist()]
        return {name: [w.get(name, r.get(name)) for w, r in zip(of_word, of_region, strict=True)] for name in names}


def _bounds(spans: Sequence[Span]) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " S"]]:
    found = np.array([(span.start, span.end) for span in spans], dtype=np.int64)
    return found[:, 0], found[:, 1]


def _past_leading_space(tokens: Tokenised, words: Int64[np.ndarray, "W 2"]) -> Int64[np.ndarray, " n"]:
    """Move starts of tokens past white space, but for tokens that are nothing else."""
    ends = np.append(words[:, 1], np.iinfo(np.int64).max)
    starts = np.append(words[:, 0], np.iinfo(np.int64).max)
    moved = np.maximum(tokens.starts, starts[np.searchsorted(ends, tokens.starts, side="right")])
    return np.where(moved < tokens.ends, moved, tokens.starts)
