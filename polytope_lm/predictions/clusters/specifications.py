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
from polytope_lm.predictions.clusters.result import BEST_COSINE, SHORT, SIMHASH
from polytope_lm.representations import binary as code
from polytope_lm.representations.directions import CENTRED, COSINES, RAW
from polytope_lm.result import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go


CHOICES = ("layer", "label", "clusterer", "k", "seed")
"""What a specification chooses, beside the representation."""


OVER = {RAW: "over_raw", CENTRED: "over_centred", SIMHASH: "over_simhash", BEST_COSINE: "over_cosine"}
"""What a specification's lead is over, each on its own, and the attribute that has it: no verdict is read from any
of them. Files of earlier versions have the better of two cosines."""


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
        over_cosine: AMI minus that of the better cosine of `h`, in files of earlier versions; else None.
        over_simhash: AMI minus the mean over the rate-matched draws in the same cell; None for these.
        over_raw: AMI minus that of the raw cosine of `h` in the same cell; None for itself.
        over_centred: the same for the centred cosine.

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
    over_raw: float | None = None
    over_centred: float | None = None

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
        found: float | None = getattr(self, OVER[reference])
        return found


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

    def leads(self, representation: str = code.CODE, reference: str | None = None) -> list[Cell]:
        """Return one representation's cells that have a lead over a reference, by that lead, least first.

        Args:
            representation: a registered name.
            reference: one of `OVER`; by default the centred cosine, in files of earlier versions the better one.

        Raises:
            PolytopeError: another reference, or no such cell.

        """
        reference = self._usual if reference is None else reference
        found = [c for c in self.cells if c.representation == representation and c.over(reference) is not None]
        if not found:
            there = ", ".join(repr(name) for name in dict.fromkeys(c.representation for c in self.cells))
            raise PolytopeError(f"no cell of {representation!r} against {reference!r}; there are cells of {there}")
        return sorted(found, key=lambda cell: (cell.over(reference) or 0.0, str(cell.choices)))

    @property
    def _usual(self) -> str:
        return BEST_COSINE if any(cell.over_cosine is not None for cell in self.cells) else CENTRED

    def to_frame(self) -> pd.DataFrame:
        """Return one row a cell: choices, AMI beside the share thrown away, sizes, differences, n."""
        there = [name for name in OVER if any(cell.over(name) is not None for cell in self.cells)]
        references = _references(self.cells)  # AMI of few tokens is compared with AMI of few
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
                **{f"over {SHORT[name]}": cell.over(name) for name in there},
                **{
                    f"{SHORT[name]}'s noise share": each[cell.choices].noise_share if cell.choices in each else None
                    for name, each in references.items()
                },
            }
            for cell in self.cells
        ]
        return pd.DataFrame(rows).astype({"k": "Int64"})

    def plot(self, representation: str = code.CODE, reference: str | None = None) -> go.Figure:
        """Draw the specification curve: leads by size above, the choices behind each of them below.

        Args:
            representation: whose leads.
            reference: over whom, as for `leads`.

        Raises:
            PolytopeError: another reference, or no such cell.

        """
        reference = self._usual if reference is None else reference
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
        there = [name for name in OVER if any(cell.over(name) is not None for cell in own)]
        return {SHORT[name].replace(" ", "-"): self.plot(reference=name) for name in there}

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
    """Return the cells with their leads over each cosine and over SimHash in the same choices."""

    def lead(cell: Cell, other: Cell | None) -> float | None:
        if cell.ami is None or other is None or other.ami is None or cell.representation == other.representation:
            return None
        return cell.ami - other.ami

    references = _references(cells)
    out = []
    for cell in cells:
        leads: dict[str, Any] = {OVER[name]: lead(cell, each.get(cell.choices)) for name, each in references.items()}
        out.append(replace(cell, **leads))
    return tuple(out)


def _references(cells: Sequence[Cell]) -> dict[str, dict[Any, Cell]]:
    """Return, by reference and choices, its cell."""
    return {name: {cell.choices: cell for cell in cells if cell.representation == name} for name in (*COSINES, SIMHASH)}


def _rows(cells: Sequence[Cell]) -> list[tuple[int, object]]:
    """Return the choices that vary, each with every value: numbers by size, none last."""
    rows: list[tuple[int, object]] = []
    for which in range(len(CHOICES)):
        values = sorted(
            {cell.choices[which] for cell in cells}, key=lambda v: (v is None, v if isinstance(v, int) else 0, str(v))
        )
        rows += [(which, value) for value in values if len(values) > 1]
    return rows


def _hover(cell: Cell, reference: str) -> str:
    lead, ami = cell.over(reference) or 0.0, cell.ami or 0.0
    made = ", ".join(
        f"{name} {escaped(value)}" for name, value in zip(CHOICES, cell.choices, strict=True) if value is not None
    )
    return (
        f"{lead:+.3f} (AMI {ami:.3f})<br>{made}<br>{cell.clusters:g} clusters, largest "
        f"{cell.largest_share:.0%}, noise {cell.noise_share:.0%} of {cell.n:,} tokens"
    )
