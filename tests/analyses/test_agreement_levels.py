"""Levels of agreement, by the package and by plain numpy, on a small treebank."""

from __future__ import annotations

import json

import pytest

from analyses.agreement_levels import main


def test_the_package_and_plain_numpy_agree(data, tmp_path, capsys) -> None:
    main(["--data", str(data), "--out", str(tmp_path), "--model", "tiny-gpt2", "--layers", "1", "--tokens", "250"])
    (row,) = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert str(row["levels"]["code"]["package"]) in capsys.readouterr().out
    assert row["layer"] == 1
    assert row["words"] <= 250
    for each in row["levels"].values():
        assert each["package"] == pytest.approx(each["plain numpy"], abs=0.02)  # equal distances are ordered otherwise
        assert 0 < each["package"] < 1


def test_without_a_treebank_it_ends_in_one_line(tmp_path) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*treebank.*\.conllu"):
        main(["--data", str(tmp_path), "--out", str(tmp_path), "--model", "tiny-gpt2"])
