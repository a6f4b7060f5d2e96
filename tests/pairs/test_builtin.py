from __future__ import annotations

import re
from collections import Counter
from itertools import product

import numpy as np
import pytest

from polytope_lm import pairs

SET = pairs.builtin()


def _auc(different: list[float], same: list[float]) -> float:
    wins = [(d > s) + 0.5 * (d == s) for d, s in product(different, same)]
    return float(np.mean(wins))


def _kind(pair: pairs.Pair) -> str:
    return pair.group.split("/")[1].split("-")[0]


def test_it_has_at_least_240_pairs_in_12_fields() -> None:
    assert len(SET) >= 240
    assert not SET.problems
    assert len({pair.topic for pair in SET}) >= 12
    assert {_kind(pair) for pair in SET} == {"swap", "paraphrase", "topic"}


def test_each_item_has_one_prompt_and_one_pair_of_each_kind() -> None:
    groups: dict[str, list[pairs.Pair]] = {}
    for pair in SET:
        groups.setdefault(pair.group, []).append(pair)
    for group, members in groups.items():
        assert sorted(pair.same for pair in members) == [False, True], group
        assert len({pair.a for pair in members}) == 1, group
        assert group.startswith(f"{members[0].topic}/")


def test_no_prompt_is_used_twice() -> None:
    assert max(Counter(pair.b for pair in SET).values()) == 1
    assert len({pair.a for pair in SET} & {pair.b for pair in SET}) == 0


def test_swaps_differ_in_the_last_word_only() -> None:
    for pair in SET:
        if _kind(pair) == "swap":
            a, b = pair.a.split(), pair.b.split()
            assert a[:-1] == b[:-1], pair
            assert a[-1] != b[-1], pair


def test_prompts_end_in_a_word_and_are_plain_text() -> None:
    for pair in SET:
        for text in (pair.a, pair.b):
            assert re.fullmatch(r"[A-Z][A-Za-z',\- ]+[a-zA-Z]", text), text
            assert "  " not in text


@pytest.mark.parametrize(
    "measure",
    [
        lambda pair: len(pair.b),
        lambda pair: len(pair.b.split()),
        lambda pair: len(pair.b.split()[-1]),
        lambda pair: abs(len(pair.a) - len(pair.b)),
    ],
    ids=["characters", "words", "last word", "difference in length"],
)
def test_length_says_nothing_about_meaning(measure) -> None:
    different, same = ([measure(pair) for pair in SET if pair.same is kind] for kind in (False, True))
    assert abs(_auc(different, same) - 0.5) < 0.06


def test_fields_are_balanced_in_number_and_length() -> None:
    counts = Counter((pair.topic, pair.same) for pair in SET)
    assert len(set(counts.values())) == 1
    lengths = {key: np.mean([len(pair.b) for pair in SET if (pair.topic, pair.same) == key]) for key in counts}
    overall = np.mean(list(lengths.values()))
    for topic in {pair.topic for pair in SET}:
        assert abs(lengths[topic, True] - lengths[topic, False]) < 3, topic
        assert abs(lengths[topic, True] - overall) < 0.2 * overall, topic


def test_sentences_are_varied() -> None:
    openings = Counter(" ".join(pair.a.split()[:3]) for pair in SET if pair.same)
    assert max(openings.values()) <= 2
    last = Counter(pair.b.split()[-1].lower() for pair in SET)
    assert max(last.values()) <= 3
