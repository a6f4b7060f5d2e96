"""What a document is: a text, labels of the whole, labelled stretches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Columns of the tables that tokens and documents stand in: a label of that name would hide one of them.
RESERVED = ("document", "position", "start", "end", "token_id", "token", "index", "id", "text")


@dataclass(frozen=True)
class Span:
    """A labelled stretch of a document's text, `text[start:end]`, counted in characters.

    Attributes:
        start: first character.
        end: one past the last character.
        labels: label name to value.
        kind: "word" (a word: one token stands for it, its last) or "region" (a sentence, a code block: every
            token in it has the label).

    """

    start: int
    end: int
    labels: Mapping[str, str]
    kind: Literal["word", "region"] = "word"


@dataclass(frozen=True)
class Document:
    """A text with the labels of the whole and of its spans.

    Attributes:
        id: the source's own identifier, or a hash of path and row.
        text: the text as the model will read it.
        labels: labels of the whole document (genre, topic).
        spans: labelled stretches in order of `start`; those of one kind do not overlap.

    Raises:
        PolytopeError: a span lies outside the text, is empty, or overlaps or precedes the one before it of
            its kind.

    """

    id: str
    text: str
    labels: Mapping[str, str] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        free = {"word": 0, "region": 0}
        for span in self.spans:
            if span.kind not in free:
                msg = f"document {self.id!r}: span kind {span.kind!r} is unknown; use 'word' or 'region'"
                raise PolytopeError(msg)
            if not free[span.kind] <= span.start < span.end <= len(self.text):
                msg = (
                    f"document {self.id!r}: span {span.start}:{span.end} must be inside the text "
                    f"(0:{len(self.text)}), not empty, and after the {span.kind} before it; sort and cut them"
                )
                raise PolytopeError(msg)
            free[span.kind] = span.end

    @property
    def words(self) -> tuple[Span, ...]:
        """The spans that are words."""
        return tuple(span for span in self.spans if span.kind == "word")

    @property
    def regions(self) -> tuple[Span, ...]:
        """The spans that are regions."""
        return tuple(span for span in self.spans if span.kind == "region")
