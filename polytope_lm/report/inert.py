"""What a corpus, a prompt or a user's own name may do to the page: nothing.

Text reaches the page by three doors. Templates escape by themselves; data goes through `|tojson` and is set
as `textContent`; plotly's labels are pseudo-HTML and need `plotly_text`. Before any of them, `visible` turns
characters that nobody can see, or that reorder what stands beside them, into text.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

# C0 and C1 controls, bidirectional controls, line and paragraph separators, the byte-order mark, lone
# surrogates, noncharacters. Joiners (U+200C, U+200D) stay: emoji and several scripts are made with them.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_WHITESPACE = {"\n": "⏎", "\t": "⇥"}


def visible(text: object) -> str:
    r"""Return the text with unseen characters spelled out, such as `\u202e`; newline ⏎ and tab ⇥.

    The result can always be encoded as UTF-8 and no character in it changes the direction of the text.
    """
    return _UNSEEN.sub(lambda found: _WHITESPACE.get(found[0], f"\\u{ord(found[0]):04x}"), str(text))


def bdi(text: object) -> Markup:
    """Return the text escaped for HTML in a `<bdi>`, so that its direction ends with it."""
    return Markup("<bdi>{}</bdi>").format(escape(visible(text)))


def plotly_text(text: object) -> str:
    """Return the text escaped for plotly, whose labels and hover boxes understand some HTML and entities."""
    shown = visible(text)
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
