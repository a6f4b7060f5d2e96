"""Which neurons fire for one value of a label: LAPE's entropy, log-odds, false discoveries over documents.

With `r_iv` the share of value v's tokens on which neuron i is on, and `p_iv = r_iv / sum_v r_iv`,

    H_i = -sum_v p_iv log p_iv        (nats; 0: on for one value only, log V: alike for all),

the *language activation probability entropy* of Tang et al., "Language-specific neurons: the key to multilingual
capabilities in large language models" (ACL 2024), for any label. It has no null of its own: rare neurons have a low
entropy by chance. So each value's rate stands against the rest's as a signed log-odds ratio with an interval and an
exchange test over *documents* (`codes.contrast`), and Benjamini and Hochberg's q over all neurons and values says
what survives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polytope_lm.errors import PolytopeError, escaped
from polytope_lm.models.sites import Site
from polytope_lm.plotting import Cloud, Marks, clouds, dots
from polytope_lm.result import Result, table
from polytope_lm.statistics.estimate import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLUMNS = ("neuron", "value", "rate", "others", "log_odds", "low", "high", "entropy", "p", "q", "significant")
_SHOWN = 12


@dataclass(frozen=True)
class SelectiveSettings:
    """Every choice that moves a number.

    Attributes:
        label: whose values.
        alpha: the false-discovery rate.
        tokens: that have the label.
        documents: that they come from.
        least: fewest documents of a value.
        left_out: values of fewer documents.
        seed: of every random choice.
        most: neurons of a value that are ablated together, at most.
        draws: of random neurons of the same rates.
        resamples: bootstrap resamples of the documents behind a change of loss.

    """

    label: str
    alpha: float
    tokens: int
    documents: int
    least: int
    left_out: tuple[str, ...]
    seed: int
    most: int
    draws: int
    resamples: int


@dataclass(frozen=True)
class ValueTest:
    """What one value was tested by.

    Attributes:
        value: the label's value.
        tokens: its tokens.
        documents: that they come from.
        test: the test and its units.
        units: documents that it has.
        found: neurons that fire for it, `q <= alpha` and a positive log-odds.
        against: neurons that fire less for it than for the rest.

    """

    value: str
    tokens: int
    documents: int
    test: str
    units: int
    found: int
    against: int


@dataclass(frozen=True)
class Ablation:
    """The loss on one value's tokens when another's, or its own, selective neurons are mean-ablated.

    Attributes:
        neurons_of: whose neurons.
        neurons: how many.
        texts_of: on whose tokens the loss of the next token is taken.
        tokens: how many.
        change: of the mean loss, nats a token, with its interval over documents.
        random: the same for as many random neurons of the same firing rates, mean over the draws.
        beyond: the change less that of random neurons.

    """

    neurons_of: str
    neurons: int
    texts_of: str
    tokens: int
    change: Estimate
    random: Estimate
    beyond: Estimate


@dataclass(frozen=True, repr=False)
class Selective(Result):
    """Neurons that fire for one value of a label.

    Attributes:
        settings: every choice that moves a number.
        site: where the codes live.
        values: one a value.
        ablations: the causal column; empty without `ablate=True`.
        contexts: of the first neurons found, tokens on which they are on, `{neuron: ((left, token, right), ...)}`.
        provenance: of the codes.
        command: what reproduces it.
        neurons: one row a neuron and value: `rate` on the value's tokens, `others` on the rest's, `log_odds` with
            `low` and `high`, `entropy`, `p`, `q`, `significant`.

    """

    settings: SelectiveSettings
    site: Site
    values: tuple[ValueTest, ...]
    ablations: tuple[Ablation, ...]
    contexts: Mapping[int, tuple[tuple[str, str, str], ...]]
    provenance: Mapping[str, Any]
    command: str
    neurons: pd.DataFrame | None = field(default=None, compare=False)

    kind = "selective"
    file = "selective.json"
    tab = "Selective neurons"
    several = True
    tables = {"neurons": "selective.parquet"}  # noqa: RUF012

    @property
    def headline(self) -> str:
        """What came out, in plain words."""
        said = ", ".join(f"{one.value} {one.found:,}" for one in self.values[:_SHOWN])
        more = f", and {len(self.values) - _SHOWN} more values" if len(self.values) > _SHOWN else ""
        return (
            f"Neurons of layer {self.site.layer} that fire for one value of {self.settings.label} "
            f"(of {self.site.width:,}; false-discovery rate {self.settings.alpha:g} over documents): {said}{more}."
        )

    def of(self, value: str, k: int | None = None) -> pd.DataFrame:
        """Return the neurons found for a value, the most telling first.

        Raises:
            PolytopeError: no such value, or a result without its table.

        """
        if value not in {one.value for one in self.values}:
            there = ", ".join(one.value for one in self.values)
            raise PolytopeError(f"no value {value!r} of {self.settings.label} was tested; there are {there}")
        frame = self.to_frame()
        frame = frame[(frame["value"] == value) & frame["significant"] & (frame["log_odds"] > 0)]
        return frame.head(k or len(frame)).reset_index(drop=True)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a neuron and value, the most telling first.

        Raises:
            PolytopeError: a result without its table.

        """
        if self.neurons is None:
            raise PolytopeError(
                f"this result was loaded without {self.tables['neurons']}; put it back beside {self.file}"
            )
        order = np.lexsort((self.neurons["neuron"], -self.neurons["log_odds"].abs(), self.neurons["q"]))
        return self.neurons.iloc[order].reset_index(drop=True)

    def rows(self) -> list[tuple[str, ...]]:
        """Return the neurons found, at most 12 a value, with what they do."""
        heads = ("value", "neuron", "on", "on elsewhere", "log-odds", "entropy", "q", "in context")
        found: list[tuple[str, ...]] = [heads]
        for one in self.values if self.neurons is not None else ():
            for row in self.of(one.value, _SHOWN).itertuples():
                example = self.contexts.get(int(str(row.neuron)), ())
                shown = "; ".join(f"…{left[-20:]}[{token}]{right[:12]}…" for left, token, right in example[:2])
                interval = f"{row.log_odds:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
                found.append(
                    (one.value, str(row.neuron), f"{row.rate:.1%}", f"{row.others:.1%}", interval,
                     f"{row.entropy:.3f}", f"{row.q:.2g}", shown)
                )  # fmt: skip
        return found

    def notes(self) -> list[str]:
        """Say what was tested how, what was left out, and what the neurons do."""
        s = self.settings
        found = [f"{s.tokens:,} tokens of {s.documents:,} documents. {self.site.premises}."]
        if s.left_out:
            found.append(f"In fewer than {s.least} documents, left out: {', '.join(s.left_out)}.")
        found += [
            f"{one.value}: {one.tokens:,} tokens of {one.documents:,} documents; {one.test}, n = {one.units:,}; "
            f"{one.found:,} neurons for it, {one.against:,} against."
            for one in self.values
        ]
        found += [
            f"{one.neurons} neurons of {one.neurons_of} mean-ablated, loss on {one.texts_of}: {one.change} nats a "
            f"token; random neurons of the same rates {one.random}; beyond them {one.beyond}."
            for one in self.ablations
        ]
        return found

    def _repr_html_(self) -> str:
        return super()._repr_html_() + (table(self._ablation_rows()) if self.ablations else "")

    def _ablation_rows(self) -> list[tuple[str, ...]]:
        heads = ("neurons of", "neurons", "loss on", "change, nats", "random neurons", "beyond")
        rows = [
            (one.neurons_of, str(one.neurons), one.texts_of, str(one.change), str(one.random), str(one.beyond))
            for one in self.ablations
        ]
        return [heads, *rows]

    def plot(self) -> go.Figure:
        """Draw every neuron's rate for its most telling value against its rate elsewhere."""
        frame = self.to_frame()
        first = frame.drop_duplicates("neuron")
        groups = []
        for value in [*(one.value for one in self.values), None]:
            mine = first["significant"] & (first["value"] == value) if value else ~first["significant"]
            part = first[mine]
            numbers = zip(part["neuron"], part["others"], part["rate"], strict=True)
            said = [
                f"neuron {n}<br>{y:.3f} for {escaped(value or 'its value')}<br>{x:.3f} elsewhere" for n, x, y in numbers
            ]
            groups.append(Cloud(value or "not selective", part["others"], part["rate"], said, faint=value is None))
        title = f"Neurons of layer {self.site.layer} by {self.settings.label}"
        return clouds(
            groups, title, "share of the other tokens on which it is on", y="share of the value's tokens", size=5
        )

    def figures(self) -> dict[str, go.Figure]:
        """Return the rates, and the changes of loss where neurons were ablated."""
        found = {} if self.neurons is None else {"rates": self.plot()}
        if self.ablations:
            rows = [f"{one.neurons_of} → loss on {one.texts_of}" for one in self.ablations]
            series = [
                Marks("selective neurons", [one.change for one in self.ablations], 0),
                Marks("random neurons of the same rates", [one.random for one in self.ablations], 1, open=True),
            ]
            found["loss"] = dots(rows, {"change of the loss, nats a token": series}, line=0, signed=True)
        return found

    def __repr__(self) -> str:
        return f"<Selective: {self.headline}>"
