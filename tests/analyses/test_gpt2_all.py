"""Every question on one model, small: that each step is run, kept, and in the tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from analyses import gpt2_all

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Thirty documents of more than a hundred tokens, of two kinds."""
    path = tmp_path / "corpus.jsonl"
    texts = [f"{n} {'ab'[n % 2]} break ends the loop. " * 30 for n in range(30)]
    rows = [{"id": str(n), "text": text, "kind": "xy"[n % 2]} for n, text in enumerate(texts)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_every_step_runs_on_gpt2s_family(data: Path, corpus: Path, tmp_path: Path, tokenizer, capsys) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=48, n_head=4, n_inner=3072, bos_token_id=None, eos_token_id=None)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    gpt2_all.main(
        [
            "--model", str(tmp_path / "small"), "--out", str(tmp_path / "out"), "--data", str(data), "--layers", "1",
            "--label", "kind", "--corpus", str(corpus), "--size", "small",
        ]
    )  # fmt: skip
    said = capsys.readouterr().out
    assert all(f"{step}: about" in said for step in gpt2_all.STEPS)
    assert {step.name for step in (tmp_path / "out").iterdir() if step.is_dir()} == set(gpt2_all.STEPS)
    tables = (tmp_path / "out" / "tables.md").read_text()
    for part in ("small | kind | 1 |", "small | upos | 1 |", "Word senses, over layers", "Directions: ", "flattened"):
        assert part in tables


def test_steps_write_their_tables_and_go_on(data: Path, corpus: Path, tmp_path: Path, monkeypatch, capsys) -> None:
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
