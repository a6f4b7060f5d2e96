"""Sample rules: which tokens of a document are stored."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64

_EVERY = re.compile(r"every:(\d+)(?:,skip:(\d+))?")
_RANDOM = re.compile(r"random:(\d+)")


@dataclass(frozen=True)
class SampleRule:
    """Which tokens of a document are stored. `str()` gives the text that `parse_rule` reads.

    Attributes:
        kind: "all"; "word-final" (the last token of each word: of the document's word spans where it has
            any, else of what white space divides); "every" (`count` tokens evenly spaced from `skip` to the
            end; a shorter document gives none); "random" (`count` without replacement, fewer where there are
            fewer).
        count: tokens of a document ("every", "random").
        skip: tokens at the document's start that are left out ("every").

    """

    kind: Literal["all", "word-final", "every", "random"]
    count: int = 0
    skip: int = 0

    def __str__(self) -> str:
        if self.kind == "every":
            return f"every:{self.count},skip:{self.skip}" if self.skip else f"every:{self.count}"
        return f"random:{self.count}" if self.kind == "random" else self.kind

    def choose(
        self, candidates: Int64[np.ndarray, " n"], final: Bool[np.ndarray, " n"], document_id: str, seed: int
    ) -> Int64[np.ndarray, " K"]:
        """Positions to store, ascending.

        Args:
            candidates: positions that may be stored, ascending.
            final: whether each candidate is the last token of a word.
            document_id: with `seed` it seeds "random", so that a draw does not depend on the documents
                around it.
            seed: at least 0.

        """
        n = len(candidates)
        places: Int64[np.ndarray, " K"] = np.arange(n)
        if self.kind == "word-final":
            places = np.flatnonzero(final)
        elif self.kind == "every":
            span = n - self.skip
            steps = np.arange(self.count if span >= self.count else 0)
            places = self.skip + steps * (span - 1) // max(self.count - 1, 1)
        elif self.kind == "random" and n > self.count:
            digest = hashlib.sha256(document_id.encode(errors="surrogatepass")).digest()
            rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
            places = np.sort(rng.choice(n, self.count, replace=False))
        chosen: Int64[np.ndarray, " K"] = candidates[places]
        return chosen


def parse_rule(text: str) -> SampleRule:
    """Read a sample rule: `all`, `word-final`, `every:6,skip:100` or `random:80`.

    Raises:
        PolytopeError: anything else, or a count of 0.

    """
    if text in {"all", "word-final"}:
        return SampleRule("all" if text == "all" else "word-final")
    rule = None
    if match := _EVERY.fullmatch(text):
        rule = SampleRule("every", int(match[1]), int(match[2] or 0))
    elif match := _RANDOM.fullmatch(text):
        rule = SampleRule("random", int(match[1]))
    if rule is None or rule.count < 1:
        raise PolytopeError(
            f"tokens={text!r} is no sample rule; write all, word-final, every:6,skip:100 or random:80"
        )
    return rule
