"""Documents: text with labelled spans, read from files, hub data sets or the built-in sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Span:
    """A labelled stretch of a document's text, `text[start:end]` (a word, a sentence, a code block)."""

    start: int
    end: int
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Document:
    """A text with the labels of the whole and of its spans.

    Attributes:
        id: the source's own identifier, or a hash of path and row.
        text: the text as the model will read it.
        labels: labels of the whole document (genre, topic).
        spans: labelled stretches in order of `start`, not overlapping.

    """

    id: str
    text: str
    labels: Mapping[str, str] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
