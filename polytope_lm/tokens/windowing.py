"""Which tokens of a document are stored; windows with the promised context; batches of windows by length."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.tokens.alignment import Marks
from polytope_lm.tokens.tokenising import specials, tokenise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Bool, Int64

    from polytope_lm.documents import Document
    from polytope_lm.tokens.tokenising import Specials, Tokenised, Tokenizer

_DRAWN = re.compile(r"every:(\d+)(?:,skip:(\d+))?|random:(\d+)")


@dataclass(frozen=True)
class SampleRule:
    """Which tokens of a document are stored. `str()` gives the text that `parse_rule` reads.

    Attributes:
        kind: "all"; "word-final" (the last token of each word: of the document's word spans where it has any, else of
            what white space divides); "every" (`count` tokens evenly spaced from `skip` to the end; a shorter document
            gives none); "random" (`count` without replacement, fewer where there are fewer).
        count: tokens of a document ("every", "random").
        skip: tokens at the document's start that are left out ("every").

    """

    kind: Literal["all", "word-final", "every", "random"]
    count: int = 0
    skip: int = 0

    def __str__(self) -> str:
        if self.kind == "every":
            return f"every:{self.count},skip:{self.skip}" if self.skip else f"every:{self.count}"
        return f"random:{self.count}" if self.kind == "random" else self.kind

    def choose(
        self, candidates: Int64[np.ndarray, " n"], final: Bool[np.ndarray, " n"], document_id: str, seed: int
    ) -> Int64[np.ndarray, " K"]:
        """Choose positions to store, ascending, among the candidates; `final`: the last of a word's tokens.

        The document's id and `seed` seed "random", so that a draw does not depend on the documents around it.
        """
        n = len(candidates)
        places: Int64[np.ndarray, " K"] = np.arange(n)
        if self.kind == "word-final":
            places = np.flatnonzero(final)
        elif self.kind == "every":
            span = n - self.skip
            steps = np.arange(self.count if span >= self.count else 0)
            places = self.skip + steps * (span - 1) // max(self.count - 1, 1)
        elif self.kind == "random" and n > self.count:
            digest = hashlib.sha256(document_id.encode(errors="surrogatepass")).digest()
            rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
            places = np.sort(rng.choice(n, self.count, replace=False))
        chosen: Int64[np.ndarray, " K"] = candidates[places]
        return chosen


def parse_rule(text: str) -> SampleRule:
    """Read a sample rule: `all`, `word-final`, `every:6,skip:100` or `random:80`."""
    if text in {"all", "word-final"}:
        return SampleRule("all" if text == "all" else "word-final")
    match = _DRAWN.fullmatch(text)
    if match is None or int(match[1] or match[3]) < 1:
        raise PolytopeError(f"tokens={text!r} is no sample rule; write all, word-final, every:6,skip:100 or random:80")
    return SampleRule("every", int(match[1]), int(match[2] or 0)) if match[1] else SampleRule("random", int(match[3]))


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of one document as the model reads it, and the tokens of it that are stored.

    Attributes:
        input_ids: what the model reads, special tokens included.
        keep: indices into `input_ids` of the stored tokens.
        document: index of the document in input order.
        position: index in the document's own tokenisation (special tokens not counted, whatever the window).
        start: first character in the document's text.
        end: one past the last character.
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
    """Windows of many documents, in order of document and position, and what became of these.

    Attributes:
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
        min_context: a stored token has at least so many tokens of its document before it in its window, or all there
            are; for a model that reads both ways (`causal=False`) after it too.
        bos: see `specials`.
        all_pieces: a word's label on all its tokens.
        seed: of the rule "random", at least 0.
        labels: which labels of spans to read; None: all that a document's spans have.

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

        `first` is the collection's index of the first of them. Windows that store nothing are left out: no forward
        pass.
        """
        around = specials(tokenizer, self.bos)
        n_special, sides = len(around.prefix) + len(around.suffix), 1 if self.causal else 2
        room = self.context_length - n_special
        if self.min_context < 0 or sides * self.min_context >= room:
            raise PolytopeError(
                f"min_context={self.min_context} leaves no room in a context of {self.context_length} tokens "
                f"({n_special} special, {sides} side{'s'[: sides - 1]}); choose from 0 to {max((room - 1) // sides, 0)}"
            )
        if self.seed < 0:
            raise PolytopeError(f"seed={self.seed} is negative; seeds start at 0")
        found: list[Window] = []
        n_tokens = n_without = 0
        for index, tokens in enumerate(tokenise([document.text for document in documents], tokenizer)):
            cut = list(self._windows(documents[index], first + index, tokens, around, room))
            found += cut
            n_tokens += len(tokens.ids)
            n_without += not cut
        return Windowed(tuple(found), n_tokens, sum(len(window.keep) for window in found), n_without)

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


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows, one a row, padded on the right to one length; the mask is 1 where a token is."""

    input_ids: Int64[np.ndarray, "B S"]
    attention_mask: Int64[np.ndarray, "B S"]
    windows: tuple[Window, ...]


def batches(windows: Sequence[Window], *, token_budget: int, pad_id: int) -> Iterator[Batch]:
    """Batches of windows of like length: sorted by length (ties in the order given), padded on the right.

    A batch has at most `token_budget` rows times columns; a longer window is a batch by itself. Padding is masked, so
    any id of the vocabulary will do.
    """
    if token_budget < 1:
        raise PolytopeError(f"token_budget={token_budget} is below 1; give the tokens that one batch may have")
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
