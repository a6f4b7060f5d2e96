"""How many different codes there are, and how that grows with the number of tokens.

Of n tokens drawn at random from T, the expected number of distinct codes is exact (rarefaction; Hurlbert 1971),

    E[D_n] = sum over codes v of 1 - C(T - m_v, n) / C(T, n),    m_v how often v occurs.

The code of a wide layer is nearly always a token's own: then D_n = n, whatever the network learnt, and the number says
nothing. What can be compared is how soon the codes of a few neurons, the layer's first 8, 16, 32, are used up, beside

- *independent neurons*: the same bits, each neuron's shuffled among the tokens: the same rates and nothing else. Fewer
  distinct codes than theirs: the neurons fire together;
- *random hyperplanes* on the same `u`, each on as often as its neuron (`simhash_rate_matched`), where `u` is at hand:
  fewer than theirs, and it is not only the vectors that bring the neurons together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.codes.hamming.hamming import pack, unpack
from polytope_lm.errors import PolytopeError, brief, public
from polytope_lm.representations.controls import shuffled_bits, simhash_rate_matched
from polytope_lm.result import Result
from polytope_lm.seeds import Purpose, derived

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import plotly.graph_objects as go
    from jaxtyping import Float, Int, UInt8

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.sites import Site

GROUPS = (8, 16, 32)
"""Neurons of a group, unless it is told."""
_DRAWN = 4
"""Layers in the figure, at most, spread over the model."""


@dataclass(frozen=True)
class Growth:
    """How the codes of some neurons grow in number.

    Attributes:
        layer: the block; None: all layers at once.
        neurons: how many, the layer's first.
        codes: distinct codes expected of each n of tokens.
        independent: the same of neurons with these rates that know nothing of each other.
        planes: the same of random hyperplanes with these rates; empty where `u` was not kept.

    """

    layer: int | None
    neurons: int
    codes: tuple[float, ...]
    independent: tuple[float, ...]
    planes: tuple[float, ...] = ()

    @property
    def place(self) -> str:
        """Which layer, in words."""
        return "all layers" if self.layer is None else f"layer {self.layer}"


@dataclass(frozen=True, repr=False)
class DistinctCodes(Result):
    """How the number of distinct codes grows with the number of tokens.

    Attributes:
        at: the numbers of tokens, n.
        tokens: distinct tokens of the vocabulary expected among n.
        growths: of each layer its groups and the whole, then the whole of all layers.
        of: tokens that there were; `at[-1]` of them are counted at most.
        seed: of the draw of tokens and of both controls.
        provenance: model, revision, sample rule, ... as the codes state them.

    """

    at: tuple[int, ...]
    tokens: tuple[float, ...]
    growths: tuple[Growth, ...]
    of: int
    seed: int
    provenance: Mapping[str, Any]

    kind = "distinct"
    file = "distinct-codes.json"
    tab = "Distinct codes"
    question = "How many different codes are there?"

    def __repr__(self) -> str:
        return f"<DistinctCodes: {self.headline}>"

    @property
    def headline(self) -> str:
        """The last layer's whole code and a group that is filled neither hardly nor wholly."""
        own = [one for one in self.growths if one.layer == self.growths[0].layer]
        whole, n = own[-1], self.at[-1]
        said = f"{whole.place.capitalize()}: {n:,} tokens have {whole.codes[-1]:,.0f} different codes"
        if len(own) == 1:
            return f"{said}."
        some = own[len(own[:-1]) // 2]
        theirs = f", random hyperplanes {some.planes[-1]:,.0f}" if some.planes else ""
        return (
            f"{said}; its first {some.neurons} neurons make {some.codes[-1]:,.0f}, independent ones of the same rates "
            f"{some.independent[-1]:,.0f}{theirs}."
        )

    def notes(self) -> list[str]:
        """Say what the last line of a layer can tell."""
        said = (
            "Where nearly every token has a code of its own, the number of codes is that of the tokens, for random "
            "hyperplanes as well: compare the groups."
        )
        drawn = f"{self.at[-1]:,} of {self.of:,} tokens, with {self.tokens[-1]:,.0f} different token ids."
        return [said, drawn]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a group of neurons and a number of tokens; no `layer` where it is all layers."""
        import pandas as pd  # noqa: PLC0415 - slow to import

        rows = [
            {
                "layer": one.layer, "neurons": one.neurons, "tokens": n, "distinct codes": one.codes[i],
                "independent neurons": one.independent[i],
                "random hyperplanes": one.planes[i] if one.planes else float("nan"), "distinct tokens": self.tokens[i],
            }
            for one in self.growths
            for i, n in enumerate(self.at)
        ]  # fmt: skip
        return pd.DataFrame(rows).astype({"layer": "Int64"})

    def rows(self) -> list[tuple[str, ...]]:
        """Return what all counted tokens have, a row a group of neurons."""
        heads = ("", "neurons", "codes there could be", f"distinct codes of {self.at[-1]:,}")
        return [
            (*heads, "independent neurons", "random hyperplanes"),
            *(
                (
                    one.place, f"{one.neurons:,}",
                    f"{2**one.neurons:,}" if one.neurons <= _SPELLED else f"2^{one.neurons:,}",
                    *(f"{each[-1]:,.0f}" if each else "" for each in (one.codes, one.independent, one.planes)),
                )
                for one in self.growths
            ),
        ]  # fmt: skip

    def plot(self) -> go.Figure:
        """Draw the growth, a panel a layer: each group beside its controls."""
        from polytope_lm.plotting import Curve, histories  # noqa: PLC0415 - plotly is slow to import

        layers = list(dict.fromkeys(one.layer for one in self.growths if one.layer is not None))
        shown = {layers[i] for i in np.linspace(0, len(layers) - 1, min(_DRAWN, len(layers))).round().astype(int)}
        panels = {}
        for one in self.growths:
            if one.layer is None or one.layer in shown:
                kinds = {"codes": one.codes, "independent neurons": one.independent, "random hyperplanes": one.planes}
                title = f"{one.place}, {one.neurons:,} neurons"
                panels[title] = [Curve(name, self.at, values) for name, values in kinds.items() if values]
        return histories(panels, x="tokens", columns=min(_ACROSS, len(panels)))


_SPELLED, _ACROSS = 16, 4


@public
def distinct_codes(
    codes: TokenCodes,
    layers: Sequence[int] | int | None = None,
    *,
    groups: Sequence[int] = GROUPS,
    at: Sequence[int] | None = None,
    most: int = 10_000,
    seed: int = 0,
) -> DistinctCodes:
    """Count distinct codes against the number of tokens, beside what independent neurons and random planes give.

    Args:
        codes: codes or a store.
        layers: one, several, or None: all that there are.
        groups: of each layer, so many first neurons beside the whole code.
        at: values of n; by default 1, 2, 5, 10, ... and all.
        most: at most so many tokens, drawn at random.
        seed: of this draw and of both controls.

    Raises:
        PolytopeError: no tokens, no such layer, a group below 1, an n that is not between 1 and the tokens.

    Examples:
        >>> import polytope_lm as plm
        >>> codes = plm.encode(plm.load("tiny-gpt2"), ["The duck", "The duck swims"], layers=[1])
        >>> found = plm.distinct_codes(codes, groups=[8])
        >>> [one.neurons for one in found.growths]
        [8, 512]

    """
    wanted = codes.layers if layers is None else [layers] if isinstance(layers, (int, np.integer)) else layers
    sites = [codes.site(int(layer)) for layer in wanted]
    if not sites or not len(codes):
        raise PolytopeError("no tokens: nothing to count" if sites else f"layers={brief(layers)}: name at least one")
    for name, values in (("groups", list(groups)), ("most", [most])):
        if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 1 for n in values):
            raise PolytopeError(f"{name}={brief(values)}: give whole numbers from 1")
    rows, total = np.arange(len(codes)), min(len(codes), most)
    if total < len(codes):
        rows = np.sort(np.random.default_rng(derived(seed, Purpose.TOKENS)).choice(rows, total, replace=False))
    steps = _steps(total, at)
    grown, joined = [], [np.zeros(total, np.int64)] * 3
    for site in sites:
        kinds = _beside(codes, site, rows, derived(seed, Purpose.REPRESENTATION, site.layer))
        for neurons in (*(g for g in sorted(set(groups)) if g < site.width), site.width):
            numbers = [_numbered(_first(each, neurons)) for each in kinds]
            grown.append(Growth(site.layer, int(neurons), *(_rarefied(each, steps) for each in numbers)))
        joined = [_numbered(np.stack([a, b], axis=1)) for a, b in zip(joined, numbers, strict=False)]
    if len(sites) > 1:
        grown.append(Growth(None, sum(s.width for s in sites), *(_rarefied(each, steps) for each in joined)))
    vocabulary = _rarefied(codes.tokens["token_id"].to_numpy()[rows], steps)
    return DistinctCodes(tuple(steps), vocabulary, tuple(grown), len(codes), seed, dict(codes.provenance))


def _beside(codes: TokenCodes, site: Site, rows: np.ndarray, seed: int) -> list[np.ndarray]:
    """Return packed codes, those of independent neurons and, where there is `u`, those of random hyperplanes."""
    packed = codes.rows(site, rows)
    bits = unpack(packed, site.width)
    kinds = [packed, shuffled_bits(bits, seed).values]
    if codes.can_give("u") and site.kind != "router":
        kinds.append(simhash_rate_matched(codes.rows(site, rows, "u"), bits, seed, site).values)
    return kinds


def _steps(total: int, at: Sequence[int] | None) -> list[int]:
    """Return the numbers of tokens."""
    steps = [base * 10**power for power in range(len(str(total))) for base in (1, 2, 5)]
    wanted = [n for n in steps if n < total] + [total] if at is None else list(at)
    if not wanted or not all(isinstance(n, (int, np.integer)) and 1 <= n <= total for n in wanted):
        raise PolytopeError(f"at={brief(at)}: give whole numbers from 1 to {total}, the tokens that there are")
    return sorted({int(n) for n in wanted})


def _first(packed: UInt8[np.ndarray, "T B"], neurons: int) -> UInt8[np.ndarray, "T C"]:
    """Return the codes of the first neurons alone."""
    own = packed[:, : -(-neurons // 8)]
    return own if neurons % 8 == 0 or own.shape[1] == 0 else pack(unpack(own, neurons))


def _numbered(rows: np.ndarray) -> Int[np.ndarray, " T"]:
    """Return a number a row: the same for the same rows."""
    own = np.ascontiguousarray(rows)
    whole = own.view([("row", f"V{own.shape[1] * own.itemsize}")]).reshape(-1)
    return np.asarray(np.unique(whole, return_inverse=True)[1].reshape(-1), np.int64)


def _rarefied(values: Int[np.ndarray, " T"], at: Sequence[int]) -> tuple[float, ...]:
    """Return how many distinct values are expected among n of them, by the formula above."""
    from scipy.special import gammaln  # noqa: PLC0415 - slow to import

    times: Float[np.ndarray, " K"] = np.unique(values, return_counts=True)[1]
    total, found = len(values), []
    for n in at:
        left = total - times
        with np.errstate(invalid="ignore"):  # fewer than n others: it is drawn for certain
            missed = gammaln(left + 1) - gammaln(left - n + 1) - gammaln(total + 1) + gammaln(total - n + 1)
        found.append(float((1 - np.where(left >= n, np.exp(missed), 0.0)).sum()))
    return tuple(found)
