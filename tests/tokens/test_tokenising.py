"""Special tokens: read, never stored."""

from __future__ import annotations

import pytest
from vocabularies import END, byte_bpe, cut, whole_words, word_piece

from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError
from polytope_lm.tokens import specials, tokenise


def test_bos_as_the_tokenizer_does():
    end = byte_bpe().convert_tokens_to_ids(END)
    assert specials(byte_bpe()).prefix == ()
    assert specials(byte_bpe(), bos=True).prefix == (end,)
    assert specials(byte_bpe(template=True)).prefix == (end,)
    assert specials(byte_bpe(template=True), bos=True).prefix == (end,)
    assert specials(byte_bpe(template=True), bos=False).prefix == ()
    around = specials(word_piece())
    assert (around.prefix, around.suffix) == ((2,), (3,))
    assert specials(word_piece(), bos=True) == around
    with pytest.raises(PolytopeError, match="no BOS token"):
        specials(whole_words(), bos=True)


def test_special_tokens_are_read_and_never_stored():
    document = Document("d", "the cats playing")
    (window,) = cut(document, word_piece())
    assert window.input_ids.tolist() == [2, 5, 6, 7, 8, 9, 3]
    assert window.keep.tolist() == [1, 2, 3, 4, 5]
    assert window.position.tolist() == [0, 1, 2, 3, 4]
    assert window.token_id.tolist() == [5, 6, 7, 8, 9]
    (bare,) = cut(document, word_piece(), bos=False)
    assert bare.input_ids.tolist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("tokenizer", [byte_bpe, word_piece])
def test_special_text_in_a_document_is_text(tokenizer):
    found = tokenizer()
    text = f"the {found.all_special_tokens[0]} cat [PAD]."
    (window,) = cut(Document("d", text), found)
    never = set(found.all_special_ids) - {found.unk_token_id}
    assert not never & set(window.token_id.tolist())
    assert window.end[-1] == len(text)


def test_a_special_token_that_text_gives_all_the_same_is_not_stored():
    (window,) = cut(Document("d", "cat [PAD] dog cat"), whole_words())
    assert window.input_ids.tolist() == [2, 1, 0, 2]
    assert window.position.tolist() == [0, 2, 3]  # the unknown word stands for text and stays


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False
        name_or_path = "slow"

    with pytest.raises(PolytopeError, match="'slow' gives no character offsets"):
        tokenise(["a"], Slow())
