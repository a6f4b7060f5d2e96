"""`polytope-lm calibrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import made
import pytest
from commands import misused, printed, refused, run

import polytope_lm as plm
from polytope_lm.result import load_result

if TYPE_CHECKING:
    from pathlib import Path

FEW = ("--runs", 3, "--splits", 1, "--resamples", 4, "--k", 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    made.captured(folder)
    return folder / "store"


def test_it_says_how_often_the_test_is_wrong(store: Path, tmp_path: Path) -> None:
    found = run("calibrate", store, "--label", "upos", "--layers", 1, *FEW, "--out", tmp_path)
    assert found.code == 0, found.err
    assert "interval excludes 0" in found.out
    assert "halves agree" in found.out
    assert "not testable" in found.out
    saved = load_result(tmp_path / "calibration.json")
    assert found.out.startswith(f"{saved.headline}\n")
    assert "exchanged between documents 3 times" in saved.headline
    words = saved.command.split()
    assert words[:2] == ["polytope-lm", "calibrate"]
    direct = plm.calibrate(plm.open_store(store), 1, "upos", runs=3, splits=1, resamples=4, k=4)
    assert saved.layers == direct.layers
    again = run(
        "calibrate", store, "--label", "upos", "--layers", 1, *FEW, "--exchange", "drawn per document", "--json"
    )
    assert printed(again, "calibration")["exchange"] == "drawn per document"


def test_mistakes_are_one_line(store: Path) -> None:
    assert "no label 'mood'" in refused("calibrate", store, "--label", "mood", *FEW)
    assert "--exchange" in misused("calibrate", store, "--label", "upos", "--exchange", "freely")
