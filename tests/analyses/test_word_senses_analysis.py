"""The analysis of word senses, small: what it writes, once and twice, and that it keeps no text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from analyses import word_senses
from analyses._corpora import ambiguous_words
from polytope_lm.predictions.senses.result import SensesResult

if TYPE_CHECKING:
    from pathlib import Path

FAST = ("--sentences", "10", "--resamples", "50", "--layers", "1", "--model", "tiny-gpt2")


def test_both_readings_are_written_once(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path), *FAST]
    word_senses.main(arguments)
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "result.json").read_text())
    assert [each["reading"] for each in found["verdicts"]] == ["once", "second of two"]
    assert found["words"] == {word: {f"{word}_a": 5, f"{word}_b": 5} for word in ("bank", "bass")} or all(
        sum(senses.values()) == 10 for senses in found["words"].values()
    )
    for each, folder in zip(found["verdicts"], ("once", "twice"), strict=True):
        assert each["verdict"] in shown
        assert SensesResult.load(tmp_path / "tiny-gpt2" / folder).verdict == each["verdict"]
    once, twice = (row["code"] for row in found["rows"])
    assert len(once) == len(twice) == 3
    assert all("river" not in path.read_text() for path in tmp_path.rglob("*.json"))
    assert not list(tmp_path.rglob("*.npy"))
    monkeypatch.setattr(word_senses.plm, "capture", lambda *_, **__: pytest.fail("captured again"))
    word_senses.main(arguments)
    with pytest.raises(SystemExit, match=r"^error: .*sentences, resamples, seed = .*another --out$"):
        word_senses.main([*arguments, "--seed", "1"])


def test_the_words_own_sentences_are_read_and_the_span_is_the_word(data: Path) -> None:
    for given_twice in (False, True):
        documents = ambiguous_words(data, 10, 0, given_twice=given_twice)
        assert len(documents) == 20
        for each in documents:
            (span,) = each.spans
            assert each.text[span.start : span.end] == span.labels["word"]
            assert (span.start > len(each.text) / 2) == given_twice


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*senses: no WORD/\*\.data\.txt there"):
        word_senses.main(["--data", str(tmp_path), "--out", str(tmp_path / "o"), *FAST])
