"""The picture of few maps: every kind of group is drawn where its numbers are, and what is missing is said."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from analyses import maps_picture
from polytope_lm.geometry.reduction import GROUPED
from polytope_lm.plotting import COLOURS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = [ROOT / "analyses" / "results" / f"{name}.json" for name in ("affine-maps", "affine-maps-smollm2")]
SVG = "{http://www.w3.org/2000/svg}"


def tables():
    return {m: rows for path in RESULTS for m, rows in json.loads(path.read_text(encoding="utf-8"))["models"].items()}


def test_the_kept_picture_is_that_of_the_kept_numbers(tmp_path):
    maps_picture.main([str(tmp_path / "maps.svg"), *map(str, RESULTS)])
    drawn = (tmp_path / "maps.svg").read_text(encoding="utf-8")
    assert drawn == (ROOT / "docs" / "pictures" / "maps.svg").read_text(encoding="utf-8")


def test_every_group_is_a_curve_through_its_numbers():
    found = tables()
    whole = ET.fromstring(maps_picture.svg(found))  # noqa: S314 - our own
    panels = list(whole.iter(f"{SVG}svg"))[1:]
    assert len(panels) == len(maps_picture.PANELS)
    for panel, (model, layer, kind) in zip(panels, maps_picture.PANELS, strict=True):
        (row,) = [each for each in found[model] if (each["layer"], each["maps"]) == (layer, kind)]
        lines = {line.get("stroke"): line for line in panel.iter(f"{SVG}polyline")}
        top, tall = (float(panel.get(side)) for side in ("y", "height"))
        kinds = [name for name in GROUPED if f"{name} 1" in row["arms"]]
        assert len(kinds) >= 5
        for name, colour in zip(kinds, COLOURS, strict=False):
            heights = [float(point.split(",")[1]) for point in lines[colour].get("points").split()]
            values = [1.3 - 2.3 * (height - top) / tall for height in heights]
            own = {a: v["recovered"][0] for a, v in row["arms"].items() if a.rpartition(" ")[0] == name}
            arms = sorted((int(a.split()[-1]), value) for a, value in own.items())
            assert values == pytest.approx([value for _, value in arms], abs=0.01)


def test_what_is_missing_is_said(tmp_path):
    found = tables()
    (tmp_path / "one.json").write_text(json.dumps({"models": {"tiny-relu": found["tiny-relu"]}}), encoding="utf-8")
    with pytest.raises(SystemExit, match="tiny-gpt2, layer 1, tangent: not in these files"):
        maps_picture.main([str(tmp_path / "maps.svg"), str(tmp_path / "one.json")])
    for each in found["tiny-relu"]:
        for arm in each["arms"].values():
            arm["recovered"] = None
    with pytest.raises(maps_picture.PolytopeError, match="tiny-relu, layer 1: removing the MLP costs too little"):
        maps_picture.svg(found)
