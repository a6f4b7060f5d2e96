"""What each command does and shows."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest
from commands import MODEL, command_line, printed, refused, run

from polytope_lm.cli import options
from polytope_lm.cli.terminal import counted
from polytope_lm.codes.store.reader import open_store

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ("demo", "models", "capture", "info", "nearest", "measure", "cross", "test clusters", "report")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_every_command_has_json(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.code == 0
    assert f"\n    polytope-lm {command} " in result.out or f"\n    polytope-lm {command}\n" in result.out
    assert "--json" in result.out


def test_help_is_as_wide_as_the_terminal() -> None:
    widths = {}
    for columns in (60, 150):
        shown = command_line("demo", "--help", env=os.environ | {"COLUMNS": str(columns)}).stdout.splitlines()
        widths[columns] = max(len(line) for line in shown if "    polytope-lm " not in line)
    assert re.search(r"^  clusters +Prediction 1: codes against directions\.$", run("test", "--help").out, re.MULTILINE)
    assert widths[60] <= 60
    assert 100 < widths[150] <= 150


def test_numbers_have_their_noun() -> None:
    assert [counted(n, "site") for n in (0, 1, 1200)] == ["0 sites", "1 site", "1,200 sites"]


def test_models_lists_the_packaged_ones_and_shows_sites() -> None:
    packaged = {"smollm2-135m", "gemma3-270m", "minilm-l6", "tiny-gpt2", "tiny-relu", "tiny-moe"}
    of_a_checkout = {"small-gpt2", "small-relu"}
    assert packaged | of_a_checkout == {e["name"] for e in printed(run("models", "--json"))["models"]}
    assert "tiny-relu" in run("models").out
    known = " ".join(run("models").out.split())
    assert "GPT-NeoX, sequential proved proved proved proved" in known
    assert "(1) layer 0: the block carries several streams" in known
    shown = run("models", "tiny-relu")
    assert "piecewise affine (relu), with biases, LayerNorm before it" in shown.out
    facts = printed(run("models", "tiny-relu", "--json"))
    assert [site["layer"] for site in facts["sites"]] == list(range(facts["layers"]))
    assert all(site["premises_met"] for site in facts["sites"])


def test_capture_tells_the_cost_and_takes_every_option(corpus: Path, directory: Path, tmp_path: Path) -> None:
    choices = (
        "--layers 1 --kind pre --tokens random:3 --seed 5 --bos --keep h --keep-dtype float16 "
        "--max-documents 6 --shard-documents 2 --min-context 4 --max-length 32 --all-pieces "
        "--text-column text"
    )
    arguments = ["capture", directory, corpus, "--out", tmp_path / "s", *choices.split()]
    first = run(*arguments, "--shard", "1/2")
    assert first.code == 0, first.err
    assert re.fullmatch(r"capture: .* tokens to read.* kB, under a minute on this machine\n.*\n", first.err)
    assert "not complete" in first.out
    second = run(*arguments, "--shard", "2/2")
    assert "not complete" not in second.out
    written = open_store(tmp_path / "s")
    assert written.complete
    assert (written.layers, written.kept, len(written.ids)) == ((1,), ("h",), 6)
    expected = {
        "tokens": "random:3", "seed": 5, "bos": True, "keep_dtype": "float16", "max_length": 32,
        "min_context": 4, "all_pieces": True,
    }  # fmt: skip
    assert {name: written.provenance[name] for name in expected} == expected
    assert (written.tokens.groupby("document").size() == 3).all()


def test_capture_reads_paragraphs_and_tables_without_header(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One paragraph.\n\nAnother one.\n")
    (tmp_path / "a.csv").write_text("spam,Buy this now\nham,See you there\n")
    by_paragraph = ["--split", "blank-lines", "--layers", "0"]
    text = run("capture", directory, tmp_path / "a.txt", "--out", tmp_path / "t", *by_paragraph)
    assert "2 documents" in text.out, text.err
    by_column = ["--no-header", "--text-column", "1", "--label-columns", "0", "--layers", "0"]
    table = run("capture", directory, tmp_path / "a.csv", "--out", tmp_path / "c", *by_column)
    assert table.code == 0, table.err
    assert set(open_store(tmp_path / "c").tokens["0"]) == {"spam", "ham"}


def test_info_shows_what_the_store_holds(store: Path) -> None:
    opened = open_store(store)
    facts = printed(run("info", store, "--json"))
    assert (facts["tokens"], facts["documents"], facts["complete"]) == (len(opened), 16, True)
    assert facts["labels"]["topic"] == opened.tokens["topic"].value_counts().to_dict()
    assert facts["first_position"] == 16
    assert facts["sites"][0]["firing_rate"] == pytest.approx(opened.bits(0).mean())
    assert facts["sites"][1]["ambiguous"] == pytest.approx((abs(opened.activations("h", 2)) < 0.5).mean())
    shown = run("info", store)
    assert shown.code == 0
    for part in (MODEL, "L02.pre", "outside the paper's premises", "label topic: bank", "complete", "attention sinks"):
        assert part in shown.out


def test_info_verify_finds_nothing_in_a_sound_store(store: Path) -> None:
    assert "every file as written" in run("info", store, "--verify").out
    assert printed(run("info", store, "--verify", "--json"))["problems"] == []


def test_info_verify_names_each_damaged_file(copy: Path) -> None:
    bits, table = copy / "shards/00000/L00.pre.npy", copy / "shards/00000/tokens.parquet"
    for file in (bits, table):
        content = bytearray(file.read_bytes())
        content[-9] ^= 1
        file.write_bytes(content)
    result = run("info", copy, "--verify")
    assert result.code == 1
    assert str(bits) in result.out
    assert str(table) in result.out
    assert result.err == f"error: {copy}: 2 files are not as written\n"
    as_json = run("info", copy, "--verify", "--json")
    assert as_json.code == 1
    assert len(printed(as_json)["problems"]) == 2


def test_a_damaged_manifest_or_shard_is_named(copy: Path) -> None:
    record = copy / "shards/00000/shard.json"
    record.write_text("{")
    assert str(record) in refused("info", copy)
    manifest = copy / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"tiny", b"tidy"))
    assert str(manifest) in refused("info", copy, "--verify")


def test_nearest_by_row_and_by_text(store: Path) -> None:
    opened = open_store(store)
    by_row = printed(run("nearest", store, 3, "--layer", 2, "-k", 4, "--json"))
    expected = opened.nearest(3, 4, 2)
    assert [r["row"] for r in by_row["by_code"]] == expected.by_code["row"].tolist()
    assert [r["row"] for r in by_row["by_direction"]] == expected.by_direction["row"].tolist()
    # The start of a stored document, read again: its last token is in the store, at distance 0.
    text = opened.texts[0][: opened.tokens["end"][6]]
    by_text = printed(run("nearest", store, text, "--layer", 2, "-k", 1, "--json"))
    assert by_text["query"]["token"] == opened.tokens["token"][6]
    assert (by_text["by_code"][0]["row"], by_text["by_code"][0]["hamming"]) == (6, 0)
    shown = run("nearest", store, 3, "--layer", 2).out
    assert "by code" in shown
    assert "by direction" in shown


def test_cross_gives_all_crossings_and_a_page(tmp_path: Path) -> None:
    prompts = ("We sat on the bank", "We owe the shop")
    result = run("cross", MODEL, *prompts, "--layer", 1, "--steps", 9, "--json", "--out", tmp_path / "out")
    data = printed(result)
    assert len(data["t"]) == len(data["neuron"]) > 0
    assert {part["site"]["layer"] for part in data["layers"]} == {1, 2, 3}
    kept = json.loads((tmp_path / "out/crossings.json").read_text())
    assert kept.pop("checksum")
    assert kept == {name: value for name, value in data.items() if name != "schema"}
    assert (tmp_path / "out/report.html").stat().st_size > 1e6
    shown = run("cross", MODEL, *prompts, "--layer", 1, "--steps", 9, "--at", "mlp_in").out
    assert "closed form" in shown
    assert "grid of 9 steps" in shown
    assert re.search(r"\|[ ▁▂▃▄▅▆▇█]{60}\|", shown)
    assert re.search(r"likeliest next token \((\d+ changes|1 change)\): '", shown)
    assert re.search(r"sharpness of the output's change: \d+\.\d+ \(1: even; 33: one jump\)", shown)


def test_cross_draws_arcs_and_lines_between_embeddings() -> None:
    prompts = ("We sat on the bank", "We owe the shop")
    arc = run("cross", MODEL, *prompts, "--layer", 1, "--shape", "arc", "--own-layer").out
    assert "arc in resid_mid of layer 1" in arc
    assert "sharpness" not in arc
    assert len(re.findall(r"\|[ ▁▂▃▄▅▆▇█]{60}\|", arc)) == 1
    shown = run("cross", MODEL, *prompts, "--at", "embed").out
    assert "line between embeddings" in shown
    assert "flip back" in shown
    same = run("cross", MODEL, prompts[0], prompts[0], "--layer", 1).out
    assert "length 0" in same
    assert "sharpness" not in same


def test_test_clusters_then_report(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    choices = "--label topic --layers 2 --k 4 --tokens 150 --seed 3 --resamples 20"
    arguments = ("test", "clusters", store, "--out", out, *choices.split())
    shown = run(*arguments)
    assert shown.code == 0, shown.err
    assert "SimHash, rate-matched" in shown.out
    data = printed(run(*arguments, "--json"))
    saved = json.loads((out / "result.json").read_text())
    assert (data["verdict"], data["settings"]["k"], data["settings"]["seed"]) == (saved["verdict"], 4, 3)
    assert data["verdict"] in shown.out
    assert saved["command"].startswith(f"polytope-lm test clusters {store} --label ")
    assert all(f"--{chosen.strip()}" in saved["command"] for chosen in choices.split("--")[1:])
    files = {"result.json", "tokens.parquet", "overview.json", "distinct-codes.json", "report.html"}
    assert {f.name for f in out.iterdir()} == files
    assert "Distinct codes" in (out / "report.html").read_text()
    page = tmp_path / "page.html"
    assert printed(run("report", out, "--out", page, "--json"), "page")["report"] == str(page)
    assert "<script>alert(1)</script>" not in page.read_text()


@pytest.mark.parametrize(("text", "layers"), [("all", "all"), ("3", [3]), (" 0, 8 ", [0, 8])])
def test_layers_are_read(text: str, layers: object) -> None:
    assert options.parse_layers(text) == layers


def test_a_store_without_activations_is_compared_by_running_its_model_again(
    store: Path, corpus: Path, tmp_path: Path
) -> None:
    captured = run("capture", MODEL, corpus, "--out", tmp_path / "bare", "--layers", "0,2", "--label-columns", "topic")
    assert captured.err.endswith(
        "a comparison with directions will run the model again; --keep u,h stores what it needs\n"
    )
    choices = ("--label", "topic", "--layers", "2", "--k", "3", "--resamples", "20", "--json")
    kept = run("test", "clusters", store, *choices, "--out", tmp_path / "a")
    again = run("test", "clusters", tmp_path / "bare", *choices, "--out", tmp_path / "b")
    assert again.code == 0, again.err
    one, other = (printed(result) for result in (kept, again))
    assert other["layers"] == one["layers"]
    named = run("test", "clusters", tmp_path / "bare", *choices, "--out", tmp_path / "c", "--model", MODEL)
    assert printed(named)["command"].endswith(f"--model {MODEL}")
