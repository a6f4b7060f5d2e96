"""Every question on one model, small: that each step is run, kept, and in the tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from analyses import gpt2_all

if TYPE_CHECKING:
    from pathlib import Path


def test_steps_write_their_tables_and_go_on(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    rows = [{"id": str(n), "text": f"{'ab'[n % 2]} break ends the loop. " * 30, "kind": "xy"[n % 2]} for n in range(30)]
    for n, row in enumerate(rows):
        row["text"] = f"{n} {row['text']}"
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps(row) for row in rows))
    typed = [
        "--model", "tiny-relu", "--out", str(tmp_path / "out"), "--data", str(data), "--layers", "1", "--label", "kind",
        "--corpus", str(corpus), "--size", "small",
    ]  # fmt: skip
    gpt2_all.main([*typed, "--step", "paper", "--step", "senses"])
    said = capsys.readouterr().out
    assert said.index("together about") < said.index("Code ahead of its references")
    tables = (tmp_path / "out" / "tables.md").read_text()
    assert tables.startswith("tiny-relu, 20")
    for part in ("| tiny-relu | kind | 1 |", "Word senses, over layers"):
        assert part in tables
    monkeypatch.setattr(gpt2_all.plm, "capture", lambda *_, **__: pytest.fail("captured again"))
    gpt2_all.main([*typed, "--step", "paper"])


def test_steps_that_need_data_are_left_out_and_wrong_use_is_one_line(tmp_path: Path, capsys) -> None:
    gpt2_all.main(["--model", "tiny-relu", "--out", str(tmp_path), "--cost"])
    said = capsys.readouterr().out
    assert "senses" not in said
    assert "treebank" not in said
    with pytest.raises(SystemExit, match=r"error: .*--layers 'x'"):
        gpt2_all.main(["--out", str(tmp_path), "--layers", "x"])
