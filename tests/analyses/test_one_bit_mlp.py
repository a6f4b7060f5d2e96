"""The analysis of what a code determines, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analyses import one_bit_mlp
from polytope_lm.result import load_result


def test_a_run_its_tables_and_going_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["--out", str(tmp_path), "--model", "tiny-relu", "--layers", "1", "--tested", "4", "--resamples", "20"]
    one_bit_mlp.main(typed)
    said = capsys.readouterr().out
    data = json.loads((tmp_path / "result.json").read_text())
    assert data["command"].startswith("python -m analyses.one_bit_mlp --out DIR")
    (model,) = data["models"]
    assert [place["place"] for place in model["places"]] == ["1", "all"]
    found = load_result(tmp_path / "tiny-relu" / "determination.json")
    hard = found.together.score("hard gate", "hard gate").recovered
    row = next(line for line in said.splitlines() if line.startswith("| hard gate |"))
    assert row.endswith(f"{hard.value:.2f} [{hard.low:.2f}, {hard.high:.2f}] |")
    one_bit_mlp.main(["--table", str(tmp_path / "result.json")])
    assert capsys.readouterr().out.strip() in said
    one_bit_mlp.main(typed)
    assert json.loads((tmp_path / "result.json").read_text()) == data


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .*none\.json"):
        one_bit_mlp.main(["--table", str(tmp_path / "none.json")])


def test_the_findings_have_the_tables_of_the_results_that_are_kept() -> None:
    root = Path(__file__).parents[2]
    findings = (root / "docs" / "findings.md").read_text(encoding="utf-8")
    kept = sorted((root / "analyses" / "results").glob("one-bit-mlp-*.json"))
    assert kept
    for file in kept:
        assert one_bit_mlp.tables(json.loads(file.read_text(encoding="utf-8"))) in findings, file.name
