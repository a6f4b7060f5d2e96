"""Tokens: what a model reads of a document, which of it is stored, and which label each stored token has.

Rules, all by character offset:

- A token belongs to the span (word, region) with which it has most characters in common, ties to the first; white space
  at the token's start is not counted, unless the token is nothing else. A token with no character of a span has none.
- A word's label goes to the LAST of its tokens (`all_pieces=True`: to all of them); a region's to every token.
  A word inside a token that belongs to another word has no token, hence no row.
- Byte-level tokens that are parts of one character (an emoji's four bytes) all have that character's offsets: each has
  the whole character in common with a span, and the last of them is the one that stands for the word's end.
- What looks like a special token in a document (`<|endoftext|>`) is text and is tokenised as text. Where a vocabulary
  makes it the special token all the same, it is read and never stored.
- Special tokens that the tokenizer adds are read, never stored. An unknown-word token stands for text and is stored.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Bool, Int64

    from polytope_lm.documents import Document, Span

_WORD = re.compile(r"\S+")
_EVERY = re.compile(r"every:(\d+)(?:,skip:(\d+))?")
_RANDOM = re.compile(r"random:(\d+)")


class Tokenizer(Protocol):
    """What is used of a transformers fast tokenizer."""

    is_fast: bool
    name_or_path: str
    all_special_ids: list[int]
    unk_token_id: int | None
    bos_token_id: int | None
    cls_token_id: int | None

    def __call__(self, text: list[str], **options: Any) -> Any:  # noqa: D102
        ...


@dataclass(frozen=True)
class SampleRule:
    """Which tokens of a document are stored. `str()` gives the text that `parse_rule` reads.

    Attributes:
        kind: "all"; "word-final" (the last token of each word: of the document's word spans where it has any, else
            of what white space divides); "every" (`count` tokens evenly spaced from `skip` to the end; a shorter
            document gives none); "random" (`count` without replacement, fewer where there are fewer).
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
        """Positions to store, ascending.

        Args:
            candidates: positions that may be stored, ascending.
            final: whether each candidate is the last token of a word.
            document_id: with `seed` it seeds "random", so that a draw does not depend on the documents around it.
            seed: at least 0.

        """
        if self.kind == "word-final":
            return candidates[final]
        if self.kind == "every":
            span = len(candidates) - self.skip
            if span < self.count:
                return candidates[:0]
            return candidates[self.skip + np.arange(self.count) * (span - 1) // max(self.count - 1, 1)]
        if self.kind == "random" and len(candidates) > self.count:
            digest = hashlib.sha256(document_id.encode(errors="surrogatepass")).digest()
            rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
            return candidates[np.sort(rng.choice(len(candidates), self.count, replace=False))]
        return candidates


def parse_rule(text: str) -> SampleRule:
    """Read a sample rule: `all`, `word-final`, `every:6,skip:100` or `random:80`.

    Raises:
        PolytopeError: anything else, or a count of 0.

    """
    if text in {"all", "word-final"}:
        return SampleRule("all" if text == "all" else "word-final")
    rule = None
    if match := _EVERY.fullmatch(text):
        rule = SampleRule("every", int(match[1]), int(match[2] or 0))
    elif match := _RANDOM.fullmatch(text):
        rule = SampleRule("random", int(match[1]))
    if rule is None or rule.count < 1:
        msg = f"tokens={text!r} is no sample rule; write all, word-final, every:6,skip:100 or random:80"
        raise PolytopeError(msg)
    return rule


@dataclass(frozen=True)
class Specials:
    """Token ids that go before and after a window."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]


def specials(tokenizer: Tokenizer, bos: bool | None = None) -> Specials:
    """Special tokens around a text: as the tokenizer adds them by itself, unless `bos` says otherwise.

    Args:
        tokenizer: a fast tokenizer.
        bos: None: as it does by itself (GPT-2: none; Gemma: BOS; BERT: [CLS] and [SEP]). True: the same, with BOS
            before it where there is none yet. False: no special token at all.

    Raises:
        PolytopeError: `bos=True` for a tokenizer that has no BOS token.

    """
    if bos is False:
        return Specials((), ())
    plain, full = (
        list(tokenizer(["a"], add_special_tokens=added)["input_ids"][0]) for added in (False, True)
    )
    before = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)
    prefix, suffix = tuple(full[:before]), tuple(full[before + len(plain) :])
    if bos:
        begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
        if begin is None:
            msg = f"bos=True: tokenizer {tokenizer.name_or_path!r} has no BOS token; leave bos out, or set its bos_token"
            raise PolytopeError(msg)
        prefix = prefix if begin in prefix else (begin, *prefix)
    return Specials(prefix, suffix)


@dataclass(frozen=True, eq=False)
class Tokenised:
    """A text's tokens without the tokenizer's additions: ids, character offsets, which are special all the same."""

    ids: Int64[np.ndarray, " n"]
    starts: Int64[np.ndarray, " n"]
    ends: Int64[np.ndarray, " n"]
    special: Bool[np.ndarray, " n"]


def tokenise(texts: Sequence[str], tokenizer: Tokenizer) -> list[Tokenised]:
    """Tokenise many texts in one call, whole, with offsets.

    Raises:
        PolytopeError: a slow tokenizer, which has no offsets.

    """
    if not tokenizer.is_fast:
        msg = f"tokenizer {tokenizer.name_or_path!r} gives no character offsets; load its fast version"
        raise PolytopeError(msg)
    if not texts:
        return []
    found = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        split_special_tokens=True,
        truncation=False,
        padding=False,
        verbose=False,
    )
    never = np.array([i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id], dtype=np.int64)
    out = []
    for row, pairs in zip(found["input_ids"], found["offset_mapping"], strict=True):
        ids = np.array(row, dtype=np.int64)
        offsets = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        out.append(Tokenised(ids, offsets[:, 0], offsets[:, 1], np.isin(ids, never)))
    return out


def align(
    starts: Int64[np.ndarray, " n"],
    ends: Int64[np.ndarray, " n"],
    span_starts: Int64[np.ndarray, " S"],
    span_ends: Int64[np.ndarray, " S"],
) -> Int64[np.ndarray, " n"]:
    """Index of the span that shares most characters with each token, ties to the first; -1 where none shares any.

    Spans are sorted and do not overlap, so a token meets a run of them: from the first that ends after its start to
    the last that starts before its end. Cost: two binary searches a token, and one pass for each span of the longest run.
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
class Window:
    """A stretch of one document as the model reads it, and the tokens of it that are stored.

    Attributes:
        input_ids: [S] what the model reads, special tokens included.
        keep: [K] indices into `input_ids` of the stored tokens.
        document: index of the document in input order.
        token_id: [K] vocabulary index.
        position: [K] index in the document's own tokenisation (special tokens not counted, whatever the window).
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
        min_context: a stored token has at least so many tokens of its document before it in its window, or all there
            are; for a model that reads both ways (`causal=False`) after it too.
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
        room = self.context_length - len(around.prefix) - len(around.suffix)
        borders = self.min_context if self.causal else 2 * self.min_context
        if self.min_context < 0 or borders >= room:
            sides = "" if self.causal else " on both sides"
            msg = (
                f"min_context={self.min_context}{sides} leaves no room in a context of {self.context_length} tokens"
                f" ({self.context_length - room} of them special); choose from 0 to "
                f"{max((room - 1) // (1 if self.causal else 2), 0)}"
            )
            raise PolytopeError(msg)
        if self.seed < 0:
            msg = f"seed={self.seed} is negative; seeds start at 0"
            raise PolytopeError(msg)
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
        marks = _Marks.of(document, tokens, words=self.rule.kind == "word-final")
        candidates = np.flatnonzero(~tokens.special)
        kept = self.rule.choose(candidates, marks.final[candidates], document.id, self.seed)
        for start, stop, low, high in self._cuts(len(tokens.ids), room):
            low, high = np.searchsorted(kept, (low, high))  # noqa: PLW2901 - from positions to places in `kept`
            if low == high:
                continue
            here = kept[low:high]
            yield Window(
                input_ids=np.concatenate(
                    [
                        np.array(ids, dtype=np.int64)
                        for ids in (around.prefix, tokens.ids[start:stop], around.suffix)
                    ]
                ),
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
class _Marks:
    """Whose tokens a document's tokens are."""

    words: tuple[Span, ...]
    regions: tuple[Span, ...]
    word_of: Int64[np.ndarray, " n"]
    region_of: Int64[np.ndarray, " n"]
    final: Bool[np.ndarray, " n"]

    @classmethod
    def of(cls, document: Document, tokens: Tokenised, *, words: bool) -> _Marks:
        """Align; `words`: fall back on what white space divides where the document has no word spans."""
        nobody = np.full(len(tokens.ids), -1, dtype=np.int64)
        word_spans, region_spans = document.words, document.regions
        if not (word_spans or region_spans or words):
            return cls((), (), nobody, nobody, nobody >= 0)
        bounds = np.array([m.span() for m in _WORD.finditer(document.text)], dtype=np.int64).reshape(-1, 2)
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
        """Values of each label for some tokens; where a word and its region have a label of one name, the word's."""
        if names is None:
            names = tuple(
                dict.fromkeys(name for span in (*self.words, *self.regions) for name in span.labels)
            )
        word_rows = self.word_of[rows] if all_pieces else np.where(self.final[rows], self.word_of[rows], -1)
        if not self.words:  # white-space words have no labels
            word_rows = np.full(len(rows), -1, dtype=np.int64)
        none: dict[str, str] = {}
        of_word = [self.words[i].labels if i >= 0 else none for i in word_rows.tolist()]
        of_region = [self.regions[i].labels if i >= 0 else none for i in self.region_of[rows].tolist()]
        return {
            name: [w.get(name, r.get(name)) for w, r in zip(of_word, of_region, strict=True)]
            for name in names
        }


def _bounds(spans: Sequence[Span]) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " S"]]:
    found = np.array([(span.start, span.end) for span in spans], dtype=np.int64)
    return found[:, 0], found[:, 1]


def _past_leading_space(tokens: Tokenised, words: Int64[np.ndarray, "W 2"]) -> Int64[np.ndarray, " n"]:
    """Starts of tokens moved past white space, but for tokens that are nothing else."""
    ends = np.append(words[:, 1], np.iinfo(np.int64).max)
    starts = np.append(words[:, 0], np.iinfo(np.int64).max)
    moved = np.maximum(tokens.starts, starts[np.searchsorted(ends, tokens.starts, side="right")])
    return np.where(moved < tokens.ends, moved, tokens.starts)


def windows(
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
        msg = f"token_budget={token_budget} is below 1; give the tokens that one batch may have"
        raise PolytopeError(msg)
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
