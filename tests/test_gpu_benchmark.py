"""The script that is run where a GPU is at hand runs through on the processor."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu


def test_every_section_runs_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    command = ["gpu", "--device", "cpu", "--tiny", "--out", str(tmp_path / "out"), "--scratch", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    gpu.main()
    written = json.loads((tmp_path / "out/gpu.json").read_text())
    assert len(written["sections"]) == len(gpu.measure(None))
    assert sum(each["seconds"] for each in written["sections"].values()) - 1 < written["seconds"]
    assert not [name for name, section in written["sections"].items() if "failed" in section], capsys.readouterr().out
    table = (tmp_path / "out/gpu.md").read_text()
    assert f"{written['date']}, {written['seconds']:,.0f} s in all (must be at most 360 s)" in table.splitlines()[0]
    assert "flash_attention_2, float32 (" in table.splitlines()[1]
    lens = [f for s in written["sections"].values() for f in s["figures"] if f["peer_name"] == "run_with_cache"]
    assert ["gpt2" in lens[0]["name"], "llama" in lens[1]["name"]] == [True, True]
    for section in written["sections"].values():
        for figure in section["figures"]:
            assert figure["name"] in table


def test_a_section_that_fails_is_one_line_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def broken(_run):
        raise RuntimeError("no such kernel\nand a long story")

    monkeypatch.setattr(gpu, "packing", broken)
    command = ["gpu", "--device", "cpu", "--tiny", "--out", str(tmp_path), "--only", "packing", "adversarial"]
    monkeypatch.setattr(sys, "argv", command)
    gpu.main()
    written = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert written["packing"]["failed"] == "RuntimeError: no such kernel"
    assert written["adversarial"]["figures"]
    assert "packing: failed, RuntimeError: no such kernel\n" in capsys.readouterr().out


def brute_force(queries: np.ndarray, base: np.ndarray) -> np.ndarray:
    """All distances, from counted bytes."""
    return np.bitwise_count(queries[:, None] ^ base[None]).sum(axis=2, dtype=np.int64)


class FakeFaiss:
    """faiss with a GPU's index, as far as it is called."""

    StandardGpuResources = GpuIndexBinaryFlatConfig = SimpleNamespace

    @staticmethod
    def get_num_gpus() -> int:
        return 1

    class GpuIndexBinaryFlat:
        def __init__(self, _resources, width, config):
            assert (width, config.device) == (gpu.WIDTH, 0)

        def add(self, base):
            self.base = base

        def search(self, queries, k):
            distances = brute_force(queries, self.base)
            order = np.argsort(distances, axis=1)[:, :k]
            return np.take_along_axis(distances, order, axis=1), order


def fake_cupy(seen: list[str]) -> Any:
    """cupy on the processor: the kernel's text is kept, and numpy does what it says."""

    def kernel(*text):
        seen.extend(text)
        return lambda a, b, axis: np.bitwise_count(a ^ b).sum(axis=axis, dtype=np.int32)

    device = SimpleNamespace(Device=lambda _number: SimpleNamespace(use=lambda: None))
    return SimpleNamespace(
        cuda=device, ReductionKernel=kernel, asarray=np.asarray, asnumpy=np.asarray, sort=np.sort,
        partition=np.partition,
    )  # fmt: skip


@pytest.fixture
def tiny(tmp_path) -> gpu.Run:
    return gpu.Run(torch.device("cpu"), tiny=True, quick=False, scratch=tmp_path)


def test_peers_that_are_here_are_called_and_compared(tiny, monkeypatch):
    seen: list[str] = []
    monkeypatch.setitem(sys.modules, "faiss", FakeFaiss)
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(seen))
    figures = {figure.peer_name: figure for figure in gpu.neighbours(tiny)}
    for name in ("our CPU kernel", "faiss GPU", "cupy popcount"):
        assert figures[name].peer > 0
        assert figures[name].ratio == pytest.approx(figures[name].peer / figures[name].value)
    assert not tiny.absent
    assert "__popcll(a ^ b)" in seen


def test_a_peer_that_finds_other_distances_fails_the_section(tiny, monkeypatch):
    wrong = fake_cupy([])
    wrong.asnumpy = lambda found: found + 1
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setitem(sys.modules, "cupy", wrong)
    with pytest.raises(AssertionError, match="distances differ from cupy popcount's"):
        gpu.neighbours(tiny)


def test_peers_that_are_absent_or_fail_are_said_with_the_reason(tiny, monkeypatch, capsys):
    without = SimpleNamespace(get_num_gpus=lambda: 0)  # faiss-cpu
    broken = fake_cupy([])
    broken.ReductionKernel = lambda *_: 1 / 0
    monkeypatch.setitem(sys.modules, "faiss", without)
    monkeypatch.setitem(sys.modules, "cupy", broken)
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda _name: None)
    assert not [figure for figure in gpu.neighbours(tiny) if figure.peer_name]
    assert tiny.absent == {
        "our CPU kernel": "no numba", "faiss GPU": "this faiss has no GPU",
        "cupy popcount": "ZeroDivisionError: division by zero",
    }  # fmt: skip
    assert "faiss GPU is absent: this faiss has no GPU" in capsys.readouterr().out
    assert tiny.peer("another", lambda: {}["kernel"]) is None
    assert tiny.absent["another"] == "failed: KeyError: 'kernel'"


def test_bits_that_an_attention_kernel_flips_are_counted_near_zero_and_beyond(tiny, monkeypatch):
    eager = np.array([[5e-5, -5e-5, 1.0, -1.0, 2.0]], np.float32)
    flipped = np.array([[-5e-5, 5e-5, -1e-3, -1.0, 2.0]], np.float32)  # two near zero, one beyond

    def ways(_run, _model):
        return [("eager attention", lambda: eager), ("other", lambda: flipped), ("missing", lambda: {}["no kernel"])]

    monkeypatch.setattr(gpu, "attentions", ways)
    monkeypatch.setattr(gpu, "_read", lambda _model, _documents, prepare: prepare())
    in_full, in_half = gpu.kernels(tiny)
    assert (in_full.value, in_full.met, in_half.value, in_half.met) == (1, False, 1, None)
    assert in_full.note == "and 2 below it, of 5 bits"
    assert {"missing, float32", "missing, bfloat16"} <= tiny.absent.keys()


def test_the_ways_of_attention_are_those_of_the_model(tiny):
    model = gpu.random_model(tiny, "gpt2", torch.float32)
    ways = dict(gpu.attentions(tiny, model))
    for name, key in (("sdpa", "sdpa"), ("eager attention", "eager")):
        ways[name]()
        assert model.hf.config._attn_implementation == key
    with ways["torch's flash kernel"]():
        assert torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.math_sdp_enabled()
    with pytest.raises(gpu.Absent, match="FlashAttention2"):
        ways["flash_attention_2"]()


def test_crossings_and_paths_are_measured_on_the_device_beside_the_processor(tiny):
    shared, lines, differing = gpu.paths(tiny)
    assert shared.peer_name == "whole sequences"
    assert lines.peer_name == "the processor alone"
    assert "crossings" in lines.note
    assert (differing.value, differing.met) == (0, True)
