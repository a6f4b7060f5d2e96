"""Special tokens: read, never stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from vocabularies import CORPUS, END, byte_bpe, cut, whole_words, word_piece

from polytope_lm.documents import Document, Span
from polytope_lm.errors import PolytopeError
from polytope_lm.tokens import tokenising
from polytope_lm.tokens.tokenising import Specials, specials, tokenise


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


def test_special_tokens_are_found_in_any_vocabulary():
    backend = Tokenizer(models.BPE(vocab={"<s>": 0, "A": 1, "C": 2, "G": 3, "T": 4}, merges=[]))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    letters = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    assert specials(letters) == specials(letters, bos=True) == Specials((0,), ())
    (window,) = cut(Document("d", "ACGT"), letters)
    assert window.input_ids.tolist() == letters("ACGT")["input_ids"] == [0, 1, 2, 3, 4]
    around = word_piece()
    around(["the cat", "the"], padding="max_length", max_length=9, truncation=True)  # which leaves a state
    assert specials(around) == Specials((2,), (3,))


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


def metaspace():
    """A unigram vocabulary over words that begin with a blank, as sentencepiece has it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


WORDS = ["the", "cats", "\n", " ", "don't", "hello", "é👩‍👧", "a" * 100, "x,y", END, "世界"]


def llama_like():
    """A BPE that does not divide words first: the whole text is one."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=120, initial_alphabet=sorted({*"".join(WORDS)}), special_tokens=["<unk>"]),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.fixture(scope="module", params=[byte_bpe, word_piece, metaspace, llama_like])
def any_tokenizer(request):
    return request.param()


@given(words=st.lists(st.sampled_from(WORDS), min_size=5, max_size=80), blank=st.sampled_from([" ", "", "  "]))
def test_a_long_text_is_tokenised_in_stretches_as_it_is_whole(any_tokenizer, words, blank):
    text = blank.join(words)
    (whole,) = tokenise([text], any_tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenising, "LONG", 100)
        patch.setattr(tokenising, "OVERLAP", 80)
        found = tokenise(["the cat", text, "", text[:30]], any_tokenizer)
    assert found[1].equals(whole)
    assert found[3].equals(tokenise([text[:30]], any_tokenizer)[0])
    assert [len(found[0].ids) > 0, len(found[2].ids)] == [True, 0]


def test_stretches_stay_short(monkeypatch):
    tokenizer, lengths = byte_bpe(), []

    class Spy:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, texts, **options):
            lengths.append(sum(map(len, texts)))
            return tokenizer(texts, **options)

    monkeypatch.setattr(tokenising, "LONG", 1000)
    monkeypatch.setattr(tokenising, "OVERLAP", 200)
    text = "the cats sat there " * 1000
    tokenise([text, text[:900], text[:900]], Spy())
    assert max(lengths) <= 1200
    assert len(text) < sum(lengths[:-2]) < 1.4 * len(text)


def test_the_character_after_an_added_token_is_not_lost():
    tokenizer = byte_bpe(trim=True)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.post_processor = processors.RobertaProcessing((END, 0), (END, 0), add_prefix_space=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=END, eos_token=END)
    tokenizer.add_tokens(["<device>"])
    for text in ("<device>B of", "<device>the cat", "a <device> the<device>", "x<device>€ <device>  two<device>"):
        (found,) = tokenise([text], tokenizer)
        covered = {i for s, e in zip(found.starts, found.ends, strict=True) for i in range(s, e)}
        assert covered >= {i for i, c in enumerate(text) if not c.isspace()}
        assert (np.diff(found.starts) >= 0).all()
    document = Document("d", "<device>B of", {}, (Span(8, 9, {"t": "LETTER"}), Span(10, 12, {"t": "ADP"})))
    (window,) = cut(document, tokenizer)
    assert [label for label in window.labels["t"] if label] == ["LETTER", "ADP"]
