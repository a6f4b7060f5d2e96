r"""CoNLL-U treebanks: a document for each `# newdoc`, a span for each word with its gold labels.

Words are divided as `# text` has them, where it spells the sentence; else as `SpacesBefore` and
`SpacesAfter` say (`\s` a blank, `\t`, `\n`, `\r`), or by a blank unless a word says `SpaceAfter=No`. Between
sentences stands what the last word says.

A surface word of several syntactic words ("don't" = do + n't) is aligned by surface: where the syntactic
words' forms, put together, spell the surface (upper and lower case alike), each has its own span (do|n't).
Where they do not (French "du" = de + le), the surface is one span and each label is joined with "+" (`upos`
"ADP+DET"). Empty nodes (8.1) are not in the text and are left out.

Source of the format: https://universaldependencies.org/format.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import conllu
from conllu.exceptions import ParseException

from polytope_lm.documents.collection import Document, Span
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polytope_lm.files import File

_COLUMNS = 10
_ESCAPE = re.compile(r"\\.")
_ESCAPES = {r"\s": " ", r"\t": "\t", r"\n": "\n", r"\r": "\r"}
_LABELS = ("upos", "xpos", "deprel", "lemma", "form")


@dataclass
class _Draft:
    """A document while its sentences come in."""

    id: str
    labels: dict[str, str]
    parts: list[str] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    length: int = 0

    def add(self, word: _Word) -> None:
        self._append(word.before)
        forms = [labels["form"] for labels in word.labels]
        if "".join(forms).lower() == word.form.lower():
            start = self.length
            for labels in word.labels:
                end = start + len(labels["form"])
                self.spans.append(Span(start, end, labels))
                start = end
        else:
            joined = {n: "+".join(w[n] for w in word.labels if n in w) for n in word.labels[0]}
            self.spans.append(Span(self.length, self.length + len(word.form), {**joined, "form": word.form}))
        self._append(word.form + word.after)

    def _append(self, part: str) -> None:
        self.parts.append(part)
        self.length += len(part)

    def document(self) -> Document:
        return Document(self.id, "".join(self.parts)[: self.spans[-1].end], self.labels, tuple(self.spans))


def treebank(file: File, *, numbered: bool = False) -> Iterator[Document]:
    """Documents of a CoNLL-U file; label `genre` = the document identifier's part before its first "-".

    Sentences before the first `# newdoc` (all of them, where there is none) are one document. `numbered` gives each
    document a hash of file name and line as its identifier, not its `newdoc id`.
    """
    draft: _Draft | None = None
    seen: dict[str, int] = {}
    for number, lines in file.blocks():
        for at, line in enumerate(lines, number):
            if (n := line.count("\t") + 1) != _COLUMNS and not line.startswith("#"):
                raise PolytopeError(  # the library would pass over what is missing
                    f"{file.path}, line {at}: {n} columns where CoNLL-U has {_COLUMNS}; divide them by "
                    "single tabs, fill with _"
                )
        place = f"{file.path}, line {number}"
        try:
            (parsed,) = conllu.parse("".join(lines))
        except (ParseException, ValueError) as error:
            raise PolytopeError(
                f"{place}: the sentence is not CoNLL-U ({str(error).splitlines()[0]}); "
                "mend it as universaldependencies.org/format says"
            ) from None
        if draft is None or "newdoc" in parsed.metadata or "newdoc id" in parsed.metadata:
            if draft is not None and draft.spans:
                yield draft.document()
            given = parsed.metadata.get("newdoc id")
            if given and not numbered and seen.setdefault(given, number) != number:
                raise PolytopeError(
                    f"{place}: newdoc id {given!r} was there before (line {seen[given]}); "
                    "give each document its own, or number them with id_column=''"
                )
            genre, dash, _ = (given or "").partition("-")
            identifier = file.row_id(number) if numbered or not given else given
            draft = _Draft(identifier, {"genre": genre} if dash and genre else {})
        _read_sentence(parsed, draft, place)
    if draft is not None and draft.spans:
        yield draft.document()


@dataclass
class _Word:
    """A surface word: its form as it stands in the text, its syntactic words' labels, what divides it."""

    form: str
    labels: list[dict[str, str]]
    before: str
    after: str


def _read_sentence(parsed: Any, draft: _Draft, place: str) -> None:
    """Add a sentence's surface words to the draft, divided as its text has them."""
    words = list(_surface(parsed, place))
    # `# text` counts where it is these words and white space; it has no space after the last
    pattern = r"(\s+|)".join(re.escape(word.form) for word in words)
    if words and (found := re.fullmatch(pattern, parsed.metadata.get("text") or "")):
        for word, after, following in zip(words, found.groups(), words[1:], strict=False):
            word.after, following.before = after, ""
    for word in words:
        draft.add(word)


def _surface(parsed: Any, place: str) -> Iterator[_Word]:
    """Surface words of a sentence, syntactic words gathered under theirs."""
    word, last = None, 0
    for token in parsed:
        identifier = token["id"]
        if isinstance(identifier, tuple) and identifier[1] == ".":
            continue
        if isinstance(identifier, tuple):
            if word is not None:
                raise PolytopeError(
                    f"{place}: range {identifier[0]}-{identifier[2]} begins inside the range that "
                    f"ends at {last} ({word.form!r}); ranges must not overlap"
                )
            word, last = _Word(_form(token, place), [], *_spaces(token)), identifier[2]
            continue
        labels = _labels(token, place)
        if word is None:
            yield _Word(labels["form"], [labels], *_spaces(token))
            continue
        word.labels.append(labels)
        if identifier >= last:
            yield word
            word = None
    if word is not None:
        raise PolytopeError(f"{place}: word {word.form!r} ends after the sentence; mend the range of its number")


def _labels(token: dict[str, Any], place: str) -> dict[str, str]:
    form = _form(token, place)
    found = {name: token.get(name) for name in _LABELS}
    # "_" means absent, but for the word "_" itself, whose lemma is "_" too
    labels = {name: value for name, value in found.items() if value and (value != "_" or form == "_")}
    return {**labels, "form": form}


def _form(token: dict[str, Any], place: str) -> str:
    form = token.get("form")
    if not isinstance(form, str) or not form:
        raise PolytopeError(f"{place}: word {token.get('id')} has no form; fill column 2")
    return form


def _spaces(token: dict[str, Any]) -> tuple[str, str]:
    """White space before and after a word, by its last column."""
    misc = token.get("misc") or {}
    after = "" if misc.get("SpaceAfter") == "No" else " "
    return tuple(  # type: ignore[return-value]
        _ESCAPE.sub(lambda found: _ESCAPES.get(found[0], ""), misc.get(name) or default)
        for name, default in (("SpacesBefore", ""), ("SpacesAfter", after))
    )
