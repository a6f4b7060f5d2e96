"""Pairs from labelled data: ambiguous words with their senses, or documents with labels.

Same and different pairs alternate within each group (a word; a label), so that no group has more of one kind
than of the other by more than one pair; each text is in `uses` pairs at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.documents import documents as read_documents
from polytope_lm.documents.senses import twice as given_twice
from polytope_lm.errors import PolytopeError
from polytope_lm.pairs.pairs import Pair, Pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from polytope_lm.documents import Document


@dataclass(frozen=True)
class _Text:
    text: str
    label: str
    target: tuple[int, int] | None


def from_senses(source: str | Path, *, per_word: int = 40, uses: int = 2, twice: bool = False, seed: int = 0) -> Pairs:
    """Pair sentences with the same ambiguous word, in the same or another sense.

    Args:
        source: a directory of CoarseWSD words (`bank/test.data.txt` beside `bank/test.gold.txt`, ...).
        per_word: pairs of each word at most, half of them same.
        uses: pairs that a sentence may be in.
        twice: put the sentence before itself and take the word's second occurrence: a causal model sees only
            the left context, and then it has seen the whole sentence.
        seed: of the choice.

    Returns:
        Pairs with targets; group and topic are the word.

    Raises:
        PolytopeError: nothing to read there, or no word with two senses.

    """
    words: dict[str, dict[str, _Text]] = {}
    for document in read_documents(source):
        spans = [span for span in document.words if "sense" in span.labels]
        if spans:
            parts = document.id.partition("#")[0].split("/")  # the file's directory has the word's name
            word = parts[-2] if len(parts) > 1 else spans[0].labels.get("form", "word").lower()
            read = given_twice(document) if twice else document
            (start, end), sense = (read.words[0].start, read.words[0].end), spans[0].labels["sense"]
            # The same sentence may stand in a word's training and test part.
            words.setdefault(word, {})[document.text] = _Text(read.text, sense, (start, end))
    rng, found = np.random.default_rng(seed), list[Pair]()
    for word in sorted(words):
        texts = list(words[word].values())
        left = dict.fromkeys(range(len(texts)), uses)
        found += _alternate(texts, range(len(texts)), left, per_word, word, rng)
    name = f"senses of {len(words)} words"
    if not found:
        raise PolytopeError(
            f"{name}: no word with sentences of two senses; give CoarseWSD files (X.data.txt, X.gold.txt)"
        )
    note = f"at most {per_word} pairs a word, each sentence in {uses} at most, seed {seed}"
    return _numbered(found, name, note + ", each sentence read twice" * twice)


def from_documents(
    documents: Iterable[Document], label: str, *, pairs: int = 400, words: int | None = 40, uses: int = 2, seed: int = 0
) -> Pairs:
    """Pair documents with the same or another label.

    Args:
        documents: from `plm.documents`, or a list.
        label: the document label that same and different are about.
        pairs: at most this many, in equal parts for the label's values; half of each part same.
        words: keep this many words of each text, so that lengths are alike; None for all.
        uses: pairs that a document may be in.
        seed: of the choice.

    Returns:
        Pairs without targets; group and topic are the label of `a`.

    Raises:
        PolytopeError: no document with this label, or one value only.

    """
    there = [document for document in documents if document.labels.get(label) is not None]
    values = sorted({document.labels[label] for document in there})
    if len(values) < 2:
        raise PolytopeError(f"{len(values)} values of label {label!r} in {len(there)} documents; pairs need at least 2")
    texts = [_Text(" ".join(d.text.split()[:words]), d.labels[label], None) for d in there]
    # Each value's group is all texts: those of that value are the starts.
    rng, found = np.random.default_rng(seed), []
    left = dict.fromkeys(range(len(texts)), uses)
    for value in values:
        own = [i for i, text in enumerate(texts) if text.label == value]
        found += _alternate(texts, own, left, -(-pairs // len(values)), value, rng)
    note = f"each text in {uses} at most, seed {seed}"
    if words is not None:
        note = f"first {words} words, {note}"
    return _numbered(found, f"documents by {label}", note)


def _alternate(
    texts: Sequence[_Text], starts: Sequence[int], left: dict[int, int], most: int, group: str, rng: np.random.Generator
) -> list[Pair]:
    """Make a different and a same pair from each start in turn, as long as texts are left.

    The two share their start, so that whatever it is like, it is alike in both kinds.
    """
    found: list[Pair] = []
    seen: set[tuple[int, int]] = set()
    for start in rng.permutation(np.asarray(starts)):
        if len(found) + 2 > most:
            break
        if left[start] < 2:
            continue
        ends = [
            [i for i in left if left[i] and i != start and (texts[i].label == texts[start].label) == same
             and texts[i].text != texts[start].text and (min(i, start), max(i, start)) not in seen]
            for same in (True, False)
        ]  # fmt: skip
        if not all(ends):
            continue
        for same, options in zip((True, False), ends, strict=True):
            end = int(rng.choice(options))
            seen.add((min(end, start), max(end, start)))
            left[start] -= 1
            left[end] -= 1
            a, b = texts[start], texts[end]
            found.append(Pair(a.text, b.text, group, same, group, a.target, b.target))
    return found


def _numbered(pairs: list[Pair], name: str, note: str) -> Pairs:
    return Pairs(name, tuple(replace(pair, line=i) for i, pair in enumerate(pairs, 1)), note=note)
