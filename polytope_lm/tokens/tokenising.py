"""Tokenising with character offsets, special tokens apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Int64

LONG = 2**18  # characters tokenised at once: the tokenizer takes some 500 bytes a token meanwhile
OVERLAP = 4096  # characters that two stretches of a longer text both read


_TEXT = "\ufdd0"  # a noncharacter, which no vocabulary has


class Tokenizer(Protocol):
    """What is used of a transformers fast tokenizer."""

    is_fast: bool
    backend_tokenizer: Backend
    name_or_path: str
    all_special_ids: list[int]
    unk_token_id: int | None
    bos_token_id: int | None
    cls_token_id: int | None

    def __call__(self, text: list[str], **options: Any) -> Any:  # noqa: D102
        ...


@dataclass(frozen=True)
class Specials:
    """Token ids that go before and after a window."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]


def specials(tokenizer: Tokenizer, bos: bool | None = None) -> Specials:
    """Find the special tokens around a text.

    With `bos=None` those that the tokenizer adds by itself (GPT-2: none; Gemma: BOS; BERT: [CLS] and [SEP]); True: the
    same, with BOS before it where there is none yet; False: none at all.
    """
    if bos is False:
        return Specials((), ())
    prefix, suffix = tuple[int, ...](), tuple[int, ...]()
    if (processor := tokenizer.backend_tokenizer.post_processor) is not None:  # what it puts around an unknown token
        text = processor.process(Backend(WordLevel({_TEXT: 0}, unk_token=_TEXT)).encode(_TEXT))
        at = text.tokens.index(_TEXT)
        prefix, suffix = tuple(text.ids[:at]), tuple(text.ids[at + 1 :])
    if bos:
        begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
        if begin is None:
            raise PolytopeError(
                f"bos=True: tokenizer {tokenizer.name_or_path!r} has no BOS token; leave bos out, or set its bos_token"
            )
        prefix = prefix if begin in prefix else (begin, *prefix)
    return Specials(prefix, suffix)


@dataclass(frozen=True, eq=False)
class Tokenised:
    """A text's tokens without the tokenizer's additions: ids, character offsets, which are special anyway."""

    ids: Int64[np.ndarray, " n"]
    starts: Int64[np.ndarray, " n"]
    ends: Int64[np.ndarray, " n"]
    special: Bool[np.ndarray, " n"]

    def part(self, low: int, high: int) -> Tokenised:
        """Tokens from `low` to `high`."""
        arrays = (self.ids, self.starts, self.ends, self.special)
        return Tokenised(*(array[low:high] for array in arrays))

    def equals(self, other: Tokenised) -> bool:
        """Whether all tokens are the same, offsets too."""
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in ("ids", "starts", "ends"))


def tokenise(texts: Sequence[str], tokenizer: Tokenizer) -> list[Tokenised]:
    """Tokenise many texts, whole, with offsets; `LONG` characters at a time, so that memory stays bounded.

    A longer text is read in stretches that overlap: where two stretches give the same tokens in the middle of what both
    have read, they are joined there. Where they differ (a word of thousands of characters), it is tokenised whole.
    """
    if not tokenizer.is_fast:
        raise PolytopeError(f"tokenizer {tokenizer.name_or_path!r} gives no character offsets; load its fast version")
    out: list[Tokenised] = []
    group, size = list[str](), 0
    for text in texts:
        if group and size + len(text) > LONG:
            out += _encode(group, tokenizer)
            group, size = [], 0
        if len(text) > LONG:
            out.append(_joined(text, tokenizer) or _encode([text], tokenizer)[0])
        else:
            group.append(text)
            size += len(text)
    return out + _encode(group, tokenizer)


def _encode(texts: list[str], tokenizer: Tokenizer) -> list[Tokenised]:
    if not texts:
        return []
    found = tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        split_special_tokens=True,
        truncation=False,
        padding=False,
        verbose=False,
    )
    never = np.array([i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id], dtype=np.int64)
    added = np.array(sorted(getattr(tokenizer, "added_tokens_decoder", ())), dtype=np.int64)
    out = []
    for text, row, pairs in zip(texts, found["input_ids"], found["offset_mapping"], strict=True):
        ids = np.array(row, dtype=np.int64)
        offsets = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        _give_back(text, ids, offsets, added)
        out.append(Tokenised(ids, offsets[:, 0], offsets[:, 1], np.isin(ids, never)))
    return out


def _give_back(
    text: str, ids: Int64[np.ndarray, " n"], offsets: Int64[np.ndarray, "n 2"], added: Int64[np.ndarray, " A"]
) -> None:
    """Give a token after an added one the character that trimming took for a blank not in the text.

    See https://github.com/huggingface/tokenizers/issues/1300. Where another token has the character, the
    first stands for the blank alone, and has none.
    """
    for row in np.flatnonzero(np.isin(ids[:-1], added)) + 1:
        place = offsets[row - 1, 1]
        if offsets[row, 0] == place + 1 and not text[place].isspace():
            elsewhere = row + 1 < len(ids) and offsets[row + 1, 0] <= place
            offsets[row] = (place, place if elsewhere else max(offsets[row, 1], place + 1))


def _joined(text: str, tokenizer: Tokenizer) -> Tokenised | None:
    """Tokenise a long text by stretches; None where two of them differ in the middle of their overlap."""
    parts: list[Tokenised] = []
    before: Tokenised | None = None
    at = low = 0
    while at < len(text):
        following = len(text)
        if at + LONG + OVERLAP < len(text):  # before a blank, where words are divided anyway
            blank = text.rfind(" ", at + LONG - OVERLAP, at + LONG)
            following = blank if blank > 0 else at + LONG
        (found,) = _encode([text[at : following + OVERLAP]], tokenizer)
        found = Tokenised(found.ids, found.starts + at, found.ends + at, found.special)
        if np.any(np.diff(found.starts) < 0):
            return None
        join = 0
        if before is not None:
            ends = at + OVERLAP // 4, at + 3 * OVERLAP // 4
            (a, b), (c, d) = np.searchsorted(before.starts, ends), np.searchsorted(found.starts, ends)
            if a == b or not before.part(a, b).equals(found.part(c, d)):
                return None
            parts.append(before.part(low, a))
            join = c
        before, low, at = found, join, following
    if before is not None:
        parts.append(before.part(low, len(before.ids)))
    arrays = zip(*((part.ids, part.starts, part.ends, part.special) for part in parts), strict=True)
    return Tokenised(*(np.concatenate(array) for array in arrays))
