# ruff: noqa: S106 - tokens of text, not of access
"""Tokens: alignment against a count by hand, windows against their promise, batches against their budget."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from polytope_lm.documents import Document, Span
from polytope_lm.errors import PolytopeError
from polytope_lm.tokens import (
    Window,
    Windowing,
    align,
    batches,
    last_of_each,
    parse_rule,
    specials,
    tokenise,
    windows,
)

CORPUS = ["a a a a a the cat sat on the mat and don't the cats sit there hello world"] * 4
END = "<|endoftext|>"


@cache
def byte_bpe(*, trim=False, template=False):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=[END], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{END} $A", special_tokens=[(END, tokenizer.token_to_id(END))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)


@cache
def word_piece():
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "cat",
        "##s",
        "play",
        "##ing",
        "[",
        "]",
    ]
    vocabulary += ["cl", "pad", "##d", "."]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    )


@cache
def whole_words():
    """A vocabulary in which the special token is an ordinary word, so that text can give it."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "cat": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def surface(document, window):
    return [document.text[s:e] for s, e in zip(window.start, window.end, strict=True)]


def cut(document, tokenizer=None, **options):
    given_options = {"rule": "all", "context_length": 64, "min_context": 8} | options
    return windows(document, 0, tokenizer or byte_bpe(), **given_options)


# rules


@pytest.mark.parametrize("text", ["all", "word-final", "every:6", "every:6,skip:100", "random:80"])
def test_a_rule_says_what_was_written(text):
    assert str(parse_rule(text)) == text


@pytest.mark.parametrize(
    "text", ["", "some", "every", "every:0", "random:0", "random:-1", "every:6,skip:x", "all "]
)
def test_other_rules_are_refused(text):
    with pytest.raises(PolytopeError, match="no sample rule"):
        parse_rule(text)


def chosen(rule, n, document_id="d", seed=0):
    return parse_rule(rule).choose(np.arange(n), np.zeros(n, bool), document_id, seed)


def test_the_papers_rule_takes_six_evenly_spaced_tokens_after_a_hundred():
    assert chosen("every:6,skip:100", 1024).tolist() == [100, 284, 469, 653, 838, 1023]
    assert chosen("every:6,skip:100", 106).tolist() == [100, 101, 102, 103, 104, 105]
    assert chosen("every:6,skip:100", 105).tolist() == []
    assert chosen("every:1,skip:3", 9).tolist() == [3]


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 200))
def test_evenly_spaced_tokens_are_distinct_inside_and_even(count, skip, n):
    found = chosen(f"every:{count},skip:{skip}", n)
    assert len(found) == (count if n - skip >= count else 0)
    gaps = np.diff(found)
    assert all(skip <= p < n for p in found)
    assert gaps.size == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


def test_random_depends_on_seed_and_document_alone():
    first = chosen("random:5", 100)
    assert first.tolist() == chosen("random:5", 100).tolist()
    assert first.tolist() != chosen("random:5", 100, document_id="e").tolist()
    assert first.tolist() != chosen("random:5", 100, seed=1).tolist()
    assert len(set(first)) == 5
    assert (np.diff(first) > 0).all()
    assert chosen("random:5", 3).tolist() == [0, 1, 2]


def test_random_does_not_depend_on_the_documents_around():
    texts = [Document(str(i), f"{i} the cat sat on the mat and sat") for i in range(4)]
    how = Windowing(parse_rule("random:3"), 64, 8)
    together = how.apply(texts, 0, byte_bpe()).windows
    alone = [how.apply([text], i, byte_bpe()).windows[0] for i, text in enumerate(texts)]
    assert [w.position.tolist() for w in together] == [w.position.tolist() for w in alone]
    assert [w.document for w in together] == [0, 1, 2, 3]


def test_random_draws_are_even():
    counts = np.zeros(10)
    for i in range(2000):
        counts[chosen("random:2", 10, document_id=str(i))] += 1
    assert abs(counts / 400 - 1).max() < 0.2


# alignment


def by_hand(starts, ends, spans):
    """Count the characters that each token shares with each span; first span of the most."""
    owners = []
    for start, end in zip(starts, ends, strict=True):
        shared = [len(set(range(start, end)) & set(range(a, b))) for a, b in spans]
        owners.append(int(np.argmax(shared)) if shared and max(shared) > 0 else -1)
    return owners


@st.composite
def stretches(draw, *, overlapping):
    edges = sorted(draw(st.lists(st.integers(0, 40), min_size=0, max_size=16, unique=not overlapping)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@given(stretches(overlapping=True), stretches(overlapping=False))
def test_alignment_is_the_count_of_shared_characters(tokens, spans):
    starts, ends = (np.array([t[i] for t in tokens], dtype=np.int64) for i in (0, 1))
    span_starts, span_ends = (np.array([s[i] for s in spans], dtype=np.int64) for i in (0, 1))
    owner = align(starts, ends, span_starts, span_ends)
    assert owner.tolist() == by_hand(starts, ends, spans)
    final = last_of_each(owner, len(spans))
    expected = {max(np.flatnonzero(owner == s)) for s in set(owner.tolist()) - {-1}}
    assert set(np.flatnonzero(final)) == expected


def test_a_tie_goes_to_the_first_span():
    assert align(np.array([1]), np.array([5]), np.array([0, 3]), np.array([3, 9])).tolist() == [0]


def tagged(text, words, name="tag", kind="word"):
    spans, at = [], 0
    for word, tag in words:
        start = text.index(word, at)
        at = start + len(word)
        spans.append(Span(start, at, {name: tag}, kind))
    return Document("d", text, {}, tuple(spans))


def test_a_words_label_goes_to_its_last_token_or_to_all():
    document = tagged("hello playing", [("hello", "A"), ("playing", "B")])
    (window,) = cut(document)
    pieces = surface(document, window)
    assert "".join(pieces) == document.text
    assert len(pieces) > 2
    labels = window.labels["tag"]
    assert labels[-1] == "B"
    assert [t for t in labels if t] == ["A", "B"]
    everywhere = cut(document, all_pieces=True)[0].labels["tag"]
    space = [p.isspace() for p in pieces]
    assert everywhere == [
        None if blank else "A" if e <= 5 else "B" for blank, e in zip(space, window.end, strict=True)
    ]


def test_a_token_across_two_words_belongs_to_the_larger_share():
    tokenizer = byte_bpe()
    piece = tokenizer("there", add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][0]
    assert piece[1] - piece[0] >= 3  # "the" is one token
    document = Document("d", "there", {}, (Span(0, 2, {"tag": "A"}), Span(2, 5, {"tag": "B"})))
    (window,) = cut(document)
    assert window.labels["tag"][0] == "A"
    assert window.labels["tag"][-1] == "B"


def test_leading_space_does_not_count():
    # " a" and the span that ends with the space: without the rule the tie would go to the first
    document = Document(
        "d", "the cat a", {}, (Span(0, 8, {"c": "x"}, "region"), Span(8, 9, {"c": "y"}, "region"))
    )
    (window,) = cut(document)
    assert surface(document, window)[-1] == " a"
    assert window.labels["c"][-1] == "y"


def test_white_space_alone_belongs_to_the_region_around_it():
    document = Document("d", "a\n\n\n\n\nb", {}, (Span(0, 7, {"c": "x"}, "region"),))
    (window,) = cut(document)
    assert set(window.labels["c"]) == {"x"}


def test_a_region_labels_every_token_and_a_word_comes_first():
    text = "hello there"
    spans = (Span(0, 11, {"c": "region", "r": "yes"}, "region"), Span(0, 5, {"c": "word"}))
    (window,) = cut(Document("d", text, {}, spans))
    assert set(window.labels["r"]) == {"yes"}
    last = [i for i, e in enumerate(window.end) if e <= 5][-1]
    assert [i for i, c in enumerate(window.labels["c"]) if c == "word"] == [last]


def test_labels_can_be_named():
    document = tagged("hello there", [("hello", "A")])
    assert cut(document, labels=("tag", "other"))[0].labels.keys() == {"tag", "other"}
    assert set(cut(document, labels=("other",))[0].labels["other"]) == {None}
    assert cut(Document("d", "hello"))[0].labels == {}


def test_bytes_of_one_character_share_its_offsets_and_the_last_one_ends_the_word():
    text = "hello 🙂 there"
    document = tagged(text, [("hello", "A"), ("🙂", "B"), ("there", "C")])
    (window,) = cut(document)
    emoji = [i for i, (s, e) in enumerate(zip(window.start, window.end, strict=True)) if text[s:e] == "🙂"]
    assert len(emoji) == 4
    assert [window.labels["tag"][i] for i in emoji] == [None, None, None, "B"]
    everywhere = cut(document, all_pieces=True)[0].labels["tag"]
    assert [everywhere[i] for i in emoji] == ["B"] * 4
    final = cut(document, rule="word-final")[0]
    assert final.labels["tag"] == ["A", "B", "C"]


@pytest.mark.parametrize("trim", [False, True])
def test_trimmed_offsets_give_the_same_labels(trim):
    document = tagged("the cat  sat", [("the", "A"), ("cat", "B"), ("sat", "C")])
    (window,) = cut(document, byte_bpe(trim=trim), rule="word-final")
    assert window.labels["tag"] == ["A", "B", "C"]


# word-final


def test_word_final_goes_by_white_space_without_words():
    document = Document("d", "hello  there,\ncat", {}, (Span(0, 5, {"c": "x"}, "region"),))
    (window,) = cut(document, rule="word-final")
    assert window.end.tolist() == [5, 13, 17]
    assert window.labels == {"c": ["x", None, None]}


def test_word_final_goes_by_the_documents_words():
    document = tagged("hello there, cat", [("there", "A"), ("cat", "B")])
    (window,) = cut(document, rule="word-final")
    assert window.end.tolist() == [11, 16]


@settings(deadline=None)
@given(st.text("abc don't\n🙂é ", max_size=60))
def test_word_final_keeps_each_white_space_word_once(text):
    found = cut(Document("d", text), rule="word-final", context_length=400)
    words = text.split()
    assert sum(len(w.keep) for w in found) == len(words)


# special tokens


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


# windows


@settings(deadline=None, max_examples=200)
@given(
    n=st.integers(0, 150),
    context=st.integers(3, 40),
    min_context=st.integers(0, 30),
    bos=st.booleans(),
    causal=st.booleans(),
)
def test_each_token_is_in_one_window_with_its_context(n, context, min_context, bos, causal):
    sides = 1 if causal else 2
    room = context - bos
    document = Document("d", "ab" * (n // 2) + "z" * (n % 2))
    tokenizer = byte_bpe()
    ids = tokenise([document.text], tokenizer)[0].ids
    options = {"context_length": context, "min_context": min_context, "bos": bos, "causal": causal}
    if sides * min_context >= room:
        with pytest.raises(PolytopeError, match="leaves no room"):
            cut(document, tokenizer, **options)
        return
    found = cut(document, tokenizer, **options)
    stored = [p for w in found for p in w.position.tolist()]
    assert stored == list(range(len(ids)))
    for window in found:
        assert len(window.input_ids) <= context
        first = int(
            window.position[0] - (window.keep[0] - bos)
        )  # document position of the window's first token
        inside = window.input_ids[int(bos) :]
        assert inside.tolist() == ids[first : first + len(inside)].tolist()
        assert (window.input_ids[window.keep] == window.token_id).all()
        assert (ids[window.position] == window.token_id).all()
        before = window.position - first
        assert ((before >= min_context) | (first == 0)).all()
        after = first + len(inside) - 1 - window.position
        if not causal:
            assert ((after >= min_context) | (first + len(inside) == len(ids))).all()


def test_windows_that_store_nothing_are_left_out():
    document = Document("d", "ab" * 200)
    every = cut(document, context_length=20, min_context=5)
    some = cut(document, context_length=20, min_context=5, rule="every:2")
    assert len(some) == 2
    assert len(every) > 10
    assert [w.position.tolist() for w in some] == [[0], [every[-1].position[-1]]]


def test_counts_of_documents_that_give_nothing():
    how = Windowing(parse_rule("every:3,skip:2"), 64, 8)
    result = how.apply([Document("a", "z"), Document("b", "z" * 9), Document("c", "")], 10, byte_bpe())
    assert (result.n_without, result.n_kept) == (2, 3)
    assert [w.document for w in result.windows] == [11]
    assert result.n_tokens == sum(len(t.ids) for t in tokenise(["z", "z" * 9, ""], byte_bpe()))
    assert how.apply([], 0, byte_bpe()).windows == ()


def test_a_negative_seed_is_refused():
    with pytest.raises(PolytopeError, match="seed=-1"):
        cut(Document("d", "a"), seed=-1)


# batches


def window_of(length, name):
    return Window(np.full(length, 7), np.arange(0), name, *(np.arange(0) for _ in range(4)))


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 80))
def test_batches_hold_each_window_once_within_the_budget(lengths, budget):
    given_windows = [window_of(n, i) for i, n in enumerate(lengths)]
    found = list(batches(given_windows, token_budget=budget, pad_id=9))
    order = [w.document for b in found for w in b.windows]
    assert order == sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for batch in found:
        rows, columns = batch.input_ids.shape
        assert rows * columns <= budget or rows == 1
        assert columns == max(len(w.input_ids) for w in batch.windows)
        for ids, mask, window in zip(batch.input_ids, batch.attention_mask, batch.windows, strict=True):
            n = len(window.input_ids)
            assert ids.tolist() == [7] * n + [9] * (columns - n)
            assert mask.tolist() == [1] * n + [0] * (columns - n)


def test_a_batch_is_filled_before_the_next_begins():
    found = list(batches([window_of(4, i) for i in range(5)], token_budget=8, pad_id=0))
    assert [len(b.windows) for b in found] == [2, 2, 1]


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(PolytopeError, match="token_budget=0"):
        list(batches([window_of(1, 0)], token_budget=0, pad_id=0))
