"""The script that is run where a GPU is at hand runs through on the processor."""

from __future__ import annotations

import json
import sys

from benchmarks import gpu


def test_every_section_runs_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    command = ["gpu", "--device", "cpu", "--tiny", "--out", str(tmp_path / "out"), "--scratch", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    gpu.main()
    written = json.loads((tmp_path / "out/gpu.json").read_text())
    assert len(written["sections"]) == len(gpu.measure(None))
    assert not [name for name, section in written["sections"].items() if "failed" in section], capsys.readouterr().out
    table = (tmp_path / "out/gpu.md").read_text()
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
