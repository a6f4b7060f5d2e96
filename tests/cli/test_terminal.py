"""What reaches a terminal or a pipe, and what never does."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import MAIN, MODEL, NASTY, command_line, refused, run
from rich.cells import cell_len

import polytope_lm as plm
from polytope_lm.cli import terminal
from polytope_lm.codes.store.reader import open_store
from polytope_lm.errors import PolytopeError

ESCAPE = re.compile(r"\x1b|\x9b|\x07")


def test_a_narrow_terminal_loses_no_digit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(12345, "a long remark about nothing in particular", 0.25), (7, "日本語のとても長い文章です", 0.5)]
    monkeypatch.setattr(terminal, "columns", lambda: 30)
    terminal.show_table(("n", "remark", "share"), rows, right=("n", "share"), elastic=("remark",))
    lines = capsys.readouterr().out.splitlines()
    assert {cell_len(line) for line in lines} == {30}
    assert lines[1].startswith("12345  a long remark a…")
    assert [line.split()[-1] for line in lines] == ["share", "0.25", "0.5"]
    monkeypatch.setattr(terminal, "columns", lambda: None)
    terminal.show_table(("n", "remark", "share"), rows, elastic=("remark",))
    assert "particular" in capsys.readouterr().out


def test_corpus_text_is_never_sent_as_escapes(store: Path, tmp_path: Path) -> None:
    opened = open_store(store)
    row = int((opened.tokens["document"] == 15).to_numpy().nonzero()[0][8])
    for arguments in (
        ("nearest", store, row, "--layer", 2),
        ("info", store),
        ("nearest", store, row, "--layer", 2, "--json"),
    ):
        out = run(*arguments).out
        assert not ESCAPE.search(out)
    assert "\\u001b" in run("nearest", store, row, "--layer", 2, "-k", 60).out
    assert "\\u001b" in run("cross", MODEL, NASTY, "b [bold]c[/bold]", "--layer", 2).out
    assert "[bold]c[/bold]" in run("cross", MODEL, NASTY, "b [bold]c[/bold]", "--layer", 2).out
    assert "\\u001b" in refused("info", tmp_path / NASTY)


def test_a_long_job_tells_its_cost_first_and_minutes_once_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("polytope_lm.cli.terminal.time.monotonic", lambda: clock[0])
    with terminal.costing("test x", "5 tokens in 2 layers") as told:
        told(0, 100, "first")
        clock[0] = 6.0
        told(2, 100, "third")
        told(3, 100, "fourth")
    assert capsys.readouterr().err.splitlines() == [
        "test x: 5 tokens in 2 layers",
        "test x: about 5 minutes in all; the first 2 of 100 steps took 6 s",
    ]


def test_a_probe_tells_the_minutes_before_the_job_begins(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.costing("test x", "5 tokens", lambda: 720.0) as told:
        assert capsys.readouterr().err == "test x: 5 tokens; about 12 minutes, as a small part of it shows\n"
        told(0, 100, "first")
    assert capsys.readouterr().err == ""


def test_what_a_probe_refuses_is_for_the_job_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> float:
        raise PolytopeError("no label")

    for probe in (refuse, lambda: 5.0):
        with terminal.costing("test x", "5 tokens", probe) as told:
            told(0, 100, "first")
        assert capsys.readouterr().err == "test x: 5 tokens\n"


def test_a_job_that_fails_before_its_first_step_tells_no_cost(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="early"), terminal.costing("test x", "5 tokens"):
        raise ValueError("early")
    assert capsys.readouterr().err == ""


def test_a_verdict_says_that_weights_were_dequantised(capsys: pytest.CaptureFixture[str]) -> None:
    result = SimpleNamespace(verdict="Refuted.", provenance={"weights": "dequantised from 4 bits (q4_k_m)"})
    terminal.say_verdict(result)
    terminal.say_verdict(SimpleNamespace(verdict="Refuted.", provenance={}))
    assert capsys.readouterr().out == "Refuted. Weights: dequantised from 4 bits (q4_k_m).\nRefuted.\n"


def test_a_model_and_a_store_of_any_name_are_shown_without_escapes(tmp_path: Path) -> None:
    directory = tmp_path / "red\x1b[31m\u202e"
    shutil.copytree(Path(plm.__file__).parent / "data" / MODEL, directory)
    model = plm.load(str(directory))
    store = plm.capture(model, ["A short text."], layers=1, to=tmp_path / "store")
    for shown in (repr(model), str(model.sites), repr(store), store._repr_html_()):
        assert not ESCAPE.search(shown)
        assert "\u202e" not in shown
    assert "red\\u001b[31m\\u202e" in repr(model)


HEAVY = """
import sys
from polytope_lm.cli import main
try:
    main()
finally:
    print(sorted({"torch", "transformers", "numpy", "pandas"} & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["capture", "--help"], ["--version"], ["models"]])
def test_help_is_there_without_torch(arguments: list[str]) -> None:
    command = [sys.executable, "-c", HEAVY, *arguments]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_a_pipe_gets_plain_whole_lines(store: Path) -> None:
    found = command_line("nearest", store, "The river number 3 was wide", "--layer", 2)
    assert found.returncode == 0
    assert found.stderr == ""
    assert not ESCAPE.search(found.stdout)
    assert "…" not in found.stdout
    assert len(found.stdout.splitlines()) == 1 + 1 + 10 + 1


def test_an_error_in_a_pipe_is_one_line(tmp_path: Path) -> None:
    found = command_line("models", "gpt2", env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (1, "", 1)


def test_a_terminal_is_sent_no_escape_of_the_corpus(store: Path) -> None:
    opened = open_store(store)
    row = int((opened.tokens["document"] == 15).to_numpy().nonzero()[0][8])
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "nearest", str(store), str(row), "--layer", "2"], stdout=slave, stderr=slave
    )
    os.close(slave)
    received = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        received += chunk
    assert process.wait() == 0
    assert b"owned" in received
    assert b"\x1b]0;" not in received
    assert b"\x07" not in received
