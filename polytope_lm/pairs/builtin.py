"""The built-in set: 252 pairs written for this project, in 14 fields of life.

Each of 126 items is one prompt with two others, one that means the same and one that doesn't; items of three
kinds, in each field:

- `swap` (5): the last word is replaced by one that keeps the meaning, or by one of about the same length that
  changes it;
- `paraphrase` (2): the statement in other words, or another statement made of much the same words;
- `topic` (2): another sentence of the same field, or one of the same build about something else.

An item is a group (`food/swap-3`), so same and different are balanced in each, and lengths are balanced over
each field. What is *not* balanced, and why JS of the ends and all distances are covariates: the words that
change a meaning are often less expected where they stand than those that keep it.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from polytope_lm.pairs.files import parse

if TYPE_CHECKING:
    from polytope_lm.pairs.pair import Pairs

NAME = "builtin"


def builtin() -> Pairs:
    """Return the built-in pairs."""
    data = files("polytope_lm") / "data" / "pairs.jsonl"
    return parse(data.read_text(encoding="utf-8"), NAME)
