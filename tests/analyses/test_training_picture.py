"""The picture of the network on digits shows the kept numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from analyses import training_picture
from polytope_lm.errors import PolytopeError

ROOT = Path(__file__).parents[2]
NUMBERS = ROOT / "analyses" / "results" / "training-dynamics.json"


def test_the_docs_show_the_kept_numbers(tmp_path):
    training_picture.main([str(NUMBERS), str(tmp_path / "picture.svg")])
    made = (tmp_path / "picture.svg").read_text("utf-8")
    assert made == (ROOT / "docs" / "pictures" / "training-digits.svg").read_text("utf-8")
    curves = re.findall(r'<polyline points="([^"]*)"', made)
    assert len(curves) == 11
    rows = json.loads(NUMBERS.read_text("utf-8"))["digits"]["steps"]
    wanted = [row["values"]["norm of the Jacobian, decision boundary"] for row in rows[-2:]]
    heights = [196 - float(point.split(",")[1]) for point in curves[7].split()]
    assert heights[-2] / heights[-1] == pytest.approx(wanted[0] / wanted[1], abs=0.01)


def test_what_was_not_measured_is_named():
    with pytest.raises(PolytopeError, match=r"local complexity, r = 0\.05"):
        training_picture.svg([0, 1], {})
