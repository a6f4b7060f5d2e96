"""Tokenising with character offsets, special tokens apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Int64


class Tokenizer(Protocol):
    """What is used of a transformers fast tokenizer."""

    is_fast: bool
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
    """Find the special tokens around a text: those that the tokenizer adds, unless `bos` says otherwise.

    Args:
        tokenizer: a fast tokenizer.
        bos: None: as it does by itself (GPT-2: none; Gemma: BOS; BERT: [CLS] and [SEP]). True: the same,
            with BOS before it where there is none yet. False: no special token at all.

    Raises:
        PolytopeError: `bos=True` for a tokenizer that has no BOS token.

    """
    if bos is False:
        return Specials((), ())
    plain, full = (
        list(tokenizer(["a"], add_special_tokens=added)["input_ids"][0]) for added in (False, True)
    )
    before = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)
    prefix, suffix = tuple(full[:before]), tuple(full[before + len(plain) :])
    if bos:
        begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
        if begin is None:
            raise PolytopeError(
                f"bos=True: tokenizer {tokenizer.name_or_path!r} has no BOS token; "
                "leave bos out, or set its bos_token"
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


def tokenise(texts: Sequence[str], tokenizer: Tokenizer) -> list[Tokenised]:
    """Tokenise many texts in one call, whole, with offsets.

    Raises:
        PolytopeError: a slow tokenizer, which has no offsets.

    """
    if not tokenizer.is_fast:
        raise PolytopeError(
            f"tokenizer {tokenizer.name_or_path!r} gives no character offsets; load its fast version"
        )
    if not texts:
        return []
    found = tokenizer(
        list(texts),
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
    out = []
    for row, pairs in zip(found["input_ids"], found["offset_mapping"], strict=True):
        ids = np.array(row, dtype=np.int64)
        offsets = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        out.append(Tokenised(ids, offsets[:, 0], offsets[:, 1], np.isin(ids, never)))
    return out
