"""The findings' tables of counts, distinct codes and toxicity are the kept numbers, cell by cell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tables import numbers, table

from polytope_lm.geometry.spline_features import FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")


def kept(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "analyses" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return dict(found["models"])


def cells(below: str) -> list[list[str]]:
    return table(TEXT, below)[1]


def counted(rows: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return in how many questions the count and its twin add, and in how many the count tells more and less."""
    adds = tuple(sum(r[f"gain, {which} beyond the other"]["low"] > 0 for r in rows) for which in ("count", "smooth"))
    if any("gain, count's less smooth's" not in r for r in rows):
        return [adds]
    apart = [r["gain, count's less smooth's"] for r in rows]
    return [adds, (sum(a["low"] > 0 for a in apart), sum(a["high"] < 0 for a in apart))]


def test_counts_beside_their_twins() -> None:
    files = {
        ("tiny", ""): "tiny",
        ("tiny", "r"): "tiny-r05",
        ("smollm2", ""): "smollm2",
        ("smollm2", "r"): "smollm2-r05",
    }
    models = {which: kept(f"counts-beyond-slopes-{name}") for which, name in files.items()}
    rows = [row for row in cells("## Do counts say more than slopes?") if row[1]]
    assert len(rows) == 17
    for row in rows:
        count, wide = row[0].removesuffix(", r = .05 of the norm"), "r" if "r = .05" in row[0] else ""
        for model, (adds, apart, *gains) in {"tiny": row[2:6], "smollm2": row[6:10]}.items():
            asked = [r for found in models[model, wide].values() for r in found if r["of"] == count]
            assert {r["beside"] for r in asked} == {row[1].removesuffix(", r = .05 of the norm")}
            told = counted(asked)
            assert numbers(adds) == list(told[0]), row
            assert numbers(apart) == [n for pair in told[1:] for n in pair], row
            about = [r for r in asked if r["target"] in {"entropy", "mean entropy"}]
            for cell, which in zip(gains, ("count", "smooth"), strict=True):
                values = [r[f"gain, {which} beyond the other"]["value"] for r in about]
                np.testing.assert_allclose(numbers(cell), [min(values), max(values)], atol=0.0051, err_msg=str(row))


def test_distinct_codes() -> None:
    models = kept("distinct-codes-tiny") | kept("distinct-codes-smollm2")
    names = {"SmolLM2": "smollm2-135m"}
    rows = cells("### How many different codes")
    assert len(rows) == 24
    for name, *shown in rows:
        model, tokens, layer = re.fullmatch(r"([\w-]+) \(([\d,]+) tokens\), (\d+)", name).groups()  # type: ignore[union-attr]
        found = models[names.get(model, model)]
        (own,) = [g for g in found["growths"] if (g["layer"], g["neurons"]) == (int(layer), *numbers(shown[0]))]
        assert found["tokens"] == int(tokens.replace(",", ""))
        planes = [own[f"planes, {word}"][-1] for word in ("mean", "least", "greatest")]
        codes = [own["distinct codes"][found["at"].index(1000)], own["distinct codes"][-1]]
        expected = [*codes, own["independent, mean"][-1], *planes]
        np.testing.assert_allclose([n for cell in shown[2:] for n in numbers(cell)], expected, atol=0.51)


CONTRASTS = (
    "toxic against clean comments, one domain", "toxic comments against news, mixed domains",
    "clean comments against news", "Business against Sci/Tech, one domain",
)  # fmt: skip


SHORT = {
    "spread of the share of neurons on, alone": "sd of share on, all layers",
    "mean share of neurons on, alone": "mean share on, all layers",
    "mean distance to the nearest boundary, alone": "mean boundary distance, all layers",
    "all seven": "all spline features", "all seven, random forest": "all spline features, random forest",
    "length": "length", "bag of words": "bag of words", "mean `u`": "mean u, middle layer",
    "mean `u` and all seven, less mean `u`": "mean u and all spline features - mean u, middle layer",
}  # fmt: skip


def three(found: dict[str, float]) -> list[float]:
    return [found["value"], found["low"], found["high"]]


def test_toxicity() -> None:
    models = kept("toxicity-geometry-tiny") | kept("toxicity-geometry-smollm2")
    models["SmolLM2"] = models.pop("smollm2-135m")
    rows = [row for row in cells("## Does geometry tell toxic comments?") if not row[0].startswith("the source")]
    assert len(rows) == 17
    for name, *shown in rows:
        model, _, what = name.partition(": ") if name.startswith("*") else ("*tiny-gpt2*", "", name)
        for cell, contrast in zip(shown, CONTRASTS, strict=True):
            found = models[model.strip("*")][contrast]
            own = {**found["AUC"], **found["differences"]}[SHORT[what]]
            np.testing.assert_allclose(numbers(cell), three(own), atol=0.00051, err_msg=name)
    rows = cells("Paired differences of AUC")
    assert {row[0] for row in rows} == set(FEATURES)
    others = ("length", "bag of words", "mean u, middle layer")
    for feature, *shown in rows:
        pairs = [(m, other) for m in ("tiny-gpt2", "tiny-relu", "SmolLM2") for other in others]
        pairs.remove(("tiny-relu", "bag of words"))
        for cell, (model, other) in zip(shown, pairs, strict=True):
            own = models[model][CONTRASTS[0]]["differences"][f"{feature}, all layers - {other}"]
            np.testing.assert_allclose(numbers(cell), three(own), atol=0.00051, err_msg=feature)
