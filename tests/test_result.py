"""Every kind of result: saved, loaded, altered, shown, and computed again by its own command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import made
import pytest

import polytope_lm as plm
from benchmarks.altered_results import alterations
from polytope_lm import report
from polytope_lm.controls.weights import permuted
from polytope_lm.errors import PolytopeError
from polytope_lm.result import load_result, load_results

OLD = Path(__file__).parent / "saved"
KINDS = [
    "alignment", "boundaries", "calibration", "clusters", "contexts", "crossings", "determination", "diff", "groups",
    "multiverse",
    "neuron", "neurons", "overview", "selective", "senses", "slices",
]  # fmt: skip
COMMANDED = [kind for kind in KINDS if kind not in {"crossings", "overview", "slices"}]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return made.every_kind(made.captured(tmp_path_factory.mktemp("made")))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_loaded_by_one_name(results, kind, tmp_path) -> None:
    found = results[kind]
    path = found.save(tmp_path)
    assert path.name == found.file
    again = load_result(tmp_path)
    assert type(again) is type(found)
    assert again.notice == ""
    assert again.to_dict() == found.to_dict()
    assert again._repr_html_() == found._repr_html_()
    assert again.rows() == found.rows()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    again.save(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    page = report.from_directories([tmp_path], tmp_path / "page.html") if kind in _on_a_page() else None
    assert page is None or page.stat().st_size


def _on_a_page() -> set[str]:
    return {"alignment", "boundaries", "clusters", "crossings", "groups", "multiverse", "overview", "slices"}


@pytest.mark.parametrize("kind", COMMANDED)
def test_the_command_computes_the_same_result(results, kind) -> None:
    found = results[kind]
    unwritten = {"pairs": made.PAIRS, "encoder": plm.load("tiny-gpt2")}
    if kind == "diff":
        unwritten["model_b"] = permuted(plm.load("tiny-gpt2"))
    again = eval(found.command, {"plm": plm, **unwritten})  # noqa: S307
    ours, theirs = ({k: v for k, v in one.to_dict().items() if k != "timings"} for one in (found, again))
    assert json.dumps(theirs, sort_keys=True) == json.dumps(ours, sort_keys=True)


def test_the_command_of_several_labels_and_of_parts_joined(results, tmp_path) -> None:
    store = made.captured(tmp_path)
    few = {"k": 6, "tokens": 120, "resamples": 20}
    both = plm.predictions.clusters_by_label(store, 1, ["upos", "open"], **few)
    opened = f"plm.with_model(plm.open_store({str(tmp_path / 'store')!r}), plm.load('tiny-gpt2'))"
    called = f"plm.predictions.clusters_by_label({opened}, 1, labels=['upos', 'open'], k=6, tokens=120,"
    assert both["open"].command == f"{called} resamples=20)['open']"
    assert eval(both["open"].command, {"plm": plm}) == both["open"]  # noqa: S307
    parts = [plm.predictions.clusters(store, layer, **few) for layer in (1, 2)]
    whole = plm.predictions.joined(parts)
    assert eval(whole.command, {"plm": plm}) == whole  # noqa: S307


@pytest.mark.parametrize("folder", sorted(each.name for each in OLD.iterdir()))
def test_files_of_format_1_still_load_and_say_that_they_have_no_checksum(folder, tmp_path) -> None:
    found = load_result(OLD / folder)
    assert "checksum" in found.notice
    assert found.notice in found._repr_html_()
    old = json.loads(next((OLD / folder).glob("*.json")).read_text())
    assert "checksum" not in old
    new = found.to_dict()
    marks = {"format", "prediction", "scores", "result", "kind"}
    if folder not in {"alignment", "groups"}:  # whose own entries are called like marks
        assert {name for name in old if name not in marks} <= set(new)
    assert load_result(found.save(tmp_path)).to_dict() == new


@pytest.mark.parametrize("kind", KINDS)
def test_altered_files_are_refused_in_one_line_or_show_what_was_saved(results, kind, tmp_path) -> None:
    results[kind].save(tmp_path)
    outcomes = alterations(tmp_path, 60, seed=1)
    assert outcomes["as it is: refused"]
    assert {name for name in outcomes if not name.endswith((": refused", ": shown"))} == set()


def test_a_number_altered_by_hand_is_refused_in_the_file_and_in_its_table(results, tmp_path) -> None:
    path = results["clusters"].save(tmp_path)
    data = json.loads(path.read_text())
    data["layers"][0]["representations"][0]["scores"][0]["estimate"]["value"] += 0.001
    path.write_text(json.dumps(data))
    with pytest.raises(PolytopeError, match=r"result\.json.*changed after it was saved"):
        load_result(tmp_path)
    results["clusters"].save(tmp_path)
    table = tmp_path / "tokens.parquet"
    results["clusters"].tokens.assign(left="other").to_parquet(table, index=False)
    with pytest.raises(PolytopeError, match=r"tokens\.parquet was changed after it was saved"):
        load_result(tmp_path)
    table.unlink()
    assert load_result(tmp_path).tokens is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 10**5, "JSON"),
        ('{"format": 2, "kind": "clusters"}', "missing 'settings'"),
        ('{"format": 3, "kind": "clusters"}', "format 3"),
        ('{"format": 2, "kind": "recipe"}', "'recipe' is no kind"),
        ('{"format": 2, "kind": ["clusters"]}', "is no kind"),
        ("{}", "no kind"),
    ],
)
def test_what_is_no_result_is_one_line_with_the_file_and_the_cure(content, said, tmp_path) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(PolytopeError, match=said) as error:
        load_result(tmp_path)
    assert "result.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["k", "site", "verdict", "best_cosine"])
def test_a_field_that_is_missing_or_has_another_type_is_named(results, field, tmp_path) -> None:
    path = results["clusters"].save(tmp_path)
    data = json.loads(path.read_text())
    data["layers"][1][field] = [["what"]]
    path.write_text(json.dumps(data))
    with pytest.raises(PolytopeError, match=rf"layers\[1\]\.{field}"):
        load_result(tmp_path)
    del data["layers"][1][field]
    path.write_text(json.dumps(data))
    with pytest.raises(PolytopeError, match=rf"layers\[1\].*missing.*{field}"):
        load_result(tmp_path)


def test_what_is_no_regular_file_or_too_large_is_refused_without_waiting(results, tmp_path) -> None:
    path = tmp_path / "result.json"
    os.mkfifo(path)
    with pytest.raises(PolytopeError, match="FIFO"):
        load_result(tmp_path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(PolytopeError, match=r"result\.json"):
        load_result(tmp_path)
    path.unlink()
    with path.open("wb") as stream:
        stream.truncate(2 * 2**30)
    with pytest.raises(PolytopeError, match="larger than"):
        load_result(tmp_path)
    path.unlink()
    (tmp_path / "target").write_text("mine")
    path.symlink_to(tmp_path / "target")
    results["clusters"].save(tmp_path)
    assert (tmp_path / "target").read_text() == "mine"
    assert not path.is_symlink()
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_directory_of_several_results(results, tmp_path) -> None:
    results["senses"].save(tmp_path)
    results["overview"].save(tmp_path)
    with pytest.raises(PolytopeError, match=r"2 results: name one of overview\.json, senses\.json"):
        load_result(tmp_path)
    assert load_result(tmp_path / "senses.json") == results["senses"]
    results["clusters"].save(tmp_path)
    assert load_result(tmp_path).kind == "clusters"
    assert list(load_results(tmp_path)) == ["result.json", "overview.json", "senses.json"]
    with pytest.raises(PolytopeError, match="is not a directory"):
        load_results(tmp_path / "none")


def test_numbers_that_are_not_finite_are_not_saved(results, tmp_path) -> None:
    from dataclasses import replace

    bad = replace(results["calibration"], smallest_effect=float("nan"))
    with pytest.raises(PolytopeError, match="smallest_effect: nan"):
        bad.save(tmp_path)
    assert not list(tmp_path.iterdir())
