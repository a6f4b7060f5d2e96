"""What the widgets share: `anywidget`, and the report's scripts and styles put together."""

from __future__ import annotations

from importlib.resources import files

from polytope_lm.errors import PolytopeError
from polytope_lm.report.page import static

try:
    import anywidget
    import traitlets
except ModuleNotFoundError as missing:
    raise PolytopeError(f"widgets need {missing.name}: pip install 'polytope-lm[widgets]'") from None

__all__ = ["anywidget", "module", "styles", "traitlets"]


def module(*names: str) -> str:
    """Return the report's scripts of these names, but for the last, which is a widget's own and ends in `export`."""
    own = files("polytope_lm.widgets").joinpath("static", f"{names[-1]}.js").read_text(encoding="utf-8")
    return "\n".join([*(static(f"{name}.js") for name in names[:-1]), own])


def styles() -> str:
    """Return the styles: the report's own, holding inside a widget only, so that the notebook keeps its own."""
    own = files("polytope_lm.widgets").joinpath("static", "widgets.css").read_text(encoding="utf-8")
    colours = static("colours.css").replace(":root", ".polytope-lm")
    return f"{colours}\n.polytope-lm {{\n{static('parts.css')}\n{own}\n}}\n"
