"""Senses: every target is the word that it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from reading import refused, texts

from polytope_lm.documents import documents

SHARED = Path(__file__).parents[3] / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data, which are not shipped")


@pytest.fixture
def senses(write):
    write("w/classes_map.txt", '{"0": "bass_fish", "1": "bass_sound"}')
    write("w/test.gold.txt", "0\n1\n")
    return write("w/test.data.txt", "1\ta bass swims\n2\tplays the bass .\n")


def test_senses(senses):
    found = list(documents(senses))
    assert [d.text for d in found] == ["a bass swims", "plays the bass ."]
    assert [d.text[s.start : s.end] for d in found for s in d.spans] == ["bass", "bass"]
    assert [s.labels for d in found for s in d.spans] == [
        {"sense": "bass_fish", "form": "bass"},
        {"sense": "bass_sound", "form": "bass"},
    ]
    assert [d.id for d in documents(senses.parent)] == ["test.data.txt#1", "test.data.txt#2"]
    assert len(texts(senses, senses=False)) == 1


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("test.data.txt", "1\ta bass\n9\tb bass\n", "test.data.txt, line 2: '9' is no position"),
        ("test.data.txt", "x\ta bass\n1\tb bass\n", "line 1: 'x' is no position"),
        ("test.data.txt", "1\ta bass\n", "test.data.txt: ends before line 2"),
        ("test.gold.txt", "0\n", "test.gold.txt: ends before line 2"),
        ("test.gold.txt", "0\n7\n", r"test.gold.txt, line 2: sense '7' is not in classes_map.txt \(0, 1\)"),
        ("classes_map.txt", "{", "classes_map.txt: malformed JSON"),
        ("classes_map.txt", "[1]", "classes_map.txt: must map"),
    ],
)
def test_bad_senses_have_their_line(senses, name, content, pattern):
    (senses.parent / name).write_text(content)
    refused(senses, pattern)


def test_senses_without_names_and_without_gold(senses):
    (senses.parent / "classes_map.txt").unlink()
    assert [s.labels["sense"] for d in documents(senses) for s in d.spans] == ["0", "1"]
    (senses.parent / "test.gold.txt").unlink()
    assert len(texts(senses)) == 1  # a text like any other
    refused(senses, "no file of senses test.gold.txt beside it", senses=True)


@shared
def test_every_target_of_the_senses_is_a_word_of_its_name():
    found = list(documents(SHARED / "senses" / "bass"))
    assert len(found) > 1000
    assert all(s.labels["sense"].startswith("bass_") and len(d.spans) == 1 for d in found for s in d.spans)
