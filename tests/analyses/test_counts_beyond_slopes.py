"""`analyses.counts_beyond_slopes` on a tiny treebank, and on numbers whose answer is known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from analyses import counts_beyond_slopes
from analyses.counts_beyond_slopes import Question, answered
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from pathlib import Path


def planted(weight: float) -> pd.DataFrame:
    """Return a target that depends on a smooth number and, by weight, on a count."""
    rng = np.random.default_rng(0)
    smooth, own, noise = rng.standard_normal((3, 600))
    count = smooth + own
    frame = pd.DataFrame({"count": count, "smooth": smooth, "target": smooth + weight * own + noise})
    return frame.assign(document=np.repeat(np.arange(60), 10), position=np.tile(np.arange(10), 60))


def test_a_count_that_adds_something_is_told_from_one_that_does_not() -> None:
    question = Question("count", "smooth", "target")
    nothing, something = (answered(planted(weight), question, 0) for weight in (0.0, 1.0))
    assert nothing is not None
    assert something is not None
    assert nothing["rank correlation, count"] > 0.3
    assert nothing["gain, count beyond the other"]["low"] <= 0.01
    assert nothing["gain, smooth beyond the other"]["low"] > 0.05
    assert something["gain, count beyond the other"]["low"] > 0.1
    assert nothing["gain, count's less smooth's"]["high"] < 0
    for one in (nothing, something):
        gains = [one[f"gain, {which} beyond the other"]["value"] for which in ("count", "smooth")]
        assert one["gain, count's less smooth's"]["value"] == pytest.approx(gains[0] - gains[1], abs=2e-4)
    assert answered(planted(0.0).assign(count=1.0), question, 0) is None


def test_every_question_is_answered_and_a_stopped_run_goes_on(data: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path), "--model", "tiny-gpt2", "--layers", "1"]
    counts_beyond_slopes.main(arguments)
    result = json.loads((tmp_path / "result.json").read_text())
    rows = result["models"]["tiny-gpt2"]
    asked = {(row["of"], row["target"]) for row in rows}
    assert ("local complexity", "loss") in asked
    assert ("crossings from the token before", "entropy") in asked
    kept = tmp_path / "tiny-gpt2" / "r=0.005" / "token-01.parquet"
    before = kept.stat().st_mtime_ns
    counts_beyond_slopes.main(arguments)
    assert kept.stat().st_mtime_ns == before
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_too_few_documents_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "treebank").mkdir()
    (tmp_path / "treebank" / "a.conllu").write_text("# newdoc id = a\n1\tA\ta\tDET\tDT\t_\t0\troot\t_\t_\n\n")
    with pytest.raises(PolytopeError, match="0 documents of 40 to"):
        counts_beyond_slopes.sample(tmp_path, 10, 0)
