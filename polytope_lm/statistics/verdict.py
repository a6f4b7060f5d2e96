"""From differences to a verdict that can be supported, refuted or inconclusive.

The claim holds in a layer only if the code beats *both* references in *both* scores by more than the smallest
effect of interest. All four cells must pass, so no correction is due among them (an intersection-union test):
the layer's one-sided p is the largest of the four, and "every lower bound above the effect" is the same as `p
< 0.025`. One cell whose upper bound lies below the effect refutes the claim.

Several layers are several chances: `over_layers` corrects their p by Holm (1979) and takes "supported" back
to "inconclusive" where the corrected p is not below 0.025. A refutation is left as it is: it makes no claim.

The spread of a mean over documents goes as 1/sqrt(documents): an inconclusive layer says how many documents
would settle it if its differences stayed as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from scipy.stats import norm

from polytope_lm.statistics.estimate import Estimate, Z

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

Outcome = Literal["supported", "refuted", "inconclusive"]

ALPHA = float(norm.sf(Z))
"""One-sided level of a bound of the 95 % interval, 0.025."""


@dataclass(frozen=True)
class Cell:
    """One difference that the verdict reads: the claim's score minus a reference's."""

    reference: str
    score: str
    difference: Estimate


@dataclass(frozen=True)
class Verdict:
    """The claim's fate in one layer: both scores against both references.

    Attributes:
        place: what it is about, such as `Layer 8`.
        outcome: `supported`, `refuted` or `inconclusive`, after Holm's correction over the run's layers.
        deciding_reference: the reference of the cell that decided: the least lower bound, or, where refuted,
            the least upper bound.
        deciding_score: the score of that cell.
        deciding: that cell's difference.
        p: the largest one-sided p of the four cells.
        p_holm: `p` after Holm's correction over the layers of this run.
        layers: how many layers the correction is over.
        smallest_effect: the smallest difference of interest.
        documents: documents at hand.
        documents_needed: documents that would settle an inconclusive layer if the differences stay; None
            where it is settled or no number would settle it.
        premises_met: whether the site is what the paper speaks of (piecewise affine, with biases).
        premises: the site's premises in words.
        unit: what there are `documents` of, where that is something else, such as `pairs`.

    """

    place: str
    outcome: Outcome
    deciding_reference: str
    deciding_score: str
    deciding: Estimate
    p: float
    p_holm: float
    layers: int
    smallest_effect: float
    documents: int
    documents_needed: int | None
    premises_met: bool
    premises: str
    unit: str = "documents"
    derived: ClassVar[tuple[str, ...]] = ("sentence",)  # what files say beside the fields

    @property
    def sentence(self) -> str:
        """The verdict in words, with the deciding reference and the premises."""
        outside = "" if self.premises_met else ", outside the paper's premises"
        text = (
            f"{self.place}: {self.outcome}{outside}. {_FINDING[self.outcome]} "
            f"{self.deciding.value:+.3f} [{self.deciding.low:+.3f}, {self.deciding.high:+.3f}] in "
            f"{self.deciding_score} against {self.deciding_reference} "
            f"(smallest effect of interest {self.smallest_effect:g}, {self.documents} {self.unit})"
        )
        if self.outcome == "inconclusive" and self.p < ALPHA <= self.p_holm:
            text += f"; supported alone, but not as one of {self.layers} layers (Holm p = {self.p_holm:.3f})"
        if self.documents_needed is not None:
            text += f"; about {self.documents_needed:,} {self.unit} would settle it"
        return f"{text}. Premises: {self.premises.partition(';')[0]}."

    def __str__(self) -> str:
        return self.sentence


_FINDING = {
    "supported": "Ahead of every reference; the closest cell is",
    "refuted": "Not ahead by enough: the deciding cell is",
    "inconclusive": "The data do not decide: the weakest cell is",
}


def one_sided_p(difference: Estimate, smallest_effect: float) -> float:
    """Return the normal one-sided p of "the difference is at most the smallest effect"."""
    excess = difference.value - smallest_effect
    if difference.sd == 0:
        return 0.0 if excess > 0 else 1.0
    return float(norm.sf(excess / difference.sd))


def holm(p: Sequence[float]) -> Float[np.ndarray, " m"]:
    """Return p-values corrected for their number by Holm's step-down rule.

    The i-th smallest of m is multiplied by m - i + 1, never falls below the one before, and stops at 1
    (Holm, "A simple sequentially rejective multiple test procedure", Scandinavian J. of Statistics 1979).
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def decide(
    cells: Sequence[Cell],
    *,
    place: str,
    documents: int,
    smallest_effect: float,
    premises: str,
    premises_met: bool,
    unit: str = "documents",
) -> Verdict:
    """Return one layer's verdict from its four cells (before any correction over layers)."""
    least_low = min(cells, key=lambda cell: cell.difference.low)
    least_high = min(cells, key=lambda cell: cell.difference.high)
    outcome: Outcome = "inconclusive"
    deciding = least_low
    if least_low.difference.low > smallest_effect:
        outcome = "supported"
    elif least_high.difference.high < smallest_effect:
        outcome, deciding = "refuted", least_high
    p = max(one_sided_p(cell.difference, smallest_effect) for cell in cells)
    needed = _documents_needed(cells, documents, smallest_effect) if outcome == "inconclusive" else None
    return Verdict(
        place=place,
        outcome=outcome,
        deciding_reference=deciding.reference,
        deciding_score=deciding.score,
        deciding=deciding.difference,
        p=p,
        p_holm=p,
        layers=1,
        smallest_effect=smallest_effect,
        documents=documents,
        documents_needed=needed,
        premises_met=premises_met,
        premises=premises,
        unit=unit,
    )


def over_layers(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Return the layers' verdicts corrected for their number by Holm."""
    corrected = holm([verdict.p for verdict in verdicts])
    out = []
    for verdict, p_holm in zip(verdicts, corrected, strict=True):
        new = replace(verdict, p_holm=float(p_holm), layers=len(verdicts))
        if verdict.outcome == "supported" and p_holm >= ALPHA:
            # Its own bound passed; Holm's strictest step asks for this much more.
            ratio = norm.isf(ALPHA / len(verdicts)) / norm.isf(verdict.p)
            needed = math.ceil(verdict.documents * ratio**2)
            new = replace(new, outcome="inconclusive", documents_needed=needed)
        out.append(new)
    return tuple(out)


def _documents_needed(cells: Sequence[Cell], documents: int, smallest_effect: float) -> int | None:
    """Return the n that would settle it: all cells to support, or the first one to refute."""
    behind = [cell for cell in cells if cell.difference.value <= smallest_effect]
    needed = []
    for cell in behind or cells:
        excess = abs(cell.difference.value - smallest_effect)
        if excess > 0:
            needed.append(documents * (Z * cell.difference.sd / excess) ** 2)
    if not needed:
        return None
    # Strictly beyond the bound, and always more than there are: it was not settled here.
    return max(documents, math.floor(min(needed) if behind else max(needed))) + 1
