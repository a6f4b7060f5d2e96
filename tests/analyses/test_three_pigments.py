"""The picture of three pigments shows the regions that there are."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from analyses.three_pigments import ARRANGEMENTS, name, regions, svg

ROOT = Path(__file__).parents[2]
REGIONS = (6, 6, 7, 8)


@pytest.mark.parametrize(("arrangement", "expected"), list(zip(ARRANGEMENTS, REGIONS, strict=True)))
def test_regions_are_those_of_a_dense_grid(arrangement, expected):
    dimensions = arrangement.normals.shape[1]
    side = np.linspace(-0.999, 0.999, 300 if dimensions == 2 else 30)
    grid = np.array(list(product(side, repeat=dimensions)))
    seen = {tuple(code) for code in (grid @ arrangement.normals.T + arrangement.offsets > 0).tolist()}
    assert set(regions(arrangement)) == seen
    assert len(seen) == expected


@pytest.mark.parametrize("arrangement", ARRANGEMENTS[:3])
def test_areas_fill_the_window(arrangement):
    areas = []
    for corners in regions(arrangement).values():
        middle = corners.mean(axis=0)
        around = corners[np.argsort(np.arctan2(*(corners - middle).T))]
        x, y = around.T
        areas.append(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
    assert sum(areas) == pytest.approx(4)


def test_the_picture_in_the_docs_is_this_one():
    drawn = (ROOT / "docs" / "pictures" / "three-pigments.svg").read_text(encoding="utf-8")
    assert drawn == svg()
    assert drawn.count("<polygon") == sum(REGIONS)
    assert name((True, False, True)) == "CY"
