"""What all kept results share: one JSON file, the same bytes for the same numbers, and who computed them."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write(path: Path, data: Mapping[str, Any]) -> Path:
    """Write a result's plain data as JSON with sorted keys, its directory with it; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def read(path: Path, marks: Mapping[str, Any], what: str, cure: str) -> dict[str, Any]:
    """Read what `write` wrote.

    Args:
        path: the file.
        marks: entries that tell this kind of result from others, `format` among them.
        what: the kind in words, such as `a clusters result`.
        cure: how to come by one.

    Raises:
        PolytopeError: no such file, or one of another kind or format.

    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PolytopeError(f"no {path.name} in {str(path.parent)!r}; {cure}") from None
    except (OSError, ValueError):
        data = None
    if not isinstance(data, dict) or any(data.get(name) != value for name, value in marks.items()):
        raise PolytopeError(f"{str(path)!r} is not {what} of format {marks['format']}; {cure}")
    return data


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of what computes a result, this package first."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("polytope-lm", *packages)},
    }
