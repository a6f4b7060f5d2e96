"""Pictures of neurons beside polytopes."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from polytope_lm.codes.code import visible
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from polytope_lm.predictions.neuron_results import NeuronRanking, NeuronRegions

_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_LEGEND = 7


def regions_figure(found: NeuronRegions) -> go.Figure:
    """Return the figure: a row a region, greatest on top, x the activation, colour the label.

    Labels beyond the seven most frequent share the last colour.

    Raises:
        PolytopeError: the tokens are not there.

    """
    if found.tokens is None:
        raise PolytopeError(
            f"the regions of {found.of} have no tokens to draw, as they were rebuilt from scores; run "
            "plm.predictions.neuron again"
        )
    rows = {region.cluster: row for row, region in enumerate(reversed(found.regions))}
    frequent = found.tokens["label"].value_counts().index[:_LEGEND]
    shown = found.tokens.assign(
        shown=found.tokens["label"].where(found.tokens["label"].isin(frequent), "other labels")
    )
    figure = go.Figure()
    for number, (name, part) in enumerate(shown.groupby("shown", sort=False)):
        contexts = zip(part["left"], part["token"], part["right"], strict=True)
        figure.add_scatter(
            x=part["activation"],
            y=[rows[cluster] for cluster in part["cluster"]],
            mode="markers",
            name=_text(name),
            marker={"color": _COLOURS[number % len(_COLOURS)], "size": 9, "opacity": 0.7},
            text=[f"{_text(a)}<b>{_text(b)}</b>{_text(c)}" for a, b, c in contexts],
            hovertemplate="%{text}<br>%{x:.3f}<extra>%{fullData.name}</extra>",
        )
    names = [f"cluster {r.cluster} ({r.size}), purity {r.purity.value:.2f}" for r in reversed(found.regions)]
    figure.update_layout(
        title=f"{_text(found.of)}, layer {found.settings.layer}: top tokens by polytope cluster",
        xaxis_title="activation",
        yaxis={"tickvals": list(range(len(names))), "ticktext": names},
        template="plotly_white",
        height=220 + 26 * len(names),
    )
    return figure


def ranking_figure(found: NeuronRanking) -> go.Figure:
    """Return the figure: a dot a neuron, x the purity of its whole list, y its lead inside the clusters."""
    table = found.neurons
    figure = go.Figure()
    for name, chosen, colour in (
        ("ahead of chance (false-discovery rate 5 %)", table["fdr"] < 0.05, _COLOURS[0]),
        ("not ahead", table["fdr"] >= 0.05, _COLOURS[-1]),
    ):
        part = table[chosen]
        figure.add_scatter(
            x=part["purity"],
            y=part["lead"],
            mode="markers",
            name=name,
            marker={"color": colour, "size": 6, "opacity": 0.6},
            text=[f"neuron {neuron}" for neuron in part["neuron"]],
            hovertemplate="%{text}<br>%{x:.3f} as one list<br>%{y:+.3f} beyond chance<extra></extra>",
        )
    figure.add_hline(y=0, line_color="#555555", line_width=1)
    figure.update_layout(
        title=f"Neurons of layer {found.settings.layer}: what clusters of the "
        f"{_text(found.settings.by)} take apart",
        xaxis_title=f"purity of {_text(found.settings.label)} as one list",
        yaxis_title="purity inside the clusters beyond chance",
        template="plotly_white",
    )
    return figure


def _text(text: object) -> str:
    """Escape a text for plotly, whose labels understand some HTML; spell out what is not printed."""
    return html.escape(str(visible(str(text))), quote=False)
