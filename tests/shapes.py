"""Check the shapes and dtypes in the package's signatures while tests run, and nothing else.

A value of a wrong plain type is a user's mistake, which the code itself answers in one line; so only what is
written with jaxtyping is checked. The package imports jaxtyping's names for type checkers alone: here they
are made known everywhere, so that the annotations can be evaluated.
"""

from __future__ import annotations

import builtins
from typing import Any

import jaxtyping
import torch
from beartype import beartype


def checked(function: Any) -> Any:
    """Return a function that checks its arrays: what `install_import_hook` decorates with."""
    if not isinstance(function, type):
        hints = function.__annotations__
        function.__annotations__ = {name: hint for name, hint in hints.items() if "jaxtyping" in repr(hint)}
        return beartype(function)
    return function


def install() -> None:
    """Check every module of the package that is imported from now on."""
    names = {name: value for name, value in vars(jaxtyping).items() if isinstance(value, type)}
    for name, value in (names | {"Tensor": torch.Tensor}).items():
        if not hasattr(builtins, name):
            setattr(builtins, name, value)
    jaxtyping.install_import_hook("polytope_lm", "shapes.checked")
