"""The analysis of local maps, small: it runs, keeps what is done, and its matching has the limits that it must have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import polytope_lm as plm
from analyses import affine_maps
from polytope_lm.geometry.matching import match
from polytope_lm.geometry.reduction import GROUPED, LINEAR, MAPS, MEAN, NEAREST, RANDOM
from tests.tables import says, table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small(monkeypatch):
    documents = list(plm.documents("sample"))[:10]
    # Not setattr: a module is never put in a function's place, so that what was there would not come back.
    monkeypatch.setitem(vars(affine_maps.plm), "documents", lambda _name: documents)
    monkeypatch.setattr(affine_maps, "LENGTH", 32)
    monkeypatch.setattr(affine_maps, "TESTED", 2)
    monkeypatch.setattr(affine_maps, "FITTED", 1500)


@pytest.fixture
def place():
    return lambda name, layer: affine_maps.Place(name, plm.load(name), layer)


def test_a_mixture_of_experts_ends_it_in_one_line(small, tmp_path):
    argv = ["--out", str(tmp_path), "--model", "tiny-moe", "--layers", "1", "--ks", "10", "--fit-tokens", "300"]
    with pytest.raises(SystemExit, match=r"error: tiny-moe, layer 1: a mixture of experts"):
        affine_maps.run(lambda: affine_maps.main(argv))


def test_a_layer_is_not_told_by_another_better_than_by_itself(small, place):
    itself, other = (affine_maps.matched(place("tiny-relu", a), place("tiny-relu", 1), "tangent") for a in (1, 0))
    assert itself["lost"]["matched"][0] < other["lost"]["matched"][0]
    assert itself["explained"]["matched"][0] > max(0.95, other["explained"]["matched"][0])
    assert other["lost"]["mean-ablated"] == itself["lost"]["mean-ablated"]
    removed = other["lost"]["mean-ablated"][0]
    assert removed > 0
    assert other["recovered"]["matched"][0] == pytest.approx(1 - other["lost"]["matched"][0] / removed, abs=0.01)
    assert abs(other["lost"]["shuffled tokens"][0] - other["lost"]["mean map"][0]) < 0.5 * removed
    assert abs(other["explained"]["shuffled tokens"][0]) < 0.1


@pytest.mark.parametrize("kind", ["tangent", "secant"])
def test_a_network_is_told_by_its_twin_better_than_by_shuffled_tokens(small, place, kind):
    found = affine_maps.matched(place("tiny-gpt2", 1), place("tiny-relu", 1), kind)
    assert found["lost"]["matched"][0] < found["lost"]["shuffled tokens"][0]
    assert found["explained"]["matched"][0] > found["explained"]["shuffled tokens"][0] + 0.1
    assert found["tested"] == 2 * 30
    assert found["documents"] == 2


def test_the_share_explained_is_that_of_whole_matrices(small, place):
    """By hand: every `(J, a)` whole, the fit that of a second call."""
    source, target = place("tiny-gpt2", 0), place("tiny-gpt2", 1)
    found = affine_maps.matched(source, target, "secant")
    own = target.maps(target.fitted, "secant")
    matching = match(source.maps(source.fitted, "secant"), own)

    def whole(maps):
        return torch.cat([maps.matrices().flatten(1), maps.intercepts()], dim=1).double()

    off = around = 0.0
    for here, there in zip(source.tested, target.tested, strict=True):
        true = whole(target.maps(there, "secant"))
        off += (whole(matching(source.maps(here, "secant"))) - true).square().sum().item()
        around += (whole(own).mean(0) - true).square().sum().item()
    assert found["explained"]["matched"][0] == pytest.approx(1 - off / around, abs=2e-4)


def test_twins_read_the_same_tokens_and_no_tested_document_is_fitted(place):
    ours, theirs = place("tiny-gpt2", 0), place("tiny-relu", 0)
    for mine, others in zip(ours.windows, theirs.windows, strict=True):
        np.testing.assert_array_equal(mine, others)
    fitted, tested = ours.windows
    assert len(tested) == 20
    assert affine_maps.FITTED <= sum(len(ids) - 1 for ids in fitted) < affine_maps.FITTED + affine_maps.LENGTH
    assert not {tuple(ids) for ids in tested} & {tuple(ids) for ids in fitted}


def test_intervals_are_over_documents():
    """A document that has all the tokens' weight moves the interval; two that are alike leave none."""
    alike = np.tile([100.0, 5, 50, 60, 40, 1, 4, 4], (6, 1))
    found = affine_maps.over_documents(alike)
    assert found["explained"] == {"matched": [0.75] * 3, "shuffled tokens": [0.0] * 3}
    assert found["recovered"]["matched"] == [0.875] * 3
    assert found["lost"]["mean-ablated"] == [0.4] * 3
    alike[0, 5] = 4
    value, low, high = affine_maps.over_documents(alike)["explained"]["matched"]
    assert value == pytest.approx(1 - 9 / 24, abs=1e-4)
    assert low < value < high == 0.75
    alike[:, 4] = 1
    assert affine_maps.over_documents(alike)["recovered"] is None  # removing the MLP costs .01 nats


def test_every_ordered_pair_is_matched_once(monkeypatch, tmp_path, place):
    places = [place(name, layer) for name in affine_maps.TINY for layer in range(4)]
    monkeypatch.setattr(affine_maps, "matched", lambda source, target, _kind: {"lost": source.layer + target.layer})
    told: list[str] = []
    keep = tmp_path / "pairs.json"
    found = affine_maps.matchings(places, ("tangent", "secant"), keep, lambda _done, _total, what: told.append(what))
    pairs = {(one["maps"], one["source"], one["from"], one["target"], one["to"]) for one in found}
    # Within each network, and layer by layer between; secant maps of tiny-relu alone are its tangent ones.
    assert len(found) == len(pairs) == len(told) == (2 * 4 * 3 + 2 * 4) + (4 * 3 + 2 * 4)
    assert all(one["lost"] == one["from"] + one["to"] for one in found)
    assert all(a != b if source == target else a == b for _, source, a, target, b in pairs)
    assert ("secant", "tiny-relu", 0, "tiny-relu", 1) not in pairs
    monkeypatch.setattr(affine_maps, "matched", lambda *_: pytest.fail("what is done is not run again"))
    assert affine_maps.matchings(places, ("tangent", "secant"), keep, lambda *_: None) == found


def test_networks_of_other_tokens_are_not_matched(monkeypatch, tmp_path, place):
    monkeypatch.setattr(affine_maps, "matched", lambda *_: {})
    places = [place("tiny-gpt2", 1), affine_maps.Place("another", plm.load("tiny-relu"), 1)]
    assert affine_maps.matchings(places, ("tangent",), tmp_path / "pairs.json", lambda *_: None) == []


def test_it_runs_and_goes_on(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(affine_maps, "matchings", lambda *_: [])
    command = ["--out", str(tmp_path), "--model", "tiny-relu", "--layers", "2", "--ks", "1,3", "--kinds", "secant"]
    affine_maps.main([*command, "--fit-tokens", "200"])
    found = json.loads((tmp_path / "affine-maps.json").read_text())
    (row,) = found["models"]["tiny-relu"]
    assert row["layer"] == 2
    assert set(row["arms"]) >= {"k maps 3", "random groups 3", "by code 3", "mean map 1", "linear", "quadratic"}
    assert abs(row["arms"]["own map"]["lost"][0]) < 1e-4
    monkeypatch.setattr(affine_maps, "reduction", lambda *_, **__: pytest.fail("what is done is not run again"))
    affine_maps.main([*command, "--fit-tokens", "200"])
    assert "tiny-relu: Layer 2" in capsys.readouterr().out


def told(text):
    """Return a table's numbers, those in brackets too."""
    return [float(each.replace("\u2212", "-")) for each in re.findall(r"\u2212?\d*\.\d+", text)]


def test_the_findings_are_the_kept_numbers():
    """The tables of loss recovered and of what SmolLM2's matchings explain, row by row."""
    kept = {}
    for name in ("affine-maps", "affine-maps-smollm2"):
        data = json.loads((ROOT / "analyses" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        kept |= {(m, row["layer"], row["maps"]): row["arms"] for m, rows in data["models"].items() for row in rows}
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    table = text.partition("**Loss recovered**")[2].partition("![")[0]
    rows = re.findall(r"^\| (tiny-\w+|SmolLM2), (\d+)(?:, (\w+))? \|(.*)", table, re.MULTILINE)
    assert len(rows) == len(kept) == 16
    for model, layer, kind, numbers in rows:
        arms = kept[{"SmolLM2": "smollm2-135m"}.get(model, model), int(layer), kind or "tangent"]
        assert arms["own map"]["recovered"] == [1, 1, 1]
        ks = sorted(int(name.split()[-1]) for name in arms if name.startswith("k maps"))
        names = ["mean map 1", *(f"k maps {k}" for k in ks[1:-1])]
        shown = [arms[name]["recovered"][0] for name in names] + arms[f"k maps {ks[-1]}"]["recovered"]
        shown += [arms[f"{name} {ks[-1]}"]["recovered"][0] for name in GROUPED[1:]]
        shown += [*arms["linear"]["recovered"], *arms["quadratic"]["recovered"]]
        np.testing.assert_allclose(told(numbers), shown, atol=0.0051)
    rows = re.findall(r"^\| (\d+) to (\d+), (\w+) \|(.*)", text, re.MULTILINE)
    pairs = {(each["maps"], each["from"], each["to"]): each for each in data["matching"]}
    assert len(rows) == len(pairs) == 4
    for source, target, kind, numbers in rows:
        each = pairs[kind, int(source), int(target)]
        shown = [*each["explained"]["matched"], *each["explained"]["shuffled tokens"]]
        shown += [number for name in ("matched", "mean map", "mean-ablated") for number in each["lost"][name]]
        np.testing.assert_allclose(told(numbers), [*shown, *each["recovered"]["matched"]], atol=0.0051)


@pytest.fixture(scope="module")
def losses():
    """Every kept row's nats lost, `(model, layer, maps, most maps)` to arm to estimate and interval."""
    found = {}
    for path in sorted((ROOT / "analyses" / "results").glob("affine-maps*.json")):
        for model, rows in json.loads(path.read_text(encoding="utf-8"))["models"].items():
            for row in rows:
                most = max(int(name.split()[-1]) for name in row["arms"] if name.startswith("k maps"))
                arms = {name: arm["lost"] for name, arm in row["arms"].items()}
                found[model, row["layer"], row["maps"], most] = arms
    return found


def of(rows, name, k):
    """Return what an arm of k maps loses, row by row."""
    return np.array([row[f"{name} {k}"][0] for row in rows])


def chosen(rows, k):
    """Return the choice's share of what clusters gain on random groups: the nearest of them has it, too."""
    at_random = of(rows, RANDOM, k)
    return (at_random - of(rows, NEAREST, k)) / (at_random - of(rows, MAPS, k))


def apart(row, k):
    """Whether the nearest random group's interval lies above that of the clusters."""
    return row[f"{NEAREST} {k}"][1] > row[f"{MAPS} {k}"][2]


def ends(*parts):
    return [end for part in parts for end in (part.min(), part.max())]


def decimals(text):
    return " ".join(re.findall(r"\u2212?\d*\.\d+", text))


def part_of_the_findings(start, stop):
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert text.count(start) == 1, start
    return text.partition(start)[2].partition(stop)[0]


def test_what_the_nearest_of_random_groups_leaves_to_the_clusters(losses):
    """The two bullets on the tiny networks."""
    relu, gpt2 = ([arms for key, arms in losses.items() if key[0] == name] for name in affine_maps.TINY)
    rows = relu + gpt2
    assert len(rows) == 12
    mean = of(rows, MEAN, 1)
    assert all((of(rows, RANDOM, k) > 0.94 * mean).all() for k in (10, 100, 1000, 10000))

    said = part_of_the_findings("**The clusters are real.**", "- **")
    shown = ends(of(relu, NEAREST, 1000), of(gpt2, NEAREST, 1000), of(rows, NEAREST, 1000) / mean)
    shown += ends(of(relu, MAPS, 1000), of(gpt2, MAPS, 1000), of(rows, MAPS, 1000) / mean, chosen(rows, 1000))
    says(decimals(said), *shown)

    said = part_of_the_findings("**At 10,000 the choice does most of it.**", "- **")
    shown = ends(*(of(part, name, 10000) for name in (NEAREST, RANDOM, MAPS) for part in (relu, gpt2)))
    says(decimals(said), *shown, *ends(chosen(rows, 10000)))
    ahead = sum(row[f"{NEAREST} 10000"][0] < row[LINEAR][0] for row in rows)
    assert f"ahead of the linear fit, too, in {ahead} of 12 rows" in said
    assert "in all 12 rows, at 1,000 and at 10,000, the nearest group's interval lies above" in said
    assert all(apart(row, k) for row in rows for k in (1000, 10000))


def test_smollm2s_ten_thousand_maps(losses):
    _, shown = table((ROOT / "docs" / "findings.md").read_text(encoding="utf-8"), "With ten thousand maps, three")
    many = {key[1:3]: arms for key, arms in losses.items() if key[0] == "smollm2-135m" and key[3] == 10000}
    assert {cells[0] for cells in shown} == {f"{layer}, {kind}" for layer, kind in many}
    assert len(shown) == len(many) == 4
    for place, *cells in shown:
        arms = many[int(place.split(", ")[0]), place.split(", ")[1]]
        wanted = [arms["mean-ablated"], arms[f"{MEAN} 1"][:1], arms[f"{MAPS} 10000"], arms[f"{RANDOM} 10000"][:1]]
        wanted += [arms[f"{NEAREST} 10000"], *(arms[f"by {way} 10000"][:1] for way in ("code", "cosine", "vector"))]
        for cell, values in zip(cells, [*wanted, arms[LINEAR], arms["quadratic"]], strict=True):
            says(cell, *values)


def test_what_it_leaves_to_smollm2s_clusters(losses):
    said = part_of_the_findings("The choice counts here, too:", "\n\n")
    few = {key[1:3]: arms for key, arms in losses.items() if key[0] == "smollm2-135m" and key[3] == 1000}
    many = {key[1:3]: arms for key, arms in losses.items() if key[0] == "smollm2-135m" and key[3] == 10000}
    most = [many[layer, kind] for layer in (4, 14) for kind in ("tangent", "secant")]
    rows = [few[layer, kind] for layer in (4, 14) for kind in ("tangent", "secant")]
    assert len(few) == len(rows)
    shown = [*of(rows, NEAREST, 1000), *ends(of(rows, NEAREST, 1000) / of(rows, MEAN, 1), chosen(rows, 1000))]
    says(decimals(said), *shown, *ends(chosen(most, 10000)))
    assert "Clusters lose less in every row. In layer 14 the intervals do not meet; in layer 4 they do" in said
    assert (of(rows, MAPS, 1000) < of(rows, NEAREST, 1000)).all()
    assert [apart(row, 1000) for row in rows] == [False, False, True, True]
    assert (of(most, MAPS, 10000) < of(most, NEAREST, 10000)).all()
    assert [apart(row, 10000) for row in most] == [False, False, True, True]
