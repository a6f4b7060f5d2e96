"""What was left of an MLP's work when its input was known in part: records that save, load and show themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Site
from polytope_lm.plotting import Marks, dots
from polytope_lm.result import Result
from polytope_lm.statistics.estimate import Estimate
from polytope_lm.statistics.verdict import Verdict

if TYPE_CHECKING:
    import plotly.graph_objects as go

RECOVERED = "loss recovered"
LEAST = 0.02
"""Where removing the MLP costs less than so many nats (or so much cosine), no ratio is shown."""


@dataclass(frozen=True)
class ArmScore:
    """What was left of one layer's work, or of all layers', under one arm.

    Attributes:
        group: the arms that it belongs to.
        name: unique in its group.
        becomes: what `post`, or the output, became.
        recovered: `1 - (loss - clean)/(loss without - clean)`, the share of what removing the MLP costs; None
            where that is too little.
        lost: loss beyond the clean one, a token: nats of the next token; of a model without logits
            `1 - cosine` of the final state.
        kl: from the clean next-token distribution, nats a token; None without logits.
        replaced: share of the tokens that were replaced: those that have a donor.
        draws: each draw's `lost`, of a random control; empty otherwise.

    """

    group: str
    name: str
    becomes: str
    recovered: Estimate | None
    lost: Estimate
    kl: Estimate | None
    replaced: float
    draws: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """The group and the name, once where they are one."""
        return self.name if self.name.startswith(self.group) else f"{self.group}: {self.name}"


@dataclass(frozen=True)
class LayerDetermination:
    """One layer, or all at once.

    Attributes:
        site: whose MLPs were written; all layers' together where all were.
        clean: the model's own loss, a token.
        removed: what replacing the output by its mean costs beyond it.
        scores: of every arm.
        leads: by reference, loss recovered from the code's bits minus that from the reference's; empty where
            there is no ratio.
        verdict: whether the code's bits carry more than bits spent otherwise; None where there is no ratio.

    """

    site: Site
    clean: float
    removed: Estimate
    scores: tuple[ArmScore, ...]
    leads: Mapping[str, Estimate]
    verdict: Verdict | None

    @property
    def place(self) -> str:
        """What a sentence calls it."""
        return self.site.place

    @property
    def sentence(self) -> str:
        """The verdict, or why there is none."""
        if self.verdict is not None:
            return self.verdict.sentence
        return (
            f"{self.place}: not testable. Without its MLP the loss is only {self.removed.value:.4f} "
            f"[{self.removed.low:.4f}, {self.removed.high:.4f}] higher, below {LEAST}: no share of it is shown."
        )

    def score(self, group: str, name: str | None = None) -> ArmScore:
        """Return one arm's score; the name may be left out where the group has one arm."""
        found = [each for each in self.scores if each.group == group and name in {None, each.name}]
        if len(found) != 1:
            there = ", ".join(f"({each.group!r}, {each.name!r})" for each in self.scores)
            raise PolytopeError(f"{len(found)} arms {group!r}, {name!r}; there are {there}")
        return found[0]


@dataclass(frozen=True)
class DeterminationSettings:
    """Every choice that moves a number, and what it came to.

    Attributes:
        documents: tested ones.
        tokens: of them.
        fitting_documents: others, on which means, slopes, read-outs and clusters are fitted.
        fitting_tokens: of those.
        max_tokens: the longest stretch of a document, special tokens included.
        neurons: how many count as causal.
        draws: of random controls.
        measure: `next token`, or `final state` of a model without logits.
        seed: of every random choice.
        resamples: bootstrap resamples of documents.
        smallest_effect: the smallest difference of loss recovered of interest.

    """

    documents: int
    tokens: int
    fitting_documents: int
    fitting_tokens: int
    max_tokens: int
    neurons: int
    draws: int
    measure: str
    seed: int
    resamples: int
    smallest_effect: float


@dataclass(frozen=True, repr=False)
class DeterminationResult(Result):
    """How much of an MLP's work is left when its input is known in part.

    Attributes:
        settings: every choice that moves a number.
        layers: one layer at a time.
        together: all layers at once; None where that was not asked.
        provenance: model, revision, dtype, ... as the codes state them.
        versions: of the libraries that computed it.
        command: what reproduces it.

    """

    settings: DeterminationSettings
    layers: tuple[LayerDetermination, ...]
    together: LayerDetermination | None
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str

    kind = "determination"
    file = "determination.json"
    tab = "What a code determines"
    question = "How much of an MLP's work is left when only a part of its input is kept?"
    derived = ("verdict",)

    @property
    def places(self) -> tuple[LayerDetermination, ...]:
        """The layers, and all at once at the end."""
        return (*self.layers, *([] if self.together is None else [self.together]))

    @property
    def verdict(self) -> str:
        """What each place's verdict is, in words; of one place its whole sentence."""
        if len(self.places) == 1:
            return self.places[0].sentence
        by: dict[str, list[LayerDetermination]] = {}
        for one in self.places:
            by.setdefault("not testable" if one.verdict is None else one.verdict.outcome, []).append(one)
        found = "; ".join(f"{outcome} in {self._where(there)}" for outcome, there in by.items())
        outside = [one for one in self.places if not one.site.premises.met]
        return (
            f"That the code's bits carry more of an MLP's work than bits spent otherwise is {found}. "
            f"{self._example()}" + (f" Outside the paper's premises in {self._where(outside)}." if outside else "")
        )

    def _where(self, places: Sequence[LayerDetermination]) -> str:
        layers = [str(one.site.layer) for one in places if one is not self.together]
        names = [f"layer{'s' * (len(layers) > 1)} {', '.join(layers)}"] if layers else []
        return " and ".join([*names, *["all layers at once"] * (self.together in places)])

    def _example(self) -> str:
        """Say the two plainest figures of the place where most is at stake."""
        one = max(self.places, key=lambda each: each.removed.value)
        hard, cell = one.score("hard gate", "hard gate").recovered, one.score("constant per cell", "1 bit").recovered
        if hard is None or cell is None:
            return f"Nowhere does removing the MLP cost {LEAST}."
        where = "All layers at once" if one is self.together else one.place
        return f"{where}: loss recovered {cell} by each neuron's bit alone, {hard} by a hard gate."

    @property
    def headline(self) -> str:
        """What came out."""
        return self.verdict

    def to_frame(self) -> pd.DataFrame:
        """Return one row a place and arm."""
        rows = []
        for one in self.places:
            for each in one.scores:
                row: dict[str, object] = {
                    "layer": "all" if one is self.together else one.site.layer, "group": each.group,
                    "arm": each.name, "becomes": each.becomes, "replaced": each.replaced,
                }  # fmt: skip
                for name, found in ((RECOVERED, each.recovered), ("lost", each.lost), ("KL", each.kl)):
                    for part in ("value", "low", "high"):
                        column = name if part == "value" else f"{name} {part}"
                        row[column] = None if found is None else getattr(found, part)
                rows.append(row)
        return pd.DataFrame(rows)

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row an arm, each place's loss recovered (or the loss itself) and KL in columns."""
        heads = ["arm", "becomes"]
        for one in self.places:
            name = "all at once" if one is self.together else f"layer {one.site.layer}"
            heads += [f"{name}, {RECOVERED if one.verdict is not None else self.lost}"]
            heads += [f"{name}, KL"] if self.settings.measure == "next token" else []
        rows = [tuple(heads)]
        for number, each in enumerate(self.places[0].scores):
            cells = [each.label, each.becomes]
            for one in self.places:
                score = one.scores[number]
                cells += [str(score.lost if score.recovered is None else score.recovered)]
                cells += [str(score.kl)] if score.kl is not None else []
            rows.append(tuple(cells))
        return rows

    @property
    def lost(self) -> str:
        """What the loss is called."""
        return "nats a token lost" if self.settings.measure == "next token" else "cosine of the final state lost"

    def notes(self) -> list[str]:
        """Return how it was measured, each place's verdict, and what a reader may take wrongly."""
        s = self.settings
        few = {each.label: each.replaced for one in self.places for each in one.scores if each.replaced < 1}
        return [
            *(one.sentence for one in self.places if len(self.places) > 1),
            *(
                f"{one.place}: the code's bits ahead of {reference} by {lead} of loss recovered."
                for one in self.places
                for reference, lead in one.leads.items()
            ),
            (
                f"{s.documents} documents ({s.tokens:,} tokens; 95 % intervals over documents); fitted on "
                f"{s.fitting_documents} others ({s.fitting_tokens:,} tokens). The first position is left alone. "
                f"{RECOVERED} is 0 for the MLP's mean and 1 for the MLP itself; below 0 is worse than its mean."
            ),
            (
                f"The {s.neurons} causal neurons of a token have the largest |post times gradient|: the layer's "
                "own soft code is held fixed (RelP's rule), the rest of the model has its plain slope."
            ),
            "An index of k-means is fewer bits than a code; the signs of u are as many bits as u is wide.",
            *(f"{name}: {share:.0%} of tokens have such a donor, others stay clean." for name, share in few.items()),
        ]

    def plot(self) -> go.Figure:
        """Draw every arm's loss recovered with its interval, a series a place; the loss where there is no ratio."""
        testable = [one for one in self.places if one.verdict is not None]
        shown, what = (testable, RECOVERED) if testable else (self.places, self.lost)
        marks = []
        for style, one in enumerate(shown):
            found = [each.recovered if testable else each.lost for each in one.scores]
            marks.append(Marks("all at once" if one is self.together else f"layer {one.site.layer}", found, style))
        return dots([each.label for each in self.places[0].scores], {what: marks}, line=0)

    def __repr__(self) -> str:
        return f"<DeterminationResult: {self.verdict} {len(self.places)} places, {self.settings.documents} documents.>"
