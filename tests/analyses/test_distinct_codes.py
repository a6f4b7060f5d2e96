"""`analyses.distinct_codes` on a tiny treebank."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polytope_lm as plm
from analyses import distinct_codes

if TYPE_CHECKING:
    from pathlib import Path


def test_codes_are_counted_beside_the_draws_of_both_controls(data: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path), "--model", "tiny-relu", "--layers", "1,2", "--draws", "2"]
    distinct_codes.main(arguments)
    found = json.loads((tmp_path / "result.json").read_text())["models"]["tiny-relu"]
    store = plm.open_store(tmp_path / "tiny-relu" / "store")
    assert found["tokens"] == len(store) == found["at"][-1]
    rows = {(row["layer"], row["neurons"]): row for row in found["growths"]}
    width = store.site(1).width
    assert set(rows) == {(layer, g) for layer in (1, 2) for g in (8, 16, 32, width)} | {(None, 2 * width)}
    for (layer, neurons), row in rows.items():
        if layer is not None:
            bits = store.bits(layer)[:, :neurons]
            assert row["distinct codes"][-1] == len({one.tobytes() for one in bits})
        for kind in ("independent", "planes"):
            assert row[f"{kind}, least"][-1] <= row[f"{kind}, mean"][-1] <= row[f"{kind}, greatest"][-1]
    sixteen = rows[1, 16]
    assert sixteen["planes, least"] != sixteen["planes, greatest"]
    assert sixteen["distinct codes"][-1] < sixteen["independent, least"][-1]
