from __future__ import annotations

from analyses._running import command_typed


def test_a_kept_command_names_no_place_of_the_machine() -> None:
    typed = ["--data", "/home/me/data", "--out=/tmp/x y", "--model", "gpt2", "--layers", "0,4"]
    assert command_typed("word_senses", typed) == (
        "python -m analyses.word_senses --data DATA --out=DIR --model gpt2 --layers 0,4"
    )
    assert command_typed("stable_regions", []) == "python -m analyses.stable_regions"


def test_a_set_of_pairs_is_no_place_and_a_models_directory_is_one():
    typed = ["--pairs", "builtin", "--senses", "/x/senses", "--model=/x/models/char-gpt1", "--model", "tiny-relu"]
    assert command_typed("semantic_boundaries", typed) == (
        "python -m analyses.semantic_boundaries --pairs builtin --senses SENSES --model=char-gpt1 --model tiny-relu"
    )
    assert command_typed("stable_regions", ["--pairs", "/x/pairs.jsonl"]).endswith("--pairs PAIRS.jsonl")
    assert command_typed("x", ["--model", "a/b", "--out", "senses"]) == "python -m analyses.x --model a/b --out DIR"
