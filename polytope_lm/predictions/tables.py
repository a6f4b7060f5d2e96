"""A comparison's result as words, tables and HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.names import AMI, REFERENCES, SCORES

if TYPE_CHECKING:
    from polytope_lm.predictions.results import ClustersResult, LayerComparison

_SHORT = dict(zip(REFERENCES, ("cosine", "SimHash"), strict=True))

_IN_CONTEXT, _WHERE = ("left", "token", "right"), ("document", "position", "row")
_SHOWN = 20
"""Characters of context on each side of a token that fit a prompt's 80 columns."""


def to_frame(result: ClustersResult) -> pd.DataFrame:
    """Return one row a layer, representation and score, with intervals and differences."""
    rows = []
    for layer in result.layers:
        ahead = {(d.representation, d.score, d.reference): d for d in layer.differences}
        for each in layer.representations:
            for score in each.scores:
                row: dict[str, object] = {
                    "layer": layer.layer,
                    "site": layer.site.key,
                    "representation": each.name,
                    "role": each.role,
                    "score": score.name,
                    "value": score.estimate.value,
                    "low": score.estimate.low,
                    "high": score.estimate.high,
                    "n": score.n,
                }
                for reference, short in _SHORT.items():
                    d = ahead.get((each.name, score.name, reference))
                    row[f"over {short}"] = d.estimate.value if d else None
                    row[f"over {short} low"] = d.estimate.low if d else None
                    row[f"over {short} high"] = d.estimate.high if d else None
                    row[f"over {short} p"] = d.p if d else None
                rows.append(
                    row
                    | {
                        "largest cluster": max(each.cluster_sizes),
                        "max in-degree": each.hubs.max_in_degree,
                        "in-degree skew": each.hubs.skew,
                        "verdict": layer.verdict.outcome if each.name == "code" else None,
                    }
                )
    return pd.DataFrame(rows)


class ClustersView(Mapping[int, pd.DataFrame]):
    """One representation's clusters of tokens in context, largest first when iterated: `view[17]`.

    `view[17]` is narrow enough to read at a prompt: `left`, `token`, `right` (context cut to 20 characters)
    and the label. `view.full(17)` has the whole context, every label, and where each token is.
    """

    def __init__(self, table: pd.DataFrame, ids: pd.Series, name: str, label: str) -> None:
        self._table = table
        self._ids = ids
        self._name = name
        self._label = label

    def __getitem__(self, cluster: int) -> pd.DataFrame:
        near = self.full(cluster)[list(dict.fromkeys((*_IN_CONTEXT, self._label)))]
        return near.assign(left=near["left"].str[-_SHOWN:], right=near["right"].str[:_SHOWN])

    def full(self, cluster: int) -> pd.DataFrame:
        """Return one cluster's tokens with the whole context, all labels, document, position and row.

        Raises:
            PolytopeError: no such cluster.

        """
        chosen = self._table[(self._ids == cluster).to_numpy()]
        if chosen.empty:
            msg = f"no cluster {cluster} by {self._name!r}; ids go from 0 to {int(self._ids.max())}"
            raise PolytopeError(msg)
        return chosen

    def __iter__(self) -> Iterator[int]:
        return iter(
            int(i)
            for i in self._ids.value_counts().sort_index().sort_values(ascending=False, kind="stable").index
        )

    def __len__(self) -> int:
        return int(self._ids.nunique())

    def __repr__(self) -> str:
        return (
            f"{len(self)} clusters of {len(self._table)} tokens by {self._name!r}; [id] shows one, .full(id) "
            "has every column"
        )


def clusters_of(result: ClustersResult, representation: str, layer: int | None) -> ClustersView:
    """Return one representation's clusters as tokens in context.

    Raises:
        PolytopeError: no table of tokens, several layers and none named, or an unknown representation.

    """
    if result.tokens is None:
        msg = "this result was loaded without tokens.parquet; put the file back beside result.json"
        raise PolytopeError(msg)
    if layer is None and len(result.layers) > 1:
        msg = (
            f"{len(result.layers)} layers were compared; say which, as in .clusters({representation!r}, "
            f"layer={result.layers[0].layer})"
        )
        raise PolytopeError(msg)
    comparison = result.layers[0] if layer is None else result.layer(layer)
    name = comparison.representation(representation).name
    ids = result.tokens[f"{comparison.site.key}/cluster/{name}"]
    label = result.settings.label
    plain = [column for column in result.tokens.columns if "/" not in str(column)]
    labels = [column for column in plain if column not in (*_IN_CONTEXT, *_WHERE, label)]
    columns = [column for column in (*_IN_CONTEXT, label, *labels, *_WHERE) if column in plain]
    return ClustersView(result.tokens[columns], ids, name, label)


def describe(result: ClustersResult) -> str:
    """Return the result at a prompt: its size and the verdict."""
    sample, layers = result.sample, len(result.layers)
    return (
        f"<ClustersResult: {layers} layer{'s' * (layers > 1)}, {sample.tokens:,} tokens of "
        f"{sample.documents:,} documents, k = {result.settings.k}. {result.verdict}>"
    )


def to_html(result: ClustersResult) -> str:
    """Return the verdict and a table of scores for a notebook, everything escaped."""
    lines = [f"<p><b>{escape(result.verdict)}</b></p>", "<table><thead><tr>"]
    lines += [
        f"<th>{escape(head)}</th>"
        for head in ("layer", "representation", *SCORES, "over cosine (AMI)", "over SimHash (AMI)")
    ]
    lines.append("</tr></thead><tbody>")
    for layer in result.layers:
        lines += _html_rows(layer)
    lines.append("</tbody></table>")
    lines += [
        f"<p>Layer {layer.layer}: {escape(name)} left out: {escape(why)}.</p>"
        for layer in result.layers
        for name, why in layer.left_out.items()
    ]
    return "".join(lines)


def _html_rows(layer: LayerComparison) -> list[str]:
    ahead = {(d.representation, d.reference): d.estimate for d in layer.differences if d.score == AMI}
    out = []
    for each in layer.representations:
        cells = [str(layer.layer), each.name, *(str(each.score(score).estimate) for score in SCORES)]
        cells += [str(ahead.get((each.name, reference), "")) for reference in REFERENCES]
        out.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return out
