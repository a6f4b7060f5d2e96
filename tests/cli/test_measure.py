"""`polytope-lm measure`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import made
import pandas as pd
import pytest
from commands import misused, printed, refused, run

import polytope_lm as plm

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measure")
    made.captured(folder)
    return folder / "store"


def test_it_shows_medians_and_writes_every_row(store: Path, tmp_path: Path) -> None:
    shown = run("measure", store, "--layers", "1,2", "--most", 30, "--out", tmp_path / "table.csv")
    assert shown.code == 0, shown.err
    assert "local complexity, next layer" in shown.out
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["layer"].value_counts().to_dict() == {1: 30, 2: 30}
    direct = plm.measure(plm.open_store(store), model=plm.load("tiny-gpt2"), layers=[1, 2], most=30)
    assert table["local complexity"].tolist() == direct["local complexity"].tolist()
    grown = plm.distinct_codes(plm.open_store(store), layers=[1, 2])
    assert grown.headline in " ".join(shown.out.split())
    assert f"{grown.growths[1].codes[-1]:,.0f}" in shown.out.partition("independent neurons")[2]
    assert set(table["upos"].dropna()) <= {"NOUN", "VERB", "ADJ", "ADV", "DET", "ADP"}


def test_json_has_a_record_a_prompt(store: Path) -> None:
    found = printed(run("measure", store, "--per", "prompt", "--layers", 1, "--which", "output", "--json"), "measures")
    assert found["per"] == "prompt"
    assert len(found["rows"]) == 24
    assert found["rows"][0]["linear mapping number"] >= 1
    direct = plm.distinct_codes(plm.open_store(store), layers=1).to_frame()
    assert [row["distinct codes"] for row in found["distinct codes"]] == direct["distinct codes"].tolist()
    assert found["distinct codes"][-1]["random hyperplanes"] == direct["random hyperplanes"].iloc[-1]


def test_what_does_not_exist_is_null(store: Path) -> None:
    found = printed(run("measure", store, "--layers", 1, "--which", "path", "--most", 200, "--json"), "measures")
    first = [row for row in found["rows"] if row["position"] == 0]
    assert first
    assert all(row["crossings from the token before"] is None for row in first)


def test_mistakes_are_one_line(store: Path) -> None:
    assert "'shape'" in refused("measure", store, "--which", "shape")
    assert "layer 9" in refused("measure", store, "--layers", 9)
    assert ".txt" in refused("measure", store, "--out", "table.txt")
    assert "radius=0" in refused("measure", store, "--radius", 0)
    assert "--per" in misused("measure", store, "--per", "word")
