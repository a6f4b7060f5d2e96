"""The analysis of local maps, small: it runs, keeps what is done, and its matching has the limits that it must have."""

from __future__ import annotations

import json

import pytest

import polytope_lm as plm
from analyses import affine_maps


@pytest.fixture
def small(monkeypatch):
    documents = list(plm.documents("sample"))[:10]
    # Not setattr: a module is never put in a function's place, so that what was there would not come back.
    monkeypatch.setitem(vars(affine_maps.plm), "documents", lambda _name: documents)
    monkeypatch.setattr(affine_maps, "LENGTH", 32)
    monkeypatch.setattr(affine_maps, "TESTED", 2)


def test_a_layer_is_not_told_by_another_better_than_by_itself(small):
    model = plm.load("tiny-relu")
    itself, other = (affine_maps.matched(model, layer, model, 1) for layer in (1, 0))
    assert itself["matched"] < other["matched"]
    assert other["mean-ablated"] == itself["mean-ablated"] > 0
    assert abs(other["shuffled tokens"] - other["mean map"]) < 0.5 * other["mean-ablated"]


def test_a_network_is_told_by_its_twin_better_than_by_shuffled_tokens(small):
    twin, model = plm.load("tiny-gpt2"), plm.load("tiny-relu")
    found = affine_maps.matched(twin, 1, model, 1)
    assert found["matched"] < found["shuffled tokens"]
    assert found != affine_maps.matched(model, 1, model, 1)


def test_every_ordered_pair_is_matched_once(monkeypatch, tmp_path):
    models = {name: plm.load(name) for name in affine_maps.TINY}
    monkeypatch.setattr(affine_maps, "matched", lambda _source, a, _target, b: {"lost": a + 10 * b})
    told: list[str] = []
    found = affine_maps.matchings(models, tmp_path / "pairs.json", lambda _done, _total, what: told.append(what))
    pairs = {(one["source"], one["from"], one["target"], one["to"]) for one in found}
    assert len(found) == len(pairs) == len(told) == 2 * 4 * 3 + 2 * 4  # within each network, and layer by layer between
    assert all(one["lost"] == one["from"] + 10 * one["to"] for one in found)
    assert all(a != b if source == target else a == b for source, a, target, b in pairs)
    monkeypatch.setattr(affine_maps, "matched", lambda *_: pytest.fail("what is done is not run again"))
    assert affine_maps.matchings(models, tmp_path / "pairs.json", lambda *_: None) == found


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
