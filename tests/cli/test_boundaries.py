"""`polytope-lm test boundaries`."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pytest
from commands import MODEL, misused, printed, refused, run

from polytope_lm import pairs
from polytope_lm.predictions.boundaries.result import BoundariesResult

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--controls", "none", "--draws", "1", "--shuffles", "0", "--resamples", "50", "--layers", "3")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four pairs, and a line that is none."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    pairs.write(pairs.builtin().pairs[:24], path)
    path.write_text(path.read_text() + '{"a": "\\u001b[31mred", "b": "y", "group": "g"}\n')
    return path


def test_help_has_an_example_and_json() -> None:
    shown = run("test", "boundaries", "--help").out
    assert "\n    polytope-lm test boundaries tiny-gpt2 builtin" in shown
    assert "--json" in shown
    listed = [" ".join(line.split()) for line in run("test", "--help").out.splitlines()]
    assert "boundaries Prediction 2: boundaries and meaning." in listed


def test_it_writes_a_result_and_prints_the_verdict(few: Path, tmp_path: Path) -> None:
    ran = run("test", "boundaries", MODEL, few, "--out", tmp_path, *QUICK)
    assert ran.code == 0, ran.err
    result = BoundariesResult.load(tmp_path)
    assert ran.out.startswith(f"{result.verdict}\n")
    assert "beyond covariates" in ran.out
    assert "variance inflation: crossings " in ran.out
    cost, *_, left_out = ran.err.splitlines()  # between them a slow machine tells its minutes
    assert cost.startswith("test boundaries: ")
    assert left_out == "left out: line 25: 'same' is missing; give true or false"
    assert [problem.line for problem in result.problems] == [25]
    assert result.command == (
        f"polytope-lm test boundaries {MODEL} {few} --layers 3 --controls none --draws 1 --shuffles 0 "
        f"--seed 0 --resamples 50 --smallest-effect 0.02 --out {tmp_path}"
    )
    again = run("test", "boundaries", MODEL, few, "--out", tmp_path, *QUICK, "--json")
    data = printed(again, "boundaries")
    assert data["verdict"] == result.verdict
    assert data["layers"][0]["pairs"] == 24
    assert data["report"] == str(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="tab-boundaries"' in page
    assert result.layers[0].verdict.sentence in html.unescape(re.sub(r"</?(abbr|bdi)[^>]*>", "", page))


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    out = ("--out", tmp_path)
    assert "none: the file of pairs" in refused("test", "boundaries", MODEL, tmp_path / "none", *out)
    assert "no layer 9" in refused("test", "boundaries", MODEL, "builtin", "--layers", "9", *out)
    assert "no control 'frozen'" in refused("test", "boundaries", MODEL, "builtin", "--controls", "frozen", *out)
    assert "neither `all` nor indices" in misused("test", "boundaries", MODEL, "builtin", "--layers", "x", *out)
