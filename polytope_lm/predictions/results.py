"""What a comparison of clusterings found, as frozen records that save, load and draw themselves.

Numbers are plain floats and every one travels with its interval and its n; token texts are kept apart from
the numbers, in `ClustersResult.tokens`, so that `result.json` never holds a corpus.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.inference.intervals import Estimate
from polytope_lm.inference.neighbours import Hubs
from polytope_lm.inference.verdict import Outcome, Verdict
from polytope_lm.predictions import records, saved, sentences, tables
from polytope_lm.predictions.figures import differences_figure
from polytope_lm.predictions.names import AGREEMENT, AMI, AMI_TOKEN, BEST_COSINE, REFERENCES, SCORES, SIMHASH
from polytope_lm.predictions.records import Difference, LayerComparison, RepresentationResult, Score, Settings
from polytope_lm.predictions.sampling import SampleSummary

if TYPE_CHECKING:
    from collections.abc import Mapping

    import plotly.graph_objects as go

FORMAT = 1

__all__ = [
    "AGREEMENT",
    "AMI",
    "AMI_TOKEN",
    "BEST_COSINE",
    "REFERENCES",
    "SCORES",
    "SIMHASH",
    "ClustersResult",
    "Difference",
    "Estimate",
    "Hubs",
    "LayerComparison",
    "Outcome",
    "RepresentationResult",
    "SampleSummary",
    "Score",
    "Settings",
    "Verdict",
]


@dataclass(frozen=True, repr=False)
class ClustersResult:
    """Prediction 1 put to the test: are regions of the code more monosemantic than directions.

    `tokens` has one row a compared token: `row` (in the codes), `document` (id), `position`, `left`, `token`,
    `right`, one column for each label, then for each layer, with `S` its site's key: `S/cluster/NAME`
    (cluster id under each representation), `S/neighbours/code` and `S/neighbours/cosine` (row numbers of this
    table, nearest first, strict) and `S/distances/code` (bits), `S/distances/cosine` (1 - cosine, of the
    better centred or raw one).

    Attributes:
        settings: every choice that moves a number.
        sample: which tokens were compared.
        layers: one comparison a layer.
        provenance: model, revision, dtype, sample rule, ... as the codes state them.
        versions: of the libraries that computed it.
        command: what reproduces it.
        tokens: the compared tokens in context, for browsing; None after `load` where the table is gone.
        timings: seconds by layer and step; not part of the result's identity.

    """

    settings: Settings
    sample: SampleSummary
    layers: tuple[LayerComparison, ...]
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    tokens: pd.DataFrame | None = field(default=None, repr=False, compare=False)
    timings: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict of each layer, in the order of `layers`."""
        return tuple(layer.verdict for layer in self.layers)

    @property
    def verdict(self) -> str:
        """The verdict in words: of the layer, or which layers say what and by which reference and score."""
        return sentences.summarise(self)

    def layer(self, layer: int) -> LayerComparison:
        """Return one layer's comparison."""
        for comparison in self.layers:
            if comparison.layer == layer:
                return comparison
        there = ", ".join(str(comparison.layer) for comparison in self.layers)
        msg = f"layer {layer} is not in this result; layers compared: {there}"
        raise PolytopeError(msg)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer, representation and score: interval, n, differences from both."""
        return tables.to_frame(self)

    def plot(self, score: str = AMI) -> go.Figure:
        """Draw dots and intervals: rows are layers, x is the difference from the better cosine of `h`."""
        return differences_figure(self, score)

    def clusters(self, representation: str = "code", layer: int | None = None) -> Mapping[int, pd.DataFrame]:
        """Return one representation's clusters: id -> its tokens in context, `result.clusters("code")[17]`.

        Args:
            representation: a name in `layers[0].representations`.
            layer: which layer; may be left out where there is one.

        """
        return tables.clusters_of(self, representation, layer)

    def __repr__(self) -> str:
        return tables.describe(self)

    def _repr_html_(self) -> str:
        return tables.to_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data without texts; `from_dict` is its inverse (but for `tokens`)."""
        return {
            "format": FORMAT,
            "prediction": "clusters",
            "verdict": self.verdict,
            "settings": asdict(self.settings),
            "sample": asdict(self.sample),
            "layers": [records.plain(layer) for layer in self.layers],
            "provenance": dict(self.provenance),
            "versions": dict(self.versions),
            "command": self.command,
            "timings": dict(self.timings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], tokens: pd.DataFrame | None = None) -> ClustersResult:
        """Rebuild a result from `to_dict`'s data, and the table of tokens if it is at hand."""
        return cls(
            settings=Settings(**data["settings"]),
            sample=SampleSummary(**data["sample"]),
            layers=tuple(records.layer_from(d) for d in data["layers"]),
            provenance=data["provenance"],
            versions=data["versions"],
            command=data["command"],
            tokens=tokens,
            timings=data.get("timings", {}),
        )

    def save(self, directory: str | Path) -> Path:
        """Write `result.json` (the same bytes for the same seed, `timings` apart) and `tokens.parquet`.

        Returns:
            The path of `result.json`.

        """
        path = saved.write(Path(directory) / "result.json", self.to_dict())
        if self.tokens is not None:
            self.tokens.to_parquet(path.with_name("tokens.parquet"), index=False)
        return path

    @classmethod
    def load(cls, directory: str | Path) -> ClustersResult:
        """Read what `save` wrote.

        Raises:
            PolytopeError: no `result.json` there, or one of another kind or format.

        """
        path = Path(directory) / "result.json"
        marks = {"prediction": "clusters", "format": FORMAT}
        data = saved.read(path, marks, "a clusters result", "run `polytope-lm test clusters`")
        table = path.with_name("tokens.parquet")
        return cls.from_dict(data, pd.read_parquet(table) if table.is_file() else None)
