"""The picture of distinct codes: every curve goes through its numbers, and the page shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analyses import distinct_picture

pytest.importorskip("matplotlib")
ROOT = Path(__file__).resolve().parents[2]
RESULTS = [ROOT / "analyses" / "results" / f"distinct-codes-{name}.json" for name in ("tiny", "smollm2")]


def test_every_curve_goes_through_its_kept_numbers() -> None:
    models = {m: found for path in RESULTS for m, found in json.loads(path.read_text())["models"].items()}
    panels = {panel.get_title(): panel for panel in distinct_picture.figure(models).axes}
    assert len(panels) == 6
    for name, found in models.items():
        for row in found["growths"]:
            if row["layer"] is None:
                continue
            panel = panels[f"{name}, layer {row['layer']}"]
            drawn = {tuple(map(float, line.get_ydata())) for line in panel.lines}
            for kind in ("distinct codes", "independent, mean", "planes, mean"):
                assert tuple(row[kind]) in drawn
            assert all(list(line.get_xdata()) == found["at"] for line in panel.lines)
            assert len(panel.lines) == 3 * len(panel.collections) == 12


def test_the_page_shows_it_and_files_that_are_none_are_one_line(tmp_path: Path) -> None:
    distinct_picture.main([str(tmp_path / "one.svg"), *map(str, RESULTS)])
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (ROOT / "docs" / "pictures" / "distinct-codes.svg").read_text(encoding="utf-8")
    assert "(pictures/distinct-codes.svg)" in (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    (tmp_path / "none.json").write_text('{"models": {}}', encoding="utf-8")
    with pytest.raises(SystemExit, match="no layer in these files"):
        distinct_picture.main([str(tmp_path / "two.svg"), str(tmp_path / "none.json")])
