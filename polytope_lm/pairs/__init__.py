"""Pairs of prompts with the same or another meaning: their file format, a built-in set, and builders.

A file has one JSON object a line:

    {"a": "...", "b": "...", "group": "...", "same": true}

with, if wanted, `target_a` and `target_b` (the word that a path ends at: its `[start, end]` in characters, or
the word itself) and `topic`. Without a target a prompt's last token is the end; with one, the text is cut
after it, since what comes later is not read by a causal model and would end the path elsewhere.
"""

from __future__ import annotations

from polytope_lm.pairs.builders import from_documents, from_senses
from polytope_lm.pairs.pairs import Pair, Pairs, Problem, builtin, parse, read, write

__all__ = ["Pair", "Pairs", "Problem", "builtin", "from_documents", "from_senses", "parse", "read", "write"]
