"""The specification curve: leads by size above, the choices behind each of them below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plotly.subplots import make_subplots

from polytope_lm.predictions.specifications import CHOICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go

    from polytope_lm.predictions.specifications import Cell, Multiverse

_COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
_ABOVE, _ROW = 260, 18
"""Pixels of the curve, and of each choice's row below it."""


def specification_curve(result: Multiverse, representation: str, reference: str) -> go.Figure:
    """Return the figure: one column a specification, least lead left; a mark in the row of each choice made.

    A choice that is the same everywhere has no row. Each clusterer has its own colour; hovering over a lead
    tells the whole specification, with the shares thrown away.

    Args:
        result: the cells.
        representation: whose leads.
        reference: over whom, one of `REFERENCES`.

    Raises:
        PolytopeError: another reference, or no such cell.

    """
    cells = result.leads(representation, reference)
    rows = _rows(cells)
    heights = [_ABOVE, _ROW * max(len(rows), 1)]
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.04, row_heights=heights)
    for number, clusterer in enumerate(dict.fromkeys(sorted(cell.clusterer for cell in cells))):
        chosen = [(x, cell) for x, cell in enumerate(cells) if cell.clusterer == clusterer]
        marker = {"color": _COLOURS[number % len(_COLOURS)], "size": 6}
        name = _plain(clusterer)
        figure.add_scatter(
            x=[x for x, _ in chosen],
            y=[cell.over(reference) for _, cell in chosen],
            mode="markers",
            marker=marker,
            name=name,
            legendgroup=name,
            hovertext=[_hover(cell, reference) for _, cell in chosen],
            hoverinfo="text",
            row=1,
            col=1,
        )
        marks = [(x, y) for x, cell in chosen for y, row in enumerate(rows) if _has(cell, row)]
        figure.add_scatter(
            x=[x for x, _ in marks],
            y=[y for _, y in marks],
            mode="markers",
            marker={**marker, "symbol": "line-ns-open", "size": 9},
            name=name,
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
            row=2,
            col=1,
        )
    return _laid_out(figure, cells, rows, f"{_plain(representation)} minus {_plain(reference)}, AMI")


def _laid_out(
    figure: go.Figure, cells: Sequence[Cell], rows: Sequence[tuple[int, object]], title: str
) -> go.Figure:
    figure.add_hline(y=0, line_color="#555555", line_width=1, row=1, col=1)
    texts = [f"{CHOICES[which]}: {_plain(value)}" for which, value in rows]
    figure.update_yaxes(title_text=title, row=1, col=1)
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=texts,
        autorange="reversed",
        showgrid=False,
        zeroline=False,
        row=2,
        col=1,
    )
    figure.update_xaxes(showticklabels=False, zeroline=False, showgrid=False)
    figure.update_xaxes(title_text=f"{len(cells)} specifications, by lead; no verdict", row=2, col=1)
    figure.update_layout(
        template="plotly_white",
        height=_ABOVE + _ROW * len(rows) + 120,
        legend={"orientation": "h", "y": 1.06},
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
    )
    return figure


def _rows(cells: Sequence[Cell]) -> list[tuple[int, object]]:
    """Return the choices that vary, each with every value: numbers by size, none last."""
    rows: list[tuple[int, object]] = []
    for which in range(len(CHOICES)):
        values = sorted({cell.choices[which] for cell in cells}, key=_order)
        rows += [(which, value) for value in values if len(values) > 1]
    return rows


def _order(value: object) -> tuple[bool, float, str]:
    return value is None, float(value) if isinstance(value, int) else 0.0, str(value)


def _has(cell: Cell, row: tuple[int, object]) -> bool:
    return cell.choices[row[0]] == row[1]


def _hover(cell: Cell, reference: str) -> str:
    lead, ami = cell.over(reference) or 0.0, cell.ami or 0.0
    made = ", ".join(
        f"{name} {_plain(value)}"
        for name, value in zip(CHOICES, cell.choices, strict=True)
        if value is not None
    )
    return (
        f"{lead:+.3f} (AMI {ami:.3f})<br>{made}<br>{cell.clusters:g} clusters, largest "
        f"{cell.largest_share:.0%}, noise {cell.noise_share:.0%} of {cell.n:,} tokens"
    )


def _plain(value: object) -> str:
    """Write a value so that plotly does not read tags in it."""
    return "none" if value is None else str(value).replace("&", "&amp;").replace("<", "&lt;")
