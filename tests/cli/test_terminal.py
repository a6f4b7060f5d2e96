"""What reaches a terminal or a pipe, and what never does."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from commands import MAIN, MODEL, NASTY, command_line, refused, run
from rich.cells import cell_len

from polytope_lm.cli import terminal
from polytope_lm.codes.store.reader import open_store

if TYPE_CHECKING:
    from pathlib import Path

ESCAPE = re.compile(r"\x1b|\x9b|\x07")


def test_a_narrow_terminal_loses_no_digit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        (12345, "a long remark about nothing in particular", 0.25),
        (7, "日本語のとても長い文章です", 0.5),
    ]
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
    found = command_line(
        "models", "gpt2", env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    )
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (1, "", 1)


def test_a_terminal_is_sent_no_escape_of_the_corpus(store: Path) -> None:
    opened = open_store(store)
    row = int((opened.tokens["document"] == 15).to_numpy().nonzero()[0][8])
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "nearest", str(store), str(row), "--layer", "2"],
        stdout=slave,
        stderr=slave,
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
