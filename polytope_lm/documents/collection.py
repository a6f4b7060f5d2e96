"""What a document is: a text, labels of the whole, labelled stretches.

A re-iterable collection of documents: read lazily, repeated texts left out, a digest of what was read.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import index
from typing import Literal, cast

from polytope_lm.errors import PolytopeError, brief, visible

_log = logging.getLogger(__name__)
# Columns of the tables that tokens and documents stand in: a label of that name would hide one of them.
RESERVED = ("document", "position", "start", "end", "token_id", "token", "index", "id", "text")


@dataclass(frozen=True)
class Span:
    """A labelled stretch of a document's text, `text[start:end]`, counted in characters.

    Attributes:
        start: first character.
        end: one past the last character.
        labels: label name to value, both strings.
        kind: "word" (a word: one token stands for it, its last) or "region" (a sentence, a code block: every
            token in it has the label).

    Raises:
        PolytopeError: a value of another type, an unknown kind, or a label that is no UTF-8.

    """

    start: int
    end: int
    labels: Mapping[str, str]
    kind: Literal["word", "region"] = "word"

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            try:
                object.__setattr__(self, name, index(value := getattr(self, name)))
            except TypeError:
                raise PolytopeError(f"Span: {name} is {brief(value)}; give a whole number") from None
        if self.kind not in ("word", "region"):
            raise PolytopeError(f"Span: kind {brief(self.kind)} is unknown; use 'word' or 'region'")
        _check_labels(self.labels, f"Span {self.start}:{self.end}")


@dataclass(frozen=True)
class Document:
    """A text with the labels of the whole and of its spans.

    Attributes:
        id: the source's own identifier, or a hash of path and row.
        text: the text as the model will read it.
        labels: labels of the whole document (genre, topic), names and values strings.
        spans: labelled stretches in order of `start`; those of one kind do not overlap.

    Raises:
        PolytopeError: a value of another type, or one that is no UTF-8; a span that lies outside the text, is
            empty, or overlaps or precedes the one before it of its kind.

    """

    id: str
    text: str
    labels: Mapping[str, str] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        check_text(self.id, "Document: id")
        place = f"document {self.id!r}"
        check_text(self.text, f"{place}: text")
        _check_labels(self.labels, place)
        if not isinstance(self.spans, list | tuple):
            raise PolytopeError(f"{place}: spans are {brief(self.spans)}; give a tuple of Span")
        object.__setattr__(self, "spans", tuple(self.spans))
        free = {"word": 0, "region": 0}
        for span in self.spans:
            if not isinstance(span, Span):
                raise PolytopeError(f"{place}: span {brief(span)} is no Span; write Span(start, end, labels)")
            if not free[span.kind] <= span.start < span.end <= len(self.text):
                raise PolytopeError(
                    f"{place}: span {span.start}:{span.end} must be inside the text "
                    f"(0:{len(self.text)}), not empty, and after the {span.kind} before it; sort and cut them"
                )
            free[span.kind] = span.end

    @property
    def words(self) -> tuple[Span, ...]:
        """The spans that are words."""
        return tuple(span for span in self.spans if span.kind == "word")

    @property
    def regions(self) -> tuple[Span, ...]:
        """The spans that are regions."""
        return tuple(span for span in self.spans if span.kind == "region")


@dataclass(frozen=True)
class Tally:
    """What one full pass over a collection found.

    Attributes:
        documents: documents handed out.
        repeated: documents left out because an earlier one has the same text.
        blank: documents left out because they hold nothing but white space.
        sha256: SHA-256 over the concatenated SHA-256 digests of the handed-out texts (UTF-8), in order: one
            number that says whether two runs read the same texts.

    """

    documents: int
    repeated: int
    blank: int
    sha256: str

    def __str__(self) -> str:
        """Say `318 documents, 3 repeated and 1 blank left out`."""
        left_out = [f"{n} {word}" for n, word in ((self.repeated, "repeated"), (self.blank, "blank")) if n]
        tail = f", {' and '.join(left_out)} left out" if left_out else ""
        return f"{self.documents} document{'s' if self.documents != 1 else ''}{tail}"


class Documents(Iterable[Document]):
    """Documents of one source: each pass reads the source anew and in the same order.

    Documents with the same text are left out after the first (they would count one observation twice), blank
    ones too; both are counted (`tally`) and said once through `logging`.

    Attributes:
        name: the source without this machine's paths (`corpus.conllu`, `hub:ag_news#train`, `sample`).
        options: how it is read, in words (`text column 2; no header`), empty if there is nothing to say.

    """

    def __init__(
        self, name: str, read: Callable[[], Iterator[Document]], *, options: str = "", max_documents: int | None = None
    ) -> None:
        if max_documents is not None and max_documents < 1:
            raise PolytopeError(
                f"max_documents={max_documents} leaves nothing to read; give at least 1, or None for all"
            )
        self.name = name
        self.options = options
        self.max_documents = max_documents
        self._read = read
        self._tally: Tally | None = None

    def __iter__(self) -> Iterator[Document]:
        """Read the source from its start.

        Raises:
            PolytopeError: an identifier that occurs twice, or no document at all.

        """
        texts, ids, digest = set[bytes](), set[str](), hashlib.sha256()
        repeated = blank = 0
        for document in self._read():
            own = hashlib.sha256(document.text.encode()).digest()
            if own in texts or not document.text.strip():
                blank += not document.text.strip()
                repeated += own in texts
                continue
            if document.id in ids:
                raise PolytopeError(
                    f"document id {document.id!r} occurs twice; give each its own, or number the rows with id_column=''"
                )
            texts.add(own)
            ids.add(document.id)
            digest.update(own)
            yield document
            if len(ids) == self.max_documents:
                break
        if not ids:
            raise PolytopeError(f"{self.name}: no document with text in it; name a source that has some")
        tally = Tally(len(ids), repeated, blank, digest.hexdigest())
        if self._tally is None and (repeated or blank):
            _log.warning("%s: %s", visible(self.name), tally)
        self._tally = tally

    @property
    def tally(self) -> Tally:
        """Counts and digest of the whole collection; reads it once if no full pass has been made yet."""
        if self._tally is None:
            for _ in self:
                pass
        return cast("Tally", self._tally)

    @property
    def sha256(self) -> str:
        """`tally.sha256`: which texts these are."""
        return self.tally.sha256

    def describe(self) -> str:
        """Say what is read and how, without this machine's paths: the line for a manifest."""
        limit = f"first {self.max_documents} documents" if self.max_documents is not None else ""
        return "; ".join(part for part in (self.name, self.options, limit) if part)

    def __repr__(self) -> str:
        """Show the description, and the counts once they are known."""
        counts = f": {self._tally}" if self._tally is not None else ""
        return f"Documents({visible(self.describe())}{counts})"


def check_text(value: object, what: str) -> None:
    """Refuse what is no string or no UTF-8: escapes in JSON and undecodable names give lone surrogates."""
    if not isinstance(value, str):
        raise PolytopeError(f"{what} is {brief(value)} of type {type(value).__name__}; give a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PolytopeError(
            f"{what}: character {error.start} is the lone surrogate U+{ord(value[error.start]):04X}, "
            "which is no text; replace it in the source"
        ) from None


def _check_labels(labels: object, place: str) -> None:
    if not isinstance(labels, Mapping):
        raise PolytopeError(f"{place}: labels are {brief(labels)}; give a dict of names and values")
    for name, value in labels.items():
        check_text(name, f"{place}: label name")
        check_text(value, f"{place}: label {name!r}")
