"""A neuron's top tokens by polytope cluster, and neurons ranked by what the clusters take apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from polytope_lm.errors import PolytopeError, escaped
from polytope_lm.plotting import Cloud, clouds
from polytope_lm.result import Result, table
from polytope_lm.statistics.nulls import AgainstNull

if TYPE_CHECKING:
    import plotly.graph_objects as go


_SHOWN, _LEGEND, _OTHERS = 8, 7, "other labels"
COLUMNS = ("neuron", "tokens", "regions", "purity", "inside", "by chance", "lead", "z", "p", "fdr")


@dataclass(frozen=True)
class NeuronSettings:
    """Every choice that moves a number.

    Attributes:
        layer: the block's index, from 0.
        site: the site's key.
        label: what purity is of.
        top: most tokens of a neuron that are looked at.
        by: the representation whose clusters take the list apart.
        clusters: how many clusters there are.
        draws: random groupings behind each chance value.
        seed: of every random choice.
        compared: tokens that have a cluster and the label.
        premises: the site's premises in words.

    """

    layer: int
    site: str
    label: str
    top: int
    by: str
    clusters: int
    draws: int
    seed: int
    compared: int
    premises: str


@dataclass(frozen=True)
class Region:
    """Those of the top tokens that fall into one cluster.

    Attributes:
        cluster: the cluster's id.
        size: tokens of the list in it.
        activation: their mean activation.
        majority: the label that most of them have.
        purity: the majority's share, against random groups of this size out of the list.
        entropy: of the label, bits, against the same.

    """

    cluster: int
    size: int
    activation: float
    majority: str
    purity: AgainstNull
    entropy: AgainstNull


@dataclass(frozen=True, repr=False)
class NeuronRegions(Result):
    """One neuron's, or direction's, top tokens taken apart by the clusters that they fall into.

    Attributes:
        settings: every choice that moves a number.
        of: what was read, such as `neuron 12 of post`.
        active: compared tokens on which it is above 0 (for a direction: all).
        whole_purity: share of the most frequent label in the whole list.
        whole_entropy: bits of the label in the whole list.
        purity: inside the regions, against random groups of the same sizes out of the same list.
        entropy: the same in bits; lower is purer.
        same_words: the purity against groups permuted only among tokens of one vocabulary id: what is above
            is not explained by which word it is.
        regions: greatest first.
        command: what reproduces it.
        tokens: the list, region by region, in context; None after `load` where the table is gone.

    """

    settings: NeuronSettings
    of: str
    active: int
    whole_purity: float
    whole_entropy: float
    purity: AgainstNull
    entropy: AgainstNull
    same_words: AgainstNull
    regions: tuple[Region, ...]
    command: str
    tokens: pd.DataFrame | None = field(default=None, compare=False)

    kind = "neuron"
    file = "neuron.json"
    tab = "Neurons"
    several = True
    tables = {"tokens": "neuron.parquet"}  # noqa: RUF012

    @property
    def lead(self) -> float:
        """Purity inside the regions less that of random groups of their sizes."""
        return self.purity.value - self.purity.mean

    def to_frame(self) -> pd.DataFrame:
        """Return one row a region."""
        rows = [
            {
                "cluster": r.cluster,
                "size": r.size,
                "activation": r.activation,
                "majority": r.majority,
                "purity": r.purity.value,
                "purity by chance": r.purity.mean,
                "purity p": r.purity.p,
                "entropy": r.entropy.value,
                "entropy by chance": r.entropy.mean,
            }
            for r in self.regions
        ]
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Draw every token at its activation, in its region's row, coloured by label; the greatest region on top.

        Labels beyond the seven most frequent share the last colour.

        Raises:
            PolytopeError: there are no tokens, because it was rebuilt from `to_dict`.

        """
        if self.tokens is None:
            raise PolytopeError(
                f"the regions of {self.of} have no tokens to draw, as they were rebuilt from scores; run "
                "plm.predictions.neuron again"
            )
        rows = {region.cluster: row for row, region in enumerate(reversed(self.regions))}
        frequent = self.tokens["label"].value_counts().index[:_LEGEND]
        shown = self.tokens["label"].where(self.tokens["label"].isin(frequent), _OTHERS)
        groups = []
        for name, part in self.tokens.groupby(shown, sort=False):
            contexts = zip(part["left"], part["token"], part["right"], part["activation"], strict=True)
            said = [f"{escaped(a)}<b>{escaped(b)}</b>{escaped(c)}<br>{x:.3f}" for a, b, c, x in contexts]
            ys = [rows[cluster] for cluster in part["cluster"]]
            groups.append(Cloud(str(name), part["activation"], ys, said, faint=name == _OTHERS))
        names = [f"cluster {r.cluster} ({r.size}), purity {r.purity.value:.2f}" for r in reversed(self.regions)]
        title = f"{self.of}, layer {self.settings.layer}: top tokens by polytope cluster"
        return clouds(groups, title, "activation", rows=names)

    def __repr__(self) -> str:
        return (
            f"<NeuronRegions: {self.of}, layer {self.settings.layer}: {len(self.regions)} regions of "
            f"{sum(r.size for r in self.regions)} top tokens ({self.active} of {self.settings.compared} "
            f"active); purity of {self.settings.label!r} {self.whole_purity:.3f} as one list, inside the "
            f"regions {self.purity}; among tokens of the same word chance is {self.same_words.mean:.3f}, "
            f"p = {self.same_words.p:.2g}. {self.settings.premises}>"
        )

    def figures(self) -> dict[str, go.Figure]:
        """Return the picture, where the tokens are at hand."""
        return {} if self.tokens is None else {self.of: self.plot()}

    def _repr_html_(self) -> str:
        parts, tokens = [super()._repr_html_()], self.tokens
        if tokens is None:
            return parts[0]
        for region in self.regions:
            inside = tokens[tokens["cluster"] == region.cluster].head(_SHOWN)
            heads = ("activation", "left", "token", "right", "label")
            shown = [(f"{row[0]:.3f}", *map(str, row[1:])) for row in inside[[*heads]].itertuples(index=False)]
            about = f"cluster {region.cluster}: {region.size} tokens, {region.majority}, "
            parts.append(f"<h4>{escaped(about)}purity {region.purity}</h4>{table([heads, *shown])}")
        return "".join(parts)


@dataclass(frozen=True, repr=False)
class NeuronRanking(Result):
    """Neurons by how much purer their top tokens are inside clusters than chance makes them.

    Attributes:
        settings: every choice that moves a number.
        read: the activation that was read, `post` or `h`.
        within: what random groups keep: None (sizes alone), `token` or `document`.
        neurons: columns `neuron`, `tokens`, `regions`, `purity` (of the whole list), `inside`, `by chance`,
            `lead` (inside less chance), `z`, `p`, `fdr` (Benjamini-Hochberg over the neurons); greatest lead
            first.
        left_out: neurons that are above 0 on fewer tokens than `least`.
        least: fewest tokens of a list.
        command: what reproduces it.

    """

    settings: NeuronSettings
    read: str
    within: str | None
    neurons: pd.DataFrame
    left_out: int
    least: int
    command: str

    def __post_init__(self) -> None:
        # Files have columns in the order of their names.
        object.__setattr__(self, "neurons", self.neurons[list(COLUMNS)])

    kind = "neurons"
    file = "neurons.json"
    tab = "Neurons"

    def to_frame(self) -> pd.DataFrame:
        """Return one row a neuron, greatest lead first."""
        return self.neurons.copy()

    def plot(self) -> go.Figure:
        """Draw each neuron's purity as one list against its lead inside the clusters."""
        ahead = self.neurons["fdr"] < 0.05
        groups = []
        for name, chosen in (("ahead of chance (false-discovery rate 5 %)", ahead), ("not ahead", ~ahead)):
            part = self.neurons[chosen]
            numbers = zip(part["neuron"], part["purity"], part["lead"], strict=True)
            said = [f"neuron {n}<br>{x:.3f} as one list<br>{y:+.3f} beyond chance" for n, x, y in numbers]
            groups.append(Cloud(name, part["purity"], part["lead"], said, faint=name == "not ahead"))
        title = f"Neurons of layer {self.settings.layer}: what clusters of the {self.settings.by} take apart"
        across = f"purity of {self.settings.label} as one list"
        return clouds(groups, title, across, y="purity inside the clusters beyond chance", size=6)

    def __repr__(self) -> str:
        ahead = int((self.neurons["fdr"] < 0.05).sum())
        kept = "sizes" if self.within is None else f"sizes, within one {self.within}"
        return (
            f"<NeuronRanking: {len(self.neurons)} neurons of {self.settings.site} by {self.read}, "
            f"{self.left_out} on fewer than {self.least} tokens left out; clusters of "
            f"{self.settings.by!r} make the top tokens of {ahead} purer in {self.settings.label!r} than "
            f"random groups of the same {kept} (false-discovery rate 5 %). {self.settings.premises}>"
        )
