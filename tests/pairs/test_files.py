from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytope_lm import pairs
from polytope_lm.errors import PolytopeError
from polytope_lm.pairs import Pair

GOOD = {"a": "He sat on the bank of the river", "b": "She owes the bank", "group": "bank", "same": False}


def _lines(*rows: object) -> str:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


def test_text_is_cut_after_a_target() -> None:
    at = GOOD["a"].index("bank")
    found = pairs.parse(_lines({**GOOD, "target_a": [at, at + 4], "target_b": "bank"}))[0]
    assert found.prompts == ("He sat on the bank", "She owes the bank")
    assert found.target_a == (at, at + 4)


def test_a_target_word_is_a_whole_word() -> None:
    row = {**GOOD, "a": "The banker left the bank early", "target_a": "bank"}
    assert pairs.parse(_lines(row))[0].prompts[0] == "The banker left the bank"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "malformed JSON"),
        ("[1]", "is not an object"),
        ({**GOOD, "same": "yes"}, "'same' is 'yes'"),
        ({k: v for k, v in GOOD.items() if k != "group"}, "'group' is missing"),
        ({**GOOD, "a": "  "}, "prompt a is empty"),
        ({**GOOD, "target_a": "shore"}, "target_a 'shore' is not a word of"),
        ({**GOOD, "target_a": [5, 400]}, "target_a [5, 400] is no word"),
        ({**GOOD, "target_a": [4, 4]}, "target_a [4, 4] is no word"),
        ({**GOOD, "target_b": [1]}, "give [start, end] in characters"),
        ({**GOOD, "topic": 3}, "topic is 3"),
        ({**GOOD, "taget_a": "bank"}, "unknown key 'taget_a'"),
        ({**GOOD, "a": float("nan")}, "'a' is nan"),
        ({**GOOD, "target_a": [float("nan"), 2]}, "'target_a' is [nan, 2]"),
        ({**GOOD, "target_a": [0, 2.0]}, "'target_a' is [0, 2.0]"),
        ({**GOOD, "target_a": {"start": 0}}, "'target_a' is {'start': 0}"),
        ({**GOOD, "b": ["x"]}, "'b' is ['x']"),
        ({**GOOD, "a": "x" * 50 + "\ud800"}, "U+D800"),
        ("[" * 100_000, "JSON that cannot be read"),
        ('{"a": ' + "[" * 500 + "]" * 500 + "}", "'a' is [["),
        ("1" * 5000, "JSON that cannot be read"),
        ("null", "None is not an object"),
    ],
)
def test_a_bad_line_is_reported_and_the_rest_is_read(row: object, says: str) -> None:
    found = pairs.parse(_lines(GOOD, "", row, {**GOOD, "same": True}))
    assert [pair.line for pair in found] == [1, 4]
    assert [problem.line for problem in found.problems] == [3]
    assert says in found.problems[0].message
    assert "\n" not in str(found.problems[0])
    assert "1 left out" in repr(found)


def test_a_file_without_a_pair_is_an_error(tmp_path) -> None:
    with pytest.raises(PolytopeError, match=r"no pair in it \(line 1: .*malformed JSON"):
        pairs.parse("{")
    with pytest.raises(PolytopeError, match="the file is empty"):
        pairs.parse("\n")
    with pytest.raises(PolytopeError, match=r"none\.jsonl"):
        pairs.read(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(PolytopeError, match="is not UTF-8"):
        pairs.read(tmp_path / "latin.jsonl")


_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(_text, _text, _text, st.booleans(), st.none() | _text), min_size=1, max_size=5))
def test_what_is_written_is_read_again(tmp_path_factory, rows: list[tuple]) -> None:
    made = tuple(Pair(*row, target_a=(0, len(row[0]))) for row in rows)
    path = pairs.write(made, tmp_path_factory.mktemp("pairs") / "pairs.jsonl")
    found = pairs.read(path)
    assert found.pairs == made
    assert not found.problems
    assert [pair.line for pair in found] == list(range(1, len(made) + 1))


def test_a_line_number_is_no_part_of_a_pair() -> None:
    pair = Pair("a", "b", "g", same=True)
    assert replace(pair, line=3) == pair


def test_what_is_no_regular_file_is_one_line(tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, "/dev/zero", "~/no-such-pairs.jsonl"):
        with pytest.raises(PolytopeError, match=str(path).removeprefix("~")):
            pairs.read(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"a": 3}, "a is 3"),
        ({"group": None}, "group is None"),
        ({"same": 1}, "same is 1"),
        ({"topic": b"x"}, "topic is b'x'"),
        ({"b": "\ud800 b"}, r"U\+D800"),
        ({"target_a": (0.0, 2.0)}, r"target_a \[0.0, 2.0\]"),
        ({"target_b": (0, 1, 2)}, r"target_b \[0, 1, 2\]"),
        ({"target_b": "owes"}, "target_b 'owes'"),
    ],
)
def test_a_pair_made_by_hand_is_checked(change: dict, says: str) -> None:
    with pytest.raises(PolytopeError, match=says):
        Pair(**(GOOD | change))
