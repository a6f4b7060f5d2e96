"""`polytope-lm test routers` on the packaged mixture."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import polytope_lm as plm
from tests.commands import printed, refused, run

if TYPE_CHECKING:
    from pathlib import Path


def test_a_store_of_the_tiny_mixture_is_tested_and_reported(tmp_path: Path) -> None:
    store, out = str(tmp_path / "store"), tmp_path / "results"
    run("capture", "tiny-moe", "sample", "--kind", "router", "--keep", "u,h", "--tokens", "random:6", "--out", store)
    told = run("info", store).out
    assert "L03.router" in told
    assert "no signs" in told
    options = ("--label", "class", "--tokens", "300", "--resamples", "10", "--k", "10", "--out", str(out))
    shown = run("test", "routers", store, *options).out
    assert "random routers, equal loads" in shown
    result = plm.load_result(out)
    assert shown.startswith(f"{result.verdict}\n")
    assert all(note in shown for note in result.notes())
    assert result.layers[0].site.key == "L00-03.router"
    assert result.command.startswith(f"polytope-lm test routers {store} --label class --layers all --k 10")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "random routers" in page
    assert re.search(r"Do the experts that routers choose group tokens .*Here: [^.]* in layers 0-3\.", page, re.DOTALL)
    again = printed(run("test", "routers", store, *options, "--layers", "1,2", "--json"), "clusters")
    assert again["layers"][0]["site"]["parts"][0]["layer"] == 1


def test_a_store_of_a_dense_model_is_one_line(tmp_path: Path) -> None:
    store = tmp_path / "store"
    plm.capture(plm.load("tiny-gpt2"), ["a text of some words"], to=store, layers=[1], keep=("u", "h"))
    assert "no codes of a router" in refused("test", "routers", store, "--label", "upos", "--out", tmp_path / "out")
