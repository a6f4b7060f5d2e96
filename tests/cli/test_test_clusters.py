"""`polytope-lm test clusters`: what is shown besides, and that it is no part of the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from commands import MODEL, printed, refused, run

from polytope_lm.cli.testing import parse_extra
from polytope_lm.predictions.clusters.result import ClustersResult

if TYPE_CHECKING:
    from pathlib import Path

CHOICES = ("--label", "topic", "--layers", "2", "--k", "3", "--resamples", "8", "--tokens", "120")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", "all"),
        ("", ()),
        ("soft code", ("soft code",)),
        ("cosine of u, raw,soft code", ("cosine of u, raw", "soft code")),
        ("rotation, threshold 0, cosine of x, raw", ("rotation, threshold 0", "cosine of x, raw")),
        ("code, labels permuted in word and document,code",
         ("code, labels permuted in word and document", "code")),
        ("mine,soft code", ("mine", "soft code")),
    ],
)  # fmt: skip
def test_names_that_hold_commas_are_read(text: str, names: object) -> None:
    assert parse_extra(text) == names


def test_representations_and_weights_are_shown_and_the_verdict_stays(store: Path, tmp_path: Path) -> None:
    plain = printed(run("test", "clusters", store, *CHOICES, "--out", tmp_path / "a", "--json"), "clusters")
    more = ("--extra", "cosine of u, raw,token identity", "--weights", "permuted")
    shown = run("test", "clusters", store, *CHOICES, *more, "--out", tmp_path / "b", "--json")
    assert shown.code == 0, shown.err
    data = printed(shown, "clusters")
    assert data["verdict"] == plain["verdict"]
    names = {each["name"] for each in data["layers"][0]["representations"]}
    assert {"cosine of u, raw", "token identity", "code, weights permuted"} <= names
    assert "code, untrained" not in names
    assert "--extra 'cosine of u, raw,token identity' --weights permuted" in data["command"]
    assert "no representation 'mine'" in refused(
        "test", "clusters", store, *CHOICES, "--extra", "mine", "--out", tmp_path / "c"
    )
    assert "no control of the weights 'shuffled'" in refused(
        "test", "clusters", store, *CHOICES, "--weights", "shuffled", "--out", tmp_path / "c"
    )


def test_how_often_a_layer_is_measured_can_be_said(store: Path, tmp_path: Path) -> None:
    data = printed(run("test", "clusters", store, *CHOICES, "--rounds", "1", "--out", tmp_path, "--json"), "clusters")
    assert (data["settings"]["rounds"], data["layers"][0]["verdict"]["rounds"]) == (1, 1)
    assert "--rounds 1" in data["command"]


def test_weights_of_a_model_that_is_gone_are_refused_or_left_out(
    store: Path, directory: Path, tmp_path: Path, monkeypatch
) -> None:
    from polytope_lm.codes.store.reader import open_store

    other = ("--weights", "permuted", "--model", directory)
    assert "revision" in refused("test", "clusters", store, *CHOICES, *other, "--out", tmp_path / "a")
    gone = ("--weights", "permuted", "--model", "./gone")
    said = refused("test", "clusters", store, *CHOICES, *gone, "--out", tmp_path / "a")
    assert "give --model, or leave out --weights" in said
    monkeypatch.setattr("polytope_lm.cli.testing.model_of", _gone)
    shown = run("test", "clusters", store, *CHOICES, "--extra", "all", "--out", tmp_path / "b", "--json")
    assert shown.code == 0, shown.err
    left_out = printed(shown, "clusters")["layers"][0]["left_out"]
    assert "--model NAME" in left_out["code, weights permuted"]
    assert "x as well" in left_out["cosine of x, raw"]
    assert open_store(store).model is None


def _gone(*_: object, **__: object) -> None:
    from polytope_lm.errors import PolytopeError

    raise PolytopeError("the model is gone")


def test_the_verdict_is_the_first_line_and_what_was_not_compared_is_told(store: Path, tmp_path: Path) -> None:
    shown = run("test", "clusters", store, *CHOICES, "--out", tmp_path)
    assert shown.code == 0, shown.err
    result = ClustersResult.load(tmp_path)
    assert shown.out.startswith(f"{result.verdict}\n")
    said = shown.out.splitlines()
    assert result.notes()
    assert all(note in said for note in result.notes())


def test_everything_besides_is_written_beside_the_result(store: Path, tmp_path: Path) -> None:
    more = ("--multiverse", "--groups", "--model", MODEL)
    shown = run("test", "clusters", store, *CHOICES, *more, "--out", tmp_path, "--json")
    assert shown.code == 0, shown.err
    there = {path.name for path in tmp_path.iterdir()}
    assert {"result.json", "multiverse.json", "groups.json", "report.html"} <= there
    assert "--multiverse --groups --model" in printed(shown, "clusters")["command"]


def test_a_sweep_that_fails_does_not_take_the_comparison_with_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polytope_lm import predictions

    monkeypatch.setattr(predictions, "multiverse", _gone)
    shown = run("test", "clusters", store, *CHOICES, "--multiverse", "--out", tmp_path)
    assert shown.code == 1
    assert ClustersResult.load(tmp_path).settings.label == "topic"
