"""The picture of few maps: every kind of group is drawn where its numbers are, and what is missing is said."""

from __future__ import annotations

import itertools
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
        assert {name.rpartition(" ")[0] for name in row["arms"] if name.endswith(" 10")} == set(GROUPED)
        for name, colour in zip(GROUPED, COLOURS, strict=False):
            heights = [float(point.split(",")[1]) for point in lines[colour].get("points").split()]
            values = [1.3 - 2.3 * (height - top) / tall for height in heights]
            own = {a: v["recovered"][0] for a, v in row["arms"].items() if a.rpartition(" ")[0] == name}
            arms = sorted((int(a.split()[-1]), value) for a, value in own.items())
            assert values == pytest.approx([value for _, value in arms], abs=0.01)


def test_the_legends_words_do_not_run_into_each_other(browser):
    page = browser.new_page()
    page.set_content(maps_picture.svg(tables()))
    script = (
        "[...document.querySelectorAll('svg > text')].map(t => t.getBBox()).map(b => [b.x, b.width, b.y, b.height])"
    )
    *names, note = page.evaluate(script)
    page.close()
    assert len(names) == len(GROUPED) + 2
    found = [(x - 28, x + width, y, y + height) for x, width, y, height in names]  # a stroke stands before a name
    found.append((note[0], note[0] + note[1], note[2], note[2] + note[3]))
    whole = maps_picture.COLUMNS * maps_picture.WIDTH
    assert all(left >= 0 and right <= whole for left, right, _, _ in found)
    for one, other in itertools.combinations(found, 2):
        beside = one[1] < other[0] or other[1] < one[0]
        assert beside or one[3] <= other[2] or other[3] <= one[2], (one, other)


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
