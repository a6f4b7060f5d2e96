"""The findings' verdicts on regions and directions are the kept ones, layer by layer."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from tables import numbers, says, table

from analyses.cluster_tables import lead
from polytope_lm.predictions.clusters.result import SHORT
from polytope_lm.statistics.verdict import OUTCOMES, ranges

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
FILES = sorted((ROOT / "analyses" / "results").glob("monosemanticity-*.json"))
KEPT = [json.loads(path.read_text(encoding="utf-8")) for path in FILES]
ROWS = [row for kept in KEPT for row in kept["rows"]]
WORDS = ("upos", "xpos", "deprel")
OTHER = (
    ("code", "top neuron"), ("code", "NMF directions"), ("code", "k-means directions"),
    ("code", "cosine of post, raw, cosine of post, centred"), ("code, through to the output", "code"),
    ("code, through to the output", "raw cosine, centred cosine, SimHash"),
    ("gate+up code", "cosine of (g, up), raw, cosine of (g, up), centred"),
)  # fmt: skip
"""Claims and what they are held against, in the order of the last table's columns."""


def rows_of(model: str, label: str) -> list[dict[str, Any]]:
    return [row for row in ROWS if (row["model"], row["label"]) == (model, label)]


def beside(model: str, label: str, claim: str, against: str) -> dict[int, dict[str, Any]]:
    """Return a comparator's verdicts, also of layers that lack one of its references."""
    return {
        row["layer"]: each
        for row in rows_of(model, label)
        for each in row["comparators"]
        if each["claim"] == claim and all(SHORT.get(name, name) in against for name in each["against"])
    }


def said(verdicts: dict[int, dict[str, Any]]) -> str:
    by = {one: [n for n, each in verdicts.items() if each["outcome"] == one] for one in OUTCOMES}
    return ", ".join(f"{one} ({ranges(layers)})" for one, layers in by.items() if layers)


def test_the_verdicts_on_the_code() -> None:
    _, shown = table(TEXT, "**Supported nowhere**")
    assert len(shown) == len({(row["model"], row["label"]) for row in ROWS}) == 30
    for model, label, layers, verdict, *_, power in shown:
        there = {row["layer"]: row for row in rows_of(model, label)}
        assert (layers, verdict) == (ranges(there), said(there)), (model, label)
        known = [each["power"] for each in there.values() if each["power"] is not None]
        assert all(lead(end(known)) in power for end in (min, max)), (model, label)


def test_the_verdicts_on_further_claims_and_comparators() -> None:
    _, first = table(TEXT, "And their verdicts, with joined codes and the two-bit code:")
    for model, label, claim, against, verdict, *_, decides in first:
        there = beside(model, label, claim, against)
        assert verdict == said(there), (model, claim, against)
        at, cell = int(decides.rpartition(" ")[2]), decides.partition("]")[0].replace("\u2212", "-").replace(".", "0.")
        assert there[at]["deciding"].startswith(f"{cell}]"), decides
    _, second = table(TEXT, "For the other labels, the outcomes alone")
    for model, label, *outcomes in second:
        assert outcomes == [said(beside(model, label, *pair)) for pair in OTHER], (model, label)
    assert len(first) + len(second) > 50


def test_what_the_text_counts() -> None:
    def count(*models: str) -> Counter[str]:
        return Counter(row["outcome"] for row in ROWS if row["model"] in models and row["label"] in WORDS)

    every = Counter(row["outcome"] for row in ROWS)
    assert every["supported"] == 0
    words = {"behind": "*behind*", "no lead": "without a lead"}
    said = ", ".join(f"{count} {words.get(one, f'*{one}*')}" for one, count in every.most_common())
    assert said.replace(" *behind*", " are *behind*") in TEXT
    for model in ("smollm2-135m", "gemma3-270m", "minilm-l6", "tiny-gpt2"):
        assert count(model)["behind"] > count(model).total() / 2, model
    assert count("char-gpt1-relu") == {"mixed": 12}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = count("tiny-relu")
    assert f"tiny-relu in {found['mixed']} of {found.total()} layers and labels" in readme
    assert found["mixed"] > found.total() / 2
    tops = [
        each["outcome"]
        for row in ROWS
        if row["label"] == "upos"
        for each in row["comparators"]
        if each["against"] == ["top neuron"]
    ]
    assert f"in {tops.count('supported')} of {len(tops)} layers" in TEXT
    two_bits = [
        (row["model"], row["label"], row["layer"])
        for row in ROWS for each in row["comparators"] if each["claim"] == "gate+up code" and each["outcome"] == "mixed"
    ]  # fmt: skip
    assert two_bits == [("smollm2-135m", label, 4) for label in WORDS]


def test_the_nearest_to_a_yes() -> None:
    again = json.loads((ROOT / "analyses/results/news-topics-gemma3-seed1.json").read_text(encoding="utf-8"))["rows"]
    first = [row for row in rows_of("gemma3-270m", "topic") if row["layer"] in {14, 17}]
    paragraph = TEXT.partition("**The nearest to a yes**")[2].partition("\n\n")[0].replace("\n", " ")
    intervals = [numbers(each) for each in re.findall(r"\S+ \[[^]]*\]", paragraph)]
    references = ("cosine of h, raw", "cosine of h, centred", "SimHash, rate-matched")
    ahead = [
        (row["model"], row["label"], row["layer"])
        for row in ROWS
        if all(
            row[f"{score}: code - {reference}"][1] > 0
            for score in ("AMI", "strict neighbour agreement")
            for reference in references
        )
    ]
    last = ("smollm2-135m", "topic", 29)
    assert sorted(ahead) == [*(("gemma3-270m", "topic", layer) for layer in (14, 17)), last]
    (last_row,) = [row for row in ROWS if (row["model"], row["label"], row["layer"]) == last]
    kept = [row[f"AMI: code - {reference}"] for row in (*first, *again) for reference in references]
    kept.append(last_row["AMI: code - cosine of h, raw"])
    for shown, found in zip(intervals, kept, strict=True):
        assert all(abs(a - b) <= 5e-4 + 1e-9 for a, b in zip(shown, found, strict=True)), (shown, found)
    for rows, said in ((first, "by .021 to .035 in agreement"), (again, ".020 to .038 in agreement")):
        leads = [row[f"strict neighbour agreement: code - {reference}"] for row in rows for reference in references]
        says(said, min(each[0] for each in leads), max(each[0] for each in leads))
        assert said in paragraph
        assert all(low > 0 for _, low, _ in leads)
    assert all(low > 0 for _, low, _ in kept)
    assert [row["outcome"] for row in (*first, *again)] == ["inconclusive"] * 4


def test_the_kept_sentences_name_the_kept_outcomes() -> None:
    for one in (each for kept in KEPT for each in kept["verdicts"]):
        there = {row["layer"]: row for row in rows_of(one["model"], one["label"])}
        for outcome in OUTCOMES:
            layers = [n for n, row in there.items() if row["outcome"] == outcome]
            where = f"{outcome} in {'all ' if len(layers) == len(there) else ''}{len(layers)}"
            assert (where in one["verdict"].lower()) == bool(layers), (one["model"], one["label"], outcome)
