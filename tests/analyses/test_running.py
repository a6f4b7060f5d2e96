from __future__ import annotations

from analyses._running import command_typed


def test_a_kept_command_names_no_place_of_the_machine() -> None:
    typed = ["--data", "/home/me/data", "--out=/tmp/x y", "--model", "gpt2", "--layers", "0,4"]
    assert command_typed("word_senses", typed) == (
        "python -m analyses.word_senses --data DATA --out=DIR --model gpt2 --layers 0,4"
    )
    assert command_typed("stable_regions", []) == "python -m analyses.stable_regions"
