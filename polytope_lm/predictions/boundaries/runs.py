"""Measuring many pairs: two at a time, a bad one reported with its line, and kept so that a run can go on."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError
from polytope_lm.pairs import Problem
from polytope_lm.predictions.boundaries.measure import measure_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from polytope_lm.controls.planes import Planes
    from polytope_lm.models.loading import Model
    from polytope_lm.pairs import Pair

WORKERS = 2
Row = dict[str, float]


def measure_pairs(
    model: Model,
    pairs: Sequence[Pair],
    layer: int,
    *,
    kind: str | None,
    planes: Planes | None,
    seed: int,
    kept: Path | None = None,
    tell: Callable[[int], None] | None = None,
) -> tuple[dict[int, Row], list[Problem]]:
    """Measure pairs from one layer.

    Args:
        model: a causal model.
        pairs: prompts, each with its own `line`.
        layer: the paths' layer.
        kind: code kind.
        planes: rate-matched hyperplanes.
        seed: of the hyperplanes: numbers kept under another one are of no use.
        kept: a file of finished pairs, which is read if it is there and added to as pairs are done.
        tell: told how many pairs are done.

    Returns:
        Numbers by line, and the pairs that could not be measured.

    """
    settings = {"layer": layer, "kind": kind, "draws": planes.draws if planes else 0, "seed": seed}
    mark = _fingerprint(model, pairs, settings)
    done = _read(kept, mark) if kept is not None else {}
    lock = threading.Lock()
    one = partial(_measured, model, layer=layer, kind=kind, planes=planes, lock=lock)
    left = [pair for pair in pairs if pair.line not in done]
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for pair, found in zip(left, pool.map(one, left), strict=True):
                done[pair.line] = found
                if kept is not None:
                    _append(kept, {"line": pair.line, "found": found})
                if tell is not None:
                    tell(len(done))
        except BaseException:
            pool.shutdown(
                wait=False, cancel_futures=True
            )  # whoever interrupts waits for one pair, not for all
            raise
    rows = {line: found for line, found in done.items() if isinstance(found, dict)}
    problems = [Problem(line, found) for line, found in done.items() if isinstance(found, str)]
    return rows, sorted(problems, key=lambda problem: problem.line)


def _measured(
    model: Model, pair: Pair, *, layer: int, kind: str | None, planes: Planes | None, lock: threading.Lock
) -> Row | str:
    """Return a pair's numbers, or what is wrong with it."""
    try:
        row = measure_pair(model, pair, layer, kind=kind, planes=planes, lock=lock)
    except PolytopeError as error:
        return str(error)
    bad = next((name for name, value in row.items() if not math.isfinite(value)), None)
    return row if bad is None else f"{bad} is {row[bad]}; leave this pair out, or try dtype='float32'"


def _fingerprint(model: Model, pairs: Sequence[Pair], settings: dict[str, Any]) -> str:
    """Return what a file of finished pairs belongs to."""
    digest = hashlib.sha256(json.dumps([model.revision, str(model.dtype), settings]).encode())
    for pair in pairs:
        digest.update(json.dumps([pair.line, *pair.prompts]).encode())
    return digest.hexdigest()


def _read(kept: Path, mark: str) -> dict[int, Row | str]:
    """Return what was finished; begins the file anew if it belongs to another run."""
    lines = kept.read_text(encoding="utf-8").split("\n") if kept.is_file() else []
    found: dict[int, Row | str] = {}
    whole = [line for line in lines[:-1] if line]  # what follows the last newline was cut off
    if whole and json.loads(whole[0]) == {"run": mark}:
        for line in whole[1:]:
            row = json.loads(line)
            found[int(row["line"])] = row["found"]
    else:
        whole = [json.dumps({"run": mark})]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
    return found


def _append(kept: Path, row: dict[str, Any]) -> None:
    with kept.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
