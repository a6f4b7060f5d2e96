"""Documents cut into windows: every stored token is in exactly one, with the promised context.

Batches of windows by length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.tokens.alignment import Marks
from polytope_lm.tokens.rules import SampleRule, parse_rule
from polytope_lm.tokens.tokenising import specials, tokenise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Int64

    from polytope_lm.documents import Document
    from polytope_lm.tokens.tokenising import Specials, Tokenised, Tokenizer


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of one document as the model reads it, and the tokens of it that are stored.

    Attributes:
        input_ids: [S] what the model reads, special tokens included.
        keep: [K] indices into `input_ids` of the stored tokens.
        document: index of the document in input order.
        token_id: [K] vocabulary index.
        position: [K] index in the document's own tokenisation (special tokens not counted, whatever the
            window).
        start: [K] first character in the document's text.
        end: [K] one past the last character.
        labels: label name to [K] values, those of words and regions only.

    """

    input_ids: Int64[np.ndarray, " S"]
    keep: Int64[np.ndarray, " K"]
    document: int
    token_id: Int64[np.ndarray, " K"]
    position: Int64[np.ndarray, " K"]
    start: Int64[np.ndarray, " K"]
    end: Int64[np.ndarray, " K"]
    labels: dict[str, list[str | None]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Windowed:
    """Windows of many documents and what became of these.

    Attributes:
        windows: in order of document and position.
        n_tokens: tokens of the documents, special ones not counted.
        n_kept: tokens that are stored.
        n_without: documents of which nothing is stored (too short for an `every` rule, no word, no token).

    """

    windows: tuple[Window, ...]
    n_tokens: int
    n_kept: int
    n_without: int


@dataclass(frozen=True)
class Windowing:
    """How documents become windows.

    Attributes:
        rule: which tokens are stored.
        context_length: most tokens of a window, special ones included.
        min_context: a stored token has at least so many tokens of its document before it in its window, or
            all there are; for a model that reads both ways (`causal=False`) after it too.
        bos: see `specials`.
        all_pieces: a word's label on all its tokens.
        seed: of the rule "random", at least 0.
        labels: which labels of spans to read; None: all that a document's spans have.
        causal: whether the model reads the left context only.

    """

    rule: SampleRule
    context_length: int
    min_context: int
    bos: bool | None = None
    all_pieces: bool = False
    seed: int = 0
    labels: tuple[str, ...] | None = None
    causal: bool = True

    def apply(self, documents: Sequence[Document], first: int, tokenizer: Tokenizer) -> Windowed:
        """Cut documents into windows, tokenised in one call; every stored token is in exactly one window.

        Windows that store nothing are left out, so they cost no forward pass.

        Args:
            documents: a stretch of the collection.
            first: index of the first of them in the collection.
            tokenizer: a fast tokenizer.

        Raises:
            PolytopeError: the context has no room for `min_context` and one token more; a negative seed.

        """
        around = specials(tokenizer, self.bos)
        room = self._room(around)
        found: list[Window] = []
        n_tokens = n_without = 0
        for index, tokens in enumerate(tokenise([document.text for document in documents], tokenizer)):
            cut = list(self._windows(documents[index], first + index, tokens, around, room))
            found += cut
            n_tokens += len(tokens.ids)
            n_without += not cut
        return Windowed(tuple(found), n_tokens, sum(len(window.keep) for window in found), n_without)

    def _room(self, around: Specials) -> int:
        """Tokens of the document that fit into one window."""
        n_special = len(around.prefix) + len(around.suffix)
        room = self.context_length - n_special
        sides = 1 if self.causal else 2
        if self.min_context < 0 or sides * self.min_context >= room:
            raise PolytopeError(
                f"min_context={self.min_context} leaves no room in a context of {self.context_length} tokens "
                f"({n_special} special, {sides} side{'s'[: sides - 1]}); "
                f"choose from 0 to {max((room - 1) // sides, 0)}"
            )
        if self.seed < 0:
            raise PolytopeError(f"seed={self.seed} is negative; seeds start at 0")
        return room

    def _windows(
        self, document: Document, index: int, tokens: Tokenised, around: Specials, room: int
    ) -> Iterator[Window]:
        marks = Marks.of(document, tokens, words=self.rule.kind == "word-final")
        before, after = np.array(around.prefix, np.int64), np.array(around.suffix, np.int64)
        candidates = np.flatnonzero(~tokens.special)
        kept = self.rule.choose(candidates, marks.final[candidates], document.id, self.seed)
        for start, stop, low, high in self._cuts(len(tokens.ids), room):
            here = kept[np.searchsorted(kept, low) : np.searchsorted(kept, high)]
            if not len(here):
                continue
            yield Window(
                input_ids=np.concatenate([before, tokens.ids[start:stop], after]),
                keep=here - start + len(around.prefix),
                document=index,
                token_id=tokens.ids[here],
                position=here,
                start=tokens.starts[here],
                end=tokens.ends[here],
                labels=marks.labels(here, self.labels, all_pieces=self.all_pieces),
            )

    def _cuts(self, n: int, room: int) -> Iterator[tuple[int, int, int, int]]:
        """Windows of n tokens: read from, to; store from, to."""
        after = 0 if self.causal else self.min_context
        start = low = 0
        while low < n:
            stop = min(start + room, n)
            high = n if stop == n else stop - after
            yield start, stop, low, high
            start, low = high - self.min_context, high


def windows(  # noqa: PLR0913 - the settings of `Windowing`, by name
    document: Document,
    index: int,
    tokenizer: Tokenizer,
    *,
    rule: SampleRule | str,
    context_length: int,
    min_context: int,
    bos: bool | None = None,
    all_pieces: bool = False,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    causal: bool = True,
) -> list[Window]:
    """Cut one document into windows: `Windowing(...).apply([document], index, tokenizer)`, which see."""
    chosen = parse_rule(rule) if isinstance(rule, str) else rule
    names = None if labels is None else tuple(labels)
    how = Windowing(chosen, context_length, min_context, bos, all_pieces, seed, names, causal)
    return list(how.apply([document], index, tokenizer).windows)


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows padded on the right to one length.

    Attributes:
        input_ids: [B, S].
        attention_mask: [B, S], 1 where a token is, 0 where padding is.
        windows: the B windows, in order of row.

    """

    input_ids: Int64[np.ndarray, "B S"]
    attention_mask: Int64[np.ndarray, "B S"]
    windows: tuple[Window, ...]


def batches(windows: Sequence[Window], *, token_budget: int, pad_id: int) -> Iterator[Batch]:
    """Batches of windows of like length: sorted by length (ties in the order given), padded on the right.

    Args:
        windows: what to read; nothing outside this list has an influence.
        token_budget: most rows times columns of a batch; a longer window is a batch by itself.
        pad_id: what fills up; it is masked, so any id of the vocabulary will do.

    Raises:
        PolytopeError: a budget below 1.

    """
    if token_budget < 1:
        raise PolytopeError(
            f"token_budget={token_budget} is below 1; give the tokens that one batch may have"
        )
    rows: list[Window] = []
    for window in sorted(windows, key=lambda window: len(window.input_ids)):
        if rows and (len(rows) + 1) * len(window.input_ids) > token_budget:
            yield _pad(rows, pad_id)
            rows = []
        rows.append(window)
    if rows:
        yield _pad(rows, pad_id)


def _pad(rows: Sequence[Window], pad_id: int) -> Batch:
    shape = (len(rows), len(rows[-1].input_ids))
    ids, mask = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, window in enumerate(rows):
        ids[row, : len(window.input_ids)] = window.input_ids
        mask[row, : len(window.input_ids)] = 1
    return Batch(ids, mask, tuple(rows))
