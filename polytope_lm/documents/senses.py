"""CoarseWSD-20: a tokenised sentence a line, its ambiguous word's position before it, the sense beside it.

Source: Loureiro, Rezaee, Pilehvar, Camacho-Collados 2021, "Analysis and Evaluation of Language Models for
Word Sense Disambiguation".
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from polytope_lm.documents.collection import Document, Span
from polytope_lm.errors import PolytopeError
from polytope_lm.files import File, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

READING, SECOND = "reading", "second of two"
"""The label of a text that was given twice."""

DATA, GOLD, CLASSES = ".data.txt", ".gold.txt", "classes_map.txt"


def gold_of(file: File) -> File:
    """Name the file of senses beside `NAME.data.txt`."""
    beside = file.path.with_name(file.path.name.removesuffix(DATA) + GOLD)
    return File(beside, beside.name)


def is_senses(file: File) -> bool:
    """Whether the file is the data half of a pair."""
    return file.path.name.endswith(DATA) and gold_of(file).path.is_file()


def senses(file: File) -> Iterator[Document]:
    """Make a document of each line; the target word is its one span, with labels `sense` and `form`.

    Senses have the names of `classes_map.txt` where that is there, the bare class number otherwise.
    """
    gold = gold_of(file)
    path, names = file.path.with_name(CLASSES), {}
    if path.is_file():
        names = parse_json("".join(line for _, line in File(path, CLASSES).lines()), str(path))
        if not isinstance(names, dict) or not all(isinstance(value, str) for value in names.values()):
            raise PolytopeError(f'{path}: must map class numbers to names; write {{"0": "first sense", ...}}')
    for data, answer in zip_longest(file.lines(), gold.lines()):
        if data is None or answer is None:
            short, number = (file, answer[0]) if answer else (gold, data[0] if data else 0)
            raise PolytopeError(
                f"{short.path}: ends before line {number}, which the file beside it has; give one sense a line"
            )
        number, line = data
        sense = answer[1].strip()
        if names and sense not in names:
            raise PolytopeError(f"{gold.path}, line {number}: sense {sense!r} is not in {CLASSES} ({', '.join(names)})")
        yield _sentence(file, number, line, names.get(sense, sense))


def _sentence(file: File, number: int, line: str, sense: str) -> Document:
    position, _, text = line.rstrip("\n").partition("\t")
    words = text.split(" ")
    if not position.strip().isdecimal() or int(position) >= len(words) or not words[int(position)]:
        raise PolytopeError(
            f"{file.path}, line {number}: {position[:40]!r} is no position among {len(words)} words; "
            f"write the word's number from 0, a tab, the words divided by single blanks"
        )
    start, target = sum(len(word) + 1 for word in words[: int(position)]), words[int(position)]
    span = Span(start, start + len(target), {"sense": sense, "form": target})
    return Document(f"{file.name}#{number}", text, {}, (span,))


def twice(document: Document) -> Document:
    """Return the text given twice, divided by a blank, with its spans in the second copy.

    A causal model sees only what is left of a word; left of the second copy is the whole sentence. Labels stay, and the
    document gets one more: `reading`, "second of two".
    """
    shift = len(document.text) + 1
    return Document(
        document.id,
        f"{document.text} {document.text}",
        {**document.labels, READING: SECOND},
        tuple(Span(span.start + shift, span.end + shift, span.labels, span.kind) for span in document.spans),
    )
