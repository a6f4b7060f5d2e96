"""The analysis of directions: a small run, what it keeps, and how coefficients are compared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from analyses import direction_validity as analysis

if TYPE_CHECKING:
    from pathlib import Path


def test_a_small_run_keeps_scores_and_no_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "CONTRASTS", dict(list(analysis.CONTRASTS.items())[:3]))
    monkeypatch.setattr(analysis, "PROMPT", "The cat sat on")
    argv = ["--out", str(tmp_path), "--model", "tiny-gpt2", "--layers", "3", "--prompts", "20", "--controls", ""]
    analysis.main([*argv, "--part", "steering"])
    assert not (tmp_path / "tiny-gpt2" / "directions.json").exists()
    steered = (tmp_path / "tiny-gpt2" / "steering.json").read_bytes()
    analysis.main(argv)
    assert (tmp_path / "tiny-gpt2" / "steering.json").read_bytes() == steered
    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    found = json.loads(text)["models"][0]
    assert set(found["outcomes"]) == {"3"}
    assert len(found["steering"]["rows"]) == 3
    assert (tmp_path / "tiny-gpt2" / "report.html").exists()
    assert "The cat sat" not in text


def test_a_constant_factor_is_no_merit() -> None:
    rows = [
        {"measured": m, "predicted": 2 * m, "unit": u, "censored": False}
        for m, u in ((1.0, 3.0), (2.0, 1.0), (4.0, 2.0), (8.0, 5.0))
    ]
    found = analysis.compared([*rows, {"censored": True}])
    assert found["predicted: rho"] == pytest.approx(1)
    assert found["predicted: median |ln ratio|"] == pytest.approx(0.693, abs=1e-3)
    assert found["predicted: the same, best constant"] == pytest.approx(0)
    assert found["censored"] == 1
