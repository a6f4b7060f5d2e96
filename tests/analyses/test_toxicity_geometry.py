"""`analyses.toxicity_geometry` on a handful of comments whose class is a word."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

import polytope_lm as plm
from analyses import toxicity_geometry
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.spline_features import FEATURES

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
    ahead = one["differences"]
    assert len(ahead) == 3 * 8 + 2
    for name in FEATURES:
        for other in ("length", "bag of words", "mean u, middle layer"):
            lead = one["AUC"][f"{name}, all layers"]["value"] - one["AUC"][other]["value"]
            paired = ahead[f"{name}, all layers - {other}"]
            assert paired["value"] == pytest.approx(lead, abs=2e-4)
            assert paired["low"] <= paired["value"] <= paired["high"]
    assert found["clean comments against news"]["AUC"]["all spline features"]["value"] > 0.9
    assert first["source's AUC, per cent"] == {"mixed domains": 99.18, "one domain": 89.8}
    assert "rotten" not in (tmp_path / "result.json").read_text()
    kept = next(tmp_path.rglob("00000.npz"))
    before = kept.stat().st_mtime_ns
    toxicity_geometry.main(arguments)
    assert kept.stat().st_mtime_ns == before
    assert json.loads((tmp_path / "result.json").read_text()) == first


def test_pipelines_start_at_texts_and_a_feature_alone_is_its_own_columns() -> None:
    texts = [f"The {word} duck number {i} swims on the pond" for i in range(15) for word in ("rotten", "kind")]
    y, group = np.arange(30) % 2 == 0, np.arange(30)
    read = toxicity_geometry.Texts(plm.load("tiny-gpt2"))
    pipelines = toxicity_geometry.predictors(read)
    whole = plm.SplineFeatures("tiny-gpt2", max_length=128).fit(texts)
    columns = whole.get_feature_names_out()
    own = [i for i, name in enumerate(columns) if str(name).endswith("mean boundary distance")]
    assert len(own) == 4
    array = np.array(texts, dtype=object)
    found = toxicity_geometry.held_out(pipelines["mean boundary distance, all layers"], array, y, group, 0)
    X, expected = whole.transform(texts)[:, own], np.empty(30)
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(X, y, group):
        scaler = StandardScaler().fit(X[train])
        classifier = LogisticRegression(max_iter=2000).fit(scaler.transform(X[train]), y[train])
        expected[test] = classifier.predict_proba(scaler.transform(X[test]))[:, 1]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert set(read.known) == set(texts)


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
    nothing = toxicity_geometry.Texts(plm.load("tiny-gpt2"))
    with pytest.raises(PolytopeError, match="4 of 4 texts"):
        toxicity_geometry.contrast(nothing, ["a", "b", "c", "d"], np.ones(4, bool), 0)
