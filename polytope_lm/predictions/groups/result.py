"""Every score of groups of tokens, for each representation side by side, as records that save and load.

Plain numbers, never texts: `groups.json` can be kept and shown where the corpus can not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from polytope_lm.errors import PolytopeError
from polytope_lm.result import Result
from polytope_lm.statistics.estimate import Estimate
from polytope_lm.statistics.nulls import AgainstNull

AMI = "AMI"
ENTROPY = "label entropy"
PURITY = "label purity"
V_MEASURE = "V-measure"
CONDITIONAL = "conditional AMI"
INFORMATION = "information beyond the token"
WITHIN = "label agreement within token"
NEAREST = "1-NN accuracy"
NEAREST_WITHIN = "1-NN accuracy within token"
NEXT_TOKEN = "next-token divergence"  # noqa: S105 -- a token of text, no secret
COHERENCE = "context coherence"
INTRUDER = "intruders found"
INTRUDER_TOKEN = "intruders found, same token"  # noqa: S105
STABILITY = "stability"
POSITION = "AMI with position"
POSITION_RATIO = "correlation ratio with position"
SAME_POSITION = "neighbours at the same position"

ORDER = (
    AMI, ENTROPY, PURITY, V_MEASURE, CONDITIONAL, INFORMATION, WITHIN, NEAREST, NEAREST_WITHIN, NEXT_TOKEN,
    COHERENCE, INTRUDER, INTRUDER_TOKEN, STABILITY, POSITION, POSITION_RATIO, SAME_POSITION,
)  # fmt: skip
"""All scores, in the order in which they are shown."""

Direction = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class GroupScore:
    """One score of one grouping.

    Attributes:
        name: one of `ORDER`.
        value: the score.
        better: what is more monosemantic, `higher` or `lower`; `neither` for a check.
        unit: `bits`, `share`, `cosine` or empty.
        n: tokens that it is a score of (items, for intruders).
        left_out: tokens of the sample that it is no score of: noise, or without anything to compare with.
        interval: 95 %, over delete-half resamples of documents; exact binomial for intruders (with the sd of
            a binomial share); None where there is none.
        random: against random groups of the same sizes (for position: permuted within documents).
        matched: against groups permuted within token identity.
        note: what else must be known to read it.

    """

    name: str
    value: float
    better: Direction
    unit: str
    n: int
    left_out: int
    interval: Estimate | None = None
    random: AgainstNull | None = None
    matched: AgainstNull | None = None
    note: str = ""


@dataclass(frozen=True)
class RepresentationScores:
    """Every score of one representation's groups.

    Attributes:
        name: the representation, or what the user called the grouping.
        groups: groups that have a token.
        largest: tokens of the largest.
        noise: tokens in no group, which no score of the grouping counts.
        scores: in the order of `ORDER`.
        left_out: scores that could not be had, with the reason.

    """

    name: str
    groups: int
    largest: int
    noise: int
    scores: tuple[GroupScore, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def score(self, name: str) -> GroupScore:
        """Return the score of that name.

        Raises:
            PolytopeError: it is not there; the message says why, or which there are.

        """
        for score in self.scores:
            if score.name == name:
                return score
        why = self.left_out.get(name)
        there = ", ".join(repr(score.name) for score in self.scores)
        raise PolytopeError(
            f"no {name!r} of {self.name!r}: {why}" if why else f"no score {name!r} of {self.name!r}; there are {there}"
        )


@dataclass(frozen=True)
class Lead:
    """How far one representation's groups are ahead of a cosine's in one score.

    Attributes:
        representation: who is ahead (or behind, if negative).
        score: one of `ORDER`.
        best: which cosine it is ahead of; in files of earlier versions the better one on all tokens.
        estimate: how much better, in the score's unit: positive is more monosemantic, also where lower scores
            are.

    """

    representation: str
    score: str
    best: str
    estimate: Estimate


@dataclass(frozen=True)
class GroupSettings:
    """Every choice that moves a number.

    Attributes:
        label: what entropy, purity, AMI and accuracy are scored against.
        identity: what a token's identity is: `token_id`, or a label such as `lemma`.
        pair_tokens: most tokens in scores of pairs (next tokens, contexts), drawn by seed.
        items: most intruder items.
        draws: random groupings behind each z and p.
        resamples: delete-half resamples of the documents behind each interval.
        repeats: cuts into thirds behind stability.
        seed: of every random choice.
        encoder: who judged contexts; empty where nobody did.
        context: what a context is.

    """

    label: str
    identity: str
    pair_tokens: int
    items: int
    draws: int
    resamples: int
    repeats: int
    seed: int
    encoder: str
    context: str


@dataclass(frozen=True, repr=False)
class GroupScores(Result):
    """Scores of groups of tokens beyond AMI and neighbour agreement. Shown, never a verdict.

    Attributes:
        settings: every choice that moves a number.
        site: the site's key.
        tokens: tokens of the sample.
        documents: documents that they come from.
        representations: every score of each.
        leads: how far each is ahead of each cosine, where one was asked for that the sample's
            documents allow an interval of.
        left_out: scores that no representation could have, with the reason.
        provenance: model, revision, dtype, sample rule, ... as the codes state them.
        versions: of the libraries that computed it.
        command: what reproduces it.

    """

    settings: GroupSettings
    site: str
    tokens: int
    documents: int
    representations: tuple[RepresentationScores, ...]
    leads: tuple[Lead, ...]
    left_out: Mapping[str, str]
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str

    kind = "groups"
    file = "groups.json"
    tab = "More scores"
    several = True

    def representation(self, name: str) -> RepresentationScores:
        """Return the scores of the representation of that name.

        Raises:
            PolytopeError: there is none.

        """
        for each in self.representations:
            if each.name == name:
                return each
        there = ", ".join(repr(each.name) for each in self.representations)
        raise PolytopeError(f"no representation {name!r} in these scores; there are {there}")

    def to_frame(self) -> pd.DataFrame:
        """Return one row a representation and score, with intervals, nulls and leads."""
        leads = {(lead.representation, lead.score): lead for lead in self.leads}
        scores = [(each, score) for each in self.representations for score in each.scores]
        return pd.DataFrame([_row(each, score, leads.get((each.name, score.name))) for each, score in scores])

    def __repr__(self) -> str:
        names = ", ".join(each.name for each in self.representations)
        return (
            f"<GroupScores: {self.site}, {self.tokens:,} tokens of {self.documents:,} documents, label "
            f"{self.settings.label!r}; {names}. Shown, not a verdict.>"
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row a score: what is better, and each representation's value, interval and chance."""
        rows = [("score", "better", *(each.name for each in self.representations))]
        for name in ORDER:
            found = [[s for s in each.scores if s.name == name] for each in self.representations]
            if any(found):
                better = next(s.better for scores in found for s in scores)
                rows.append((name, better, *(_cell(scores[0]) if scores else "" for scores in found)))
        return rows

    def notes(self) -> list[str]:
        """Return what was left out, and why."""
        reasons = dict(self.left_out)
        for each in self.representations:
            reasons |= {f"{name} of {each.name}": why for name, why in each.left_out.items()}
        return [f"{name} left out: {why}." for name, why in reasons.items()]


def _cell(score: GroupScore) -> str:
    between = "" if score.interval is None else f" [{score.interval.low:.3f}, {score.interval.high:.3f}]"
    shown = f"{score.value:.3f}{between}"
    both = (("chance", score.random), ("same token", score.matched))
    nulls = [f"{name} {null.mean:.3f}" for name, null in both if null is not None]
    return f"{shown} ({', '.join(nulls)})" if nulls else shown


def _row(each: RepresentationScores, score: GroupScore, lead: Lead | None) -> dict[str, object]:
    interval, ahead = score.interval, lead.estimate if lead else None
    row: dict[str, object] = {
        "representation": each.name, "score": score.name, "value": score.value,
        "low": interval.low if interval else None, "high": interval.high if interval else None,
        "better": score.better, "unit": score.unit, "n": score.n, "left out": score.left_out,
    }  # fmt: skip
    for name, null in (("chance", score.random), ("same token", score.matched)):
        row |= {
            name: null.mean if null else None,
            f"{name} z": null.z if null else None,
            f"{name} p": null.p if null else None,
        }
    return row | {
        "lead over cosine": ahead.value if ahead else None,
        "lead low": ahead.low if ahead else None,
        "lead high": ahead.high if ahead else None,
        "note": score.note,
    }
