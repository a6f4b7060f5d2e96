"""One page a file: a template's script and style and the data it draws, allowed by their SHA-256 and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from polytope_lm.errors import PolytopeError, visible

if TYPE_CHECKING:
    from collections.abc import Mapping


def write_page(
    path: str | Path, name: str, title: str, data: Mapping[str, Any], *, room: str = "polytope_lm.toys"
) -> Path:
    """Write a page and return its path.

    Args:
        path: of the file.
        name: of the page's template and script, such as `film` or `sliders`.
        title: its heading.
        data: what the script reads, as JSON.
        room: the package whose folder `static` has them.

    Raises:
        PolytopeError: the path can't be written.

    """
    where = Path(path)
    parts = files(room) / "static"
    script = (parts / f"{name}.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # "<" can end a script element; inside a JSON text it only stands in strings, where it may be spelled.
    inert = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string((parts / f"{name}.html.j2").read_text(encoding="utf-8")).render(
        title=visible(title),
        style=Markup((files("polytope_lm.toys") / "static" / "toys.css").read_text(encoding="utf-8")),  # noqa: S704 - the package's own file
        script=Markup(script),  # noqa: S704 - the same
        data=Markup(inert),  # noqa: S704 - no "<" is left in it
        policy=f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:",
    )
    try:
        where.write_text(page, encoding="utf-8")
    except OSError as error:
        raise PolytopeError(f"{path} can't be written: {error.strerror}") from error
    return where
