"""Nothing that a corpus holds can run, reorder or break what it is shown in."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polytope_lm.errors import escaped, visible

ANY_TEXT = st.text(st.characters(codec=None, categories=None))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", r"a\u0000b"),
        ("\x1b[31mred", r"\u001b[31mred"),
        ("\ud800", r"\ud800"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("\x85\u2028", r"\u0085\u2028"),
        ("\ufeffstart", r"\ufeffstart"),
        ("line\n\tnext", "line⏎⇥next"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("שלום", "שלום"),
        ("a\u00a0b\u3000c", "a\u00a0b\u3000c"),
        ("<script>", "<script>"),
    ],
)
def test_unseen_characters_are_spelled_out_and_others_are_kept(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(ANY_TEXT)
def test_any_text_can_be_encoded_and_holds_no_control(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)


@given(ANY_TEXT)
def test_plotly_reads_no_tag_and_no_entity_from_a_text(text: str) -> None:
    shown = escaped(text)
    assert "<" not in shown
    assert ">" not in shown
    assert not re.search(r"&(?!(amp|lt|gt);)", shown)
    back = shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert back == visible(text)
