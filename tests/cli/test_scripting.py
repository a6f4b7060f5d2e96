"""What scripts and shells rely on: one shape of `--json`, errors in it, a file of options, completion, `-h`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from commands import MODEL, command_line, printed, refused, run

from polytope_lm.cli import cross

if TYPE_CHECKING:
    from pathlib import Path


def test_every_output_has_the_documented_shape(store: Path, corpus: Path, tmp_path: Path) -> None:
    kinds = {
        printed(run(*arguments, "--json"))["kind"]
        for arguments in [
            ("models",),
            ("models", MODEL),
            ("info", store),
            ("info", store, "--verify"),
            ("nearest", store, 3, "--layer", 2, "-k", 2),
            ("cross", MODEL, "The loop", "The dog", "--layer", 1, "--own-layer"),
            ("capture", MODEL, corpus, "--out", tmp_path / "store", "--layers", "0"),
            ("diff", MODEL, MODEL, store, "--layers", 2, "--nulls", "none", "--resamples", 5),
            ("info", "nowhere"),
        ]
    }
    assert kinds == {"models", "model", "info", "verification", "nearest", "crossings", "capture", "diff", "error"}


def test_errors_are_json_under_json(store: Path) -> None:
    plain = refused("nearest", store, 1)
    found = run("nearest", store, 1, "--json")
    assert (found.code, printed(found)["exit_code"]) == (1, 1)
    assert f"error: {printed(found)['error']}" == plain
    assert found.err.strip() == plain
    misused = run("nearest", store, "--json")
    assert (misused.code, printed(misused)["exit_code"]) == (2, 2)
    unknown = run("nearest", store, 1, "--json", "--nonsense")
    assert "nonsense" in printed(unknown)["error"]


def test_a_file_of_options(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[nearest]\nlayer = 2\nk = 3\n[cross]\nlayer = 1\n[test.clusters]\nlayers = [0, 2]\n")
    found = printed(run("--config", file, "nearest", store, 3, "--json"))
    assert (found["layer"], len(found["by_code"])) == (2, 3)
    assert len(printed(run("--config", file, "nearest", store, 3, "-k", 5, "--json"))["by_code"]) == 5
    for text, words in [
        ("[nearest]\nkk = 3\n", r"\[nearest\] has no option 'kk'"),
        ("[neerest]\nk = 3\n", r"neerest is no table of a command"),
        ("[test.nothing]\nk = 3\n", r"test.nothing is no table"),
        ("k = 3\n", "k is no table of a command"),
        ("[nearest\n", "no TOML"),
        ("[nearest]\nk = {a = 1}\n", "k = "),
    ]:
        file.write_text(text)
        assert re.search(words, refused("--config", file, "nearest", store, 3))
    assert "nowhere.toml" in refused("--config", tmp_path / "nowhere.toml", "nearest", store, 3)


def test_the_shell_completes_commands_and_help_has_a_short_name() -> None:
    words = {"_POLYTOPE_LM_COMPLETE": "complete_bash", "COMP_WORDS": "polytope-lm ca", "COMP_CWORD": "1"}
    shown = command_line(env=os.environ | words)
    assert shown.stdout.split() == ["capture", "calibrate"]
    assert run("nearest", "-h").out == run("nearest", "--help").out
    assert "--config" in run("-h").out


@pytest.mark.parametrize("room", [80, 70, 200])
def test_a_table_of_crossings_fits_the_terminal(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross, "columns", lambda: room)
    found = run("cross", MODEL, "We sat on the river bank", "We owe money to the bank", "--layer", 1)
    lines = [line for line in found.out.splitlines() if line.rstrip().endswith("|") and re.match(r" *\d+ ", line)]
    assert len(lines) == 3
    assert max(map(len, lines)) <= room
    assert ("flip back" in found.out.split("differ:")[0]) == (room == 200)
