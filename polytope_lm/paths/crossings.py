"""The boundaries that one path crosses, layer by layer, and how the output changes on the way.

A crossing is a change of one neuron's bit `z_i = 1[h_i > 0]` along `x(t)`, `t` in [0, 1]. In the path's own
layer all of them are found in closed form. In later layers they are the sign changes of interpolants through
as many points as are needed, and `missed_estimate` says about how many are missing: an estimate, no bound. On
a fixed grid, the baseline, a neuron that turns on and off within one step is not seen, how many do is unknown
(`missed_estimate` is None), and a crossing's `t` comes from linear interpolation of `h` inside its step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Site
from polytope_lm.plotting import strips
from polytope_lm.result import Result

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

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
        missed_estimate: crossings that may be missing; 0 for a closed form, an estimate for nodes
            (see `paths.solve.chebyshev`), None where nobody knows (a grid).
        hamming: bits in which the path's two ends differ.

    """

    site: Site
    method: str
    missed_estimate: int | None
    hamming: int

    formerly: ClassVar[Mapping[str, str]] = {"missed_at_most": "missed_estimate"}

    @property
    def missed_at_most(self) -> int | None:
        """The former name of `missed_estimate`."""
        return self.missed_estimate

    @property
    def layer(self) -> int:
        """The layer's index."""
        return self.site.layer

    @property
    def missed(self) -> str:
        """`missed_estimate` in words."""
        return "unknown" if self.missed_estimate is None else str(self.missed_estimate)


@dataclass(frozen=True, repr=False)
class OutputChange:
    """The next-token distribution at equally spaced points of a path, one more than there are steps.

    Attributes:
        t: the points, `[points]`.
        js: Jensen-Shannon distance between successive distributions, `[steps]`: the square root of the
            divergence in bits, from 0 to 1.
        top: the likeliest next token at each point.
        top_probability: its probability, `[points]`.
        error: where the logits were interpolated, the largest JS distance from the model's own distribution
            that was seen; 0 where the model was run at each point.

    """

    t: Float[np.ndarray, " points"]
    js: Float[np.ndarray, " steps"]
    top: tuple[str, ...]
    top_probability: Float[np.ndarray, " points"]
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
class Crossings(Result):
    """All crossings of one path, ordered by layer and t.

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

    kind = "crossings"
    file = "crossings.json"
    tab = "Crossings"
    several = True
    indent = None

    def __len__(self) -> int:
        return len(self.t)

    @property
    def missed_estimate(self) -> int | None:
        """Crossings that may be missing in all layers together; None if that is unknown for any of them."""
        known = [part.missed_estimate for part in self.layers]
        return None if any(part is None for part in known) else sum(part or 0 for part in known)

    @property
    def missed_at_most(self) -> int | None:
        """The former name of `missed_estimate`."""
        return self.missed_estimate

    @property
    def returns(self) -> Bool[np.ndarray, " n"]:
        """Whether a crossing's neuron crosses more than once: flips that the ends' codes don't tell."""
        owner, times = self._owners()
        return np.asarray(times[owner] > 1)

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
        """Return how a layer was searched; raises a `PolytopeError` if it wasn't."""
        for part in self.layers:
            if part.layer == layer:
                return part
        searched = ", ".join(str(part.layer) for part in self.layers)
        raise PolytopeError(f"layer {layer} was not searched for crossings; these were: {searched}")

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
        layers, found = [part.layer for part in self.layers], (self.t, self.layer, self.neuron, self.on)
        return strips(layers, found, self.output_change, title=" → ".join(self.prompts))

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row a layer: crossings, those of neurons that return, how they were found."""
        heads = "layer|crossings|bits that differ|of neurons that return|found by|missed, estimate|premises"
        rows = [tuple(heads.split("|"))]
        for part in self.layers:
            here = self.layer == part.layer
            counts = (here.sum(), part.hamming, (here & self.returns).sum())
            rows.append(tuple(map(str, (part.layer, *counts, part.method, part.missed, part.site.premises))))
        return rows

    @property
    def _where(self) -> str:
        return f"{self.shape} in {self.space} of layer {self.site.layer}"

    @property
    def headline(self) -> str:
        """Between which prompts, and along which path."""
        return f"{' → '.join(self.prompts)}: {self._where}, length {self.length:.4g}"

    def __repr__(self) -> str:
        ends = " -> ".join(shortened(prompt) for prompt in self.prompts)
        layers = sorted(part.layer for part in self.layers)
        where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
        missed = "unknown" if self.missed_estimate is None else f"{self.missed_estimate:,}"
        return f"Crossings: {ends}; {self._where}; {len(self):,} in {where}, missed, estimate: {missed}"

    def __str__(self) -> str:
        rows = [
            f"layer {part.layer:>3} {self.counts(part.layer):>6} crossings, ends {part.hamming} bits apart"
            f" ({part.method}; missed, estimate: {part.missed})"
            for part in self.layers
        ]
        ends = f"{self.tokens[0]!r} -> {self.tokens[1]!r}"
        model = self.provenance.get("model", "model")
        return "\n".join([f"{model}: {ends}, {self._where}, length {self.length:.4g}", *rows])
