"""Where a change is made, and along which direction: what users give, and what it means at one place.

| given | direction |
|---|---|
| an array, `[D]` | itself |
| a text | from this prompt's activation to that prompt's, at the same layer and position |
| a whole number i | what neuron i of this layer writes, `w_out,i` |
| `class_means(codes, label, to, away)` | mean of the tokens labelled `to` less that of `away` |
| `random_direction(sample, seed)` | the difference of two draws with the sample's covariance |

The random direction is the mixture of Lee & Heimersheim, "Investigating Sensitive Directions in GPT-2" (2024).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polytope_lm.errors import PolytopeError, public
from polytope_lm.models.families import weight_and_bias
from polytope_lm.paths.ends import End, activations, check_numbers, end, place, vectors
from polytope_lm.paths.path import draw, sampled_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.interventions import Space
    from polytope_lm.models.model import Model

_ROUNDED = 1e-5  # of an activation's length: what other batch shapes may change
_KEPT = {"resid_mid": "x", "mlp_in": "u"}


@dataclass(frozen=True, eq=False, repr=False)
class Direction:
    """A direction by its name; `vector` is None where it depends on the place."""

    name: str
    vector: Float[np.ndarray, " D"] | None = None
    given: Any = None


@dataclass(frozen=True, eq=False)
class _ClassMeans:
    codes: TokenCodes
    label: str
    to: str
    away: str | None


@dataclass(frozen=True, eq=False)
class _Random:
    sample: Any
    seed: int


@public
def class_means(codes: TokenCodes, label: str, to: str, away: str | None = None) -> Any:
    """Return the direction from one class's mean activation to another's, for `trust_radius` and `change`.

    Args:
        codes: codes that keep `x` (for `at="resid_mid"`) or `u` (for `mlp_in`) at the layer.
        label: the label that is a class.
        to: its value at the direction's end.
        away: its value at the beginning; by default every other.

    Raises:
        PolytopeError: no such label or value.

    """
    table = codes.tokens
    if label not in table:
        raise PolytopeError(f"no label {label!r} in these codes; there are {', '.join(map(str, table.columns))}")
    values = set(table[label].dropna().astype(str))
    for value in (to, *([away] if away is not None else [])):
        if value not in values:
            raise PolytopeError(f"label {label!r} has no value {value!r}; it has {', '.join(sorted(values)[:12])}")
    return _ClassMeans(codes, label, to, away)


@public
def random_direction(sample: Any, seed: int = 0) -> Any:
    """Return a direction with the data's covariance and no meaning, for `trust_radius` and `change`.

    Args:
        sample: activations `[n, D]` in the same space, or codes that keep them.
        seed: chooses the draws.

    """
    check_numbers(Integral, seed=seed)
    return _Random(sample, seed)


def named(given: Any) -> list[Direction]:
    """Return the directions that a user gave: one, several, or a mapping from names."""
    if isinstance(given, Mapping) and given:
        return [Direction(str(name), given=one) for name, one in given.items()]
    several = isinstance(given, (list, tuple, Mapping)) and not (
        given and all(isinstance(one, (int, float)) for one in given)
    )
    if isinstance(given, (np.ndarray, torch.Tensor)) and given.ndim == 2:
        several = True
    listed: Iterable[Any] = given if several else [given]
    found = [Direction(_name(one, number), given=one) for number, one in enumerate(listed)]
    if not found:
        raise PolytopeError("direction: none given; give a vector, a prompt, a neuron's number, or several")
    return found


def _name(one: Any, number: int) -> str:
    if isinstance(one, str):
        return f"to {one!r}"
    if isinstance(one, Integral) and not isinstance(one, bool):
        return f"neuron {one}"
    if isinstance(one, _ClassMeans):
        return f"{one.label}: {one.to} - {one.away or 'others'}"
    return f"random {one.seed}" if isinstance(one, _Random) else f"direction {number}"


def vector(
    model: Model, direction: Direction, *, at: Space, layer: int, position: int, x: Float[np.ndarray, " D"]
) -> Float[np.ndarray, " D"]:
    """Return a direction's vector at a place, as long as it was given.

    Raises:
        PolytopeError: no direction of these kinds, one of another width, with NaN, or of length zero.

    """
    given, name = direction.given, direction.name
    if isinstance(given, _Random):
        rows, rng = sampled_rows(given.sample, at, layer, model), np.random.default_rng(given.seed)
        found = draw(rows, rng) - draw(rows, rng)
    elif isinstance(given, _ClassMeans):
        found = _difference(given, at, layer)
    elif isinstance(given, str):
        other = end(model, given, f"of direction {name}", position)
        found = difference(activations(model, other.ids, layer, at)[other.position], x)
    elif isinstance(given, (int, np.integer)) and not isinstance(given, bool):
        out = weight_and_bias(model.block(layer).down)[0]
        if not 0 <= given < out.shape[1]:
            raise PolytopeError(f"direction = neuron {given}: layer {layer} has {out.shape[1]}, from 0")
        found = out[:, int(given)].double().cpu().numpy()
    else:
        found = vectors("direction", given, f"a vector of {model.d_model} numbers, a prompt, or a neuron's number")
    return check_vector(found, name, model.d_model)


def check_vector(found: np.ndarray, name: str, width: int) -> Float[np.ndarray, " D"]:
    """Refuse a vector of another width, with NaN, or of length zero."""
    if found.shape != (width,):
        raise PolytopeError(f"{name} has shape {found.shape}, expected [{width}], the model's width")
    if not np.isfinite(found).all():
        at = int(np.flatnonzero(~np.isfinite(found))[0])
        raise PolytopeError(f"{name} is {found[at]} at {at}: give finite numbers")
    if not found.any():
        raise PolytopeError(f"{name} is zero: it points nowhere; give another direction (or another prompt)")
    return found


def difference(b: Float[np.ndarray, " D"], a: Float[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
    """Return `b - a`; zero where they are the same but for rounding."""
    found = b - a
    return np.where(np.linalg.norm(found) > _ROUNDED * np.linalg.norm(a), found, 0.0)


def _difference(given: _ClassMeans, at: Space, layer: int) -> Float[np.ndarray, " D"]:
    kept = _KEPT.get(at)
    if kept is None:
        raise PolytopeError(f"class means at {at!r}: codes keep x and u; use at='resid_mid' or 'mlp_in'")
    values = given.codes.tokens[given.label].astype(object)
    rows = given.codes.activations(kept, layer).astype(np.float64)
    there = values.notna().to_numpy()
    mine = there & (values.astype(str) == given.to).to_numpy()
    other = there & ((values.astype(str) == given.away).to_numpy() if given.away is not None else ~mine)
    if not other.any():
        raise PolytopeError(f"label {given.label!r} has no other value than {given.to!r}: no difference of means")
    return np.asarray(rows[mine].mean(axis=0) - rows[other].mean(axis=0))


@dataclass(frozen=True)
class Place:
    """One prompt as it is read, at one position of one layer."""

    prompt: str
    read: End
    layer: int
    at: Space


def places(
    model: Model, prompt: str | Sequence[str], layer: int | Sequence[int] | None, at: str, position: int
) -> list[Place]:
    """Return the places that prompts and layers make, prompt by prompt.

    Raises:
        PolytopeError: no prompt, an empty one, an unknown space, no such layer or position.

    """
    prompts = list(prompt) if isinstance(prompt, Iterable) and not isinstance(prompt, str) else [prompt]
    if not prompts:
        raise PolytopeError("prompt: none given; give a text or several")
    if layer is None:  # embeddings enter before block 0 only
        layer = 0 if at == "embed" else model.n_layers // 2
    layers = list(layer) if isinstance(layer, Iterable) else [layer]
    if not layers:
        raise PolytopeError("layer: none given; give one or several")
    spaces = [place(model, at, int(one) if isinstance(one, np.integer) else one, None)[0] for one in layers]
    read = [end(model, text, f"{number + 1} ({text!r:.40})", position) for number, text in enumerate(prompts)]
    return [
        Place(text, one, int(one_layer), space)
        for text, one in zip(prompts, read, strict=True)
        for one_layer, space in zip(layers, spaces, strict=True)
    ]
