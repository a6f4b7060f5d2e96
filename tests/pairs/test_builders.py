from __future__ import annotations

import json
from collections import Counter

import pytest

from polytope_lm import pairs
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError


@pytest.fixture
def senses(tmp_path):
    """Two words of two senses, 12 sentences each."""
    for word in ("bank", "mole"):
        folder = tmp_path / word
        folder.mkdir()
        lines = [f"3\tsentence number {i} {word} goes on and on{i}" for i in range(12)]
        folder.joinpath("test.data.txt").write_text("\n".join(lines).replace("number ", "no "), "utf-8")
        folder.joinpath("test.gold.txt").write_text("\n".join(str(i % 2) for i in range(12)), "utf-8")
        folder.joinpath("classes_map.txt").write_text(json.dumps({"0": f"{word}_a", "1": f"{word}_b"}), "utf-8")
    return tmp_path


def test_senses_are_paired_within_a_word_and_balanced(senses) -> None:
    found = pairs.from_senses(senses, per_word=8, uses=2, seed=1)
    assert Counter((pair.group, pair.same) for pair in found) == {
        (word, same): 4 for word in ("bank", "mole") for same in (True, False)
    }
    for pair in found:
        assert [prompt.split()[-1] for prompt in pair.prompts] == [pair.group] * 2
        numbers = [int(text.split()[2]) for text in (pair.a, pair.b)]
        assert (numbers[0] % 2 == numbers[1] % 2) is pair.same
        assert pair.a != pair.b
    used = Counter(text for pair in found for text in (pair.a, pair.b))
    assert max(used.values()) <= 2
    assert "each sentence in 2 at most" in found.note


def test_a_sentence_read_twice_ends_at_its_second_target(senses) -> None:
    pair = pairs.from_senses(senses, per_word=4, twice=True)[0]
    prompt = pair.prompts[0]
    assert prompt.count(pair.group) == 2
    assert prompt.endswith(pair.group)
    assert prompt.startswith(pair.a[: len(pair.a) // 2].strip())


def test_a_seed_decides(senses) -> None:
    one, same, other = (pairs.from_senses(senses, seed=seed).pairs for seed in (1, 1, 2))
    assert one == same != other


def test_one_sense_gives_no_pair(tmp_path) -> None:
    tmp_path.joinpath("test.data.txt").write_text("0\tbank one\n0\tbank two\n")
    tmp_path.joinpath("test.gold.txt").write_text("0\n0\n")
    with pytest.raises(PolytopeError, match="no word with sentences of two senses"):
        pairs.from_senses(tmp_path)


def _documents(n: int = 30) -> list[Document]:
    return [Document(str(i), f"text {i} " + "word " * 60, {"topic": "abc"[i % 3]}) for i in range(n)]


def test_documents_are_paired_by_label() -> None:
    found = pairs.from_documents(_documents(), "topic", pairs=12, words=10, uses=2)
    topic = {" ".join(d.text.split()[:10]): d.labels["topic"] for d in _documents()}
    assert Counter((pair.group, pair.same) for pair in found) == {
        (label, same): 2 for label in "abc" for same in (True, False)
    }
    for pair in found:
        assert (topic[pair.a] == topic[pair.b]) is pair.same
        assert pair.topic == pair.group == topic[pair.a]
    assert max(Counter(t for pair in found for t in (pair.a, pair.b)).values()) <= 2


def test_documents_of_one_label_are_an_error() -> None:
    with pytest.raises(PolytopeError, match="0 values of label 'genre' in 0 documents"):
        pairs.from_documents(_documents(), "genre")
