"""The findings' tables of boundaries between pairs are the kept ones, cell by cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tables import says, table

from analyses.cluster_tables import lead

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
NAMES = {"smollm2-135m": "SmolLM2", "gemma3-270m": "Gemma 3 270M"}
KEPT: dict[str, dict[str, dict[str, Any]]] = {"builtin": {}, "senses": {}}
for file in sorted((ROOT / "analyses" / "results").glob("semantic-boundaries-*.json")):
    result = json.loads(file.read_text(encoding="utf-8"))
    model = result["provenance"]["model"]
    for layer in result["layers"]:
        which = "senses" if result["settings"]["pairs"].startswith("senses") else "builtin"
        KEPT[which][f"{NAMES.get(model, model)}, {layer['site']['layer']}"] = layer


def interval(estimate: dict[str, float]) -> list[float]:
    return [estimate["value"], estimate["low"], estimate["high"]]


@pytest.mark.parametrize(
    ("pairs", "below"), [("builtin", "## Do boundaries follow meaning"), ("senses", "**Pairs by word sense**")]
)
def test_every_cell_is_a_kept_number(pairs: str, below: str) -> None:
    _, shown = table(TEXT, below)
    assert {row[0] for row in shown} == set(KEPT[pairs])
    assert len(shown) == len(KEPT[pairs])
    for place, raw, matched, beyond, planes, permuted, untrained, correlation, verdict, power in shown:
        kept = KEPT[pairs][place]
        effects = {(each["name"], each["adjustment"]): interval(each["by_group"]) for each in kept["effects"]}
        others = {each["name"]: each["effect"]["by_group"]["value"] for each in kept["controls"]}
        says(raw, *effects["crossings", "raw"])
        says(matched, *effects["flip-backs", "matched"])
        says(beyond, *effects["flip-backs", "regressed"])
        says(planes, sum(kept["planes"]) / len(kept["planes"]))
        says(permuted, others["permuted"])
        says(untrained, others["untrained"])
        says(correlation, kept["correlation"])
        assert (verdict, power) == (kept["verdict"]["outcome"], lead(kept["verdict"]["power"]))
