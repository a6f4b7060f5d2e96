"""The one exception users are meant to read, text that is safe to show, the check of public calls."""

from __future__ import annotations

import functools
import inspect
import re
import reprlib
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

P = ParamSpec("P")
R = TypeVar("R")

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


def escaped(text: object) -> str:
    """Return the visible text without markup: for an element's text or plotly's label, not an attribute.

    Quotation marks stay, as plotly would show `&quot;` as it is.
    """
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def brief(value: object) -> str:
    """Return the `repr` of any value for an error: of bounded length and depth, unseen characters spelled."""
    return visible(_BRIEF.repr(value))


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function or method: a call that does not fit its signature is a `PolytopeError`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise PolytopeError(_misfit(function, signature, error, kwargs)) from None
        return function(*args, **kwargs)

    return checked


def forwards(to: Callable[..., Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function, below `public`, whose `**options` go to another one: its signature names them."""

    def named(function: Callable[P, R]) -> Callable[P, R]:
        own = inspect.signature(function)
        kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        theirs = inspect.signature(to).parameters.values()
        added = [p for p in theirs if p.kind is p.KEYWORD_ONLY and p.name not in own.parameters]
        vars(function)["__signature__"] = own.replace(parameters=[*kept, *added])
        return function

    return named


def _misfit(
    function: Callable[..., object], signature: inspect.Signature, error: TypeError, given: Iterable[str]
) -> str:
    import difflib  # noqa: PLC0415 - only a mistake needs it

    known = [name for name in signature.parameters if name not in {"self", "cls"}]
    unknown = next((name for name in given if name not in known), None)
    called = f"{function.__qualname__}()"
    if unknown is None:
        return f"{called}: {error}; its arguments: {', '.join(known)}"
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
    cure = f"did you mean {near[0]!r}?" if near else f"choose among {', '.join(known)}"
    return f"{called} has no argument {unknown!r}: {cure}"
