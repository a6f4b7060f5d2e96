"""What a pair of prompts is, pairs as JSON lines, and the built-in set: 252 pairs in 14 fields of life.

A bad line is reported with its number, and the others are read. Each of the built-in set's 126 items is one prompt with
two others, one that means the same and one that doesn't. Each field has five `swap` items (the last word is replaced by
one that keeps the meaning, or by one of about the same length that changes it), two of `paraphrase` (the statement in
other words, or another made of much the same words) and two of `topic` (another sentence of the same field, or one of
the same build about something else).

An item is a group (`food/swap-3`), so same and different are balanced in each, and lengths are balanced over each
field. What is *not* balanced, and why JS of the ends and all distances are covariates: the words that change a meaning
are often less expected where they stand than those that keep it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from polytope_lm.documents.collection import check_text
from polytope_lm.errors import PolytopeError, brief, visible
from polytope_lm.files import MEGABYTE, expand, parse_json, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

NAME = "builtin"
LARGEST = 256 * MEGABYTE


@dataclass(frozen=True)
class Pair:
    """Two prompts and whether they mean the same.

    Attributes:
        a: the text at the path's start, whose context is kept.
        b: the text at its end.
        group: what this pair shares prompts or words with; whole groups are resampled.
        same: whether the two mean the same (sense, topic, statement: what the set is about).
        topic: a field or subject, if any.
        target_a: the word in `a` that the path starts at, `a[start:end]`; None for the last token.
        target_b: the same in `b`.
        line: its line in a file, or its number in a list, from 1.

    Raises:
        PolytopeError: an empty text, or a target that is not inside its text.

    """

    a: str
    b: str
    group: str
    same: bool
    topic: str | None = None
    target_a: tuple[int, int] | None = None
    target_b: tuple[int, int] | None = None
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        for name in ("a", "b", "group", *(["topic"] if self.topic is not None else [])):
            check_text(getattr(self, name), f"pair: {name}")
        if not isinstance(self.same, bool):
            raise PolytopeError(f"pair: same is {brief(self.same)}; give True or False")
        for name, text in (("a", self.a), ("b", self.b)):
            if not text.strip():
                raise PolytopeError(f"prompt {name} is empty; give it at least one word")
            if (target := getattr(self, f"target_{name}")) is None:
                continue
            ends = target if isinstance(target, list | tuple) else ()
            if (
                len(ends) != 2
                or not all(isinstance(end, int) for end in ends)
                or not 0 <= ends[0] < ends[1] <= len(text)
                or not text[ends[0] : ends[1]].strip()
            ):
                raise PolytopeError(
                    f"target_{name} {brief(list(ends) or target)} is no word of prompt {name} "
                    f"({len(text)} characters); give [start, end] in characters"
                )

    @property
    def prompts(self) -> tuple[str, str]:
        """Both texts, each cut after its target."""
        return tuple(  # type: ignore[return-value]
            text if target is None else text[: target[1]]
            for text, target in ((self.a, self.target_a), (self.b, self.target_b))
        )


@dataclass(frozen=True)
class Problem:
    """A pair that could not be used.

    Attributes:
        line: its line in the file, or its number in the list, from 1.
        message: what is wrong with it.

    """

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


@dataclass(frozen=True, repr=False)
class Pairs:
    """Pairs of one source, and those of its lines that are none.

    Attributes:
        name: the source without this machine's paths.
        pairs: in the source's order.
        problems: what was left out, and why.
        note: what was chosen in making them, in words; empty if nothing was.

    """

    name: str
    pairs: tuple[Pair, ...]
    problems: tuple[Problem, ...] = ()
    note: str = ""

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]

    def __repr__(self) -> str:
        same, groups = sum(pair.same for pair in self.pairs), len({pair.group for pair in self.pairs})
        left_out = f", {len(self.problems)} left out" if self.problems else ""
        note = f"; {self.note}" if self.note else ""
        return visible(
            f"Pairs: {self.name}, {len(self)} ({same} same, {len(self) - same} different in meaning), "
            f"{groups} groups{left_out}{note}"
        )


def find_word(text: str, word: str, name: str) -> tuple[int, int]:
    """Return where a word stands in a text: its first occurrence as a whole word."""
    found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) if word.strip() else None
    if found is None:
        raise PolytopeError(
            f"{name} {brief(word)} is not a word of {brief(text)}; spell it as the prompt does, or give [start, end]"
        )
    return found.span()


_NEEDED = {"a": str, "b": str, "group": str, "same": bool}
_OPTIONAL = ("target_a", "target_b", "topic")


def read(path: str | Path) -> Pairs:
    """Read pairs from a JSON-lines file.

    Args:
        path: the file, UTF-8; blank lines are passed over.

    Returns:
        The pairs, with `problems` for the lines that are none.

    Raises:
        PolytopeError: no regular file of at most 256 MiB of UTF-8, or no line with a pair.

    """
    place = expand(path)
    return parse(read_text(place, "file of pairs", LARGEST), place.name)


def parse(text: str, name: str = "pairs") -> Pairs:
    """Read pairs from the text of a JSON-lines file.

    Args:
        text: the lines.
        name: what to call them.

    Raises:
        PolytopeError: no line with a pair.

    """
    pairs, problems = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            pairs.append(_pair(line, number))
        except PolytopeError as error:
            problems.append(Problem(number, str(error)))
    if not pairs:
        why = "; ".join(str(problem) for problem in problems[:5]) or "the file is empty"
        example = '{"a": "...", "b": "...", "group": "...", "same": true}'
        raise PolytopeError(f"{name}: no pair in it ({why}); a line is {example}")
    return Pairs(name, tuple(pairs), tuple(problems))


def write(pairs: Iterable[Pair], path: str | Path) -> Path:
    """Write pairs as JSON lines; `read` is the inverse. Returns the path."""
    target = expand(path)
    rows = [{name: getattr(pair, name) for name in (*_NEEDED, *_OPTIONAL)} for pair in pairs]
    given = ({name: value for name, value in row.items() if value is not None} for row in rows)
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given), encoding="utf-8")
    return target


def _pair(line: str, number: int) -> Pair:
    row = parse_json(line, "not one object")
    if not isinstance(row, dict):
        raise PolytopeError(f"{brief(row)} is not an object; write {{...}}")
    for name, kind in _NEEDED.items():
        if not isinstance(row.get(name), kind):
            given = "is missing" if name not in row else f"is {brief(row[name])}"
            wanted = "a text" if kind is str else "true or false"
            raise PolytopeError(f"{name!r} {given}; give {wanted}")
    if unknown := sorted(set(row) - set(_NEEDED) - set(_OPTIONAL)):
        known = ", ".join((*_NEEDED, *_OPTIONAL))
        raise PolytopeError(f"unknown key {brief(unknown[0])}; a pair has {known}")
    targets = {name: _target(row[name[-1]], row.get(name), name) for name in ("target_a", "target_b")}
    return Pair(row["a"], row["b"], row["group"], row["same"], row.get("topic"), line=number, **targets)


def _target(text: str, given: Any, name: str) -> tuple[int, int] | None:
    if given is None:
        return None
    if isinstance(given, str):
        return find_word(text, given, name)
    if isinstance(given, list) and len(given) == 2 and all(type(end) is int for end in given):
        return given[0], given[1]
    raise PolytopeError(f"{name!r} is {brief(given)}; give [start, end] in characters, or the word")


def builtin() -> Pairs:
    """Return the built-in pairs."""
    return parse((files("polytope_lm") / "data" / "pairs.jsonl").read_text(encoding="utf-8"), NAME)
