"""The analysis of what a code determines, on a tiny model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from analyses import one_bit_mlp
from polytope_lm.result import load_result

if TYPE_CHECKING:
    from pathlib import Path


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
