"""Pairs as JSON lines: a bad line is reported with its number, and the others are read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError
from polytope_lm.pairs.pair import Pair, Pairs, Problem, find_word

if TYPE_CHECKING:
    from collections.abc import Iterable

_NEEDED = {"a": str, "b": str, "group": str, "same": bool}
_OPTIONAL = ("target_a", "target_b", "topic")
_MANY = 5  # problems spelled out where nothing could be read


def read(path: str | Path) -> Pairs:
    """Read pairs from a JSON-lines file.

    Args:
        path: the file, UTF-8; blank lines are passed over.

    Returns:
        The pairs, with `problems` for the lines that are none.

    Raises:
        PolytopeError: no such file, or no line with a pair.

    """
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8-sig")
    except OSError as error:
        msg = f"{str(path)!r}: {error.strerror}; give a JSON-lines file of pairs, or builtin"
        raise PolytopeError(msg) from None
    except UnicodeDecodeError as error:
        msg = f"{str(path)!r} is not UTF-8 (byte {error.start}); save it as UTF-8"
        raise PolytopeError(msg) from None
    return parse(text, place.name)


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
        why = "; ".join(str(problem) for problem in problems[:_MANY]) or "the file is empty"
        example = '{"a": "...", "b": "...", "group": "...", "same": true}'
        msg = f"{name}: no pair in it ({why}); a line is {example}"
        raise PolytopeError(msg)
    return Pairs(name, tuple(pairs), tuple(problems))


def write(pairs: Iterable[Pair], path: str | Path) -> Path:
    """Write pairs as JSON lines; `read` is the inverse. Returns the path."""
    target = Path(path)
    rows = (json.dumps(_row(pair), ensure_ascii=False) for pair in pairs)
    target.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    return target


def _row(pair: Pair) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(pair, name) for name in _NEEDED}
    for name in _OPTIONAL:
        value = getattr(pair, name)
        if value is not None:
            row[name] = list(value) if isinstance(value, tuple) else value
    return row


def _pair(line: str, number: int) -> Pair:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PolytopeError(f"not JSON ({error}); write one object a line") from None
    if not isinstance(row, dict):
        raise PolytopeError(f"{line[:40]!r} is not an object; write {{...}}")
    for name, kind in _NEEDED.items():
        if not isinstance(row.get(name), kind):
            given = "is missing" if name not in row else f"is {row[name]!r}"
            wanted = "a text" if kind is str else "true or false"
            raise PolytopeError(f"{name!r} {given}; give {wanted}")
    unknown = sorted(set(row) - set(_NEEDED) - set(_OPTIONAL))
    if unknown:
        known = ", ".join((*_NEEDED, *_OPTIONAL))
        raise PolytopeError(f"unknown key {unknown[0]!r}; a pair has {known}")
    topic = row.get("topic")
    if topic is not None and not isinstance(topic, str):
        raise PolytopeError(f"'topic' is {topic!r}; give a text, or leave it out")
    pair = Pair(row["a"], row["b"], row["group"], row["same"], topic, line=number)
    return replace(
        pair,
        target_a=_target(pair.a, row.get("target_a"), "target_a"),
        target_b=_target(pair.b, row.get("target_b"), "target_b"),
    )


def _target(text: str, given: Any, name: str) -> tuple[int, int] | None:
    if given is None:
        return None
    if isinstance(given, str):
        return find_word(text, given, name)
    if isinstance(given, list) and len(given) == 2 and all(type(place) is int for place in given):
        return given[0], given[1]
    raise PolytopeError(f"{name!r} is {given!r}; give [start, end] in characters, or the word")
