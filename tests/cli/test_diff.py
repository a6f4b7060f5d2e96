"""`polytope-lm diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commands import MODEL, misused, printed, refused, run

from polytope_lm.result import load_result

if TYPE_CHECKING:
    from pathlib import Path


def test_it_says_what_differs_and_writes_a_page(corpus: Path, tmp_path: Path) -> None:
    choices = ("--layers", "0,2", "--label-columns", "topic", "--resamples", 20, "--max-documents", 6)
    found = run("diff", MODEL, MODEL, corpus, *choices, "--by", "topic", "--nulls", "rounding", "--out", tmp_path)
    assert found.code == 0, found.err
    assert "have the same codes" in found.out
    assert "rounding" in found.out
    assert "among_top" in found.out
    saved = load_result(tmp_path)
    assert saved.command.split()[:5] == ["polytope-lm", "diff", MODEL, MODEL, str(corpus)]
    assert [layer.flips for layer in saved.layers] == [0, 0]
    page = (tmp_path / "report.html").read_text()
    assert ">Diff of two models</button>" in page
    passes = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "passes").glob("*.jsonl")}
    assert set(passes) == {"model-a.jsonl", "model-b.jsonl", "rounding.jsonl"}
    run("diff", MODEL, MODEL, corpus, *choices, "--nulls", "rounding", "--out", tmp_path)
    assert load_result(tmp_path).layers == saved.layers
    assert {name: (tmp_path / "passes" / name).stat().st_mtime_ns for name in passes} == passes  # none was run again
    other = ("--layers", "1", "--out", tmp_path)
    assert "another run" in refused("diff", MODEL, MODEL, corpus, *other)
    again = run("diff", MODEL, MODEL, corpus, *choices, "--by", "topic", "--nulls", "none", "--json")
    facts = printed(again, "diff")
    assert facts["kind"] == "diff"
    assert {row["topic"] for row in facts["by"]} == {"bank", "river"}


def test_a_store_is_read_again(store: Path) -> None:
    found = run("diff", MODEL, MODEL, store, "--layers", 2, "--nulls", "none", "--resamples", 10, "--json")
    assert found.code == 0, found.err
    assert printed(found, "diff")["layers"][0]["flips"] == 0


def test_mistakes_are_one_line(corpus: Path, store: Path, directory: Path) -> None:
    few = ("--nulls", "none", "--resamples", 10)
    assert "num_hidden_layers is 4 in tiny-gpt2 and 3 in small" in refused("diff", MODEL, directory, corpus, *few)
    assert "these codes were made by tiny-gpt2" in refused("diff", directory, directory, store, *few)
    assert "no layer 9" in refused("diff", MODEL, MODEL, corpus, "--layers", 9, *few)
    assert "'mood'" in refused("diff", MODEL, MODEL, corpus, "--by", "mood", *few)
    assert "--layers" in misused("diff", MODEL, MODEL, corpus, "--layers", "two")
