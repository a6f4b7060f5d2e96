"""What `plm.diff` found: flips by layer, neuron and token, beside what changes the codes without any learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Site
from polytope_lm.plotting import Marks, dots
from polytope_lm.result import Result
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.estimate import Resampled, resampled

if TYPE_CHECKING:
    import plotly.graph_objects as go

NEAR, NEAREST = 0.5, 0.05
"""`|h|` of model A below which a bit is near its boundary, and very near."""
RANDOM, ROUNDING = "random weight change", "rounding"
_PLACE = ("document", "id", "position", "left", "token", "right")


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval over documents (bootstrap); None where one document gives none."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, part: np.ndarray, whole: np.ndarray, times: np.ndarray | None) -> Share:
        """Return `sum part / sum whole` over documents; `times` is how often each resample holds each."""
        value = float(part.sum() / max(whole.sum(), 1))
        if times is None:
            return cls(value, None, None)
        found = Resampled(value, (times @ part) / np.maximum(times @ whole, 1)).by_percentiles()
        return cls(value, found.low, found.high)

    def __str__(self) -> str:
        """Write it in percent."""
        between = "" if self.low is None or self.high is None else f" [{self.low:.3%}, {self.high:.3%}]"
        return f"{self.value:.3%}{between}"


@dataclass(frozen=True)
class LayerNull:
    """One layer's flips in a model that learned nothing new, against model A.

    Attributes:
        name: `random weight change` or `rounding`.
        share: of the layer's bits that flip, mean over the draws.
        near: share of these flips with `|h| < 0.5`; None where nothing flips, and of routers.
        beyond: the share between the two models less this one.

    """

    name: str
    share: Share
    near: float | None
    beyond: Share


@dataclass(frozen=True)
class LayerFlips:
    """One layer's flips.

    Attributes:
        site: where the codes live.
        share: of all bits, that flip.
        flips: how many.
        near: share of the flips with `|h| < 0.5` in model A; None where nothing flips, and of routers.
        nearest: the same for `|h| < 0.05`.
        ambiguous: share of *all* bits with `|h| < 0.5` in model A.
        nulls: the controls.

    """

    site: Site
    share: Share
    flips: int
    near: float | None
    nearest: float | None
    ambiguous: float | None
    nulls: tuple[LayerNull, ...]

    @property
    def layer(self) -> int:
        """The block's index, from 0."""
        return self.site.layer


@dataclass(frozen=True)
class DiffSettings:
    """Every choice that moves a number.

    Attributes:
        tokens: tokens compared.
        documents: documents that they come from.
        draws: of the random weight change.
        rounding: the number format that model A is rounded to.
        seed: of every random choice.
        resamples: bootstrap resamples of the documents.

    """

    tokens: int
    documents: int
    draws: int
    rounding: str
    seed: int
    resamples: int


@dataclass(frozen=True, repr=False)
class DiffResult(Result):
    """Which bits differ between two models on the same tokens.

    Attributes:
        settings: every choice that moves a number.
        layers: one a layer.
        models: the provenance of A and of B.
        relative_change: `|W_B - W_A| / |W_A|` over all parameters; None where the control by weights was left out.
        provenance: of A, with the rules by which the texts were read.
        versions: of the libraries.
        command: what reproduces it.
        neuron_table: one row a neuron: `layer`, `neuron`, `flips`, `share` (of tokens), `turned_on`, a column a
            control with its flips.
        token_table: one row a token: its place, context, labels, and a column of flips a site.

    """

    settings: DiffSettings
    layers: tuple[LayerFlips, ...]
    models: tuple[Mapping[str, Any], Mapping[str, Any]]
    relative_change: float | None
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    neuron_table: pd.DataFrame | None = field(default=None, compare=False)
    token_table: pd.DataFrame | None = field(default=None, compare=False)

    kind = "diff"
    file = "diff.json"
    tab = "Diff of two models"
    several = True
    tables = {"neuron_table": "diff-neurons.parquet", "token_table": "diff-tokens.parquet"}  # noqa: RUF012

    @property
    def headline(self) -> str:
        """What came out, in plain words."""
        a, b = (str(model["model"]) for model in self.models)
        flips = sum(one.flips for one in self.layers)
        bits = sum(one.site.width for one in self.layers) * self.settings.tokens
        if not flips:
            return f"{a} and {b} have the same codes: none of {bits:,} bits differs."
        most = max(self.layers, key=lambda one: one.share.value)
        said = f"From {a} to {b}, {flips / bits:.3%} of the bits flip, most in layer {most.layer} ({most.share})"
        for null in most.nulls:
            said += f"; by {null.name} {null.share.value:.3%}"
        return f"{said}."

    def neurons(self, layer: int | None = None, k: int = 20) -> pd.DataFrame:
        """Return the `k` neurons that flip on the most tokens, of one layer or of all.

        Raises:
            PolytopeError: a layer that was not compared, or a result without its tables.

        """
        table = self._table(self.neuron_table, "diff-neurons.parquet")
        if layer is not None:
            table = table[table["layer"] == self._layer(layer).layer]
        return table.sort_values("flips", ascending=False, kind="stable").head(k).reset_index(drop=True)

    def tokens(self, layer: int | None = None, k: int = 20) -> pd.DataFrame:
        """Return the `k` tokens with the most flips, in context, of one layer or of all together.

        Raises:
            PolytopeError: a layer that was not compared, or a result without its tables.

        """
        table = self._table(self.token_table, "diff-tokens.parquet")
        keys = [one.site.key for one in self.layers]
        flips = table[keys].sum(axis=1) if layer is None else table[self._layer(layer).site.key]
        found = table.drop(columns=keys)
        found.insert(0, "flips", flips)
        return found.sort_values("flips", ascending=False, kind="stable").head(k).reset_index(drop=True)

    def by(self, label: str, layer: int | None = None, top: int = 100) -> pd.DataFrame:
        """Return the share of bits that flip on each value's tokens, and how many of the most flipped are of it.

        Args:
            label: a column of the tokens, such as a label of the documents.
            layer: one layer; by default all together.
            top: how many tokens with the most flips are counted.

        Returns:
            One row a value: `tokens`, `documents`, `share` with `low` and `high` (over documents), `expected` (its
            share of all tokens), `among_top` (its share of the most flipped).

        Raises:
            PolytopeError: no such label or layer, or a result without its tables.

        """
        table = self._table(self.token_table, "diff-tokens.parquet")
        if label not in table:
            labels = [name for name in table.columns if name not in {*_PLACE, *(one.site.key for one in self.layers)}]
            raise PolytopeError(f"no label {label!r} in these tokens; there are {', '.join(labels) or 'none'}")
        sites = [one.site for one in self.layers] if layer is None else [self._layer(layer).site]
        flips = table[[site.key for site in sites]].sum(axis=1).to_numpy()
        bits = sum(site.width for site in sites)
        most = np.argsort(-flips, kind="stable")[:top]
        rows, document = [], table["document"].to_numpy()
        for value, part in table.groupby(label, sort=True):
            mine = part.index.to_numpy()
            _, where = np.unique(document[mine], return_inverse=True)
            count = int(where.max()) + 1
            share = Share.of(
                np.bincount(where, flips[mine], count),
                np.bincount(where, minlength=count) * bits,
                resamples_of(count, self.settings),
            )
            rows.append(
                (value, len(mine), count, share.value, share.low, share.high, len(mine) / len(table),
                 float(np.isin(most, mine).mean()))
            )  # fmt: skip
        names = [label, "tokens", "documents", "share", "low", "high", "expected", "among_top"]
        return pd.DataFrame(rows, columns=names)

    def _table(self, table: pd.DataFrame | None, file: str) -> pd.DataFrame:
        if table is None:
            raise PolytopeError(f"this result was loaded without {file}; put the file back beside {self.file}")
        return table

    def _layer(self, layer: int) -> LayerFlips:
        for one in self.layers:
            if one.layer == layer:
                return one
        there = ", ".join(str(one.layer) for one in self.layers)
        raise PolytopeError(f"layer {layer!r} was not compared; there are {there}")

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer."""
        rows = []
        for one in self.layers:
            row: dict[str, Any] = {
                "layer": one.layer, "site": one.site.key, "bits": one.site.width, "flips": one.flips,
                "share": one.share.value, "low": one.share.low, "high": one.share.high, "near": one.near,
                "nearest": one.nearest, "ambiguous": one.ambiguous,
            }  # fmt: skip
            for null in one.nulls:
                row |= {null.name: null.share.value, f"beyond {null.name}": null.beyond.value}
            rows.append(row)
        return pd.DataFrame(rows)

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row a layer in words."""
        names = [null.name for null in self.layers[0].nulls]
        heads = [
            "layer",
            "bits that flip",
            f"of the flips, |h| < {NEAR}",
            f"|h| < {NEAREST}",
            f"of all bits, |h| < {NEAR}",
        ]
        for name in names:
            heads += [name, f"beyond {name}"]
        found = [tuple(heads)]
        for one in self.layers:
            shares = ["" if each is None else f"{each:.1%}" for each in (one.near, one.nearest, one.ambiguous)]
            nulls = [text for null in one.nulls for text in (f"{null.share.value:.3%}", str(null.beyond))]
            found.append((str(one.layer), str(one.share), *shares, *nulls))
        return found

    def notes(self) -> list[str]:
        """Say how it was measured, which neurons flip most, and where."""
        s = self.settings
        how = f"{s.tokens:,} tokens of {s.documents:,} documents; |h| is model A's; intervals: 95 % over "
        found = [f"{how}{s.resamples:,} resamples of the documents."]
        if self.relative_change is not None:
            found.append(
                f"Weights: |B - A| / |A| = {self.relative_change:.3g}; the random weight change has the same norm in "
                f"every parameter ({s.draws} draw{'s' * (s.draws != 1)}). Rounding: model A in {s.rounding}."
            )
        if self.neuron_table is not None and any(one.flips for one in self.layers):
            top = self.neurons(k=5).itertuples()
            said = ", ".join(f"neuron {one.neuron} of layer {one.layer} ({one.share:.1%} of the tokens)" for one in top)
            found.append(f"Most flipped: {said}.")
        if self.token_table is not None and any(one.flips for one in self.layers):
            rows = self.tokens(k=5)[["left", "token", "right", "flips"]].to_numpy().tolist()
            said = "; ".join(f"…{left[-30:]}[{token}]{right[:20]}… ({flips:,})" for left, token, right, flips in rows)
            found.append(f"Tokens with the most flips: {said}.")
        return found

    def plot(self) -> go.Figure:
        """Draw the share of bits that flip in each layer, with intervals, beside the controls."""
        names = [null.name for null in self.layers[0].nulls]
        series = [Marks("between the models", [_drawn(one.share) for one in self.layers], 0)]
        for number, name in enumerate(names):
            found = [_drawn(one.nulls[number].share) for one in self.layers]
            series.append(Marks(name, found, number + 1, open=True))
        a, b = (model["model"] for model in self.models)
        return dots([one.layer for one in self.layers], {"share of bits that flip": series}, title=f"From {a} to {b}")

    def __repr__(self) -> str:
        return f"<DiffResult: {self.headline}>"


@dataclass(frozen=True)
class _Drawn:
    value: float
    low: float
    high: float


def _drawn(share: Share) -> _Drawn:
    low, high = (share.value if end is None else end for end in (share.low, share.high))
    return _Drawn(share.value, low, high)


def resamples_of(documents: int, settings: DiffSettings) -> np.ndarray | None:
    """Return how often each resample holds each document; None for a single one, which has no spread."""
    if documents < 2:
        return None
    seed = derived(settings.seed, Purpose.DIFF_RESAMPLES)
    return resampled(np.arange(documents), settings.resamples, seed=seed)
