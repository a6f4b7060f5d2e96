"""The one exception that users are meant to read, and text that is safe to show."""

from __future__ import annotations

import re
import reprlib

# C0 and C1 controls, bidirectional controls, line and paragraph separators, the byte-order mark, lone
# surrogates, noncharacters. Joiners (U+200C, U+200D) stay: emoji and several scripts are made with them.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_WHITESPACE = {"\n": "⏎", "\t": "⇥"}
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80


class PolytopeError(Exception):
    """A mistake that the user can mend: one line that names the offending value, its place and the cure.

    The command line prints it alone on stderr and exits with 1. Whatever comes into it from data or from
    another library's message stays one line, and no character of it commands a terminal.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(visible(message))


def visible(text: object) -> str:
    r"""Return the text with unseen characters spelled out, such as `\u202e`; newline ⏎ and tab ⇥.

    The result can always be encoded as UTF-8 and no character in it changes the direction of the text.
    """
    return _UNSEEN.sub(lambda found: _WHITESPACE.get(found[0], f"\\u{ord(found[0]):04x}"), str(text))


def brief(value: object) -> str:
    """Return the `repr` of any value for an error: of bounded length and depth, unseen characters spelled."""
    return visible(_BRIEF.repr(value))
