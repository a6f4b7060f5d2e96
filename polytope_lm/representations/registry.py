"""What a representation is: a function from one layer's arrays to rows, whose distances say what is alike.

The function's parameter names say what it needs, so nothing else is read from a store. One that returns float
rows is compared by cosine; `Rows` can say otherwise.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from polytope_lm.errors import PolytopeError, public

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from polytope_lm.representations.arrays import LayerArrays

Metric = Literal["cosine", "Hamming", "expected Hamming"]
Role = Literal["claim", "reference", "control", "other"]

ARRAYS = ("bits", "packed", "through", "pre", "u", "x", "post", "up", "rates", "site")
PARAMETERS = (*ARRAYS, "seed")


@dataclass(frozen=True)
class Rows:
    """One row a token, and how rows are compared.

    Attributes:
        values: `[T, width]` floats for `cosine`, packed bits `uint8 [T, n_bytes]` for `Hamming`.
        metric: `cosine` (distance 1 - cos; a zero row is an error), `Hamming` (bits that differ) or
            `expected Hamming` (rows are probabilities of being on; the diagonal is not 0).
        dropped_bits: bits that the representation had to leave out, told to the user.

    """

    values: np.ndarray
    metric: Metric = "cosine"
    dropped_bits: int = 0


@dataclass(frozen=True)
class Representation:
    """A named way to say that two tokens are alike.

    Attributes:
        name: what results call it.
        isolates: the question that it answers, one line.
        role: `claim`, `reference`, `control` or `other`.
        function: arrays of one layer -> rows.
        needs: the function's parameters, a subset of `PARAMETERS`.
        draws: how many seeds it is drawn with, if it is random; their spread is reported.

    """

    name: str
    isolates: str
    role: Role
    function: Callable[..., Rows | np.ndarray]
    needs: tuple[str, ...]
    draws: int = 1

    def rows(self, arrays: LayerArrays, seed: int = 0) -> Rows:
        """Compute the rows of one layer's tokens, checked to be one finite row a token."""
        given: Mapping[str, Any] = {name: seed if name == "seed" else arrays.get(name) for name in self.needs}
        out = self.function(**given)
        rows = out if isinstance(out, Rows) else Rows(np.asarray(out))
        values = np.asarray(rows.values)
        if values.ndim != 2 or len(values) != len(arrays):
            raise PolytopeError(
                f"representation {self.name!r} gave shape {values.shape}; it must give one row for each of "
                f"{len(arrays)} tokens"
            )
        if rows.metric == "Hamming" and values.dtype != np.uint8:
            msg = f"representation {self.name!r} gave {values.dtype} rows for Hamming; pack them with np.packbits first"
            raise PolytopeError(msg)
        if rows.metric != "Hamming" and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0, 0])
            msg = f"representation {self.name!r} gave NaN or infinity for token {row}; mend its function or its input"
            raise PolytopeError(msg)
        return rows


_REGISTRY: dict[str, Representation] = {}


@public
def representation(
    name: str, *, isolates: str, role: Role = "other", draws: int = 1, replace: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as a representation; the function itself is returned unchanged.

    Its parameter names say which arrays of one layer it needs, T tokens each: `bits` (bool `[T, N]`),
    `packed` (uint8 `[T, ceil(N/8)]`), `through` (the same of this and later layers),
    `pre` (h, `[T, N]`), `u` and `x` (`[T, D]`), `post`, `up` (`[T, N]`),
    `rates` (`[N]`, over these tokens), `site`, and `seed`. It returns float rows compared by cosine, or
    `Rows`.

    Args:
        name: what results call it.
        isolates: the question that it answers, one line.
        role: `other` unless it is a `control`; the verdict's own claim and references are fixed.
        draws: how many seeds to draw it with, if it takes `seed` and is random.
        replace: allow a name that another function has; the same function defined again needs no leave.

    Raises:
        PolytopeError: a parameter that is none of these, or a name that another function has.

    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        needs = tuple(inspect.signature(function).parameters)
        for parameter in needs:
            if parameter not in PARAMETERS:
                raise PolytopeError(
                    f"representation {name!r} has a parameter {parameter!r}; a layer's arrays are "
                    f"{', '.join(PARAMETERS)}"
                )
        if draws < 1 or (draws > 1 and "seed" not in needs):
            raise PolytopeError(
                f"representation {name!r} asks for {draws} draws; several draws need a parameter `seed`, one "
                "is the least"
            )
        if name in _REGISTRY and not (replace or _same_place(_REGISTRY[name].function, function)):
            msg = f"a representation {name!r} is already registered; choose another name or pass replace=True"
            raise PolytopeError(msg)
        _REGISTRY[name] = Representation(name, isolates, role, function, needs, draws)
        return function

    return register


def _same_place(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Whether both stand at one place, so that the new one is a notebook cell or module run again."""
    return (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)


def get(name: str) -> Representation:
    """Return the representation registered under that name; the error lists those there are."""
    if name not in _REGISTRY:
        msg = f"no representation {name!r}; registered are {', '.join(repr(r.name) for r in registered())}"
        raise PolytopeError(msg)
    return _REGISTRY[name]


def registered() -> tuple[Representation, ...]:
    """Return all registered representations: claims, references, controls, others; each by registration."""
    return tuple(sorted(_REGISTRY.values(), key=lambda each: get_args(Role).index(each.role)))
