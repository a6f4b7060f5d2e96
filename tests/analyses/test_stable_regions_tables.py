"""The findings' table of stable regions is the kept one, cell by cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tables import numbers, says, table

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
MODELS = [
    model
    for file in sorted((ROOT / "analyses" / "results").glob("stable-regions-*.json"))
    for model in json.loads(file.read_text(encoding="utf-8"))["models"]
]
ALIGNED = ("percentile", "beyond other pairs", "beyond speed")


def kept(name: str, layer: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None, str, int]:
    """Return a layer's row, its untrained twin's, that of its sharp pairs, its outcome, and how many are sharp."""
    (model,) = (each for each in MODELS if each["model"] == name and str(layer) in each["outcomes"])
    real, twin = (
        next((row for row in model["rows"] if row["layer"] == layer and ("untrained" in row["model"]) == untrained), {})
        for untrained in (False, True)
    )
    sharp = next((row for row in model["plateaus"] if row["layer"] == layer), None)
    return real, twin, sharp, model["outcomes"][str(layer)], model["sharp"][str(layer)]


def values(row: dict[str, Any], what: str) -> list[float]:
    return numbers(row[what].replace("-", "\u2212").replace("[", "[ "))


def test_every_cell_is_a_kept_number() -> None:
    _, shown = table(TEXT, "**Along one path**")
    seen: list[tuple[str, int]] = []
    names = {"SmolLM2": "smollm2-135m", "Gemma": "gemma3-270m", "tiny-gpt2": "tiny-gpt2", "tiny-relu": "tiny-relu"}
    for place, *cells, sharpness, verdict in shown:
        model, _, at = place.partition(", ")
        untrained, name = model.endswith(" untrained"), names[model.removesuffix(" untrained")]
        if " to " in at:
            first, last = map(int, at.split(" to "))
            rows = [kept(name, layer)[1] for layer in range(first, last + 1)]
            for cell, what in zip((*cells, sharpness), (*ALIGNED, "sharpness"), strict=True):
                found = [values(row, what)[0] for row in rows]
                says(cell, min(found), max(found))
            continue
        layer, _, which = at.partition(", ")
        real, twin, sharp, outcome, count = kept(name, int(layer))
        row = twin if untrained else real
        if which.startswith("the "):
            assert sharp is not None
            row = sharp
            assert which == f"the {sharp['pairs']} sharp pairs"
            assert sharp["pairs"] == count
        for cell, what in zip(cells, ALIGNED, strict=True):
            says(cell, *values(row, what))
        says(sharpness, values(row, "sharpness")[0])
        assert verdict == ("(control)" if untrained else "(beside it)" if which == "all pairs" else outcome)
        seen += [] if untrained or which == "all pairs" else [(name, int(layer))]
    assert sorted(seen) == sorted((m["model"], int(layer)) for m in MODELS for layer in m["outcomes"])
