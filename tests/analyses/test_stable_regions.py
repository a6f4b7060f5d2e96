"""The analysis of stable regions on a few pairs: what it writes, tells and refuses."""

from __future__ import annotations

import json

import pytest

from analyses import stable_regions
from polytope_lm import pairs as pair_sets

ARGUMENTS = ["--model", "tiny-relu", "--layers", "2", "--max-pairs", "24", "--resamples", "20"]


def test_a_run_is_written_told_and_gone_on_with(tmp_path, capsys):
    stable_regions.main([*ARGUMENTS, "--out", str(tmp_path)])
    told = capsys.readouterr().out
    assert "tiny-relu: layers 2, 24 pairs, untrained too: about 0 min" in told
    assert "Layer 2: not testable." in told
    assert "of 24 pairs have a sharpness above 3, and at least 30 are needed" in told
    kept = json.loads((tmp_path / "result.json").read_text())
    page = (tmp_path / "tiny-relu" / "report.html").read_text(encoding="utf-8")
    assert "of 24 pairs have a sharpness above 3" in page
    assert kept["command"].startswith("python -m analyses.stable_regions --model tiny-relu")
    rows = kept["models"][0]["rows"]
    assert [(row["model"], row["layer"]) for row in rows] == [("tiny-relu", 2), ("tiny-relu (untrained, seed 0)", 2)]
    texts = [prompt for pair in list(pair_sets.builtin())[:24] for prompt in pair.prompts]
    for file in tmp_path.rglob("*.json*"):
        assert not any(text in file.read_text() for text in texts), file
    profiles = tmp_path / "tiny-relu" / "profiles" / "L02.jsonl"
    whole, before = profiles.read_bytes(), profiles.stat().st_mtime_ns
    stable_regions.main([*ARGUMENTS, "--out", str(tmp_path)])
    assert profiles.read_bytes() == whole
    assert profiles.stat().st_mtime_ns == before
    assert json.loads((tmp_path / "result.json").read_text())["models"] == kept["models"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--layers", "9"], "tiny-relu has layers 0 to 3, none of those asked for"),
        (["--layers", "two"], "--layers 'two' is neither"),
        (["--pairs", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_mistakes_end_it_in_one_line(tmp_path, change, message):
    with pytest.raises(SystemExit, match=message) as error:
        stable_regions.main([*ARGUMENTS, "--out", str(tmp_path), *change])
    assert str(error.value).startswith("error: ")
    assert "\n" not in str(error.value)


def test_layers_are_those_that_a_model_has():
    class Deep:
        n_layers = 30
        name = "deep"

    assert stable_regions.chosen_layers(Deep(), None) == [0, 1, 2, 4, 9, 15]
    assert stable_regions.chosen_layers(Deep(), (4, 31)) == [4]
    Deep.n_layers = 4
    assert stable_regions.chosen_layers(Deep(), None) == [0, 1, 2]
