"""Intruder items on disk: questions that people or a language model fill in, a key apart, delphi's records.

`intruders.jsonl`, a line an item, holds texts and no answers:

    {"item": "0f3a...", "examples": ["... <<token>> ...", (five)], "answer": null}

Whoever judges replaces `null` with 1 to 5, the example that does not belong; an item left at null is
unanswered. `intruders.key.jsonl` holds answers and no texts:

    {"item": "0f3a...", "intruder": 3, "group": 17, "rows": [12, 840, 77, 1201, 5]}

delphi (EleutherAI) scores latents of sparse autoencoders by the same task. `delphi_records` gives one record
a group with the fields of its `LatentRecord`, whose `test` are members and whose `not_active` are the matched
outsiders; a token is "active" where it is the grouped one. Its `IntruderScorer` draws items of its own from
them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.intruders import SHOWN, IntruderItems, IntruderScore, score_answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polytope_lm.tokens.tokenising import Tokenizer

QUESTIONS, KEY = "intruders.jsonl", "intruders.key.jsonl"
_LEVELS = 10.0
"""delphi's `normalized_activations` are integers from 0 to 10."""


def write_items(items: IntruderItems, directory: str | Path) -> tuple[Path, Path]:
    """Write the questions and, apart from them, the key.

    Args:
        items: from `intruder_items`.
        directory: where to; it is made.

    Returns:
        The paths of `intruders.jsonl` and `intruders.key.jsonl`.

    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    questions, key = folder / QUESTIONS, folder / KEY
    # In the order of the ids, so that the order of the groups is no cue.
    ordered = sorted(items.items, key=lambda item: item.id)
    _write(questions, [{"item": i.id, "examples": list(i.examples), "answer": None} for i in ordered])
    _write(
        key,
        [{"item": i.id, "intruder": i.intruder, "group": i.group, "rows": list(i.rows)} for i in ordered],
    )
    return questions, key


def read_key(path: str | Path) -> dict[str, int]:
    """Read a key: item id to outsider, 1 to 5.

    Raises:
        PolytopeError: no such file, or a line that is no entry of a key; the message names it.

    """
    return {item: value for _, item, value in _entries(Path(path), "intruder") if value is not None}


def read_answers(path: str | Path, key: dict[str, int]) -> dict[str, int | None]:
    """Read questions that were filled in.

    Args:
        path: the file.
        key: from `read_key`; every answered item must be in it.

    Returns:
        Item id to answer, 1 to 5, or None.

    Raises:
        PolytopeError: no such file, or a line that is no JSON object, names no item of the key, names one
            again, or has an answer other than 1 to 5 or null; the message names the line.

    """
    out: dict[str, int | None] = {}
    for number, item, answer in _entries(Path(path), "answer"):
        if item not in key:
            raise PolytopeError(
                f"{path}, line {number}: item {item!r} is not in the key; give the key that was written with "
                "these items"
            )
        out[item] = answer
    return out


def score_file(answers: str | Path, key: str | Path, judge: str = "a judge") -> IntruderScore:
    """Score a file of questions that were filled in.

    Args:
        answers: the file with answers.
        key: the key's file.
        judge: who answered.

    Raises:
        PolytopeError: as `read_key` and `read_answers`; no answer at all.

    """
    known = read_key(key)
    return score_answers(known, read_answers(answers, known), judge)


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
        "latent": {"module_name": module_name, "latent_index": group},
        "examples": [],
        "not_active": [],
        "train": [],
        "test": [],
        "neighbours": [],
        "explanation": "",
        "extra_examples": None,
        "per_token_frequency": 0.0,
        "per_context_frequency": 0.0,
    }


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


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


def _entries(path: Path, name: str) -> Iterator[tuple[int, str, int | None]]:
    """Yield line number, item and the number named so, checked."""
    if not path.is_file():
        raise PolytopeError(f"no file {str(path)!r}; write_items makes {QUESTIONS} and {KEY}")
    seen: set[str] = set()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise PolytopeError(f"{path}: not UTF-8 from byte {error.start} on; save it as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        item, value = _entry(line, name, f"{path}, line {number}")
        if item in seen:
            raise PolytopeError(f"{path}, line {number}: item {item!r} is there twice; keep one line of it")
        seen.add(item)
        yield number, item, value


def _entry(line: str, name: str, where: str) -> tuple[str, int | None]:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise PolytopeError(f"{where}: no JSON ({error}); one object a line") from error
    if not isinstance(data, dict) or not isinstance(data.get("item"), str) or name not in data:
        raise PolytopeError(f'{where}: no object with "item" and "{name}"; keep both as they were written')
    value = data[name]
    if value is None and name == "answer":
        return data["item"], None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= SHOWN:
        raise PolytopeError(f'{where}: "{name}" is {value!r:.40}; give a whole number from 1 to {SHOWN}')
    return data["item"], value
