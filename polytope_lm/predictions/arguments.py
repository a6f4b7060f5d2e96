"""Arguments that mean the same in every prediction, checked by name at the door, before any work."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

import numpy as np

from polytope_lm.codes.codes import TokenCodes
from polytope_lm.errors import PolytopeError, brief, public

P = ParamSpec("P")
R = TypeVar("R")


def _whole(value: object, least: int = 0) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _several(value: object, each: Callable[[object], bool]) -> bool:
    return each(value) or (
        isinstance(value, Iterable) and not isinstance(value, str | bytes) and all(map(each, list(value)))
    )


def _name(value: object) -> bool:
    return isinstance(value, str)


def _list(value: object) -> bool:
    return isinstance(value, Iterable) and _several(value, lambda each: _whole(each, -1_000_000))


def _layers(value: object) -> bool:
    if isinstance(value, str):
        return value == "all"
    empty = isinstance(value, Sequence | np.ndarray) and not len(value)
    return not empty and _several(value, lambda each: _whole(each, -1_000_000))


_NAMES = (lambda value: _several(value, _name), "a name or several")
_WHOLE = (_whole, "a whole number from 0")
_COUNT = (lambda value: _whole(value, 1), "a whole number from 1")
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "codes": (lambda value: isinstance(value, TokenCodes), "codes from plm.encode or plm.open_store"),
    "layer": (_layers, "a layer's number, several, or 'all'"),
    "layers": (_layers, "a layer's number, several, or 'all'"),
    "word": (_name, "the name of the label that says which word it is"),
    "label": (_name, "a label's name"),
    "identity": (_name, "a label's name, or 'token_id'"),
    "labels": _NAMES,
    "extra": _NAMES,
    "weights": _NAMES,
    "representations": _NAMES,
    "clusterers": _NAMES,
    "k": _WHOLE,
    "ks": (lambda value: _list(value) and len(list(value)) > 0, "several whole numbers"),
    "sample_seeds": (_list, "several whole numbers"),
    "tokens": _COUNT,
    "draws": _WHOLE,
    "prompts": _COUNT,
    # A count of them, or each token's own number.
    "documents": (lambda value: isinstance(value, np.ndarray) or _whole(value, 1), "a whole number from 1"),
    "max_tokens": _COUNT,
    "fit_tokens": _COUNT,
    "neurons": _COUNT,
    "items": _WHOLE,
    "repeats": _WHOLE,
    "resamples": _WHOLE,
    "rounds": _COUNT,
    "runs": _WHOLE,
    "characters": _WHOLE,
    "smallest_effect": (
        lambda value: isinstance(value, Real) and math.isfinite(value) and float(value) >= 0,
        "a number from 0",
    ),
    "model": (lambda value: hasattr(value, "revision"), "a model from plm.load or plm.wrap"),
    "encoder": (
        lambda value: callable(value) or _name(value) or hasattr(value, "revision"),
        "a model, the name of one, or a function of texts",
    ),
    "progress": (callable, "a function of (done, total, what)"),
}
"""By argument: what it must be (None apart, where that is the default), and how to say it."""


def asked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a prediction: an argument that does not fit its signature or `RULES` is a `PolytopeError`."""
    signature = inspect.signature(function)
    optional = {name for name, each in signature.parameters.items() if each.default is None}

    @public
    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        for name, value in {**given, **given.get("options", {})}.items():
            if name not in RULES or (value is None and name in optional):
                continue
            good, wanted = RULES[name]
            if not good(value):
                raise PolytopeError(f"{name} = {brief(value)} is no argument of this kind; give {wanted}")
        return function(*args, **kwargs)

    return checked
