"""A test of boundaries as words, tables and HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from polytope_lm.predictions.sentences import OUTCOMES, ranges

if TYPE_CHECKING:
    from polytope_lm.predictions.boundary_results import BoundariesResult, LayerBoundaries

HEADS = ("layer", "pairs", "groups", "crossings", "flip-backs", "matched", "beyond covariates", "verdict")


def summarise(result: BoundariesResult) -> str:
    """Return the verdict in one sentence: the layer's own, or which layers say what, decided by what."""
    if len(result.layers) == 1:
        return result.verdicts[0].sentence
    parts = []
    for outcome in OUTCOMES:
        layers = [layer for layer in result.layers if layer.verdict.outcome == outcome]
        if layers:
            parts.append(f"{outcome} in {len(layers)} ({ranges(x.layer for x in layers)}), {_lowest(layers)}")
    outside = sum(not verdict.premises_met for verdict in result.verdicts)
    beyond = f", outside the paper's premises in {outside}" if outside else ""
    pairs = max(layer.pairs for layer in result.layers)
    premises = dict.fromkeys(verdict.premises.partition(";")[0] for verdict in result.verdicts)
    return (
        f"Boundaries follow meaning beyond distance: of {len(result.layers)} layers {'; '.join(parts)}. "
        f"Flip-backs beyond all covariates and beyond rate-matched hyperplanes, {pairs:,} pairs, smallest "
        f"effect of interest {result.settings.smallest_effect:g} AUC, Holm over layers{beyond}. "
        f"Premises: {'; '.join(premises)}."
    )


def _lowest(layers: list[LayerBoundaries]) -> str:
    worst = min(layers, key=lambda layer: layer.verdict.deciding.value)
    found = worst.verdict.deciding
    where = f"layer {worst.layer}: " if len(layers) > 1 else ""
    return (
        f"{where}{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}] against "
        f"{worst.verdict.deciding_reference}"
    )


def to_frame(result: BoundariesResult) -> pd.DataFrame:
    """Return one row a layer and effect."""
    rows = []
    for layer in result.layers:
        named = [(effect.name, effect) for effect in layer.effects]
        named.append((f"{layer.beyond_curvature.name} beyond curvature", layer.beyond_curvature))
        for control in layer.controls:
            named += [(f"{e.name}, {control.name}", e) for e in (control.raw, control.effect)]
        for name, effect in named:
            row: dict[str, object] = {
                "layer": layer.layer, "site": layer.site.key, "effect": name, "adjustment": effect.adjustment,
                "auc": effect.by_group.value, "low": effect.by_group.low, "high": effect.by_group.high,
                "low by pair": effect.by_pair.low, "high by pair": effect.by_pair.high,
                "pairs": effect.pairs, "unit": layer.unit, "verdict": layer.verdict.outcome,
            }  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows)


def overview_rows(result: BoundariesResult) -> list[tuple[str, ...]]:
    """Return one row of texts a layer, under `HEADS`."""
    rows = []
    for layer in result.layers:
        shown = [layer.effect(name) for name in ("crossings", "flip-backs")]
        matched = [e for e in layer.effects if (e.name, e.adjustment) == ("flip-backs", "matched")]
        beyond = layer.effect("flip-backs", "regressed")
        rows.append((
            str(layer.layer), f"{layer.pairs:,}", f"{layer.groups:,}", *(str(e.by_group) for e in shown),
            str(matched[0].by_group) if matched else "no match", str(beyond.by_group), layer.verdict.outcome,
        ))  # fmt: skip
    return rows


def notes(layer: LayerBoundaries) -> list[str]:
    """Return what a reader needs beside the table: variance inflation, curvature, and each control."""
    factors = ", ".join(
        f"{name} {'infinite' if value is None else format(value, '.1f')}"
        for name, value in layer.inflation.items()
    )
    same = "" if layer.correlation is None else f"; crossings ~ endpoint Hamming r = {layer.correlation:.3f}"
    sizes = layer.balance
    found = [f"variance inflation: {factors}{same}"]
    found.append(
        f"largest difference of a covariate, sd: {sizes.raw:.2f} raw, {sizes.matched:.2f} matched, "
        f"{sizes.weighted:.2f} weighted"
    )
    found.append(f"beyond covariates and LMN curvature: {layer.beyond_curvature.by_group}")
    found.append(f"added to the covariates' own AUC: {layer.gain}")
    if layer.planes:
        draws = ", ".join(f"{value:.3f}" for value in layer.planes)
        found.append(f"rate-matched hyperplanes, beyond covariates: {draws}")
    found += [
        f"weights {each.name}, beyond covariates: {each.effect.by_group}; the model is ahead by {each.ahead}"
        for each in layer.controls
    ]
    if layer.shuffled is not None:
        s = layer.shuffled
        found.append(
            f"labels permuted {s.permutations} times: {s.mean:.3f} [{s.low:.3f}, {s.high:.3f}], "
            f"{s.excluded:.0%} of intervals exclude 0.5; p of the real labels {s.p:.3f}"
        )
    return [f"layer {layer.layer}, {text}" for text in found]


def to_html(result: BoundariesResult) -> str:
    """Return the verdict and a table for a notebook, everything escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in overview_rows(result)
    )
    more = "".join(f"<li>{escape(text)}</li>" for layer in result.layers for text in notes(layer))
    left_out = ""
    if result.problems:
        first = escape(str(result.problems[0]))
        left_out = f"<p>{len(result.problems)} pairs left out; {first}</p>"
    return (
        f"<p><b>{escape(result.verdict)}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        f"</table><p>AUC of different against same meaning, 95 % intervals.</p><ul>{more}</ul>{left_out}"
    )
