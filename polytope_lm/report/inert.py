"""What a corpus, a prompt or a user's own name may do to the page: nothing.

Text reaches the page by three doors. Templates escape by themselves; data goes through `|tojson` and is set
as `textContent`; plotly's labels are pseudo-HTML and need `plotly_text`. Before any of them, `visible` turns
characters that nobody can see, or that reorder what stands beside them, into text.
"""

from __future__ import annotations

from markupsafe import Markup, escape

from polytope_lm.errors import visible

__all__ = ["bdi", "plotly_text", "visible"]


def bdi(text: object) -> Markup:
    """Return the text escaped for HTML in a `<bdi>`, so that its direction ends with it."""
    return Markup("<bdi>{}</bdi>").format(escape(visible(text)))


def plotly_text(text: object) -> str:
    """Return the text escaped for plotly, whose labels and hover boxes understand some HTML and entities."""
    shown = visible(text)
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
