from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small import tree

import polytope_lm as plm
from polytope_lm import pairs
from polytope_lm.errors import PolytopeError
from polytope_lm.models.interventions import Patched, run_patched
from polytope_lm.pairs import Pair, Pairs
from polytope_lm.paths import resume
from polytope_lm.paths.ends import activations
from polytope_lm.paths.path import path
from polytope_lm.predictions.boundaries import measure as p
from polytope_lm.predictions.boundaries.judging import MIN_PAIRS, from_numbers, judge
from polytope_lm.predictions.boundaries.result import BoundariesResult
from polytope_lm.predictions.boundaries.test import boundaries
from polytope_lm.statistics.verdict import OUTCOMES

SHORT = [pair for pair in pairs.builtin() if max(len(pair.a), len(pair.b)) < 56][:32]
QUICK = {"resamples": 60, "shuffles": 4, "draws": 2}


@pytest.fixture(scope="module")
def result(model) -> BoundariesResult:
    return boundaries(model, SHORT, [0, 1], **QUICK)


def test_counts_are_the_paths_own(model) -> None:
    for layer in (0, 1, 2):
        row = p.measure_pair(model, SHORT[0], layer)
        found = path(model, *SHORT[0].prompts, layer=layer).crossings(downstream=True)
        own = found.counts(layer)
        assert row[p.IN_LAYER] == own
        assert row[p.DOWNSTREAM] == len(found) - own
        hamming = sum(part.hamming for part in found.layers)
        assert row[p.FLIP_BACKS] == len(found) - hamming
        assert row[p.HAMMING_IN] + row[p.HAMMING_DOWN] == hamming
        assert row[p.FLIP_BACKS_IN] == own - found.method(layer).hamming


def test_distances_are_those_of_the_activations(model) -> None:
    pair = SHORT[3]
    row = p.measure_pair(model, pair, 1)
    codes = [plm.encode(model, [text], layers=[1], keep=("x", "u", "h")) for text in pair.prompts]
    for name in ("x", "u", "h"):
        a, b = (each.activations(name, 1)[-1].astype(np.float64) for each in codes)
        assert row[f"Euclidean distance in {name}"] == pytest.approx(np.linalg.norm(a - b), rel=1e-4)
        cosine = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert row[f"cosine distance in {name}"] == pytest.approx(cosine, rel=1e-3, abs=1e-6)
    assert row[p.LENGTH] == pytest.approx(row["Euclidean distance in x"])
    assert 0 < row[p.JS] <= 1
    assert 0 < row[p.CURVATURE] < 1


def test_gated_models_have_a_soft_distance_for_each_kind(gated) -> None:
    rows = [p.measure_pair(gated, SHORT[0], 0, kind=kind) for kind in ("gate", "up", "gate+up")]
    assert rows[2][p.ALL] == pytest.approx(rows[0][p.ALL] + rows[1][p.ALL], abs=2)
    assert all(0 < row[p.SOFT] < 2 for row in rows)


def test_equal_prompts_cross_nothing(model) -> None:
    for pair in SHORT[:4]:
        row = p.measure_pair(model, replace(pair, b=pair.a), 1)
        zero = [*p.OUTCOMES, *p.COVARIATES, *p.MEASURES]
        assert {name: row[name] for name in zero if row[name] != 0} == {}


def test_equal_prompts_are_equal_whatever_a_second_run_rounds(model, monkeypatch) -> None:
    """Another row of a batch and another kernel may round otherwise: here each is off by its own amount."""
    rng = np.random.default_rng(0)

    def read(*given):
        rows = activations(*given)
        return rows + rng.normal(0, 1e-5, rows.shape)

    def run(*args, **options):
        found = run_patched(*args, **options)
        noisy = {tap: v + rng.normal(0, 1e-3, v.shape).astype(v.dtype) for tap, v in found.activations.items()}
        return Patched(noisy, found.logits)

    monkeypatch.setattr("polytope_lm.paths.path.activations", read)
    monkeypatch.setattr("polytope_lm.paths.trace.run_patched", run)
    different = [p.measure_pair(model, SHORT[0], 1)[p.LENGTH] for _ in range(2)]
    assert different[0] != different[1]
    row = p.measure_pair(model, replace(SHORT[0], b=SHORT[0].a), 1)
    assert {name: value for name, value in row.items() if value} == {}


def test_targets_end_the_path(model) -> None:
    cut = Pair("The cat sat on", "The dog sat on", "g", same=True)
    long = Pair("The cat sat on it", "The dog sat on us", "g", same=True, target_a=(12, 14), target_b=(12, 14))
    assert p.measure_pair(model, cut, 1) == p.measure_pair(model, long, 1)


def test_planes_are_rate_matched_and_counted(model) -> None:
    planes = p.planes_of(model, SHORT[:10], [1, 2], None, draws=2, seed=0)
    assert {layer: len(n) for layer, n in planes.normals.items()} == {1: 2 * 96, 2: 2 * 96}
    row = p.measure_pair(model, SHORT[0], 1, planes=planes)
    for draw in range(2):
        crossed, apart = (row[p.plane_column(draw, what)] for what in ("crossings", "Hamming"))
        assert crossed >= apart > 0


def test_a_result_has_every_part(result) -> None:
    assert [layer.layer for layer in result.layers] == [0, 1]
    for layer in result.layers:
        assert (layer.pairs, layer.different) == (32, sum(not pair.same for pair in SHORT))
        assert {cell.reference for cell in layer.cells} == {"what covariates explain (0.5)", "rate-matched hyperplanes"}
        assert layer.left_out == {"path length": "equal to Euclidean distance in x up to scale"}
        assert set(layer.inflation) == {p.ALL, *layer.covariates}
        assert [control.name for control in layer.controls] == ["permuted", "untrained"]
        assert layer.shuffled.permutations == 4
        assert layer.verdict.outcome in OUTCOMES
        assert not layer.verdict.premises_met
        assert "outside the paper's premises" in layer.verdict.sentence
        assert f"{layer.pairs} pairs" in layer.verdict.sentence
        beyond = layer.effect(p.FLIP_BACKS, "regressed").by_group.value
        assert layer.cells[0].difference.value == pytest.approx(beyond - 0.5)
        assert layer.cells[1].difference.value == pytest.approx(beyond - np.mean(layer.planes))
    with pytest.raises(PolytopeError, match="layers compared: 0, 1"):
        result.layer(2)
    with pytest.raises(PolytopeError, match="no effect 'nonsense'"):
        result.layers[0].effect("nonsense")


def test_a_last_layer_without_biases_flips_nothing_back(gated) -> None:
    found = boundaries(gated, SHORT, 1, controls=(), **QUICK).layers[0]
    beyond = found.effect(p.FLIP_BACKS, "regressed").by_group
    assert (beyond.value, beyond.low, beyond.high) == (0.5, 0.5, 0.5)
    assert found.verdict.outcome == "no lead"


def test_it_saves_and_loads_and_keeps_no_text(result, tmp_path) -> None:
    result.save(tmp_path)
    assert BoundariesResult.load(tmp_path) == result
    text = (tmp_path / "result.json").read_text()
    assert all(word not in text for pair in SHORT for word in (pair.a, pair.b))
    numbers = pd.read_parquet(tmp_path / "pairs.parquet")
    assert set(numbers.dtypes.map(str)) <= {"float64", "int64", "bool", "object", "str", "string"}
    assert set(numbers["weights"]) == {"real", "permuted", "untrained"}
    judged = judge(
        result.layers[0].site,
        from_numbers(numbers, 0),
        {name: from_numbers(numbers, 0, name) for name in ("permuted", "untrained")},
        result.settings,
    )
    assert judged.effects == result.layers[0].effects
    assert judged.controls == result.layers[0].controls
    assert judged.shuffled == result.layers[0].shuffled


def test_it_shows_itself(result) -> None:
    frame = result.to_frame()
    assert {"raw", "matched", "regressed"} <= set(frame["adjustment"])
    assert {"flip-backs beyond curvature", "flip-backs, permuted"} <= set(frame["effect"])
    figure = result.plot()
    assert len(figure.data) == 7
    assert [shape.layer for shape in figure.layout.shapes if shape.type == "rect"] == ["below"]
    assert result.verdict in repr(result)
    page = result._repr_html_()
    assert "<table>" in page
    for part in ("variance inflation: crossings ", "weights untrained", "labels permuted 4 times", "curvature"):
        assert page.count(part) == 2


def test_it_is_the_same_again_and_goes_on_where_it_was_cut(model, tmp_path) -> None:
    keep = tmp_path / "kept"
    options = {**QUICK, "shuffles": 1, "controls": ("permuted", "untrained")}
    first = boundaries(model, SHORT[:24], 1, keep=keep, **options)
    first.save(tmp_path / "one")
    whole = tree(keep)
    cut = keep / "permuted-L01.pre.jsonl"
    cut.write_text(cut.read_text()[: len(cut.read_text()) // 2])
    (keep / "untrained-L01.pre.jsonl").unlink()
    again = boundaries(model, SHORT[:24], 1, keep=keep, **options)
    again.save(tmp_path / "two")
    assert tree(keep) == whole
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    for each in (one, two):
        del each["timings"]
    assert one == two
    assert again == first


def test_the_former_name_of_the_missed_crossings_is_read(model, tmp_path) -> None:
    former = {"missed estimate": "missed at most"}
    options = {**QUICK, "controls": ()}
    first = boundaries(model, SHORT[:24], 1, keep=tmp_path, **options)
    kept = tmp_path / "real-L01.pre.jsonl"
    head, entries = resume.read(kept)
    for entry in entries:
        entry["found"] = {former.get(name, name): value for name, value in entry["found"].items()}
        assert "missed at most" in entry["found"]
    kept.write_bytes(resume.encoded(head, entries))
    assert boundaries(model, SHORT[:24], 1, keep=tmp_path, **options) == first
    assert b'"missed at most"' in kept.read_bytes()  # nothing was measured again
    replace(first, numbers=first.numbers.rename(columns=former)).save(tmp_path / "old")
    assert list(BoundariesResult.load(tmp_path / "old").numbers) == list(first.numbers)


def test_what_was_kept_of_another_run_is_not_used(model, tmp_path) -> None:
    options = {"kind": None, "planes": None, "seed": 0, "kept": tmp_path / "kept.jsonl"}
    p.measure_pairs(model, SHORT[:3], 1, **options)
    before = (tmp_path / "kept.jsonl").read_bytes()
    with pytest.raises(PolytopeError, match=r"kept\.jsonl. holds another run's pairs \(layer: 1, asked 2\)"):
        p.measure_pairs(model, SHORT[:3], 2, **options)
    with pytest.raises(PolytopeError, match=r"another run's pairs \(pairs_sha256"):
        p.measure_pairs(model, SHORT[1:4], 1, **options)
    assert (tmp_path / "kept.jsonl").read_bytes() == before


def test_bad_pairs_are_reported_by_line_and_the_rest_runs(model) -> None:
    text = "".join(json.dumps({"a": q.a, "b": q.b, "group": q.group, "same": q.same}) + "\n" for q in SHORT)
    given = pairs.parse(text + "{\n" + json.dumps({"a": "x " * 99, "b": "y", "group": "g", "same": True}))
    found = boundaries(model, given, 2, controls=(), **QUICK)
    assert [problem.line for problem in found.problems] == [33, 34]
    assert "malformed JSON" in found.problems[0].message
    assert "tokens, the context 64" in found.problems[1].message
    assert found.layers[0].pairs == 32


@pytest.mark.parametrize(
    ("given", "options", "says"),
    [
        (SHORT[: MIN_PAIRS - 1], {}, f"{MIN_PAIRS - 1} pairs are too few to test"),
        ([q for q in SHORT if q.same], {}, "all of the same meaning"),
        ([], {}, "0 pairs"),
        (SHORT, {"controls": ("frozen",)}, "no control 'frozen'"),
        (SHORT, {"layers": 7}, "no layer 7"),
        ("missing.jsonl", {}, "missing.jsonl"),
        (Pairs("set", tuple(replace(q, a="word " * 200) for q in SHORT)), {}, "0 pairs are too few"),
    ],
)
def test_what_can_not_be_tested_is_one_clear_line(model, given, options, says: str) -> None:
    with pytest.raises(PolytopeError, match=says) as caught:
        boundaries(model, given, **{"layers": 2, **QUICK, **options})
    assert "\n" not in str(caught.value)


def test_other_seeds_give_other_intervals(model, result) -> None:
    other = boundaries(model, SHORT, 1, seed=1, controls=(), **QUICK)
    assert other.layers[0].effects != result.layer(1).effects
