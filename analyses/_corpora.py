"""The labelled corpora of an analysis, read from a directory of the user's.

- `treebank/*.conllu`: words with `upos`, `xpos`, `deprel`; documents with a `genre` (Universal Dependencies).
- `news/ag_news.csv`, `news/classes.txt`: items with a `topic` (AG News: class, title, description).
- `senses/WORD/*.data.txt` beside `*.gold.txt`: sentences with an ambiguous word and its sense (CoarseWSD-20).
"""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.documents import Document, documents
from polytope_lm.documents.senses import twice
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from pathlib import Path


def treebank(directory: Path) -> list[Document]:
    """Return the documents of all CoNLL-U files, in the order of their names.

    Raises:
        PolytopeError: there is none.

    """
    files = sorted((directory / "treebank").glob("*.conllu"))
    if not files:
        raise PolytopeError(f"{directory / 'treebank'}: no .conllu file; put a labelled treebank there")
    return [document for file in files for document in documents(file)]


def news(directory: Path, items: int, seed: int) -> list[Document]:
    """Return `items` news items with their topic, drawn by seed, in the file's order; repeated texts once.

    Raises:
        PolytopeError: the files are missing.

    """
    table, classes = directory / "news" / "ag_news.csv", directory / "news" / "classes.txt"
    if not (table.is_file() and classes.is_file()):
        raise PolytopeError(f"{table.parent}: no ag_news.csv with classes.txt; put AG News there")
    names = classes.read_text(encoding="utf-8").split("\n")
    with table.open(encoding="utf-8", newline="") as lines:
        rows = [
            Document(f"{table.name}#{number}", f"{title}. {text}", {"topic": names[int(which) - 1].strip()})
            for number, (which, title, text) in enumerate(csv.reader(lines), 1)
        ]
    unique = list(documents(rows))
    chosen = np.random.default_rng(seed).choice(len(unique), size=min(items, len(unique)), replace=False)
    return [unique[i] for i in np.sort(chosen)]


def ambiguous_words(directory: Path, sentences: int, seed: int, *, given_twice: bool = False) -> list[Document]:
    """Return `sentences` of each ambiguous word, drawn by seed, the word's one span labelled word and sense.

    Args:
        directory: it holds `senses/WORD/`.
        sentences: of each word, at most; both halves of the data set together, repeated texts once.
        seed: of the draw.
        given_twice: the sentence twice over, the span in the second.

    Raises:
        PolytopeError: no such files.

    """
    found: list[Document] = []
    for folder in sorted(path for path in (directory / "senses").glob("*") if path.is_dir()):
        read = [each for file in sorted(folder.glob("*.data.txt")) for each in documents(file)]
        named = [replace(each, id=f"{folder.name}/{each.id}") for each in read]
        unique = list(documents(named)) if named else []
        draw = np.random.default_rng([seed, len(unique)])
        chosen = np.sort(draw.choice(len(unique), size=min(sentences, len(unique)), replace=False))
        found += [_with_word(unique[i], folder.name) for i in chosen]
    if not found:
        raise PolytopeError(f"{directory / 'senses'}: no WORD/*.data.txt there; put CoarseWSD-20 there")
    return [twice(each) for each in found] if given_twice else found


def _with_word(document: Document, word: str) -> Document:
    spans = tuple(replace(span, labels={**span.labels, "word": word}) for span in document.spans)
    return replace(document, spans=spans)
