"""The verdict over several layers in one sentence, readable at thirty of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from polytope_lm.predictions.results import ClustersResult, LayerComparison

OUTCOMES = ("supported", "refuted", "inconclusive")


def summarise(result: ClustersResult) -> str:
    """Return the verdict in one sentence: the layer's own, or which layers say what, decided by what.

    Every layer's deciding reference and score is named. Layers that share them stand together, with the
    number and interval of the one where the code does worst: the closest call of a support, the clearest
    refutation, the weakest cell of what is open.
    """
    if len(result.layers) == 1:
        return result.verdicts[0].sentence
    by_outcome = {
        outcome: [layer for layer in result.layers if layer.verdict.outcome == outcome]
        for outcome in OUTCOMES
    }
    parts = [f"{outcome} in {_decided(layers)}" for outcome, layers in by_outcome.items() if layers]
    sample, settings = result.sample, result.settings
    return (
        f"Of {len(result.layers)} layers the claim is {'; '.join(parts)}. Code against the better cosine of "
        f"h and rate-matched SimHash, label {settings.label!r}, {sample.tokens:,} tokens of "
        f"{sample.documents:,} documents, k = {settings.k}, smallest effect of interest "
        f"{settings.smallest_effect:g}, Holm over layers{_outside(result)}. Premises: {_premises(result)}."
    )


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


def _decided(layers: Sequence[LayerComparison]) -> str:
    """Say how many layers, which, and by which cells: layers with the same deciding cell together."""
    cells: dict[str, list[LayerComparison]] = {}
    for layer in layers:
        verdict = layer.verdict
        cells.setdefault(f"{verdict.deciding_score} against {verdict.deciding_reference}", []).append(layer)
    by = " and by ".join(
        f"{cell} ({_worst(members, alone=len(layers) == 1, all_of_them=len(cells) == 1)})"
        for cell, members in cells.items()
    )
    return f"{len(layers)} ({ranges(layer.layer for layer in layers)}), decided by {by}"


def _worst(layers: Sequence[LayerComparison], *, alone: bool, all_of_them: bool) -> str:
    worst = min(layers, key=_bound)
    found = worst.verdict.deciding
    number = f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    if alone:
        return number
    which = "" if all_of_them else f"{ranges(layer.layer for layer in layers)}: "
    return f"{which}{number}" if len(layers) == 1 else f"{which}lowest in {worst.layer}, {number}"


def _bound(layer: LayerComparison) -> float:
    """Return the bound that decided: the upper one refutes, the lower one supports or fails to."""
    verdict = layer.verdict
    return verdict.deciding.high if verdict.outcome == "refuted" else verdict.deciding.low


def _outside(result: ClustersResult) -> str:
    outside = sum(not verdict.premises_met for verdict in result.verdicts)
    return f", outside the paper's premises in {outside}" if outside else ""


def _premises(result: ClustersResult) -> str:
    by_text: dict[str, list[int]] = {}
    for layer in result.layers:
        by_text.setdefault(layer.verdict.premises.partition(";")[0], []).append(layer.layer)
    if len(by_text) == 1:
        return next(iter(by_text))
    return "; ".join(f"{text} ({ranges(layers)})" for text, layers in by_text.items())
