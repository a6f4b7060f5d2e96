"""The findings' tables of counts, distinct codes and toxicity are the kept numbers, cell by cell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tables import numbers, says, table

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


def paragraph(begins: str) -> str:
    (found,) = [part for part in TEXT.split("\n\n") if part.startswith(begins)]
    return " ".join(found.split())


def three(found: dict[str, float]) -> list[float]:
    return [found["value"], found["low"], found["high"]]


def counted(rows: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return in how many questions the count and its twin add, and in how many the count tells more and less."""
    adds = tuple(sum(r[f"gain, {which} beyond the other"]["low"] > 0 for r in rows) for which in ("count", "smooth"))
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
            assert len(asked) == {"tiny": 12, "smollm2": 6}[model], row
            told = counted(asked)
            assert numbers(adds) == list(told[0]), row
            assert numbers(apart) == list(told[1]), row
            about = [r for r in asked if r["target"] in {"entropy", "mean entropy"}]
            for cell, which in zip(gains, ("count", "smooth"), strict=True):
                values = [r[f"gain, {which} beyond the other"]["value"] for r in about]
                np.testing.assert_allclose(numbers(cell), [min(values), max(values)], atol=0.0051, err_msg=str(row))


def test_what_is_said_of_counts_near_a_token() -> None:
    complexity = {"local complexity", "local complexity, next layer"}
    text = paragraph("**What lies nearest a token")
    for model, before in (("tiny", "tiny models"), ("smollm2", "SmolLM2")):
        rows = [r for found in kept(f"counts-beyond-slopes-{model}").values() for r in found]
        near = [r for r in rows if r["of"] in complexity | {"boundary distance"}]
        (count, twin), (more, _) = counted(near)
        assert re.search(rf"{before} [^;]*?in {count} of {len(near)}.*?their twins in {twin}\b", text), model
        wide = [r for found in kept(f"counts-beyond-slopes-{model}-r05").values() for r in found]
        assert {r["rows"] for r in wide} == {r["rows"] for r in rows}  # the same tokens and documents at both radii
        wide = [r for r in wide if r["of"] in complexity]
        (count, twin), (more_wide, less_wide) = counted(wide)
        place = text.partition("At ten times the radius")[2]
        assert re.search(rf"in {count} of {len(wide)}\b[^;]*?its twin in {twin}\b", place), model
    # from here on SmolLM2 alone, the last of the two
    assert not any(r["gain, count beyond the other"]["low"] > 0 for r in near if r["target"] == "entropy")
    assert more == more_wide == 0, "never more than the twin tells, on SmolLM2"
    assert f"the twin tells more in {less_wide} of {len(wide)}, the count in none" in text
    assert counted([r for r in near if r["of"] in complexity])[0][0] == count, "as many as at the usual radius"
    entropy = [r for r in wide if r["target"] == "entropy" and r["gain, count beyond the other"]["low"] > 0]
    assert [r["layer"] for r in entropy] == [9]
    says(re.findall(r"\(layer 9,([^)]*)\)", text)[0], *three(entropy[0]["gain, count beyond the other"]))


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


def test_what_is_said_of_toxicity() -> None:
    models = kept("toxicity-geometry-tiny") | kept("toxicity-geometry-smollm2")
    one, mixed, clean, topics = CONTRASTS
    gpt2, relu, smol = (models[name] for name in ("tiny-gpt2", "tiny-relu", "smollm2-135m"))
    count = {"of comments": gpt2[one], "of news": gpt2[topics]}
    toxic, of_topic = (found["first class"] for found in count.values())
    others = count["of comments"]["texts"] - toxic
    assert f"{toxic} toxic and {others} clean comments" in paragraph("Seven spline features a layer")
    assert f"{of_topic} texts of news a topic" in paragraph("Seven spline features a layer")
    every, vectors, spread = "all spline features", "mean u, middle layer", "sd of share on, all layers"

    def auc(found: dict[str, Any], *contrasts: str, what: str = every) -> list[float]:
        return [found[contrast]["AUC"][what]["value"] for contrast in contrasts]

    def ahead(found: dict[str, Any], of: str, contrast: str = one) -> list[float]:
        return three(found[contrast]["differences"][f"{every} - {of}"])

    def behind(found: dict[str, Any], of: str) -> list[float]:
        value, low, high = ahead(found, of)
        return [-value, -high, -low]

    shown = paragraph("**The mixed contrast inflates**").partition("The source's fall")[0]
    expected = [
        *auc(gpt2, mixed, one, clean), *auc(gpt2, mixed, clean, one, what="length"),
        *ahead(gpt2, "length"), *ahead(gpt2, vectors), *ahead(gpt2, spread),
        *auc(smol, mixed, one, clean), *auc(smol, mixed, one, clean, what="length"),
        *ahead(smol, "length"), *behind(smol, vectors), *behind(smol, "bag of words"), behind(gpt2, "bag of words")[0],
        *auc(smol, one, what="mean share on, all layers"),
        *ahead(gpt2, "length", topics), *ahead(relu, "length", topics),
    ]  # fmt: skip
    says(" ".join(re.findall(r"[\u2212+]?[.][0-9]{3}", shown)), *expected)
    for found in (gpt2, relu, smol):
        more = {c: found[c]["differences"][f"mean u and all spline features - {vectors}"] for c in CONTRASTS}
        assert all(more[c]["low"] <= 0 <= more[c]["high"] for c in (one, mixed, clean)), "nothing beside comments"
        assert (more[topics]["high"] < 0) == (found is not gpt2), "they take from mean u of topics"
    assert all(ahead(found, "length", topics)[1] < 0 for found in (gpt2, relu)), "no more than length"


def test_what_is_said_of_each_feature_alone() -> None:
    models = kept("toxicity-geometry-tiny") | kept("toxicity-geometry-smollm2")
    ahead, behind = dict[str, set[str]](), dict[str, set[str]]()
    for model, found in models.items():
        for feature in FEATURES:
            own = {
                other: found[CONTRASTS[0]]["differences"][f"{feature}, all layers - {other}"]
                for other in ("length", "bag of words", "mean u, middle layer")
            }
            assert own["bag of words"]["high"] < 0 > own["mean u, middle layer"]["high"]
            if own["length"]["low"] > 0:
                ahead.setdefault(feature, set()).add(model)
            if own["length"]["high"] < 0:
                behind.setdefault(feature, set()).add(model)
    assert ahead == {
        "sd of share on": set(models), "greatest share on": set(models),
        "least share on": {"smollm2-135m"}, "mean share on": {"smollm2-135m", "tiny-relu"},
    }  # fmt: skip
    assert behind == {name: {"tiny-gpt2"} for name in FEATURES if "boundary" in name}
