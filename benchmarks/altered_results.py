"""Saved results altered in every way, seeded: each is refused in one line, or shows what it was saved with.

`python -m benchmarks.altered_results [--each 1000] [--seed 0] FOLDER...`: each FOLDER holds one saved result,
as those in `tests/saved` do. An altered file is loaded as it is, sealed again (with a checksum that fits the
altered values, as somebody who means harm would write) and stripped to format 1; others have a character
changed or their end cut off. A result that loads is shown in every way that it has.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError
from polytope_lm.result import digest, load_result

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEP = "@deep@"
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 10**400, 2**70, 1e308, -1e308, 0.5, math.nan, math.inf, -math.inf, "",
    "text", "<script>alert(1)</script>",
    "\u202e\x00\n", [], {}, [[]], [1, "a"], {"a": 1}, ["text"], [0.5] * 7, _DEEP,
)  # fmt: skip


def altered(data: Any, rng: random.Random) -> str:
    """Return the JSON of the data with one to three things in it deleted, replaced, doubled or exchanged."""
    data = copy.deepcopy(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder, key = rng.choice(list(_places(data)))
        how = rng.choice(("delete", "replace", "replace", "replace", "nudge", "double", "exchange", "rename"))
        if how == "delete":
            del holder[key]
        elif how == "nudge" and isinstance(holder[key], int | float):
            holder[key] *= rng.choice((-1, 2, 0.5, 1.0001))
        elif how == "double" and isinstance(holder[key], list):
            holder[key] = holder[key] * 2
        elif how == "exchange":
            other, there = rng.choice(list(_places(data)))
            holder[key] = copy.deepcopy(other[there])
        elif how == "rename" and isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(rng.choice(_VALUES))
        if not isinstance(data, dict) or not data:
            break
    return json.dumps(data)


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in JSON data, as what holds it and its key."""
    for key in data if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], dict | list):
            yield from _places(data[key])


def _sealed(text: str) -> str:
    data = json.loads(text)
    try:
        data["checksum"] = digest(data)
    except (ValueError, TypeError):
        return text
    return json.dumps(data)


def _stripped(text: str) -> str:
    data = json.loads(text)
    old = {name: value for name, value in data.items() if name not in {"checksum", "files", "format"}}
    return json.dumps({**old, "format": 1, "prediction": data.get("kind")})


def _damaged(text: str, rng: random.Random) -> str:
    """Cut a file, or change one of its characters."""
    at = rng.randrange(len(text))
    return text[:at] if rng.random() < 0.3 else text[:at] + rng.choice('0987e-.,[]{}"xn') + text[at + 1 :]


def verdict_on(file: Path, original: dict[str, Any], *, sealed: bool) -> str:
    """Load a file; return `refused` or `shown`, or what is wrong with how it was taken."""
    began = time.monotonic()
    try:
        found = load_result(file)
        _ = repr(found), found.headline, found._repr_html_(), found.to_frame(), found.figures(), found.rows()
    except PolytopeError as error:
        return "refused" if "\n" not in str(error) and str(file.parent) in str(error) else f"unclear: {error}"
    except BaseException as error:  # noqa: BLE001 - this is what is looked for
        return f"traceback: {type(error).__name__}: {error}"
    if time.monotonic() - began > 30:
        return "slow"
    if sealed and _bare(found.to_dict()) != _bare(original):
        return "shown, though its checksum does not cover it"
    return "shown"


def _bare(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in {"checksum", "files", "timings"}}


def alterations(folder: Path, each: int, seed: int) -> Counter[str]:
    """Alter the result in a folder so many times; return how often each outcome was met."""
    result = load_result(folder)
    rng, outcomes = random.Random(f"{seed} {result.kind}"), Counter[str]()  # noqa: S311
    with tempfile.TemporaryDirectory() as place:
        file = result.save(place)
        text = file.read_text(encoding="utf-8")
        original = json.loads(text)
        for number in range(each):
            how = ("as it is", "sealed again", "format 1", "damaged")[number % 4]
            new = _damaged(text, rng) if how == "damaged" else altered(original, rng)
            new = _sealed(new) if how == "sealed again" else _stripped(new) if how == "format 1" else new
            file.write_text(new.replace(f'"{_DEEP}"', "[" * 10**5 + "]" * 10**5), encoding="utf-8")
            outcome = verdict_on(file, original, sealed=how in {"as it is", "damaged"})
            outcomes[f"{how}: {outcome}"] += 1
    return outcomes


def main(arguments: list[str] | None = None) -> int:
    """Alter every folder's result; print the outcomes, and return 1 where one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--each", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    wrong = 0
    for folder in options.folders:
        outcomes = alterations(folder, options.each, options.seed)
        bad = {name: n for name, n in outcomes.items() if not name.endswith((": refused", ": shown"))}
        wrong += sum(bad.values())
        print(f"{folder.name}: {dict(sorted(outcomes.items()))}", flush=True)
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
