"""`polytope-lm test directions`: files, the table, JSON, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commands import MODEL, printed, refused, run

import polytope_lm as plm

if TYPE_CHECKING:
    from pathlib import Path


def test_it_writes_its_result_and_page_and_goes_on(tmp_path: Path) -> None:
    few = ("--layers", 3, "--prompts", 20, "--tokens", 8, "--draws", 0, "--resamples", 20)
    first = run("test", "directions", MODEL, "sample", "--out", tmp_path / "out", *few)
    assert first.code == 0, first.err
    assert "rank correlation of curvature" in first.out
    result = plm.load_result(tmp_path / "out")
    assert first.out.startswith(f"{result.verdict}\n")
    assert result.command.startswith(f"polytope-lm test directions {MODEL} sample --layers 3")
    assert "Directions" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    again = run("test", "directions", MODEL, "sample", "--out", tmp_path / "out", *few, "--json")
    assert printed(again, "directions")["verdict"] == result.verdict


def test_a_wrong_tau_is_told_in_a_line(tmp_path: Path) -> None:
    said = refused("test", "directions", MODEL, "sample", "--out", tmp_path, "--tau", 3)
    assert "tau = 3" in said
