"""Checkpoints on disk and measures over them: resumed, and refused where something is missing."""

from __future__ import annotations

import pytest
import torch

from polytope_lm import PolytopeError
from polytope_lm.training.checkpoints import Checkpoints, measured


def some(directory, steps=(0, 4, 16)) -> Checkpoints:
    checkpoints = Checkpoints(directory)
    for step in steps:
        checkpoints.save(step, {"w": torch.full((2, 3), float(step), dtype=torch.float16)})
    return checkpoints


def test_what_is_saved_is_loaded_as_float32_and_steps_are_in_order(tmp_path):
    checkpoints = some(tmp_path, (16, 0, 1024, 4))
    (tmp_path / "step-3.partial").write_text("no checkpoint")
    (tmp_path / "other.safetensors").write_text("no checkpoint")
    assert checkpoints.steps == [0, 4, 16, 1024]
    weights = checkpoints.load(16)["w"]
    assert weights.dtype == torch.float32
    assert torch.equal(weights, torch.full((2, 3), 16.0))


def test_each_checkpoint_is_measured_once_and_a_stopped_run_goes_on(tmp_path):
    checkpoints, asked = some(tmp_path / "checkpoints"), []

    def measure(step, weights):
        asked.append(step)
        if asked == [0, 4, 16]:
            raise KeyboardInterrupt
        return {"sum": weights["w"].sum(), "step twice": 2 * step}

    with pytest.raises(KeyboardInterrupt):
        measured(checkpoints, measure, tmp_path / "rows.jsonl")
    table = measured(checkpoints, measure, tmp_path / "rows.jsonl")
    assert asked == [0, 4, 16, 16]
    assert table.pivot(index="step", columns="quantity", values="value").to_dict("index") == {
        step: {"sum": 6.0 * step, "step twice": 2.0 * step} for step in (0, 4, 16)
    }


def test_what_is_missing_or_broken_is_named(tmp_path):
    checkpoints = some(tmp_path)
    with pytest.raises(PolytopeError, match=r"step 8; there are 0, 4, 16"):
        checkpoints.load(8)
    with pytest.raises(PolytopeError, match=r"nowhere has no checkpoint"):
        measured(Checkpoints(tmp_path / "nowhere"), lambda *_: {}, tmp_path / "rows.jsonl")
    checkpoints.path(4).write_bytes(b"short")
    with pytest.raises(PolytopeError, match=r"step-000004\.safetensors is no checkpoint"):
        checkpoints.load(4)
    (tmp_path / "rows.jsonl").write_text('{"step": 0, "values": {}}\n{"step": 4\n')
    with pytest.raises(PolytopeError, match=r"rows\.jsonl, line 2"):
        measured(checkpoints, lambda *_: {}, tmp_path / "rows.jsonl")
