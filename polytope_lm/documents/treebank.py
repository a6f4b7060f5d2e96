"""CoNLL-U treebanks: a document for each `# newdoc`, a span for each word with its gold labels.

Sentences are joined by a blank unless the last word of the one before says `SpaceAfter=No`, as words are.

A surface word of several syntactic words ("don't" = do + n't) is aligned by surface: where the syntactic
words' forms, put together, spell the surface (upper and lower case alike), each has its own span (do|n't).
Where they do not (French "du" = de + le), the surface is one span and each label is joined with "+" (`upos`
"ADP+DET"). Empty nodes (8.1) are not in the text and are left out.

Source of the format: https://universaldependencies.org/format.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import conllu
from conllu.exceptions import ParseException

from polytope_lm.documents.collection import Document, Span
from polytope_lm.documents.plain_text import File, lines
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Iterator

_COLUMNS = 10
_LABELS = ("upos", "xpos", "deprel", "lemma", "form")


@dataclass
class _Draft:
    """A document while its sentences come in."""

    id: str
    labels: dict[str, str]
    parts: list[str] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    length: int = 0

    def add(self, surface: str, labels: list[dict[str, str]], *, space_after: bool) -> None:
        forms = [word["form"] for word in labels]
        if "".join(forms).lower() == surface.lower():
            start = self.length
            for word in labels:
                end = start + len(word["form"])
                self.spans.append(Span(start, end, word))
                start = end
        else:
            joined = {name: "+".join(w[name] for w in labels if name in w) for name in labels[0]}
            self.spans.append(Span(self.length, self.length + len(surface), {**joined, "form": surface}))
        for part in (surface, " " * space_after):
            self.parts.append(part)
            self.length += len(part)

    def document(self) -> Document:
        return Document(self.id, "".join(self.parts).rstrip(" "), self.labels, tuple(self.spans))


def treebank(file: File) -> Iterator[Document]:
    """Documents of a CoNLL-U file; label `genre` = the document identifier's part before its first "-".

    Sentences before the first `# newdoc` (all of them, where there is none) are one document.

    Raises:
        PolytopeError: a sentence is malformed (with its line), or a word has no form.

    """
    draft: _Draft | None = None
    for number, sentence in _sentences(file):
        place = f"{file.path}, line {number}"
        parsed = _parse(sentence, place)
        if draft is None or _begins_document(parsed.metadata):
            if draft is not None and draft.spans:
                yield draft.document()
            draft = _draft(parsed.metadata, file, number)
        _read_sentence(parsed, draft, place)
    if draft is not None and draft.spans:
        yield draft.document()


def _sentences(file: File) -> Iterator[tuple[int, str]]:
    """Blocks between blank lines, with the line they start on."""
    first, parts = 0, list[str]()
    for number, line in lines(file):
        if line.strip():
            _check_columns(line, f"{file.path}, line {number}")
            first = first or number
            parts.append(line)
        elif parts:
            yield first, "".join(parts)
            first, parts = 0, []
    if parts:
        yield first, "".join(parts)


def _check_columns(line: str, place: str) -> None:
    n = line.count("\t") + 1
    if n != _COLUMNS and not line.startswith("#"):  # the library would pass over what is missing
        msg = f"{place}: {n} columns where CoNLL-U has {_COLUMNS}; divide them by single tabs, fill with _"
        raise PolytopeError(msg)


def _parse(sentence: str, place: str) -> Any:
    try:
        (parsed,) = conllu.parse(sentence)
    except (ParseException, ValueError) as error:
        msg = (
            f"{place}: the sentence is not CoNLL-U ({str(error).splitlines()[0]}); "
            "mend it as universaldependencies.org/format says"
        )
        raise PolytopeError(msg) from None
    return parsed


def _begins_document(metadata: dict[str, str | None]) -> bool:
    return "newdoc" in metadata or "newdoc id" in metadata


def _draft(metadata: dict[str, str | None], file: File, number: int) -> _Draft:
    given = metadata.get("newdoc id")
    if not given:
        return _Draft(file.row_id(number), {})
    genre, dash, _ = given.partition("-")
    return _Draft(given, {"genre": genre} if dash and genre else {})


def _read_sentence(parsed: Any, draft: _Draft, place: str) -> None:
    """Add a sentence's surface words to the draft, syntactic words gathered under their surface."""
    surface: dict[str, Any] | None = None
    last, gathered = 0, list[dict[str, str]]()
    for token in parsed:
        identifier = token["id"]
        if isinstance(identifier, tuple) and identifier[1] == ".":
            continue
        if isinstance(identifier, tuple):
            surface, last, gathered = token, identifier[2], []
            continue
        word = _labels(token, place)
        if surface is None:
            draft.add(word["form"], [word], space_after=_space_after(token))
            continue
        gathered.append(word)
        if identifier >= last:
            draft.add(_form(surface, place), gathered, space_after=_space_after(surface))
            surface = None
    if surface is not None:
        msg = f"{place}: word {surface['form']!r} ends after the sentence; mend the range of its number"
        raise PolytopeError(msg)


def _labels(token: dict[str, Any], place: str) -> dict[str, str]:
    form = _form(token, place)
    found = {name: token.get(name) for name in _LABELS}
    # "_" means absent, but for the word "_" itself, whose lemma is "_" too
    labels = {name: value for name, value in found.items() if value and (value != "_" or form == "_")}
    return {**labels, "form": form}


def _form(token: dict[str, Any], place: str) -> str:
    form = token.get("form")
    if not isinstance(form, str) or not form:
        msg = f"{place}: word {token.get('id')} has no form; fill column 2"
        raise PolytopeError(msg)
    return form


def _space_after(token: dict[str, Any]) -> bool:
    return (token.get("misc") or {}).get("SpaceAfter") != "No"
