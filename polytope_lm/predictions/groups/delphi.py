"""Groups of tokens for EleutherAI's delphi, which explains and scores latents of sparse autoencoders.

A group is a latent. `write_latents` writes a cache that delphi's own `LatentDataset` opens: for each latent where it is
active, and the tokens of all documents in windows. Explainers, and scorers that draw their own examples, then run.
`delphi_records` gives the items of `intruder_items` with the fields of its `LatentRecord`: `test` are members,
`not_active` the matched outsiders, and a token is "active" where it is the grouped one.

Source: Paulo et al., "Automatically Interpreting Millions of Features in Large Language Models" (2024); delphi 0.1.3.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from polytope_lm.errors import PolytopeError, brief
from polytope_lm.files import expand
from polytope_lm.predictions.clusters.sampling import rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.groups.intruders import IntruderItems
    from polytope_lm.tokens.tokenising import Tokenizer

_LEVELS = 10.0
"""delphi's `normalized_activations` are integers from 0 to 10."""


def write_latents(
    codes: TokenCodes,
    groups: Int[np.ndarray, " n"],
    tokenizer: Tokenizer,
    directory: str | Path,
    module_name: str,
    *,
    rows: Int[np.ndarray, " n"] | None = None,
    context: int = 64,
) -> Path:
    """Write groups as a cache of latents for delphi: `LatentDataset(directory, ..., tokenizer=tokenizer)` opens it.

    Args:
        codes: where the tokens are.
        groups: id of each token's group, -1 for none; a latent's index is the id.
        tokenizer: a fast tokenizer, the model's own; it cuts the documents into tokens again.
        directory: where to; `DIRECTORY/MODULE_NAME/` is made.
        module_name: what delphi calls the place, such as the site's hook point.
        rows: the tokens' rows in the codes; None: all tokens, in order.
        context: tokens a window; delphi's `example_ctx_len` has to divide it. A document's last window is padded.

    Returns:
        The module's directory.

    Raises:
        PolytopeError: no token in a group, a name that is no directory's, or something is there already.

    """
    chosen, grouped = rows_of(codes, groups, rows), np.asarray(groups) >= 0
    if not grouped.any():
        raise PolytopeError(f"none of {len(groups)} tokens has a group: give ids from 0, -1 for none")
    if context < 1 or not module_name or module_name != module_name.strip("./ ") or "/" in module_name:
        raise PolytopeError(f"module_name = {brief(module_name)}, context = {context}: a name without /, and 1 or more")
    folder = expand(directory) / module_name
    if folder.exists():
        raise PolytopeError(f"{folder}: there already; choose another directory or module_name")
    windows, first = _windows(codes, tokenizer, context)
    document, position, token = codes.tokens[["document", "position", "token_id"]].to_numpy()[chosen[grouped]].T
    found = windows[first[document] + position // context, position % context]
    if (wrong := np.flatnonzero(found != token)).size:
        where = codes.tokens["token"].iloc[chosen[grouped][wrong[0]]]
        raise PolytopeError(f"token {brief(where)} is cut otherwise by this tokenizer: give the model's own")
    places = np.stack([first[document] + position // context, position % context, np.asarray(groups)[grouped]], axis=1)
    places = places[np.lexsort(places.T[::-1])]  # its reader counts runs of one window
    folder.mkdir(parents=True)
    data = {"locations": places.astype(np.uint32), "activations": np.ones(len(places), np.float16), "tokens": windows}
    save_file(data, folder / f"0_{int(places[:, 2].max())}.safetensors")
    settings = {"ctx_len": context, "model_name": str(codes.provenance.get("model", "")), "dataset_repo": "",
                "dataset_split": "", "dataset_name": "", "dataset_column": "text"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings, indent=4), encoding="utf-8")
    return folder


def _windows(
    codes: TokenCodes, tokenizer: Tokenizer, context: int
) -> tuple[Int[np.ndarray, "W C"], Int[np.ndarray, " D"]]:
    """Cut all documents into windows; return them and the number of each document's first."""
    cut = tokenizer(list(codes.texts), add_special_tokens=False, return_offsets_mapping=True)["input_ids"]
    counts = np.array([-(-len(ids) // context) for ids in cut])
    padding = next(
        (i for name in ("pad_token_id", "eos_token_id") if (i := getattr(tokenizer, name, None)) is not None), 0
    )
    windows = np.full((int(counts.sum()), context), padding, np.int64)
    first = np.append(0, np.cumsum(counts)[:-1])
    for ids, start in zip(cut, first, strict=True):
        windows[start:].reshape(-1)[: len(ids)] = ids
    return windows, first


def delphi_records(items: IntruderItems, tokenizer: Tokenizer, module_name: str) -> list[dict[str, Any]]:
    """Return the items as records of delphi, plain data that `json` writes.

    Args:
        items: from `intruder_items`.
        tokenizer: a fast tokenizer, the model's own; it cuts the contexts into tokens again.
        module_name: what delphi calls the place, such as the site's hook point.

    Returns:
        One record a group: `latent` (`module_name`, `latent_index` = the group), `test` (members: `tokens`,
        `activations`, `normalized_activations`, `str_tokens`, `quantile`), `not_active` (outsiders: `tokens`,
        `activations`, `str_tokens`, `distance`), and the empty fields of a `LatentRecord`.

    """
    out: dict[int, dict[str, Any]] = {}
    for item in items.items:
        record = out.setdefault(item.group, _record(module_name, item.group))
        for number, parts in enumerate(item.contexts, start=1):
            example = _example(parts, tokenizer)
            if number == item.intruder:
                record["not_active"].append(example | {"distance": -1.0})
            else:
                levels = [_LEVELS * value for value in example["activations"]]
                record["test"].append(example | {"normalized_activations": levels, "quantile": 0})
    return list(out.values())


def _record(module_name: str, group: int) -> dict[str, Any]:
    return {
        "latent": {"module_name": module_name, "latent_index": group}, "examples": [], "not_active": [],
        "train": [], "test": [], "neighbours": [], "explanation": "", "extra_examples": None,
        "per_token_frequency": 0.0, "per_context_frequency": 0.0,
    }  # fmt: skip


def _example(parts: tuple[str, str, str], tokenizer: Tokenizer) -> dict[str, Any]:
    """Cut a context into tokens; those that the grouped token has a character of are active."""
    left, token, right = parts
    text, start, end = left + token + right, len(left), len(left) + len(token)
    cut = tokenizer([text], add_special_tokens=False, return_offsets_mapping=True)
    spans = [(int(a), int(b)) for a, b in cut["offset_mapping"][0]]
    return {
        "tokens": [int(i) for i in cut["input_ids"][0]],
        "activations": [float(a < end and b > start) for a, b in spans],
        "str_tokens": [text[a:b] for a, b in spans],
    }
