"""What a pair of prompts is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = 40


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
        for name in ("a", "b"):
            text, target = getattr(self, name), getattr(self, f"target_{name}")
            if not text.strip():
                msg = f"prompt {name} is empty; give it at least one word"
                raise PolytopeError(msg)
            if target is None:
                continue
            start, end = target
            if not 0 <= start < end <= len(text) or not text[start:end].strip():
                msg = (
                    f"target_{name} {list(target)} is no word of prompt {name} ({len(text)} characters); "
                    "give [start, end] in characters"
                )
                raise PolytopeError(msg)

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
        return (
            f"Pairs: {self.name}, {len(self)} ({same} same, {len(self) - same} different in meaning), "
            f"{groups} groups{left_out}{note}"
        )


def find_word(text: str, word: str, name: str) -> tuple[int, int]:
    """Return where a word stands in a text: its first occurrence as a whole word.

    Raises:
        PolytopeError: it is not there.

    """
    found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) if word.strip() else None
    if found is None:
        shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
        msg = f"{name} {word!r} is not a word of {shown!r}; spell it as the prompt does, or give [start, end]"
        raise PolytopeError(msg)
    return found.span()
