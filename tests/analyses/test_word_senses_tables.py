"""The findings' tables of word senses are the kept ones, cell by cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tables import says, table

from analyses.cluster_tables import lead
from polytope_lm.predictions.clusters.result import SHORT
from polytope_lm.statistics.verdict import OUTCOMES, ranges

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
ROWS: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
for file in sorted((ROOT / "analyses" / "results").glob("word-senses*.json")):
    for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
        ROWS.setdefault((row["model"], row["reading"]), {})[row["layer"]] = row


def said(layers: dict[int, Any]) -> str:
    by = {one: [n for n, each in layers.items() if each["outcome"] == one] for one in OUTCOMES}
    return ", ".join(f"{one} ({ranges(there)})" for one, there in by.items() if there)


def ends(values: list[float]) -> tuple[float, ...]:
    least, greatest = min(values), max(values)
    return (least,) if f"{least:+.3f}" == f"{greatest:+.3f}" else (least, greatest)


def powers(layers: dict[int, Any], shown: str) -> None:
    known = {n: each["power"] for n, each in layers.items() if each["power"] is not None}
    two = dict.fromkeys(end(known, key=known.__getitem__) for end in (min, max)) if known else {}
    assert shown == " to ".join(f"{lead(known[n])} ({n})" for n in two)


def test_the_verdicts_and_the_leads() -> None:
    _, shown = table(TEXT, "## Word senses")
    assert {tuple(row[0].split(", ")) for row in shown} == set(ROWS)
    assert len(shown) == len(ROWS)
    for name, layers, verdict, code, *over, power in shown:
        there = ROWS[tuple(name.split(", "))]  # type: ignore[index]
        assert (layers, verdict) == (ranges(there), said(there)), name
        says(code, *ends([each["level: code"] for each in there.values()]))
        references = ("cosine of h, raw", "cosine of h, centred", "SimHash, rate-matched", "majority sense")
        for cell, reference in zip(over, references, strict=True):
            says(cell, *ends([each[f"code - {reference}"][0] for each in there.values()]))
        powers(there, power)


def test_the_verdicts_on_further_claims_and_comparators() -> None:
    _, shown = table(TEXT, "The tiny models do not reach the majority.")
    every = {
        (*key, each["claim"], ", ".join(SHORT.get(name, name) for name in each["against"]))
        for key, layers in ROWS.items()
        for row in layers.values()
        for each in row["comparators"]
    }
    assert {tuple(row[:4]) for row in shown} == every
    assert len(shown) == len(every) > 40
    for model, reading, claim, against, verdict, ahead, power, decides in shown:
        layers = ROWS[model, reading]
        there = {
            n: each
            for n, row in layers.items()
            for each in row["comparators"]
            if (each["claim"], ", ".join(SHORT.get(name, name) for name in each["against"])) == (claim, against)
        }
        assert verdict == said(there), (model, reading, claim, against)
        says(ahead, *ends([layers[n][f"{claim} - {name}"][0] for n, each in there.items() for name in each["against"]]))
        powers(there, power)
        at, cell = int(decides.rpartition(" ")[2]), decides.partition("]")[0].replace("\u2212", "-").replace(".", "0.")
        assert there[at]["deciding"].startswith(f"{cell}]"), decides
