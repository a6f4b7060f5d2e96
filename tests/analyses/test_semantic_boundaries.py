"""The analysis of boundaries and meaning on a few pairs: what it writes, tells and refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

from analyses import semantic_boundaries
from polytope_lm import pairs as pair_sets

ARGUMENTS = ["--model", "tiny-relu", "--layers", "2", "--controls", "none", "--draws", "1", "--shuffles", "0"]


def test_a_run_is_written_and_told(tmp_path, capsys, monkeypatch):
    every = pair_sets.builtin()
    few = replace(every, pairs=every.pairs[:24])
    monkeypatch.setattr(semantic_boundaries.pair_sets, "builtin", lambda: few)
    semantic_boundaries.main([*ARGUMENTS, "--out", str(tmp_path)])
    told = capsys.readouterr().out
    result = json.loads((tmp_path / "builtin" / "result.json").read_text())
    assert result["verdict"] in told
    assert "about " in told
    page = (tmp_path / "builtin" / "report.html").read_text(encoding="utf-8")
    assert 'id="tab-boundaries"' in page
    row = pd.read_csv(tmp_path / "summary.csv").iloc[0]
    assert (row["model"], row["layer"], row["n"]) == ("tiny-relu", 2, 24)
    assert row["verdict"] == result["layers"][0]["verdict"]["outcome"]
    texts = [prompt for pair in few for prompt in pair.prompts]
    for file in (*tmp_path.rglob("*.json*"), tmp_path / "summary.csv", tmp_path / "builtin" / "report.html"):
        assert not any(text in file.read_text(encoding="utf-8") for text in texts), file


def test_a_mistake_ends_it_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: tiny-relu: no layer 9; it has 4, from 0 to 3$"):
        semantic_boundaries.main([*ARGUMENTS, "--layers", "9", "--out", str(tmp_path)])
