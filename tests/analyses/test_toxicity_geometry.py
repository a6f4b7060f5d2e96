"""`analyses.toxicity_geometry` on a handful of comments whose class is a word."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from analyses import toxicity_geometry
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def corpora(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toxic")
    (folder / "toxicity").mkdir()
    with (folder / "toxicity" / "toxicity_en.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "is_toxic"])
        for i in range(24):
            writer.writerow([f"You {'rotten' if i % 2 else 'lovely'} duck number {i}", ("Not Toxic", "Toxic")[i % 2]])
    shutil.copytree(data / "news", folder / "news")
    table = (folder / "news" / "ag_news.csv").read_text()
    (folder / "news" / "classes.txt").write_text("Business\nSci/Tech\n")
    assert table
    return folder


def test_every_contrast_is_scored_and_a_stopped_run_goes_on(corpora: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(corpora), "--out", str(tmp_path), "--model", "tiny-gpt2", "--texts", "12"]
    toxicity_geometry.main(arguments)
    first = json.loads((tmp_path / "result.json").read_text())
    found = first["models"]["tiny-gpt2"]
    one = found["toxic against clean comments, one domain"]
    assert (one["texts"], one["first class"]) == (24, 12)
    assert next(iter(one["AUC"])) is not None
    assert one["AUC"]["bag of words"]["value"] == 1
    assert {"length", "mean u, middle layer", "sd of share on, all layers", "all spline features"} <= set(one["AUC"])
    assert found["clean comments against news"]["AUC"]["all spline features"]["value"] > 0.9
    assert first["source's AUC, per cent"] == {"mixed domains": 99.18, "one domain": 89.8}
    assert "rotten" not in (tmp_path / "result.json").read_text()
    kept = next(tmp_path.rglob("00000.npz"))
    before = kept.stat().st_mtime_ns
    toxicity_geometry.main(arguments)
    assert kept.stat().st_mtime_ns == before
    assert json.loads((tmp_path / "result.json").read_text()) == first


def test_texts_that_share_eight_words_are_one_group() -> None:
    shared = "one two three four five six seven eight"
    texts = [
        f"{shared} nine",
        "quite another text",
        f"zero {shared}",
        "quite another text of more words than eight here",
    ]
    group = toxicity_geometry.groups_of(texts)
    assert group[0] == group[2]
    assert len(np.unique(group)) == 3


def test_one_class_only_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PolytopeError, match="no such file"):
        toxicity_geometry.comments(tmp_path, 5, 0)
    (tmp_path / "toxicity").mkdir()
    (tmp_path / "toxicity" / "toxicity_en.csv").write_text("text,is_toxic\na,Toxic\nb,Toxic\n")
    with pytest.raises(PolytopeError, match="all of its comments are Toxic"):
        toxicity_geometry.comments(tmp_path, 5, 0)
    nothing = toxicity_geometry.Read(np.zeros((4, 7)), np.ones(4), np.zeros((4, 2)))
    with pytest.raises(PolytopeError, match="4 of 4 texts"):
        toxicity_geometry.contrast(nothing, ["a", "b", "c", "d"], np.ones(4, bool), 0)
