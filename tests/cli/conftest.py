"""A corpus, its store, another model: what the tests of the command line share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import MODEL, NASTY, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen short documents with two labels; one of them would like to talk to the terminal."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = []
    for i in range(15):
        topic, did = ("river", "swam") if i % 2 else ("bank", "paid")
        rows.append({"text": f"The {topic} number {i} was wide, and {i + 3} ducks {did} there.", "topic": topic})
    nasty = f"A tale {NASTY} <script>alert(1)</script> [bold]text[/bold] \u202eabc"
    rows.append({"text": nasty, "topic": "bank"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def store(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two layers of the packaged model, with what comparisons need."""
    path = tmp_path_factory.mktemp("stores") / "store"
    choices = "--layers 0,2 --keep u,h --label-columns topic --json"
    result = run("capture", MODEL, corpus, "--out", path, *choices.split())
    assert result.code == 0, result.err
    assert result.err == ""
    facts = json.loads(result.out)
    assert facts["complete"]
    assert facts["documents"] == 16
    return path


@pytest.fixture(scope="session")
def directory(
    gpt2: Callable[..., GPT2LMHeadModel], tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Another model, as a directory."""
    path = tmp_path_factory.mktemp("models") / "small"
    gpt2().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    """A store to damage."""
    return Path(shutil.copytree(store, tmp_path / "copy"))
