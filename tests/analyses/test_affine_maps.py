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
