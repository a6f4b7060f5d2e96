"""The findings' tables of planted worlds, intervals on real codes and other seeds are the kept ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean

from tables import numbers, says, table

from analyses._running import read_lines
from benchmarks.verdict_seeds import agreements

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
KEPT = [
    json.loads(file.read_text(encoding="utf-8"))
    for file in sorted((ROOT / "analyses" / "results").glob("calibration-*.json"))
]


def test_the_rates_are_the_kept_ones() -> None:
    _, shown = table(TEXT, "**On real codes**")
    places = {" | ".join(cell.split(" | ")[:3]) for kept in KEPT for cell in kept["nulls"]["cells"]}
    assert len(shown) == len(places)
    for model, n, kinds, supported, pooled, ami, agreement, halves in shown:
        place = f"{model.replace(', ', ' | ')} | {'small' if n == '1,500' else 'all'}"
        (kept,) = (each for each in KEPT if any(cell.startswith(f"{place} |") for cell in each["nulls"]["cells"]))
        rates = {cell: rate for cell, rate in kept["nulls"]["cells"].items() if cell.startswith(f"{place} |")}
        assert len({tuple(cell.split(" | ")[3:5]) for cell in rates}) == int(kinds[0]) == 4
        assert kept["nulls"]["supported"] == 0
        assert supported == "0 of 1,600"
        says(pooled, 100 * mean(rates.values()))
        for cell, score in ((ami, "AMI:"), (agreement, "agreement:")):
            found = [100 * rate for name, rate in rates.items() if score in name]
            says(cell, min(found), max(found))
        agreed = [100 * rate for cell, rate in kept["halves"]["cells"].items() if cell.startswith(f"{place} |")]
        splits = kept["halves"].get("splits of each", {}).get(place, numbers(halves)[1])
        says(halves, mean(agreed), splits, min(agreed), max(agreed))


def test_the_rates_keep_what_is_asked_of_them() -> None:
    nulls = [rate for kept in KEPT for rate in kept["nulls"]["cells"].values()]
    halves = [rate for kept in KEPT for rate in kept["halves"]["cells"].values()]
    assert mean(nulls) <= 0.065
    assert max(nulls) <= 0.09
    assert 0.93 <= mean(halves) <= 0.97
    said = f"halves agree in **{100 * mean(halves):.1f} %** of splits over all cells (93 to 97 % asked for)"
    assert said in TEXT


KINDS = ("treebank", "sample", "code", "direction")
WORLDS = {
    "code, effect .04": "code 0.04",
    "code, effect .02": "code 0.02",
    "direction, 1,000 tokens": "direction",
    "null, equal clusters": "null equal",
    "null, Zipf clusters": "null zipf",
}


def test_the_worlds_are_the_kept_ones() -> None:
    kept = json.loads((ROOT / "analyses" / "results" / "worlds.json").read_text(encoding="utf-8"))
    figures = {each["name"]: each for each in kept["figures"]}
    _, shown = table(TEXT, "## Is the test right? Planted truth")
    assert {row[0] for row in shown} == set(WORLDS)
    for name, runs, supported, must, others, excluded, _ in shown:
        world = WORLDS[name]
        found = figures[f"{world}: supported"]
        of, worlds = numbers(runs)
        assert f"of {of:.0f})" in found["note"]
        whole = re.search(r"\[(.+?)%, (.+?)%\]", found["note"])
        clustered = re.search(r"(\d+) worlds, .*interval (.+?)% to (.+?)%", found["note"])
        assert whole is not None
        assert worlds == (int(clustered[1]) if clustered else of)
        low, high = (clustered[2], clustered[3]) if clustered else whole.groups()
        says(supported, 100 * found["value"], float(low), float(high))
        assert [number / 100 for number in numbers(must)] == ([] if found["must"] is None else [found["must"]])
        assert found["met"] is not False
        for each in filter(None, others.split(", ")):
            outcome = re.sub(r" [\d.]+ %$", "", each)
            says(each, 100 * figures[f"{world}: {outcome}"]["value"])
        assert bool(excluded) == name.startswith("null")
        if excluded:
            cells = (each for key, each in figures.items() if key.startswith(f"{world}: ") and "excludes 0" in key)
            says(excluded, *(100 * each["value"] for each in cells))
    power = figures["code 0.02: supported"]
    tokens = int(re.search(r"90 % need ([\d,]+) tokens", power["note"])[1].replace(",", ""))  # type: ignore[index]
    assert f"the power is {100 * power['value']:.1f} %" in TEXT
    assert f"{round(tokens, -2):,} tokens would reach 90 %" in TEXT


def test_the_agreement_of_seeds_is_the_kept_one() -> None:
    _, shown = table(TEXT, "**Other seeds, the same verdict?**")
    for column, file in ((1, "verdict-seeds-once.jsonl"), (2, "verdict-seeds.jsonl")):
        lines = read_lines(ROOT / "analyses" / "results" / file)
        every: list[bool] = []
        for row, kind in zip(shown[:-1], KINDS, strict=True):
            worlds = {line["world"] for line in lines if line["world"].startswith(f"{kind} ")}
            same = [
                agreed
                for world in worlds
                for agreed in agreements([line for line in lines if line["world"] == world])[0]
            ]
            if same:
                says(row[column], sum(same), len(same), 100 * mean(same))
            else:
                assert row[column] == "\N{EN DASH}"
            every += same
        says(shown[-1][column], sum(every), len(every), 100 * mean(every))
        assert column == 1 or ("**not met**" in shown[-1][column]) == (mean(every) < 0.95)
