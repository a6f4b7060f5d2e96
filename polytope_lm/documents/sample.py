"""The built-in sample: documentation topics of the standard library (`pydoc_data.topics`).

Document = topic. Label `group` of the document: a coarse group of topics, at least 5 documents each. Label `class` of
every token: `code` (examples, grammar, signatures), `literal` (what stands between straight quotes in prose), `prose`
(the rest). The text changes with the Python version, so its SHA-256 (`Documents.sha256`) belongs in every result.
"""

from __future__ import annotations

import re
from pydoc_data.topics import topics
from typing import TYPE_CHECKING

from polytope_lm.documents.collection import Document, Span

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = {
    "statement": (
        "assert assignment augassign break continue del exprlists global import nonlocal pass raise return yield"
    ),
    "compound statement": "async class compound context-managers else for function if try while with",
    "expression": (
        "await binary bitwise booleans calls comparisons conversions in lambda operator-summary "
        "power shifting slicings subscriptions truth unary attribute-references"
    ),
    "literal and name": (
        "atom-identifiers atom-literals dict floating id-classes identifiers imaginary integers lists numbers strings"
    ),
    "data model": (
        "attribute-access callable-types customization numeric-types objects sequence-types "
        "specialattrs specialnames types"
    ),
    "built-in type": (
        "bltin-code-objects bltin-ellipsis-object bltin-null-object bltin-type-objects "
        "formatstrings string-methods typesfunctions typesmapping typesmethods typesmodules typesseq typesseq-mutable"
    ),
    "execution": "debugger dynamic-features exceptions execmodel naming",
}
_GROUP_OF = {topic: group for group, names in GROUPS.items() for topic in names.split()}

_BLOCK = re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|\Z))+")
_LITERAL = re.compile(r'""[^"]{1,80}""|"[^"]{1,80}"')
_SIGNATURE = re.compile(r"\s*(?:class |async |@)?[\w.]+\([^)]*\)(?:\s*->.*)?\s*")
_REMARK = re.compile(r"(?:Note|See also|Warning|Important|Tip|(?:New|Changed|Deprecated)\b.*):\s*")
_BULLET = re.compile(r"\s*(?:[*-]|\d+\.)\s")


def sample() -> Iterator[Document]:
    """Topics in order of name; a topic that a later Python added has no group."""
    for name in sorted(topics):
        text = topics[name]
        group = {"group": _GROUP_OF[name]} if name in _GROUP_OF else {}
        yield Document(name, text, group, tuple(_spans(text)))


def _spans(text: str) -> Iterator[Span]:
    for start, end, is_code in _blocks(text):
        if is_code:
            yield _region(start, end, "code")
            continue
        done = start
        for match in _LITERAL.finditer(text, start, end):
            if match.start() > done:
                yield _region(done, match.start(), "prose")
            yield _region(match.start(), match.end(), "literal")
            done = match.end()
        if done < end:
            yield _region(done, end, "prose")


def _region(start: int, end: int, name: str) -> Span:
    return Span(start, end, {"class": name}, "region")


def _blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """Divide a text into runs of lines between blank ones, and say whether each is code.

    Code is: grammar (`::=`), a console session (`>>>`), a bare signature, or a block indented under a
    paragraph that ends in a colon (unless that is a remark such as "Note:", or the block a list), and all
    that follows it at that indentation.
    """
    before, before_indent = "", 0
    code_indent: int | None = None
    for match in _BLOCK.finditer(text):
        block = match.group()
        indent = min(len(line) - len(line.lstrip()) for line in block.splitlines())
        if code_indent is not None and indent < code_indent:
            code_indent = None
        announced = before.rstrip().endswith(":") and not _REMARK.fullmatch(before.strip())
        if code_indent is None and announced and not _BULLET.match(block) and indent > before_indent:
            code_indent = indent
        is_code = (
            code_indent is not None
            or "::=" in block
            or block.lstrip().startswith(">>>")
            or _SIGNATURE.fullmatch(block) is not None
        )
        yield match.start(), match.end(), is_code
        before, before_indent = ("" if is_code else block), indent
