"""From differences to one of six outcomes, and from layers to a sentence.

A cell is one difference: the claim's score minus a reference's, in one score, against one reference. With `e`
the smallest effect of interest, the first of these that applies is a layer's outcome:

1. *not testable*: no representation and no control sees the label. The upper bound of every one's
   null-subtracted score lies below e, so that no lead could show;
2. *mixed*: one cell's lower bound lies above 0, another one's upper bound below 0;
3. *behind*: some cell's upper bound lies below 0;
4. *supported*: every cell's lower bound lies above e;
5. *no lead*: some cell's upper bound lies below e: a lead worth having is ruled out, nothing more is said;
6. *inconclusive*: the data do not decide.

*Supported* asks for all cells, so no correction is due among them (an intersection-union test): the layer's p
is the largest of its cells', and several layers are several chances: Holm (1979) over layers. *Behind*,
*no lead* and both sides of *mixed* ask for one cell of many, in one layer of many: Holm over cells and layers.
Without it, codes of random hyperplanes were *mixed* in 12 % of planted worlds, ahead of other random hyperplanes.

*Power* stands beside every layer that did not support: the least true lead, the same in all cells, that these
standard errors would have called *supported* in 80 % of samples, the cells' errors taken as independent. The
spread of a mean over documents goes as 1/sqrt(documents): an inconclusive layer says how many documents would
settle it if its differences stayed as they are.

*Seeds.* A difference that rests on random choices (first medoids, random hyperplanes, exchanges of labels, halves)
is known only so far, however many documents there are. Where a test says how often it measured (`rounds`), a verdict
names the outcomes that other choices may give: those that it would have with a cell, or all cells, `REACH` standard
errors over the root of the rounds further up or down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.estimate import ALPHA, Estimate, one_sided_p, quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jaxtyping import Float, Int

Outcome = Literal["supported", "behind", "no lead", "mixed", "inconclusive", "not testable", "refuted"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
"""In the order in which sentences name them; files of earlier versions say *refuted* for behind or no lead."""

POWER = 0.8
REACH = 0.8
"""Standard errors that another seed moves a cell measured once by, seldom more: in root mean square .35 on real codes
and .58 in planted worlds of directions (`python -m benchmarks.verdict_seeds --rounds 1`; more where cells are far from
every bound)."""
_OPEN = frozenset({"no lead", "inconclusive"})
"""Outcomes that stand beside the lead that this sample would have seen."""


@dataclass(frozen=True)
class Cell:
    """One difference that the verdict reads: the claim's score minus a reference's."""

    reference: str
    score: str
    difference: Estimate

    def __str__(self) -> str:
        found = self.difference
        return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}] in {self.score} against {self.reference}"


@dataclass(frozen=True)
class Verdict:
    """The claim's fate in one layer.

    Attributes:
        place: what it is about, such as `Layer 8`.
        outcome: one of the six, after Holm's correction over the run's layers.
        deciding_reference: the reference of the cell that decided: the least upper bound where the layer is
            mixed, behind or without a lead; else the least lower bound.
        deciding_score: the score of that cell.
        deciding: that cell's difference.
        p: the largest one-sided p, over the cells, of "the difference is at most the smallest effect".
        p_holm: `p` after Holm's correction over the layers of this run.
        layers: how many layers the correction is over.
        smallest_effect: the smallest difference of interest.
        documents: documents at hand.
        documents_needed: documents that would settle an inconclusive layer if the differences stay; None
            where it is settled or no number would settle it.
        premises_met: whether the site is what the paper speaks of (piecewise affine, with biases).
        premises: the site's premises in words.
        unit: what there are `documents` of, where that is something else, such as `pairs`.
        cells: all differences that were read; empty in files of earlier versions.
        seen: the largest upper bound of any representation's or control's null-subtracted score; None where
            that was not asked.
        power: the least true lead that would have been called *supported* in 80 % of samples; None where it
            was called that.
        effective: Kish's number of documents, which the intervals count; None where units count alike.
        weights: what was done to the weights (`dequantised from 4 bits`), empty for weights as they came.
        rounds: how often the cells were measured with random choices anew; None where that is not asked.
        otherwise: outcomes that other random choices may give; empty where they would not, or that is not asked.

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
    cells: tuple[Cell, ...] = ()
    seen: float | None = None
    power: float | None = None
    effective: float | None = None
    weights: str = ""
    rounds: int | None = None
    otherwise: tuple[str, ...] = ()
    derived: ClassVar[tuple[str, ...]] = ("sentence",)  # what files say beside the fields

    def beside(self, again: Verdict, spread: float = 1.0) -> Verdict:
        """Return the verdict with one measurement of the same units more, before any correction over layers.

        All measurements count alike, in the squares of the standard errors this one `spread` times as the first.
        """
        share = 1 / ((self.rounds or 1) + 1)
        weight = spread / (1 + spread * (self.rounds or 1))
        others = {(cell.reference, cell.score): cell.difference for cell in again.cells}
        cells = tuple(
            replace(cell, difference=cell.difference.beside(others[cell.reference, cell.score], share, weight))
            for cell in self.cells
        )
        seen = self.seen
        if seen is not None and again.seen is not None:
            seen += share * (again.seen - seen)
        p = max(cell.difference.p_above(self.smallest_effect) for cell in cells)
        return over_layers([replace(self, cells=cells, seen=seen, p=p, rounds=(self.rounds or 1) + 1)])[0]

    @property
    def deciding_cell(self) -> Cell:
        """The cell that decided."""
        return Cell(self.deciding_reference, self.deciding_score, self.deciding)

    @property
    def sentence(self) -> str:
        """The verdict in words, with the deciding cell and the premises."""
        outside = "" if self.premises_met else ", outside the paper's premises"
        effective = "" if self.effective is None else f", effectively {self.effective:.0f}"
        text = (
            f"{self.place}: {self.outcome}{outside}. {self._finding()} (smallest effect of interest "
            f"{self.smallest_effect:g}, {self.documents} {self.unit}{effective})"
        )
        if self.outcome == "inconclusive" and self.p < ALPHA <= self.p_holm:
            text += f"; supported alone, but not as one of {self.layers} layers (Holm p = {self.p_holm:.3f})"
        if self.outcome in _OPEN and self.power is not None:
            each = " in every comparison" if len(self.cells) > 1 else ""
            text += f"; a true lead of {self.power:.3f}{each} would have been called supported in {POWER:.0%}"
        if self.documents_needed is not None:
            text += f"; about {self.documents_needed:,} {self.unit} would settle it"
        if self.otherwise:
            text += f"; other random choices may say {' or '.join(self.otherwise)}"
        weights = f" Weights {self.weights}." if self.weights else ""
        return f"{text}. Premises: {self.premises.partition(';')[0]}.{weights}"

    def _finding(self) -> str:
        cell = self.deciding_cell
        if self.outcome == "not testable":
            return f"No representation and no control sees the label: no score's upper bound exceeds {self.seen:.3f}"
        if self.outcome == "mixed":
            best = max(self.cells, key=lambda each: each.difference.low)
            return f"Ahead by {best}, but behind by {cell}"
        return {
            "supported": f"Ahead of every reference; the closest cell is {cell}",
            "behind": f"The code is behind: {cell}",
            "no lead": f"A lead worth having is ruled out: {cell}",
            "refuted": f"Not ahead by enough: the deciding cell is {cell}",
            "inconclusive": f"The data do not decide: the weakest cell is {cell}",
        }[self.outcome]

    def __str__(self) -> str:
        return self.sentence


def holm(p: Sequence[float] | Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
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


def decide(  # noqa: PLR0913 -- each is a word of the verdict
    cells: Sequence[Cell],
    *,
    place: str,
    documents: int,
    smallest_effect: float,
    premises: str,
    premises_met: bool,
    unit: str = "documents",
    seen: float | None = None,
    effective: float | None = None,
    weights: str = "",
    rounds: int | None = None,
) -> Verdict:
    """Return one layer's verdict from its cells (before any correction over layers).

    Args:
        cells: the differences that must all be ahead.
        place: what it is about, such as `Layer 8`.
        documents: units at hand.
        smallest_effect: the smallest difference of interest.
        premises: the site's premises in words.
        premises_met: whether they are the paper's.
        unit: what the units are.
        seen: the largest upper bound of any representation's null-subtracted score; None: do not ask whether
            the label can be seen at all.
        effective: Kish's number of documents.
        weights: what was done to the weights.
        rounds: how often the cells were measured with random choices anew; None: do not ask what others would say.

    """
    weakest = min(cells, key=lambda cell: cell.difference.low)
    p = max(cell.difference.p_above(smallest_effect) for cell in cells)
    alone = Verdict(
        place=place, outcome="inconclusive", deciding_reference=weakest.reference, deciding_score=weakest.score,
        deciding=weakest.difference, p=p, p_holm=p, layers=1, smallest_effect=smallest_effect,
        documents=documents, documents_needed=None, premises_met=premises_met, premises=premises, unit=unit,
        cells=tuple(cells), seen=seen, effective=effective, weights=weights, rounds=rounds,
    )  # fmt: skip
    return over_layers([alone])[0]


def over_layers(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Return the layers' verdicts anew, corrected for the number of layers (and cells) by Holm.

    Raises:
        PolytopeError: a verdict of an earlier version, which does not have its cells.

    """
    for verdict in verdicts:
        if not verdict.cells:
            raise PolytopeError(
                f"{verdict.place}: this verdict is an earlier version's, without its cells; run the test again"
            )
    cells, seen = _Cells.of(verdicts), [verdict.seen for verdict in verdicts]
    over, outcomes = cells.judged(seen)
    out = []
    for number, (verdict, p, outcome) in enumerate(zip(verdicts, over, outcomes, strict=True)):
        corrected = _decided(replace(verdict, p_holm=float(p), layers=len(verdicts)), outcome)
        if verdict.rounds is not None:
            others = cells.otherwise(seen, number, REACH / math.sqrt(verdict.rounds))
            corrected = replace(corrected, otherwise=tuple(each for each in OUTCOMES if each in others - {outcome}))
        out.append(corrected)
    return tuple(out)


@dataclass(frozen=True)
class _Cells:
    """All cells of several layers as columns, so that to judge them again is cheap.

    `layer` counts from 0; `freedom` is infinite for the normal distribution.
    """

    layer: Int[np.ndarray, " m"]
    value: Float[np.ndarray, " m"]
    sd: Float[np.ndarray, " m"]
    low: Float[np.ndarray, " m"]
    freedom: Float[np.ndarray, " m"]
    effect: Float[np.ndarray, " m"]

    @classmethod
    def of(cls, verdicts: Sequence[Verdict]) -> _Cells:
        rows = [
            (number, d.value, d.sd, d.low, math.inf if d.freedom is None else d.freedom, verdict.smallest_effect)
            for number, verdict in enumerate(verdicts)
            for d in (cell.difference for cell in verdict.cells)
        ]
        number, *columns = np.array(rows, dtype=np.float64).reshape(-1, 6).T
        return cls(number.astype(np.int64), *columns)

    def judged(self, seen: Sequence[float | None]) -> tuple[Float[np.ndarray, " layers"], list[Outcome]]:
        """Return each layer's p of *supported*, corrected over layers, and its outcome."""
        layers = len(seen)
        value, effect = self.value, self.effect
        above = one_sided_p(value - effect, self.sd, self.freedom)
        over = holm([float(above[self.layer == number].max()) for number in range(layers)])
        ahead, behind, ruled_out = (
            np.bincount(self.layer, holm(one_sided_p(excess, self.sd, self.freedom)) < ALPHA, layers) > 0
            for excess in (value, -value, effect - value)
        )
        further = np.bincount(self.layer, self.low <= effect, layers) == 0
        outcomes: list[Outcome] = []
        for number in range(layers):
            known = seen[number]
            if known is not None and known < effect[self.layer == number][0]:
                outcomes.append("not testable")
            elif behind[number]:
                outcomes.append("mixed" if ahead[number] else "behind")
            elif further[number] and (layers == 1 or over[number] < ALPHA):
                outcomes.append("supported")
            else:
                outcomes.append("no lead" if ruled_out[number] else "inconclusive")
        return over, outcomes

    def otherwise(self, seen: Sequence[float | None], layer: int, reach: float) -> set[Outcome]:
        """Return the outcomes of a layer with one of its cells, or all, moved so many standard errors."""
        mine = np.flatnonzero(self.layer == layer)
        found = set()
        for some in (*mine[:, None], mine):
            for sign in (-1, 1):
                by = np.zeros(len(self.sd))
                by[some] = sign * reach * self.sd[some]
                found.add(replace(self, value=self.value + by, low=self.low + by).judged(seen)[1][layer])
        return found


def _decided(verdict: Verdict, outcome: Outcome) -> Verdict:
    """Return the verdict with its outcome and what is said beside that."""
    cells, effect = verdict.cells, verdict.smallest_effect
    least = min(cells, key=lambda cell: cell.difference.high)
    weakest = min(cells, key=lambda cell: cell.difference.low)
    deciding = least if outcome in {"mixed", "behind", "no lead"} else weakest
    open_still = outcome == "inconclusive"
    return replace(
        verdict,
        outcome=outcome,
        deciding_reference=deciding.reference,
        deciding_score=deciding.score,
        deciding=deciding.difference,
        documents_needed=_documents_needed(verdict) if open_still else None,
        power=None if outcome == "supported" else least_lead(cells, effect, verdict.layers),
    )


def least_lead(cells: Sequence[Cell], smallest_effect: float, layers: int = 1) -> float:
    """Return the least true lead, in all cells alike, that would be called supported in 80 % of samples.

    A cell passes if its lower bound, at Holm's strictest level `ALPHA / layers`, exceeds the smallest effect; the
    cells' errors are taken as independent.
    """
    errors = [cell.difference for cell in cells if cell.difference.sd > 0]
    if not errors:
        return smallest_effect

    def passed(lead: float) -> float:
        log = 0.0
        for each in errors:
            beyond = (lead - smallest_effect) / each.sd - quantile(each.freedom, ALPHA / layers)
            log += float(norm.logcdf(beyond) if each.freedom is None else t.logcdf(beyond, each.freedom))
        return log - math.log(POWER)

    far = smallest_effect + max(each.sd for each in errors)
    while passed(far) < 0:
        far += far - smallest_effect
    return float(brentq(passed, smallest_effect, far))


def _documents_needed(verdict: Verdict) -> int | None:
    """Return the n that would settle it: all cells to support, or the first one to rule a lead out."""
    cells, effect = verdict.cells, verdict.smallest_effect
    low = [cell.difference for cell in cells if cell.difference.value <= effect]
    level = ALPHA / (verdict.layers * (len(cells) if low else 1))
    needed = []
    for each in low or [cell.difference for cell in cells]:
        excess = abs(each.value - effect)
        if excess > 0:
            needed.append(verdict.documents * (quantile(each.freedom, level) * each.sd / excess) ** 2)
    if not needed:
        return None
    # Strictly beyond the bound, and always more than there are: it was not settled here.
    return max(verdict.documents, math.floor(min(needed) if low else max(needed))) + 1


def ranges(numbers: Iterable[int]) -> str:
    """Write layers shortly: `0-3, 8`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = (f"{a}-{b}" if b - a > 1 else ", ".join(map(str, range(a, b + 1))) for a, b in runs)
    return ", ".join(parts) or "none"


def in_layers(verdicts: Mapping[int, Verdict]) -> str:
    """Say which layers have which outcome in a plain sentence, and by which cells.

    `Behind in 20 of 30 layers (3-22), by AMI against cosine of h, raw (lowest in 5, -0.110 [-0.150, -0.070]).`
    """
    if len(verdicts) == 1:
        return next(iter(verdicts.values())).sentence
    parts = []
    for outcome in OUTCOMES:
        there = {layer: verdict for layer, verdict in verdicts.items() if verdict.outcome == outcome}
        if there:
            every = f"in {'both' if len(there) == 2 else f'all {len(there)}'} layers"
            some = f"in {len(there)} of {len(verdicts)} layers ({ranges(there)})"
            where = every if len(there) == len(verdicts) else some
            why = "" if outcome == "not testable" else f", by {_cells(there)}{_power(there)}"
            parts.append(f"{outcome} {where}{why}")
    text = "; ".join(parts)
    turning = [layer for layer, verdict in verdicts.items() if verdict.otherwise]
    if turning:
        text += f"; in layer{'s' * (len(turning) > 1)} {ranges(turning)} other random choices may say otherwise"
    outside = ranges(layer for layer, verdict in verdicts.items() if not verdict.premises_met)
    beyond = "" if outside == "none" else " Outside the paper's premises"
    if beyond and any(verdict.premises_met for verdict in verdicts.values()):
        beyond += f" in layer{'s' * (not outside.isdigit())} {outside}"
    weights = next((f" Weights {verdict.weights}." for verdict in verdicts.values() if verdict.weights), "")
    premises = "; ".join(dict.fromkeys(verdict.premises.partition(";")[0] for verdict in verdicts.values()))
    return f"{text[0].upper()}{text[1:]}.{beyond}{'.' if beyond else ''} Premises: {premises}.{weights}"


def _power(there: Mapping[int, Verdict]) -> str:
    """Say from which to which true lead these layers would have been called supported, where that is due."""
    known = {n: each.power for n, each in there.items() if each.power is not None and each.outcome in _OPEN}
    if not known:
        return ""
    least, most = min(known, key=lambda n: known[n]), max(known, key=lambda n: known[n])
    up_to = "" if len(known) == 1 else f" to {known[most]:.3f} in layer {most}"
    each = " in every comparison" if any(len(verdict.cells) > 1 for verdict in there.values()) else ""
    lead = f"a true lead of {known[least]:.3f} in layer {least}{up_to}{each}"
    return f", where {lead} would have been called supported in {POWER:.0%}"


def _cells(there: Mapping[int, Verdict]) -> str:
    """Say which cells decided, each with the number of the layer where the claim does worst."""
    cells: dict[tuple[str, str], list[int]] = {}
    for layer, verdict in there.items():
        cells.setdefault((verdict.deciding_score, verdict.deciding_reference), []).append(layer)
    said = []
    for (score, reference), layers in cells.items():
        lower = there[layers[0]].outcome in {"supported", "inconclusive"}
        worst = min(layers, key=lambda n: there[n].deciding.low if lower else there[n].deciding.high)
        found = there[worst].deciding
        number = f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
        which = "" if len(cells) == 1 else f"{ranges(layers)}: "
        lowest = "" if len(layers) == 1 else f"lowest in {worst}, "
        said.append(f"{score} against {reference} ({which}{lowest}{number})")
    return " and by ".join(said)
