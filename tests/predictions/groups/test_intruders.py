from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.groups.intruders import (
    SHOWN,
    intruder_detection,
    intruder_items,
    judged_by_encoder,
    read_answers,
    read_key,
    score_answers,
    score_file,
    write_items,
)

ANIMALS, TOOLS = ("cat", "dog", "hen", "pig"), ("saw", "axe", "nail", "drill")


@pytest.fixture(scope="module")
def codes(model) -> plm.codes.codes.Codes:
    """Sixty documents about animals or tools, with filler words of different frequency."""
    rng = np.random.default_rng(0)
    texts = []
    for i in range(60):
        words = ANIMALS if i % 2 else TOOLS
        filler = ["the", "of", "and", "a"]
        texts.append(" ".join(f"{rng.choice(filler)} {rng.choice(words)}" for _ in range(6)) + f" {i}")
    return plm.encode(model, texts, layers=[0], tokens="word-final")


def _topic(codes) -> np.ndarray:
    return (codes.tokens["document"] % 2).to_numpy(copy=True)


def _animals(texts) -> np.ndarray:
    """See animals and tools, and nothing else."""
    counts = np.array([[sum(t.count(w) for w in words) for words in (ANIMALS, TOOLS)] for t in texts], float)
    return counts + 0.01


@pytest.mark.parametrize("match", ["frequency", "token"])
def test_items_are_what_they_say(codes, match) -> None:
    groups = _topic(codes)
    groups[::17] = -1
    items = intruder_items(codes, groups, items=40, match=match, seed=1)
    assert len(items) == 40
    documents, words = (codes.tokens[name].to_numpy() for name in ("document", "token_id"))
    counts = np.bincount(words)
    for item in items.items:
        shown = np.array(item.rows)
        outsider = shown[item.intruder - 1]
        members = np.delete(shown, item.intruder - 1)
        assert (groups[members] == item.group).all()
        assert groups[outsider] not in {item.group, -1}
        assert len(set(documents[shown])) == SHOWN
        assert 1 <= item.intruder <= SHOWN
        if match == "token":
            # The outsider stands for a fifth member that was the same token.
            assert ((words == words[outsider]) & (groups == item.group)).any()
        else:
            band = np.floor(np.log2(counts[words]))
            assert ((band == band[outsider]) & (groups == item.group)).any()
        for row, text in zip(item.rows, item.examples, strict=True):
            assert f"<<{codes.tokens['token'][row].strip()}>>" in text
    assert items == intruder_items(codes, groups, items=40, match=match, seed=1)
    assert items.key != intruder_items(codes, groups, items=40, match=match, seed=2).key
    # The place of the outsider is no cue, and groups take turns.
    assert len({item.intruder for item in items.items}) == SHOWN
    assert abs(sum(item.group for item in items.items) - 20) <= 1


def test_an_outsider_comes_from_a_document_of_its_own(codes) -> None:
    """Each of six documents has tokens of both groups, so that chance alone would often take one of four."""
    few = np.flatnonzero(codes.tokens["document"] < 6)
    items = intruder_items(codes, np.arange(len(few)) % 2, rows=few, items=20)
    documents = codes.tokens["document"].to_numpy()
    assert all(len(set(documents[list(item.rows)])) == SHOWN for item in items.items)


def test_a_judge_that_sees_the_groups_finds_all_and_one_of_random_groups_one_in_five(codes) -> None:
    found = intruder_detection(codes, _topic(codes), encoder=_animals, items=60)
    assert found.accuracy == 1
    assert found.high == 1
    assert found.p < 1e-6
    rng = np.random.default_rng(3)
    pooled = [
        intruder_detection(codes, rng.integers(0, 3, len(codes)), encoder=_animals, items=100, seed=s) for s in range(4)
    ]
    test = binomtest(sum(p.correct for p in pooled), sum(p.answered for p in pooled), 0.2)
    assert test.pvalue > 0.005


def test_the_judge_names_the_least_similar_context(codes) -> None:
    items = intruder_items(codes, _topic(codes), items=15)
    rng = np.random.default_rng(0)
    vectors = {}

    def random(texts) -> np.ndarray:
        return np.array([vectors.setdefault(text, rng.normal(size=6)) for text in texts])

    answers = judged_by_encoder(codes, items, random)
    for item in items.items:
        unit = [vectors["".join(parts)] / np.linalg.norm(vectors["".join(parts)]) for parts in item.contexts]
        mean = [np.mean([a @ b for j, b in enumerate(unit) if j != i]) for i, a in enumerate(unit)]
        assert answers[item.id] == int(np.argmin(mean)) + 1


def test_questions_go_out_without_answers_and_come_back_with_them(codes, tmp_path) -> None:
    items = intruder_items(codes, _topic(codes), items=12)
    questions, key = write_items(items, tmp_path / "out")
    lines = [json.loads(line) for line in questions.read_text().splitlines()]
    assert [set(line) for line in lines] == [{"item", "examples", "answer"}] * 12
    assert all(line["answer"] is None and len(line["examples"]) == SHOWN for line in lines)
    assert read_key(key) == items.key
    assert all(set(json.loads(line)) == {"item", "intruder", "group", "rows"} for line in key.read_text().splitlines())
    # A judge answers 9 of 12, 6 of them correctly; the file comes back from another editor.
    for number, line in enumerate(lines[:9]):
        right = items.key[line["item"]]
        line["answer"] = right if number < 6 else right % SHOWN + 1
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines[::-1]) + "\r\n\r\n"
    questions.write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = score_file(questions, key, judge="a person")
    assert (found.judge, found.correct, found.answered, found.unanswered) == ("a person", 6, 9, 3)
    assert found.accuracy == pytest.approx(6 / 9)
    interval = binomtest(6, 9).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(binomtest(6, 9, 0.2, alternative="greater").pvalue)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: no JSON"),
        ("[1]", 'line 2: no object with "item" and "answer"'),
        ('{"item": "ITEM"}', 'line 2: no object with "item" and "answer"'),
        ('{"item": "ITEM", "answer": 6}', 'line 2: "answer" is 6; give a whole number from 1 to 5'),
        ('{"item": "ITEM", "answer": true}', 'line 2: "answer" is True'),
        ('{"item": "ITEM", "answer": "3"}', "line 2: \"answer\" is '3'"),
        ('{"item": "other", "answer": 3}', "line 2: item 'other' is not in the key"),
        ('{"item": "FIRST", "answer": 3}', "line 2: item .* is there twice"),
    ],
)
def test_a_wrong_answer_is_named_by_its_line(codes, tmp_path, line, said) -> None:
    items = intruder_items(codes, _topic(codes), items=3)
    first, second = items.items[:2]
    path = tmp_path / "answers.jsonl"
    good = json.dumps({"item": first.id, "answer": 2})
    path.write_text(f"{good}\n{line.replace('ITEM', second.id).replace('FIRST', first.id)}\n")
    with pytest.raises(PolytopeError, match=said) as error:
        read_answers(path, items.key)
    assert "\n" not in str(error.value)


def test_what_makes_no_item_is_refused(codes, tmp_path) -> None:
    with pytest.raises(PolytopeError, match=r"no group of .* has 5 tokens of as many documents"):
        intruder_items(codes, np.arange(len(codes)))
    with pytest.raises(PolytopeError, match="match = 'length'"):
        intruder_items(codes, _topic(codes), match="length")
    items = intruder_items(codes, _topic(codes), items=2)
    with pytest.raises(PolytopeError, match="none of 2 items has an answer"):
        score_answers(items.key, dict.fromkeys(items.key))
    with pytest.raises(PolytopeError, match="item 'x', which the key does not have"):
        score_answers(items.key, {"x": 1})
    with pytest.raises(PolytopeError, match="no file"):
        read_key(tmp_path / "nothing.jsonl")
    one_group = np.where(np.arange(len(codes)) % 2, 0, -1)
    with pytest.raises(PolytopeError, match="no group of 1 has"):
        intruder_items(codes, one_group)  # noise is no outsider
