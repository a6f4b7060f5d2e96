"""Tables of kept results: one row a layer, numbers as they were saved."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from analyses import boundary_tables

SAVED = Path(__file__).parents[1] / "saved"


def test_kept_results_become_rows(tmp_path, capsys):
    for name in ("alignment", "boundaries"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_bytes((SAVED / name / "result.json").read_bytes())
        for table in (SAVED / name).glob("*.parquet"):
            (tmp_path / name / table.name).write_bytes(table.read_bytes())
    boundary_tables.main([str(tmp_path)])
    told = capsys.readouterr().out
    for name in ("alignment", "boundaries"):
        layers = json.loads((SAVED / name / "result.json").read_text())["layers"]
        assert all(f"| {layer['site']['layer']} |" in told for layer in layers)
    assert "| AUC of crossings, raw |" in told
    head, _, row = next(told[told.index("| model | pairs |") :].split("\n", 3)[:3] for _ in "1")
    power = json.loads((SAVED / "boundaries" / "result.json").read_text())["layers"][0]["verdict"].get("power")
    assert head.endswith("| verdict | power |")
    assert row.endswith(f"| {power:.3f} |" if power is not None else "|  |")


def test_a_directory_without_results_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=re.escape(str(tmp_path))):
        boundary_tables.main([str(tmp_path)])
