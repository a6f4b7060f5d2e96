"""Which tokens and sites `codes[prompt, token, layer]` names, and which rows a user means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Int64

    from polytope_lm.models.sites import Site

_SHOWN = 12


def is_integer(key: Any) -> bool:
    """Whether a key is a whole number, and not a truth value."""
    return isinstance(key, (int, np.integer)) and not isinstance(key, bool)


def prompt_rows(tokens: pd.DataFrame, n_prompts: int, key: Any) -> Int64[np.ndarray, " R"]:
    """Return the rows of one prompt (negative counts from the end) or of a slice of prompts.

    Raises:
        PolytopeError: no such prompt.

    """
    documents = tokens["document"].to_numpy()
    if isinstance(key, slice):
        return np.flatnonzero(np.isin(documents, np.arange(n_prompts)[key]))
    if not is_integer(key) or not -n_prompts <= key < n_prompts:
        raise PolytopeError(f"no prompt {key!r}: there are {n_prompts}, from 0 to {n_prompts - 1}")
    return np.flatnonzero(documents == key % n_prompts)


def token_rows(
    tokens: pd.DataFrame, rows: Int64[np.ndarray, " R"], key: Any, prompt: Any
) -> Int64[np.ndarray, " K"]:
    """Return the rows, among one prompt's, that a token key names.

    Args:
        tokens: the token table.
        rows: the prompt's rows.
        key: a token's text, its position in the prompt, a negative number (from the last stored token), a
            slice of the stored tokens, or a list of such.
        prompt: the prompt's key, for errors.

    Raises:
        PolytopeError: no such token, or a text that several tokens have.

    """
    if isinstance(key, slice):
        return rows[key]
    if isinstance(key, (list, np.ndarray)):
        return np.concatenate([rows[:0], *(token_rows(tokens, rows, k, prompt) for k in key)])
    if is_integer(key):
        return _at_position(tokens["position"].to_numpy()[rows], rows, int(key), prompt)
    texts = tokens["token"].iloc[rows].tolist()
    hits = [i for i, text in enumerate(texts) if text == key]
    if not hits:
        hits = [i for i, text in enumerate(texts) if text.strip() == str(key).strip()]
    if len(hits) == 1:
        return rows[hits]
    if hits:
        where = ", ".join(map(str, tokens["position"].to_numpy()[rows][hits]))
        raise PolytopeError(
            f"token {key!r} is {len(hits)} times in prompt {prompt}, at positions {where}: index by position"
        )
    shown = " ".join(map(repr, texts[:_SHOWN])) + (f" … ({len(texts)} in all)" if len(texts) > _SHOWN else "")
    raise PolytopeError(f"no token {key!r} in prompt {prompt}; its stored tokens are {shown}")


def _at_position(
    positions: Int64[np.ndarray, " R"], rows: Int64[np.ndarray, " R"], key: int, prompt: Any
) -> Int64[np.ndarray, " K"]:
    hit = rows[positions == key] if key >= 0 else rows[[key]] if -key <= len(rows) else rows[:0]
    if len(hit):
        return hit
    there = (
        f"stored are {len(rows)}, from {positions.min()} to {positions.max()}"
        if len(rows)
        else "none is stored"
    )
    raise PolytopeError(f"no token at position {key} of prompt {prompt}; {there}")


def chosen_sites(sites: Sequence[Site], layers: Sequence[int], key: Any) -> tuple[Site, ...]:
    """Return the sites that a layer key names: one layer, a list, or a slice of those that there are.

    Raises:
        PolytopeError: no codes of such a layer.

    """
    wanted = list(layers)[key] if isinstance(key, slice) else key
    if isinstance(wanted, str) or not isinstance(wanted, (Sequence, np.ndarray)):
        raise PolytopeError(f"no layer {wanted!r} here; there are {', '.join(map(str, layers))}")
    for layer in wanted:
        if layer not in layers:
            raise PolytopeError(f"no codes of layer {layer!r} here; there are {', '.join(map(str, layers))}")
    return tuple(site for site in sites if site.layer in wanted)


def chosen_rows(tokens: pd.DataFrame, rows: Any) -> Int64[np.ndarray, " R"]:
    """Return row numbers from numbers, a mask, or labels that must hold, such as `{"upos": "NOUN"}`.

    Raises:
        PolytopeError: an unknown label, a mask of another length, numbers out of range or not whole.

    """
    n = len(tokens)
    if isinstance(rows, Mapping):
        for label in rows:
            if label not in tokens:
                raise PolytopeError(f"no label {label!r} here; there are {', '.join(tokens.columns)}")
        matches = [
            (tokens[label] == value).to_numpy(dtype=bool, na_value=False) for label, value in rows.items()
        ]
        return np.flatnonzero(np.logical_and.reduce([np.ones(n, bool), *matches]))
    numbers = np.atleast_1d(np.asarray(rows))
    if numbers.dtype == bool:
        if numbers.shape != (n,):
            raise PolytopeError(f"a mask of {numbers.size} for {n} tokens")
        return np.flatnonzero(numbers)
    if not numbers.size:
        return np.empty(0, np.int64)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise PolytopeError(
            f"rows of type {numbers.dtype} and shape {numbers.shape}: give row numbers or a mask"
        )
    outside = numbers[(numbers < 0) | (numbers >= n)]
    if len(outside):
        raise PolytopeError(f"no token {outside[0]}: there are {n}, from 0 to {n - 1}")
    return numbers.astype(np.int64)
