"""`polytope-lm selective`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import made
import pytest
from commands import printed, refused, run

import polytope_lm as plm

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("selective")
    made.captured(folder)
    return folder / "store"


def test_it_finds_what_the_store_finds_and_writes_it(store: Path, tmp_path: Path) -> None:
    asked = ("selective", store, "--by", "upos", "--layer", 1, "--alpha", 0.1)
    found = printed(run(*asked, "--out", tmp_path, "--json"), "selective")
    direct = plm.open_store(store).selective("upos", 1, alpha=0.1)
    assert [value["found"] for value in found["values"]] == [value.found for value in direct.values]
    saved = plm.load_result(tmp_path)
    assert saved.to_frame().equals(direct.to_frame())
    assert saved.command.startswith(f"polytope-lm selective {store} --by upos --layer 1 --alpha 0.1")
    assert "Selective neurons" in (tmp_path / "report.html").read_text()
    shown = run(*asked)
    assert shown.code == 0, shown.err
    assert " ".join(direct.headline.split()) in " ".join(shown.out.split())


def test_ablation_runs_the_stores_model(store: Path) -> None:
    more = ("--ablate", "--most", 3, "--draws", 2, "--resamples", 10, "--json")
    found = printed(run("selective", store, "--by", "upos", "--layer", 1, *more), "selective")
    assert found["ablations"]


def test_mistakes_are_one_line(store: Path) -> None:
    assert "no label 'xpos'" in refused("selective", store, "--by", "xpos", "--layer", 1)
    assert "layer 9" in refused("selective", store, "--by", "upos", "--layer", 9)
    assert "nowhere" in refused("selective", store, "--by", "upos", "--ablate", "--model", "./nowhere")
