"""What a multiverse of clusterings found: every cell that could be computed, none of them a verdict.

The specification curve: leads by size above, the choices behind each of them below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pandas as pd

from polytope_lm.errors import PolytopeError, escaped
from polytope_lm.plotting import Lead, choices
from polytope_lm.predictions.clusters.result import BEST_COSINE, SIMHASH
from polytope_lm.representations import binary as code
from polytope_lm.representations.directions import COSINES
from polytope_lm.result import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go


CHOICES = ("layer", "label", "clusterer", "k", "seed")
"""What a specification chooses, beside the representation."""


OVER = (BEST_COSINE, SIMHASH)
"""What a specification's lead is over, for orientation: no verdict is read from any of them."""


@dataclass(frozen=True)
class Draw:
    """One partition's numbers; a random control has several draws.

    Attributes:
        ami: adjusted mutual information with the label among clustered tokens; None where all are noise.
        noise_share: share of the tokens thrown away as noise, 0 to 1.
        clusters: how many clusters there are; noise is none.
        largest_share: share of all tokens in the largest cluster, 0 to 1.

    """

    ami: float | None
    noise_share: float
    clusters: int
    largest_share: float


@dataclass(frozen=True)
class Cell:
    """One specification: a representation clustered one way and scored against one label.

    Attributes:
        layer: the layer's index, the last one of a joined code.
        site: where the codes live.
        label: the label.
        clusterer: who made the clusters.
        k: clusters asked for; None for a clusterer that takes none.
        seed: of the tokens, the first medoids and the random controls, as `clusters(seed=)` takes it.
        representation: its registered name.
        role: `claim`, `reference`, `control` or `other`.
        n: tokens compared, noise included.
        draws: the numbers, of each draw for a random control.
        over_cosine: AMI minus that of the better cosine of `h` in the same cell; None for the cosines.
        over_simhash: AMI minus the mean over the rate-matched draws in the same cell; None for these.

    """

    layer: int
    site: str
    label: str
    clusterer: str
    k: int | None
    seed: int
    representation: str
    role: str
    n: int
    draws: tuple[Draw, ...]
    over_cosine: float | None = None
    over_simhash: float | None = None

    @property
    def choices(self) -> tuple[int | str | None, ...]:
        """All choices but the representation, in the order of `CHOICES`."""
        return (self.layer, self.label, self.clusterer, self.k, self.seed)

    @property
    def ami(self) -> float | None:
        """AMI among clustered tokens, the mean over the draws; None where a draw has none."""
        found = [draw.ami for draw in self.draws if draw.ami is not None]
        return fmean(found) if len(found) == len(self.draws) else None

    @property
    def noise_share(self) -> float:
        """Share of the tokens thrown away, the mean over the draws."""
        return fmean(draw.noise_share for draw in self.draws)

    @property
    def clusters(self) -> float:
        """How many clusters, the mean over the draws."""
        return fmean(draw.clusters for draw in self.draws)

    @property
    def largest_share(self) -> float:
        """Share of the tokens in the largest cluster, the mean over the draws."""
        return fmean(draw.largest_share for draw in self.draws)

    def over(self, reference: str) -> float | None:
        """Return the lead over one of `OVER`.

        Raises:
            PolytopeError: another reference.

        """
        if reference not in OVER:
            there = ", ".join(map(repr, OVER))
            raise PolytopeError(f"no reference {reference!r}; there are {there}")
        return self.over_cosine if reference == BEST_COSINE else self.over_simhash


@dataclass(frozen=True)
class LeftOut:
    """What could not be computed, and why.

    Attributes:
        what: the cell or cells, in words.
        why: the reason, one line.

    """

    what: str
    why: str


@dataclass(frozen=True, repr=False)
class Multiverse(Result):
    """Every choice that could have been made otherwise, and what it would have given. No verdict.

    Attributes:
        cells: one a layer, seed, representation, clusterer, k and label.
        left_out: what could not be computed, with the reason.
        settings: the choices that were swept, and the limit on tokens.
        provenance: model, revision, dtype, sample rule, ... as the codes state them.
        versions: of the libraries that computed it.
        command: what reproduces it.
        timings: seconds by step; not part of the result's identity.

    """

    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    timings: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)

    kind = "multiverse"
    file = "multiverse.json"
    tab = "Other choices"

    def leads(self, representation: str = code.CODE, reference: str = BEST_COSINE) -> list[Cell]:
        """Return one representation's cells that have a lead over a reference, by that lead, least first.

        Args:
            representation: a registered name.
            reference: one of `OVER`.

        Raises:
            PolytopeError: another reference, or no such cell.

        """
        found = [c for c in self.cells if c.representation == representation and c.over(reference) is not None]
        if not found:
            there = ", ".join(repr(name) for name in dict.fromkeys(c.representation for c in self.cells))
            raise PolytopeError(f"no cell of {representation!r} against {reference!r}; there are cells of {there}")
        return sorted(found, key=lambda cell: (cell.over(reference) or 0.0, str(cell.choices)))

    def to_frame(self) -> pd.DataFrame:
        """Return one row a cell: choices, AMI beside the share thrown away, sizes, differences, n."""
        cosines, random = _references(self.cells)  # AMI of few tokens is compared with AMI of few
        rows = [
            {
                **dict(zip(CHOICES, cell.choices, strict=True)),
                "site": cell.site,
                "representation": cell.representation,
                "role": cell.role,
                "ami": cell.ami,
                "noise share": cell.noise_share,
                "clusters": cell.clusters,
                "largest share": cell.largest_share,
                "n": cell.n,
                "draws": len(cell.draws),
                "over cosine": cell.over_cosine,
                "over SimHash": cell.over_simhash,
                "cosine's noise share": _noise(cosines.get(cell.choices)),
                "SimHash's noise share": _noise(random.get(cell.choices)),
            }
            for cell in self.cells
        ]
        return pd.DataFrame(rows).astype({"k": "Int64"})

    def plot(self, representation: str = code.CODE, reference: str = BEST_COSINE) -> go.Figure:
        """Draw the specification curve: leads by size above, the choices behind each of them below.

        Args:
            representation: whose leads.
            reference: over whom, one of `OVER`.

        Raises:
            PolytopeError: another reference, or no such cell.

        """
        cells = self.leads(representation, reference)
        rows = _rows(cells)
        leads = [
            Lead(
                cell.over(reference) or 0.0,
                cell.clusterer,
                _hover(cell, reference),
                [number for number, (which, value) in enumerate(rows) if cell.choices[which] == value],
            )
            for cell in cells
        ]
        return choices(
            leads,
            [f"{CHOICES[which]}: {'none' if value is None else value}" for which, value in rows],
            f"{representation} minus {reference}, AMI",
            f"{len(cells)} specifications, by lead; no verdict",
        )

    def figures(self) -> dict[str, go.Figure]:
        """Return a specification curve for each reference that cells could be compared with."""
        own = [cell for cell in self.cells if cell.representation == code.CODE]
        named = {"cosine": BEST_COSINE, "SimHash": SIMHASH}
        there = {name for name in OVER for cell in own if cell.over(name) is not None}
        return {name: self.plot(reference=one) for name, one in named.items() if one in there}

    def notes(self) -> list[str]:
        """Return what could not be computed, and why."""
        return [f"{each.what} left out: {each.why}." for each in self.left_out]

    @property
    def headline(self) -> str:
        """Say in how many specifications the code is ahead, and that this decides nothing."""
        lines = [f"{len(self.cells):,} cells, {len(self.left_out)} left out; no verdict"]
        for reference in OVER:
            leads = [c.over(reference) for c in self.cells if c.representation == code.CODE]
            there = sorted(lead for lead in leads if lead is not None)
            if there:
                ahead = sum(lead > 0 for lead in there)
                lines.append(
                    f"code ahead of {reference} in {ahead} of {len(there)} specifications, by "
                    f"{there[0]:+.3f} to {there[-1]:+.3f} AMI"
                )
        return "; ".join(lines)

    def __repr__(self) -> str:
        return f"<Multiverse: {self.headline}>"


def with_leads(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return the cells with their leads over the better cosine and over SimHash in the same choices."""
    cosines, random = _references(cells)

    def lead(cell: Cell, references: dict[Any, Cell], own: Sequence[str]) -> float | None:
        other = references.get(cell.choices)
        if cell.ami is None or cell.representation in own or other is None or other.ami is None:
            return None
        return cell.ami - other.ami

    return tuple(
        replace(c, over_cosine=lead(c, cosines, COSINES), over_simhash=lead(c, random, (SIMHASH,))) for c in cells
    )


def _references(cells: Sequence[Cell]) -> tuple[dict[Any, Cell], dict[Any, Cell]]:
    """Return, by choices, the cell of the better cosine and that of SimHash."""
    best: dict[Any, Cell] = {}
    for cell in cells:
        if cell.representation in COSINES and cell.ami is not None:
            other = best.get(cell.choices)
            if other is None or (other.ami or 0.0) < cell.ami:
                best[cell.choices] = cell
    return best, {cell.choices: cell for cell in cells if cell.representation == SIMHASH}


def _rows(cells: Sequence[Cell]) -> list[tuple[int, object]]:
    """Return the choices that vary, each with every value: numbers by size, none last."""
    rows: list[tuple[int, object]] = []
    for which in range(len(CHOICES)):
        values = sorted(
            {cell.choices[which] for cell in cells}, key=lambda v: (v is None, v if isinstance(v, int) else 0, str(v))
        )
        rows += [(which, value) for value in values if len(values) > 1]
    return rows


def _noise(cell: Cell | None) -> float | None:
    return None if cell is None else cell.noise_share


def _hover(cell: Cell, reference: str) -> str:
    lead, ami = cell.over(reference) or 0.0, cell.ami or 0.0
    made = ", ".join(
        f"{name} {escaped(value)}" for name, value in zip(CHOICES, cell.choices, strict=True) if value is not None
    )
    return (
        f"{lead:+.3f} (AMI {ami:.3f})<br>{made}<br>{cell.clusters:g} clusters, largest "
        f"{cell.largest_share:.0%}, noise {cell.noise_share:.0%} of {cell.n:,} tokens"
    )
