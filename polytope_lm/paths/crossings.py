"""The boundaries that one path crosses, layer by layer, and how the output changes on the way.

A crossing is a change of one neuron's bit `z_i = 1[h_i > 0]` along `x(t)`, `t` in [0, 1]. In the path's own
layer all of them are found in closed form. In later layers they are the sign changes of interpolants through
as many places as are needed, and `missed_at_most` says what may be missing. On a fixed grid, the baseline,
a neuron that turns on and off within one step is not seen, how many do is unknown (`missed_at_most` is None),
and the place of a crossing comes from linear interpolation of `h` inside its step.

Crossings as a picture and as a table for notebooks; prompts are shown as text, never as markup.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from polytope_lm.errors import PolytopeError, escaped
from polytope_lm.models.sites import Site
from polytope_lm.plotting import strips

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import plotly.graph_objects as go
    from jaxtyping import Bool, Float, Int

_BARS = " ▁▂▃▄▅▆▇█"
_SHOWN = 40  # characters of a prompt


def shortened(text: str) -> str:
    """Return a text as Python spells it, cut where it is long: for one line that says what something is."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


@dataclass(frozen=True)
class LayerMethod:
    """How the crossings of one layer were found.

    Attributes:
        site: where the codes live, with its premises.
        method: "closed form", "33 nodes, 7 held out" or "grid of 33 steps" and the like; "full
            forwards" where the prefix couldn't be shared.
        missed_at_most: crossings that may be missing; 0 for a closed form, an estimate for nodes
            (see `paths.adaptive`), None where nobody knows (a grid).
        hamming: bits in which the path's two ends differ.

    """

    site: Site
    method: str
    missed_at_most: int | None
    hamming: int

    @property
    def layer(self) -> int:
        """The layer's index."""
        return self.site.layer

    @property
    def missed(self) -> str:
        """`missed_at_most` in words."""
        return "unknown" if self.missed_at_most is None else str(self.missed_at_most)


@dataclass(frozen=True, repr=False)
class OutputChange:
    """The next-token distribution at equally spaced places of a path, one more than there are steps.

    Attributes:
        t: the places, `[places]`.
        js: Jensen-Shannon distance between successive distributions, `[steps]`: the square root of the
            divergence in bits, from 0 to 1.
        top: the likeliest next token at each place.
        top_probability: its probability, `[places]`.
        error: where the logits were interpolated, the largest JS distance from the model's own distribution
            that was seen; 0 where the model was run at each place.

    """

    t: Float[np.ndarray, " places"]
    js: Float[np.ndarray, " steps"]
    top: tuple[str, ...]
    top_probability: Float[np.ndarray, " places"]
    error: float = 0.0

    def __repr__(self) -> str:
        most = float(self.js.max()) if len(self.js) else 0.0
        ends = " -> ".join(shortened(token) for token in (self.top[0], self.top[-1]))
        return (
            f"OutputChange: {len(self.js):,} steps, at most {most:.3f}, sum {self.length:.3f}; "
            f"likeliest next token {ends}"
        )

    @property
    def length(self) -> float:
        """Length of the path in output space: the sum of the distances."""
        return float(self.js.sum())


@dataclass(frozen=True, eq=False, repr=False)
class Crossings:
    """All crossings of one path, ordered by layer and place.

    Attributes:
        prompts: the two texts.
        tokens: the tokens at the path's ends.
        site: the path's own site.
        at: the space of the path as it was asked for, `resid_mid` or `mlp_in`.
        space: its name in this block: a parallel block's norm reads `resid_pre`.
        scope: what follows the path downstream: `stream`, the residual stream itself, or `mlp`, what this MLP
            reads.
        shape: `line` or `arc`.
        length: the path's Euclidean length in that space.
        t: place of each crossing in [0, 1], `[n]`.
        layer: its layer, `[n]`.
        neuron: its neuron, `[n]`; for `gate+up` from 0 to 2N - 1, the gates first.
        on: whether the neuron turns on there (else off), `[n]`.
        layers: how each layer was searched.
        output_change: the next-token distribution along the path; None if not asked for, or without logits.
        provenance: model, revision, dtype, attention implementation, version.
        position: the token of each crossing, an index into prompt A as the model reads it, `[n]`; None where
            crossings are counted at one position only.
        context: `a` where A's context is kept downstream, `both` where it is interpolated too.

    """

    prompts: tuple[str, str]
    tokens: tuple[str, str]
    site: Site
    at: str
    space: str
    scope: Literal["stream", "mlp"]
    shape: str
    length: float
    t: Float[np.ndarray, " n"]
    layer: Int[np.ndarray, " n"]
    neuron: Int[np.ndarray, " n"]
    on: Bool[np.ndarray, " n"]
    layers: tuple[LayerMethod, ...]
    output_change: OutputChange | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    position: Int[np.ndarray, " n"] | None = None
    context: Literal["a", "both"] = "a"

    def __len__(self) -> int:
        return len(self.t)

    @property
    def missed_at_most(self) -> int | None:
        """Crossings that may be missing in all layers together; None if that is unknown for any of them."""
        known = [part.missed_at_most for part in self.layers]
        return None if any(part is None for part in known) else sum(part or 0 for part in known)

    @property
    def returns(self) -> Bool[np.ndarray, " n"]:
        """Whether a crossing's neuron crosses more than once: flips that the ends' codes don't tell."""
        owner, times = self._owners()
        returns: np.ndarray = times[owner] > 1
        return returns

    def _owners(self) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " neurons"]]:
        """Return each crossing's neuron, numbered, one a token, and how often each of them crosses."""
        where = np.zeros(len(self), np.int64) if self.position is None else self.position
        keys = np.stack([self.layer, self.neuron, where])
        _, owner, times = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
        return owner.reshape(-1), times

    def flip_backs(self, layer: int | None = None) -> int:
        """Return the number of crossings that the ends' codes don't tell, in one layer or in all.

        Of a neuron's k crossings these are k where k is even, k - 1 where it is odd: it flips and flips back.
        The others are as many as the bits in which the ends differ.
        """
        owner, times = self._owners()
        layers = np.zeros(len(times), np.int64)
        layers[owner] = self.layer
        here = slice(None) if layer is None else layers == self.method(layer).layer
        return int((times - times % 2)[here].sum())

    def method(self, layer: int) -> LayerMethod:
        """Return how a layer was searched.

        Raises:
            PolytopeError: this layer wasn't.

        """
        for part in self.layers:
            if part.layer == layer:
                return part
        searched = ", ".join(str(part.layer) for part in self.layers)
        msg = f"layer {layer} was not searched for crossings; these were: {searched}"
        raise PolytopeError(msg)

    def counts(self, layer: int | None = None) -> int:
        """Return the number of crossings, in one layer or in all that were searched."""
        return len(self) if layer is None else int((self.layer == self.method(layer).layer).sum())

    def histogram(self, bins: int = 33) -> Int[np.ndarray, "L bins"]:
        """Count the crossings of each searched layer in equal stretches of the path."""
        edges = np.linspace(0, 1, bins + 1)
        rows = [np.histogram(self.t[self.layer == part.layer], edges)[0] for part in self.layers]
        return np.array(rows, dtype=np.int64).reshape(len(self.layers), bins)

    def strip(self, width: int = 60, layer: int | None = None) -> str:
        """Draw one layer's crossings (the path's own layer's by default) along t in `width` characters."""
        part = self.method(self.site.layer if layer is None else layer)
        counts = self.histogram(width)[self.layers.index(part)]
        tallest = max(1, int(counts.max()))
        # Rounded up, so that a single crossing never looks like none.
        return "".join(_BARS[-(-int(count) * (len(_BARS) - 1) // tallest)] for count in counts)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a crossing: t, layer, neuron, on, returns; with several tokens, position."""
        import pandas as pd  # noqa: PLC0415 - a table is wanted less often than the numbers

        names = ["t", "layer", "neuron", "on", "returns"]
        names += [] if self.position is None else ["position"]
        return pd.DataFrame({name: getattr(self, name) for name in names})

    def plot(self) -> go.Figure:
        """Draw the crossings along t as one strip a layer, with the output's change above."""
        layers = [part.layer for part in self.layers]
        found = (self.t, self.layer, self.neuron, self.on)
        return strips(layers, found, self.output_change, title=" → ".join(self.prompts))

    def _repr_html_(self) -> str:

        return crossings_table(self)

    def __repr__(self) -> str:
        ends = " -> ".join(shortened(prompt) for prompt in self.prompts)
        layers = sorted(part.layer for part in self.layers)
        where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
        missed = "unknown" if self.missed_at_most is None else f"{self.missed_at_most:,}"
        return (
            f"Crossings: {ends}; {self.shape} in {self.space} of layer {self.site.layer}; {len(self):,} in "
            f"{where}, missed at most: {missed}"
        )

    def __str__(self) -> str:
        rows = [
            f"layer {part.layer:>3} {self.counts(part.layer):>6} crossings, ends {part.hamming} bits apart"
            f" ({part.method}; missed at most: {part.missed})"
            for part in self.layers
        ]
        ends = f"{self.tokens[0]!r} -> {self.tokens[1]!r}"
        where = f"{self.shape} in {self.space} of layer {self.site.layer}, length {self.length:.4g}"
        return "\n".join([f"{self.provenance.get('model', 'model')}: {ends}, {where}", *rows])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; `from_dict` is its inverse."""
        change = self.output_change
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            **{name: getattr(self, name).tolist() for name in _ARRAYS},
            "prompts": list(self.prompts),
            "tokens": list(self.tokens),
            "site": self.site.to_dict(),
            "layers": [{**asdict(part), "site": part.site.to_dict()} for part in self.layers],
            "output_change": None if change is None else _change_to_dict(change),
            "provenance": dict(self.provenance),
            "position": None if self.position is None else self.position.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Crossings:
        """Rebuild from `to_dict`'s data."""
        change = data["output_change"]
        data = {"context": "a", **data}  # what files written before there were others mean
        fields: dict[str, Any] = {name: data[name] for name in (*_PLAIN, "provenance")}
        fields |= {name: np.array(data[name], dtype=dtype) for name, dtype in _ARRAYS.items()}
        fields |= {name: tuple(data[name]) for name in ("prompts", "tokens")}
        where = data.get("position")
        fields["position"] = None if where is None else np.array(where, dtype=np.int32)
        fields["site"] = Site.from_dict(data["site"])
        fields["layers"] = tuple(
            LayerMethod(**{**d, "site": Site.from_dict(d["site"])}) for d in data["layers"]
        )
        fields["output_change"] = None if change is None else _change_from_dict(change)
        return cls(**fields)

    def save(self, path: str | Path) -> Path:
        """Write the result as one JSON file and return its path."""
        target = Path(path)
        target.write_text(json.dumps(self.to_dict(), allow_nan=False) + "\n", encoding="utf-8")
        return target

    @classmethod
    def load(cls, path: str | Path) -> Crossings:
        """Read what `save` has written.

        Raises:
            PolytopeError: no such file, or it holds something else.

        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            what = f"{type(error).__name__}: {error}"
            msg = f"{str(path)!r} is not a saved Crossings ({what}); write it with .save()"
            raise PolytopeError(msg) from error


_PLAIN = ("at", "space", "scope", "shape", "length", "context")
_ARRAYS = {"t": np.float64, "layer": np.int16, "neuron": np.int32, "on": np.bool_}


def _change_to_dict(change: OutputChange) -> dict[str, Any]:
    numbers = {name: getattr(change, name).tolist() for name in ("t", "js", "top_probability")}
    return {**numbers, "top": list(change.top), "error": change.error}


def _change_from_dict(data: Mapping[str, Any]) -> OutputChange:
    numbers = {name: np.array(data[name], dtype=np.float64) for name in ("t", "js", "top_probability")}
    return OutputChange(top=tuple(data["top"]), error=float(data.get("error", 0.0)), **numbers)


def crossings_table(crossings: Crossings) -> str:
    """Return an HTML table with a row a layer: crossings, those of neurons that return, how they were found.

    Args:
        crossings: one path's crossings.

    """
    returns = crossings.returns
    rows = []
    for part in crossings.layers:
        here = crossings.layer == part.layer
        counts = (here.sum(), part.hamming, (here & returns).sum())
        cells = (part.layer, *counts, part.method, part.missed, part.site.premises)
        rows.append("".join(f"<td>{escaped(cell)}</td>" for cell in cells))
    names = "layer|crossings|bits that differ|of neurons that return|found by|missed at most|premises"
    head = "".join(f"<th>{name}</th>" for name in names.split("|"))
    ends = " → ".join(f"<bdi>{escaped(prompt)}</bdi>" for prompt in crossings.prompts)
    where = f"{crossings.shape} in {crossings.space} of layer {crossings.site.layer}"
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p>{ends}<br>{escaped(where)}, length {crossings.length:.4g}</p>{table}"
