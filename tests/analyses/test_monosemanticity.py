"""The analysis of every layer, small: what it writes, that it goes on, that it keeps no text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from small import tree

from analyses import monosemanticity
from analyses._corpora import treebank
from analyses._running import folder_name, words_drawn
from polytope_lm.predictions.clusters.result import ClustersResult

if TYPE_CHECKING:
    from pathlib import Path

FAST = (
    "--tokens", "120", "--resamples", "8", "--layers", "0,2", "--processes", "1", "--rounds", "2", "--model",
    "tiny-gpt2",
)  # fmt: skip


def test_results_of_every_label_and_layer_are_written_once(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path), *FAST]
    monosemanticity.main(arguments)
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "result.json").read_text())
    labels = ["upos", "xpos", "deprel", "genre", "topic"]
    assert [each["label"] for each in found["verdicts"]] == labels
    assert {(row["label"], row["layer"]) for row in found["rows"]} == {(x, i) for x in labels for i in (0, 2)}
    assert {row["rounds"] for row in found["rows"]} == {1, 2}
    for each in found["verdicts"]:
        assert each["verdict"] in shown
        result = ClustersResult.load(tmp_path / "tiny-gpt2" / each["label"])
        assert result.verdict == each["verdict"]
        assert [layer.layer for layer in result.layers] == [0, 2]
        assert result.sample.tokens == 120
        assert result.tokens is None
        assert result.command.startswith("python -m analyses.monosemanticity --data ")
        assert "<html" in (tmp_path / "tiny-gpt2" / each["label"] / "report.html").read_text()
    for word in ("river", "leaves"):
        assert all(word not in path.read_text() for path in tmp_path.rglob("*.json"))
    assert not list(tmp_path.rglob("*.npy"))

    before = tree(tmp_path)
    monkeypatch.setattr(monosemanticity, "run_layer", lambda job: pytest.fail(f"computed {job} again"))
    monkeypatch.setattr(monosemanticity, "write", lambda path, **_: path)
    monosemanticity.main(arguments)
    assert tree(tmp_path) == before
    with pytest.raises(SystemExit, match=r"^error: .*tokens, resamples, seed = 120, 8, 0.*another --out$"):
        monosemanticity.main([*arguments, "--tokens", "100"])


def test_an_interrupted_run_computes_what_is_missing(data: Path, tmp_path: Path, monkeypatch) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path), *FAST]
    monosemanticity.main(arguments)
    before = tree(tmp_path)
    (tmp_path / "tiny-gpt2" / "upos" / "layers" / "02.json").unlink()
    done: list[int] = []
    real = monosemanticity.run_layer
    monkeypatch.setattr(monosemanticity, "run_layer", lambda job: done.append(job.layer) or real(job))
    monosemanticity.main(arguments)
    assert done == [2]
    after = json.loads((tmp_path / "result.json").read_text())
    assert after["rows"] == json.loads(before["result.json"])["rows"]


def test_words_of_each_document_are_drawn_by_seed(data: Path) -> None:
    documents = treebank(data)
    drawn = words_drawn(documents, 3, 0)
    own = {each.id: each for each in documents}
    assert [len(each.words) for each in drawn] == [min(3, len(own[each.id].words)) for each in drawn]
    assert all(span in own[each.id].spans for each in drawn for span in each.spans)
    assert all(len({span.start for span in each.spans}) == len(each.spans) for each in drawn)
    assert all(each.spans == tuple(sorted(each.spans, key=lambda span: span.start)) for each in drawn)
    assert [each.spans for each in words_drawn(documents, 3, 0)] == [each.spans for each in drawn]
    assert [each.spans for each in words_drawn(documents, 3, 1)] != [each.spans for each in drawn]
    assert len(words_drawn(documents, 10**6, 0)) == len(documents)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*treebank: no \.conllu file"):
        monosemanticity.main(["--data", str(tmp_path), "--out", str(tmp_path / "o"), *FAST])
    with pytest.raises(SystemExit, match="neither `all` nor indices"):
        monosemanticity.main(["--data", "x", "--out", "y", "--layers", "first"])
    assert folder_name("meta-llama/Llama-3.2-1B") == "meta-llama--Llama-3.2-1B"
    assert folder_name("./models/mine/") == "mine"
