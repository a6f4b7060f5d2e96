"""`polytope-lm test determination`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import made
import pytest
from commands import misused, printed, refused, run

import polytope_lm as plm
from polytope_lm.result import load_result

if TYPE_CHECKING:
    from pathlib import Path

FEW = ("--max-tokens", 24, "--fit-tokens", 120, "--neurons", 20, "--draws", 1, "--resamples", 20, "--no-together")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("determination")
    made.captured(folder)
    return folder / "store"


def test_it_writes_a_result_and_a_page_and_goes_on_where_it_was(store: Path, tmp_path: Path) -> None:
    found = run("test", "determination", store, "--layers", 1, "--out", tmp_path, *FEW)
    assert found.code == 0, found.err
    assert "hard gate: negative side flattened" in found.out
    assert "test determination: up to 40 documents of 24 tokens, 1 layer" in found.err
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What a code determines" in page
    assert (tmp_path / "layers" / "layer-01.jsonl").exists()
    saved = load_result(tmp_path / "determination.json")
    assert found.out.startswith(f"{saved.verdict}\n")
    assert repr(saved).startswith(f"<DeterminationResult: {saved.verdict}")
    again = run("test", "determination", store, "--layers", 1, "--out", tmp_path, *FEW, "--json")
    said = printed(again, "determination")
    assert said["command"] == saved.command
    assert said["layers"][0]["scores"] == saved.to_dict()["layers"][0]["scores"]
    words = saved.command.split()
    assert words[:3] == ["polytope-lm", "test", "determination"]
    assert "--no-together" in words
    mine = plm.predictions.determination(
        plm.open_store(store), 1, model=plm.load("tiny-gpt2"), max_tokens=24, fit_tokens=120, neurons=20, draws=1,
        resamples=20, together=False,
    )  # fmt: skip
    assert mine.to_frame().equals(saved.to_frame())


def test_wrong_use_is_one_line(store: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path)
    assert "layer 7" in refused("test", "determination", store, "--layers", 7, *out, *FEW)
    assert "no store" in refused("test", "determination", tmp_path / "none", *out)
    assert "tiny-relu" in refused("test", "determination", store, *out, "--model", "tiny-relu")
    assert "--draws" in misused("test", "determination", store, *out, "--draws", 0)
